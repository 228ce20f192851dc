"""Exact inference: the posterior over parent sets of linear Gaussian systems, all graphs summed.

The dynamic programme over orders of Koivisto and Sood (2004). Orders are uniform and each edge
that an order allows is there with probability p, so a graph's prior is weighted by the number of
its topological orders. With w_j(P) = score_j(P) (p / (1 - p))^|P| and A_j(U) the sum of w_j(P) over
the subsets P of U,

    L(U) = sum_{i in U} A_i(U - i) L(U - i),   R(U) = sum_{i not in U} A_i(U) R(U + i),
    p(P | data) ~ w_t(P) sum over U that hold P but not t of L(U) R(U + t),

all in logarithms and float64. Time and memory grow as n_vars 2^n_vars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import ConfigError, GraphError, MethodLimitError, check_name
from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets, scores_up_to, set_sizes
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, default_edge_probability

MAX_VARIABLES = 20
MAX_UNCAPPED = 15
CAP = 3


class SetPosterior(NamedTuple):
    """Log-probabilities of the parent sets of one variable."""

    members: np.ndarray  # bool [n_sets, n_vars]
    log_probs: np.ndarray  # [..., n_sets], normalised


@dataclass(frozen=True)
class ExactSurrogate:
    """Exact inference as a surrogate.

    Attributes:
        max_parents: largest parent set; None: no limit up to 15 variables, 3 from 16 to 20.

    Memory is about 24 n_vars 2^n_vars bytes: 1 MB at 12 variables, 12 MB at 15, 500 MB at 20.
    """

    max_parents: int | None = None

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """The posterior over the target's parent sets; see `protocol.Surrogate`."""
        check_name(target, buffer.get_variable_names(), "target")
        return self._posteriors(buffer, [target], prior)[target]

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> dict[str, ParentSetPosterior]:
        """The posteriors of all variables from one dynamic programme."""
        return self._posteriors(buffer, buffer.get_variable_names(), prior)

    def _posteriors(
        self, buffer: ExperienceBuffer, targets: Sequence[str], prior: EdgePrior | None
    ) -> dict[str, ParentSetPosterior]:
        names, prior = buffer.get_variable_names(), prior or EdgePrior()
        _require_size(len(names))
        cap = self._cap(len(names))
        values, mask = buffer.rows()
        statistics = Statistics.of(Scaling.of(buffer).apply(values), mask)
        known, forbidden = prior.matrices(names)
        found = set_posteriors(
            statistics,
            [names.index(target) for target in targets],
            edge_probability=prior.probability(len(names)),
            max_parents=cap,
            known=known,
            forbidden=forbidden,
        )
        warnings: tuple[str, ...] = ()
        if cap is not None and cap < len(names) - 1:
            warnings = (f"exact inference looked at sets of at most {cap} parents only",)
        metadata: dict[str, Any] = {"method": "exact", "warnings": warnings}
        return {
            target: ParentSetPosterior.from_log_probs(
                names, target, posterior.members, posterior.log_probs, metadata
            )
            for target, posterior in zip(targets, found, strict=True)
        }

    def _cap(self, n_vars: int) -> int | None:
        if self.max_parents is None and n_vars > MAX_UNCAPPED:
            return CAP
        return self.max_parents


exact_posterior = ExactSurrogate()
"""Exact inference with the default limit on parents."""


def parent_set_log_posterior(
    values: np.ndarray,
    mask: np.ndarray,
    target: int,
    *,
    edge_probability: float | None = None,
    max_parents: int | None = None,
    known: np.ndarray | None = None,
    forbidden: np.ndarray | None = None,
) -> SetPosterior:
    """Posterior over the parent sets of one variable, from arrays.

    Args:
        values: ``[n_rows, n_vars]``, standardised.
        mask: bool, the same shape, True where a value was set.
        target: position of the variable.
        edge_probability: None takes ``min(0.5, 2 / (n_vars - 1))``.
        max_parents: largest set looked at, for every variable; None: no limit.
        known: bool ``[n_vars, n_vars]``, [i, j]: i causes j for certain.
        forbidden: likewise for edges that do not exist.
    """
    return set_posteriors(
        Statistics.of(np.asarray(values, dtype=np.float64), np.asarray(mask, dtype=bool)),
        [target],
        edge_probability=edge_probability,
        max_parents=max_parents,
        known=known,
        forbidden=forbidden,
    )[0]


