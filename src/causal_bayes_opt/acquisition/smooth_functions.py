"""Gaussian-process mechanisms of a system's variables, learned from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from causal_bayes_opt.acquisition import smooth_mechanisms as smooth
from causal_bayes_opt.core.padding import bucket, double, pad
from causal_bayes_opt.core.scaling import Scaling

# A variable and its parents, by position.
Mechanism: TypeAlias = tuple[int, tuple[int, ...]]

_EVERY = 10  # experiments, before scales are learned anew
_TRIED = 24  # experiments among the rows from which scales are learned
_RARE = 0.01  # share of observed values at each end that are not usual
_FORETOLD = 128  # experiments from which is judged how well a mechanism foretells
_REACH = 2.0  # length scales between the data and the end of the sines' interval


class Functions(NamedTuple):
    """Distinct mechanisms as arrays, leading axis ``[n_functions]``."""

    columns: jax.Array  # int [., n_slots]
    there: jax.Array  # bool [., n_slots]
    scales: smooth.Scales
    domain: smooth.Domain


def room_for_parents(mechanisms: Sequence[Mechanism]) -> int:
    """Room for the parents of each mechanism: few sizes, as each is compiled, none too large."""
    most = max(len(parents) for _, parents in mechanisms)
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


def learn(
    distinct: Sequence[Mechanism],
    values: np.ndarray,
    mask: np.ndarray,
    slots: int,
    usual: np.ndarray,
) -> Functions:
    """Learn the scales of mechanisms by marginal likelihood.

    Args:
        distinct: which ones.
        values: standardised rows ``[n_rows, n_vars]``.
        mask: bool, likewise, True where set.
        slots: room for parents; see `room_for_parents`.
        usual: see `usual_values`.
    """
    room = len(distinct)
    columns = np.zeros((room, slots), dtype=int)
    there = np.zeros((room, slots), dtype=bool)
    scales, centre, half = [], np.zeros((room, slots)), np.ones((room, slots))
    low, high = np.full((room, slots), -1.0), np.ones((room, slots))
    bent = smooth.bend(values, *usual.T)
    for i, (node, parents) in enumerate(distinct):
        k = len(parents)
        columns[i, :k], there[i, :k] = parents, True
        chosen = _learn_from(mask, node)
        low[i, :k], high[i, :k] = usual[list(parents)].T
        x, y = values[chosen][:, parents], values[chosen, node]
        room_alone = room_for_parents([(node, parents)])
        own = smooth.learn_scales(x, y, room_alone, low[i, :k], high[i, :k])
        scales.append(_widened(own, slots))
        reached = bent[:, parents]
        first = np.minimum(reached.min(axis=0), low[i, :k])
        last = np.maximum(reached.max(axis=0), high[i, :k])
        centre[i, :k] = (first + last) / 2
        half[i, :k] = (last - first) / 2 + _REACH * own.lengths[:k]
    stacked: smooth.Scales = jax.tree.map(lambda *leaves: np.stack(leaves), *scales)
    domain = smooth.Domain(*_any(centre, half, low, high))
    arrays: list[Any] = [columns, there, stacked, domain]
    return Functions(*arrays)


def _widened(scales: smooth.Scales, slots: int) -> smooth.Scales:
    """Scales with room for more parents; what stands there is not looked at."""
    spare = slots - len(scales.alone)
    alone, lengths = (
        np.pad(leaf, (0, spare), constant_values=1.0) for leaf in (scales.alone, scales.lengths)
    )
    arrays: list[Any] = [scales.linear, alone, scales.together, lengths, scales.noise]
    return smooth.Scales(*arrays)


def _learn_from(mask: np.ndarray, node: int) -> np.ndarray:
    """Positions of the rows from which a mechanism's scales are learned.

    They change with every tenth experiment only, so that what was learned can be kept.
    """
    tried = mask.any(axis=1)
    every = np.flatnonzero(tried & ~mask[:, node])
    experiments = thinned(every[: len(every) // _EVERY * _EVERY], _TRIED)
    observed = np.flatnonzero(~tried)
    spare = smooth.LEARN_FROM - len(experiments)
    return np.concatenate([thinned(observed, spare), experiments])


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, most).astype(int)])


def condition(
    functions: Functions,
    distinct: Sequence[Mechanism],
    values: np.ndarray,
    mask: np.ndarray,
    waves: np.ndarray,
) -> smooth.Weights:
    """Condition mechanisms on rows; arguments as in `learn`, leading axis ``[n_functions]``."""
    rows = bucket(len(values), 64)
    padded, is_row = pad(values, rows), pad(~mask, rows)
    found = []
    with double():
        for i, (node, _) in enumerate(distinct):
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            found.append(
                smooth.fit_weights(
                    padded[:, columns], padded[:, node], is_row[:, node], *own, waves
                )
            )
    stacked: smooth.Weights = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    return stacked


def foretell(
    functions: Functions,
    distinct: Sequence[Mechanism],
    values: np.ndarray,
    mask: np.ndarray,
    waves: np.ndarray,
) -> dict[tuple[int, ...], float]:
    """Log-densities of what experiments gave, by the parents in each mechanism of one variable."""
    node = distinct[0][0]
    tried = np.flatnonzero(mask.any(axis=1) & ~mask[:, node])
    kept = np.concatenate([np.flatnonzero(~mask.any(axis=1)), thinned(tried, _FORETOLD)])
    rows = bucket(len(kept), 64)
    x, y = pad(values[kept], rows), pad(values[kept, node], rows)
    is_row, is_new = np.arange(rows) < len(kept), pad(mask[kept].any(axis=1), rows)
    found = {}
    with double():
        for i, (_, parents) in enumerate(distinct):
            columns, *own = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions))
            log_density = smooth.log_predictive(x[:, columns], y, is_row, is_new, *own, waves)
            found[parents] = float(log_density)
    return found


def _any(*arrays: np.ndarray) -> list[Any]:
    """Arrays of the host for fields that JAX reads as its own."""
    return list(arrays)
