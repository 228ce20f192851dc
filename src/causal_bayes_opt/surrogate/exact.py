"""Exact inference: the posterior over parent sets of linear Gaussian systems, all graphs summed.

The dynamic programme over orders of Koivisto and Sood (2004). Orders are uniform and each edge
that an order allows is there with probability p, so a graph's prior is weighted by the number of
its topological orders. With w_j(P) = score_j(P) (p / (1 - p))^|P| and A_j(U) the sum of w_j(P) over
the subsets P of U,

    L(U) = sum_{i in U} A_i(U - i) L(U - i),   R(U) = sum_{i not in U} A_i(U) R(U + i),
    p(P | data) ~ w_t(P) sum over U that hold P but not t of L(U) R(U + t),

all in logarithms and float64. Whole graphs are drawn from the same sums backward: the last variable
of V, then of what remains, then each variable's parents among those before it. Time and memory
grow as n_vars 2^n_vars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from causal_bayes_opt.core import keys
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import ConfigError, GraphError, MethodLimitError, check_name
from causal_bayes_opt.surrogate.bge import Statistics, scores_up_to, set_sizes
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import (
    EdgePrior,
    SystemPosterior,
    default_edge_probability,
)
from causal_bayes_opt.surrogate.subset_sums import (
    drop_bit,
    over_prefixes,
    over_suffixes,
    sum_over_bit,
    sum_over_subsets,
    sum_over_supersets,
    without,
)

MAX_VARIABLES = 20
MAX_UNCAPPED = 15
CAP = 3
_AT_ONCE = 2**16  # sets over which parents are drawn together


class SetPosterior(NamedTuple):
    """Log-probabilities of the parent sets of one variable."""

    members: np.ndarray  # bool [n_sets, n_vars]
    log_probs: np.ndarray  # [..., n_sets], normalised


@dataclass(frozen=True)
class ExactSurrogate:
    """Exact inference as a surrogate.

    Attributes:
        max_parents: largest parent set; None: no limit up to 15 variables, 3 from 16 to 20.

    Memory grows as n_vars 2^n_vars, with or without a limit on parents. Peaks measured: 3 MB at 12
    variables, 21 MB at 15, 420 MB at 20; where 1,000 graphs are drawn, 70 MB at 15, 460 MB at 20.
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
        return self.posteriors(buffer, prior=prior)[target]

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> SystemPosterior:
        """The posteriors of all variables, and whole graphs, from one dynamic programme."""
        names, (statistics, beliefs) = buffer.get_variable_names(), self._question(buffer, prior)
        programme = _Programme(statistics, **beliefs)
        metadata = self._metadata(len(names), statistics)

        def make(name: str) -> ParentSetPosterior:
            members, log_probs = programme.posterior(names.index(name))
            return ParentSetPosterior.from_log_probs(names, name, members, log_probs, metadata)

        return SystemPosterior(names, make, programme.draw)

    def _metadata(self, n_vars: int, statistics: Statistics) -> dict[str, Any]:
        warnings, cap = [], self._cap(n_vars)
        if cap is not None and cap < n_vars - 1:
            warnings.append(f"exact inference looked at sets of at most {cap} parents only")
        if statistics.loses_digits():
            warnings.append(
                "some rows lie so far from the observed ones that rounding limits these "
                "probabilities; check the units of the values that were set"
            )
        return {"method": "exact", "warnings": tuple(warnings)}

    def _question(
        self, buffer: ExperienceBuffer, prior: EdgePrior | None
    ) -> tuple[Statistics, dict[str, Any]]:
        """The rows' statistics and the keyword arguments that state the prior."""
        names, prior = buffer.get_variable_names(), prior or EdgePrior()
        _require_size(len(names))
        values, mask = buffer.rows()
        known, forbidden = prior.matrices(names)
        beliefs = {
            "edge_probability": prior.probability(len(names)),
            "max_parents": self._cap(len(names)),
            "known": known,
            "forbidden": forbidden,
        }
        return Statistics.of(Scaling.of(buffer).apply(values), mask), beliefs

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
        ConfigError: a limit below 0.
        GraphError: no graph agrees with the known and forbidden edges and the limit.
    """
    programme = _Programme(statistics, edge_probability, max_parents, known, forbidden)
    return [programme.posterior(t) for t in targets]


def sample_graphs(
    key: jax.Array,
    statistics: Statistics,
    n: int,
    *,
    edge_probability: float | None = None,
    max_parents: int | None = None,
    known: np.ndarray | None = None,
    forbidden: np.ndarray | None = None,
) -> np.ndarray:
    """Draw `n` independent graphs from the exact posterior of one system.

    Returns:
        bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m. All are acyclic.

    Raises:
        MethodLimitError, ConfigError, GraphError: as `set_posteriors`.
    """
    return _Programme(statistics, edge_probability, max_parents, known, forbidden).draw(key, n)


class _Programme:
    """The sums over orders, done once, and what is read off them; see `set_posteriors`."""

    def __init__(
        self,
        statistics: Statistics,
        edge_probability: float | None = None,
        max_parents: int | None = None,
        known: np.ndarray | None = None,
        forbidden: np.ndarray | None = None,
    ) -> None:
        self.n_vars = statistics.count.shape[-1]
        self.sums = _solve(statistics, edge_probability, max_parents, known, forbidden)

    @cached_property
    def right(self) -> np.ndarray:
        return over_suffixes(self.sums.below)

    def posterior(self, t: int) -> SetPosterior:
        sums, outside = self.sums, without(self.n_vars, t)
        around = sums.left[..., outside] + self.right[..., outside | (1 << t)]
        log_probs = sums.weights[..., t, :] + sum_over_supersets(around)[..., sums.rows]
        log_probs = log_probs - np.logaddexp.reduce(log_probs, axis=-1)[..., None]
        own = (sums.rows[:, None] >> np.arange(self.n_vars - 1) & 1).astype(bool)
        return SetPosterior(np.insert(own, t, False, axis=1), log_probs)

    def draw(self, key: jax.Array, n: int) -> np.ndarray:
        """See `sample_graphs`."""
        d, sums = self.n_vars, self.sums
        rng = keys.generator(key)
        before = _draw_predecessors(rng, sums, n)
        graphs = np.zeros((n, d, d), dtype=bool)
        together = max(_AT_ONCE >> (d - 1), 1)
        for start in range(0, d, together):
            chunk = range(start, min(start + together, d))
            weights = _dense(sums.rows, sums.weights[chunk], d)
            drawn = _draw_subsets(rng, weights, before.T[chunk])
            for j, own in zip(chunk, drawn, strict=True):
                graphs[:, np.arange(d) != j, j] = own[:, None] >> np.arange(d - 1) & 1
        return graphs


class _Sums(NamedTuple):
    rows: np.ndarray  # the sets looked at, int [n_sets], counted without the variable
    weights: np.ndarray  # log w_j(P) [..., n_vars, n_sets]
    below: np.ndarray  # log A_j(U) [..., n_vars, 2^(n_vars - 1)], U counted without j
    left: np.ndarray  # log L(U) [..., 2^n_vars]


def _solve(
    statistics: Statistics,
    edge_probability: float | None,
    max_parents: int | None,
    known: np.ndarray | None,
    forbidden: np.ndarray | None,
) -> _Sums:
    d = statistics.count.shape[-1]
    _require_size(d)
    if max_parents is None and d > MAX_UNCAPPED:
        raise MethodLimitError(
            f"{d} variables need a limit on parents (above {MAX_UNCAPPED}); give max_parents={CAP}"
        )
    if max_parents is not None and max_parents < 0:
        raise ConfigError(f"max_parents is {max_parents}; it cannot be negative")
    p = default_edge_probability(d) if edge_probability is None else edge_probability
    cap = d - 1 if max_parents is None else min(max_parents, d - 1)
    rows, scores = scores_up_to(statistics, cap)
    weights = scores + set_sizes(d - 1)[rows] * (np.log(p) - np.log1p(-p))
    _rule_out(rows, weights, known, forbidden)
    below = sum_over_subsets(_dense(rows, weights, d))
    left = over_prefixes(below)
    if not np.isfinite(left[..., -1]).all():
        limit = f" and at most {cap} parents" if cap < d - 1 else ""
        raise GraphError(f"no acyclic graph agrees with the known and forbidden edges given{limit}")
    return _Sums(rows, weights, below, left)


def _rule_out(
    rows: np.ndarray, weights: np.ndarray, known: np.ndarray | None, forbidden: np.ndarray | None
) -> None:
    """Give no weight, in place, to sets without a known parent or with a forbidden one."""
    if not any(given is not None and given.any() for given in (known, forbidden)):
        return
    d = weights.shape[-2]
    bits = 1 << np.arange(d - 1)
    for j in range(d):
        needed = 0 if known is None else int(bits[np.delete(known[:, j], j)].sum())
        barred = 0 if forbidden is None else int(bits[np.delete(forbidden[:, j], j)].sum())
        if needed or barred:
            weights[..., j, (rows & needed != needed) | (rows & barred != 0)] = -np.inf


def _draw_predecessors(rng: np.random.Generator, sums: _Sums, n: int) -> np.ndarray:
    """For each of `n` orders what comes before each variable, int ``[n, n_vars]`` without it."""
    d = sums.below.shape[0]
    before, nodes, each = np.zeros((n, d), dtype=np.int64), np.arange(d), np.arange(n)
    remaining = np.full(n, 2**d - 1)
    for _ in range(d):
        rest = remaining[:, None] & ~(1 << nodes)
        own = drop_bit(rest, nodes)
        log_probs = sums.below[nodes, own] + sums.left[rest]
        log_probs[rest == remaining[:, None]] = -np.inf  # placed already
        last = (log_probs + rng.gumbel(size=(n, d))).argmax(axis=1)
        before[each, last], remaining = own[each, last], rest[each, last]
    return before


def _draw_subsets(
    rng: np.random.Generator, log_weights: np.ndarray, within: np.ndarray
) -> np.ndarray:
    """Draw a subset of each set by its weight, undoing the sums bit by bit.

    After the bits below b are summed, f(S) is the sum over all sets that agree with S from b on.

    Args:
        rng: of the draws.
        log_weights: ``[n_vars, 2^n_items]``.
        within: the sets ``[n_vars, n]``.
    """
    stages = [log_weights]
    for bit in range(log_weights.shape[-1].bit_length() - 1):
        stages.append(sum_over_bit(stages[-1].copy(), bit, source=0, sink=1))
    drawn, each = within.copy(), np.arange(len(within))[:, None]
    for bit in reversed(range(len(stages) - 1)):
        log_kept = stages[bit][each, drawn] - stages[bit + 1][each, drawn]
        kept = np.log1p(-rng.random(drawn.shape)) <= log_kept
        drawn = np.where(kept, drawn, drawn & ~(1 << bit))
    return drawn


def _dense(rows: np.ndarray, weights: np.ndarray, d: int) -> np.ndarray:
    if len(rows) == 2 ** (d - 1):
        return weights.copy()
    dense = np.full((*weights.shape[:-1], 2 ** (d - 1)), -np.inf)
    dense[..., rows] = weights
    return dense


def _require_size(n_vars: int) -> None:
    if n_vars > MAX_VARIABLES:
        raise MethodLimitError(
            f"{n_vars} variables; exact inference takes at most {MAX_VARIABLES}; use "
            "method='network', or leave variables out"
        )