def set_posteriors(
    statistics: Statistics,
    targets: Sequence[int],
    *,
    edge_probability: float | None = None,
    max_parents: int | None = None,
    known: np.ndarray | None = None,
    forbidden: np.ndarray | None = None,
) -> list[SetPosterior]:
    """Posteriors of several variables of one system, or of a batch (a leading axis) of systems.

    Raises:
        MethodLimitError: more than 20 variables, or more than 15 without a limit on parents.
        ConfigError: a limit below 0, or one for a batch.
        GraphError: no graph agrees with the known and forbidden edges and the limit.
    """
    d = statistics.count.shape[-1]
    _require_size(d)
    if max_parents is None and d > MAX_UNCAPPED:
        raise MethodLimitError(
            f"{d} variables need a limit on parents (above {MAX_UNCAPPED}); give max_parents={CAP}"
        )
    if max_parents is not None and max_parents < 0:
        raise ConfigError(f"max_parents is {max_parents}; it cannot be negative")
    if d == 1:
        lead = statistics.count.shape[:-1]
        return [SetPosterior(np.zeros((1, 1), bool), np.zeros((*lead, 1))) for _ in targets]
    p = default_edge_probability(d) if edge_probability is None else edge_probability
    rows, weights = _weights(statistics, p, max_parents, known, forbidden)
    below = _sum_over_subsets(_dense(rows, weights, d))
    left, right = _orders(below)
    if not np.isfinite(left[..., -1]).all():
        raise GraphError("no acyclic graph agrees with the known and forbidden edges given")
    result = []
    for t in targets:
        outside = _without(d, t)
        around = left[..., outside] + right[..., outside | (1 << t)]
        log_probs = weights[..., t, :] + _sum_over_supersets(around)[..., rows]
        log_probs = log_probs - np.logaddexp.reduce(log_probs, axis=-1)[..., None]
        members = np.insert((rows[:, None] >> np.arange(d - 1) & 1).astype(bool), t, False, axis=1)
        result.append(SetPosterior(members, log_probs))
    return result


