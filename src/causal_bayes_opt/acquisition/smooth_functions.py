"""Gaussian-process mechanisms of a system's variables, learned from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causal_bayes_opt.acquisition import mechanism_scales
from causal_bayes_opt.acquisition import smooth_mechanisms as smooth
from causal_bayes_opt.acquisition.mechanism_scales import Scales
from causal_bayes_opt.core.padding import bucket, double, pad
from causal_bayes_opt.core.scaling import Scaling

EVERY = 10  # experiments, before scales are learned anew
_TRIED = 24  # kinds of experiments from which scales are learned
_RARE = 0.01  # share of observed values at each end that are not usual
_FORETOLD = 2048  # experiments from which is judged how well a mechanism foretells
_SURE = 100.0  # outcomes of one experiment that many count as; see `Evidence`
_REACH = 2.0  # length scales between the data and the end of the sines' interval


class Mechanism(NamedTuple):
    """A variable and its parents, by position, and which scales: the likeliest (0) or a draw."""

    node: int
    parents: tuple[int, ...]
    draw: int = 0


class Functions(NamedTuple):
    """Distinct mechanisms as arrays, leading axis ``[n_functions]``."""

    columns: jax.Array  # int [., n_slots]
    there: jax.Array  # bool [., n_slots]
    scales: Scales
    domain: smooth.Domain


def room_for_parents(mechanisms: Sequence[Mechanism]) -> int:
    """Room for the parents of each mechanism: few sizes, as each is compiled, none too large."""
    most = max(len(mechanism.parents) for mechanism in mechanisms)
    return max(most, 2) if most <= 4 else most + most % 2


def waves_of(slots: int) -> np.ndarray:
    """Always the same frequencies and phases; see `smooth_mechanisms.basis`."""
    waves = np.random.default_rng(0).normal(size=(smooth.N_FEATURES, slots + 1))
    waves[:, -1] = np.random.default_rng(1).random(smooth.N_FEATURES)
    return waves


def usual_values(
    values: np.ndarray,
    mask: np.ndarray,
    scaling: Scaling,
    names: tuple[str, ...],
    ranges: Mapping[str, tuple[float, float]],
) -> np.ndarray:
    """Between which standardised values ``[n_vars, 2]`` most observed ones lie, or may be set."""
    observed = values[~mask.any(axis=1)]
    ends = np.asarray(np.quantile(observed, (_RARE, 1.0 - _RARE), axis=0).T)
    for name, limits in ranges.items():
        i = names.index(name)
        unit = (np.asarray(limits) - scaling.means[i]) / scaling.stds[i]
        ends[i] = min(ends[i, 0], unit[0]), max(ends[i, 1], unit[1])
    return ends


class Evidence(NamedTuple):
    """Rows from which mechanisms are learned."""

    values: np.ndarray  # standardised [n_rows, n_vars]
    mask: np.ndarray  # bool, likewise, True where set
    kind: np.ndarray  # int, the same for outcomes of the same experiment, -1 observed [n_rows]
    worth: np.ndarray  # what each row counts, 0 to 1 [n_rows]

    @classmethod
    def of(cls, values: np.ndarray, mask: np.ndarray) -> Evidence:
        """Rows, those of an experiment that was repeated a thousand times worth less each.

        A mechanism is an approximation, and a thousand outcomes of one experiment would make it
        sure of how it bends elsewhere. So they count as some hundred do, by a power of the
        likelihood (coarsening: Miller and Dunson, Journal of the American Statistical Association
        114, 2019); what they say of the outcome itself is for `discrepancy` to add.
        """
        kind, worth = np.full(len(values), -1), np.ones(len(values))
        tried = mask.any(axis=1)
        rows = np.hstack([mask[tried], np.where(mask[tried], values[tried], 0.0)])
        kind[tried] = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
        worth[tried] = _worth(kind[tried])
        return cls(values, mask, kind, worth)

    def at(self, rows: np.ndarray) -> Evidence:
        """Some of the rows."""
        return Evidence(*(field[rows] for field in self))

    def fewer(self, most: int) -> Evidence:
        """About so many rows of experiments, from all alike, worth as much as all of them were.

        Observed rows stay. Where there are more experiments than that, some are left out.
        """
        kinds = thinned(np.unique(self.kind[self.kind >= 0]), most)
        share = most // max(len(kinds), 1)
        kept, worth = [np.flatnonzero(self.kind < 0)], self.worth.copy()
        for kind in kinds:
            own = np.flatnonzero(self.kind == kind)
            some = thinned(own, share)
            worth[some] *= len(own) / len(some)
            kept.append(some)
        return self._replace(worth=worth).at(np.concatenate(kept))


def _worth(kind: np.ndarray) -> np.ndarray:
    """What each of some outcomes counts, by how many there are of its kind."""
    return np.asarray(_SURE / (_SURE + np.bincount(kind)[kind] - 1.0))


def learn(
    distinct: Sequence[Mechanism], evidence: Evidence, slots: int, usual: np.ndarray
) -> Functions:
    """Learn the scales of mechanisms by marginal likelihood.

    Args:
        distinct: which ones.
        evidence: all rows.
        slots: room for parents; see `room_for_parents`.
        usual: see `usual_values`.
    """
    room = len(distinct)
    columns = np.zeros((room, slots), dtype=int)
    there = np.zeros((room, slots), dtype=bool)
    scales, centre, half = [], np.zeros((room, slots)), np.ones((room, slots))
    low, high = np.full((room, slots), -1.0), np.ones((room, slots))
    bent = mechanism_scales.bend(evidence.values, *usual.T)
    for i, mechanism in enumerate(distinct):
        parents = mechanism.parents
        k = len(parents)
        columns[i, :k], there[i, :k] = parents, True
        low[i, :k], high[i, :k] = usual[list(parents)].T
        found = _learned(mechanism, evidence, usual)
        own = jax.tree.map(lambda leaf, draw=mechanism.draw: leaf[draw], found.scales)
        scales.append(_widened(own, slots))
        reached = bent[:, parents]
        first = np.minimum(reached.min(axis=0), low[i, :k])
        last = np.maximum(reached.max(axis=0), high[i, :k])
        centre[i, :k] = (first + last) / 2
        half[i, :k] = (last - first) / 2 + _REACH * own.lengths[:k]
    stacked: Scales = jax.tree.map(lambda *leaves: np.stack(leaves), *scales)
    domain = smooth.Domain(*_any(centre, half, low, high))
    arrays: list[Any] = [columns, there, stacked, domain]
    return Functions(*arrays)


def log_odds_of_linear(mechanism: Mechanism, evidence: Evidence, usual: np.ndarray) -> float:
    """Log-odds of a linear mechanism against one of another kind; arguments as in `learn`."""
    return float(_learned(mechanism, evidence, usual).for_linear)


def _learned(
    mechanism: Mechanism, evidence: Evidence, usual: np.ndarray
) -> mechanism_scales.Learned:
    rows = learn_from(evidence, mechanism)
    low, high = usual[list(mechanism.parents)].T
    return mechanism_scales.learn_scales(rows, room_for_parents([mechanism]), low, high)


def _widened(scales: Scales, slots: int) -> Scales:
    """Scales with room for more parents; what stands there is not looked at."""
    spare = slots - len(scales.alone)
    alone, lengths = (
        np.pad(leaf, (0, spare), constant_values=1.0) for leaf in (scales.alone, scales.lengths)
    )
    arrays: list[Any] = [scales.linear, alone, scales.together, lengths, *scales[4:]]
    return Scales(*arrays)


def learn_from(evidence: Evidence, mechanism: Mechanism) -> mechanism_scales.Rows:
    """The rows from which a mechanism's scales are learned.

    They change with every tenth experiment only, so that what was learned can be kept.
    """
    node, parents = mechanism.node, mechanism.parents
    tried = evidence.kind >= 0
    every = np.flatnonzero(tried & ~evidence.mask[:, node])
    every = every[: len(every) // EVERY * EVERY]
    some = evidence.values[every]
    worth = _worth(evidence.kind[every])
    kinds = mechanism_scales.averaged(some[:, parents], some[:, node], worth)
    often = np.argsort(-kinds.worth, kind="stable")[: min(_TRIED, int((kinds.worth > 1).sum()))]
    once = thinned(np.flatnonzero(kinds.worth <= 1), _TRIED - len(often))
    experiments = kinds.at(np.concatenate([often, once]))
    observed = thinned(np.flatnonzero(~tried), mechanism_scales.LEARN_FROM - len(experiments.worth))
    seen = evidence.values[observed]
    return mechanism_scales.Rows.of(seen[:, parents], seen[:, node]).and_of(experiments)


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).astype(int)])


def condition(
    functions: Functions, distinct: Sequence[Mechanism], evidence: Evidence, waves: np.ndarray
) -> smooth.Weights:
    """Condition mechanisms on rows; arguments as in `learn`, leading axis ``[n_functions]``."""
    rows = bucket(len(evidence.values), 64)
    padded = pad(evidence.values, rows)
    counted = pad(evidence.worth[:, None] * ~evidence.mask, rows)
    found = []
    with double():
        for i, mechanism in enumerate(distinct):
            node = mechanism.node
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            found.append(
                smooth.fit_weights(
                    padded[:, columns], padded[:, node], counted[:, node], *own, waves
                )
            )
    stacked: smooth.Weights = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    return stacked


def foretell(
    functions: Functions, distinct: Sequence[Mechanism], evidence: Evidence, waves: np.ndarray
) -> np.ndarray:
    """Log-density of what experiments gave ``[n_functions]``, of mechanisms of one variable."""
    node = distinct[0].node
    kept = evidence.at(~evidence.mask[:, node]).fewer(_FORETOLD)
    rows = bucket(len(kept.values), 64)
    x, y = pad(kept.values, rows), pad(kept.values[:, node], rows)
    counted, is_new = pad(kept.worth, rows), pad(kept.kind >= 0, rows)
    found = []
    with double():
        for i in range(len(distinct)):
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            found.append(smooth.log_predictive(x[:, columns], y, counted, is_new, *own, waves))
    return np.stack(found)


def _any(*arrays: np.ndarray) -> list[Any]:
    """Arrays of the host for fields that JAX reads as its own."""
    return list(arrays)