def _weights(
    statistics: Statistics,
    p: float,
    max_parents: int | None,
    known: np.ndarray | None,
    forbidden: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sets as rows int ``[n_sets]`` and log w_j(P) ``[..., n_vars, n_sets]``."""
    d = statistics.count.shape[-1]
    if max_parents is None or max_parents >= d - 1:
        rows, scores = np.arange(2 ** (d - 1)), scores_of_all_sets(statistics)
    else:
        if statistics.count.ndim > 1:
            raise ConfigError("a limit on parents works for one system at a time")
        rows, scores = scores_up_to(statistics, max_parents)
    weights = scores + set_sizes(d - 1)[rows] * (np.log(p) - np.log1p(-p))
    if known is None or forbidden is None or not (known.any() or forbidden.any()):
        return rows, weights
    for j in range(d):
        bits = 1 << np.arange(d - 1)
        needed = int(bits[np.delete(known[:, j], j)].sum())
        barred = int(bits[np.delete(forbidden[:, j], j)].sum())
        legal = ((rows & needed) == needed) & ((rows & barred) == 0)
        weights[..., j, :] = np.where(legal, weights[..., j, :], -np.inf)
    return rows, weights


def _dense(rows: np.ndarray, weights: np.ndarray, d: int) -> np.ndarray:
    if len(rows) == 2 ** (d - 1):
        return weights.copy()
    dense = np.full((*weights.shape[:-1], 2 ** (d - 1)), -np.inf)
    dense[..., rows] = weights
    return dense


def _sum_over_subsets(log_values: np.ndarray) -> np.ndarray:
    """Zeta transform along the last axis, in logarithms and in place."""
    return _transform(log_values, source=0, sink=1)


def _sum_over_supersets(log_values: np.ndarray) -> np.ndarray:
    return _transform(log_values, source=1, sink=0)


def _transform(log_values: np.ndarray, source: int, sink: int) -> np.ndarray:
    lead, size = log_values.shape[:-1], log_values.shape[-1]
    for bit in range(size.bit_length() - 1):
        view = log_values.reshape(*lead, -1, 2, 1 << bit)
        np.logaddexp(view[..., source, :], view[..., sink, :], out=view[..., sink, :])
    return log_values


def _orders(below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log L and log R of all subsets of the variables ``[..., 2^n_vars]``.

    Args:
        below: log A_j(U) ``[..., n_vars, 2^(n_vars - 1)]``, U counted without j.
    """
    d = below.shape[-2]
    left = np.full((*below.shape[:-2], 2**d), -np.inf)
    right = left.copy()
    left[..., 0] = right[..., -1] = 0.0
    levels = _levels(d)
    for level in levels[1:]:
        terms = below[..., level.inside, level.rest_own] + left[..., level.rest]
        left[..., level.sets] = np.logaddexp.reduce(terms, axis=-1)
    for level in reversed(levels[:-1]):
        terms = below[..., level.outside, level.sets_own] + right[..., level.larger]
        right[..., level.sets] = np.logaddexp.reduce(terms, axis=-1)
    return left, right


class _Level(NamedTuple):
    """All subsets with k members, and their neighbours with one member less or more."""

    sets: np.ndarray  # [n_sets]
    inside: np.ndarray  # [n_sets, k], the members i of each set U
    rest: np.ndarray  # [n_sets, k], U - i
    rest_own: np.ndarray  # [n_sets, k], U - i counted without i
    outside: np.ndarray  # [n_sets, n_vars - k], the others i
    larger: np.ndarray  # [n_sets, n_vars - k], U + i
    sets_own: np.ndarray  # [n_sets, n_vars - k], U counted without i


def _levels(d: int) -> list[_Level]:
    return _cached_levels(d) if d <= 12 else _make_levels(d)


@lru_cache(maxsize=12)
def _cached_levels(d: int) -> list[_Level]:
    return _make_levels(d)


def _make_levels(d: int) -> list[_Level]:
    sizes = set_sizes(d)
    order = np.argsort(sizes, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(sizes, minlength=d + 1))
    levels = []
    for k in range(d + 1):
        sets = order[ends[k] - np.count_nonzero(sizes == k) : ends[k]]
        member = (sets[:, None] >> np.arange(d, dtype=np.int32) & 1).astype(bool)
        inside = np.nonzero(member)[1].reshape(len(sets), k).astype(np.int32)
        outside = np.nonzero(~member)[1].reshape(len(sets), d - k).astype(np.int32)
        rest = sets[:, None] ^ (1 << inside)
        larger = sets[:, None] | (1 << outside)
        levels.append(
            _Level(
                sets,
                inside,
                rest,
                _drop_bit(rest, inside),
                outside,
                larger,
                _drop_bit(np.broadcast_to(sets[:, None], outside.shape), outside),
            )
        )
    return levels


def _drop_bit(sets: np.ndarray, bit: np.ndarray) -> np.ndarray:
    """Sets (which do not hold `bit`) counted without that variable."""
    low = sets & ((1 << bit) - 1)
    return np.asarray(low | (sets >> (bit + 1) << bit))


def _without(d: int, t: int) -> np.ndarray:
    """All subsets that do not hold t, in the order in which they count without it."""
    own = np.arange(2 ** (d - 1))
    return np.asarray((own & ((1 << t) - 1)) | (own >> t << (t + 1)))


def _require_size(n_vars: int) -> None:
    if n_vars > MAX_VARIABLES:
        raise MethodLimitError(
            f"{n_vars} variables; exact inference takes at most {MAX_VARIABLES}; use "
            "method='network', or leave variables out"
        )
