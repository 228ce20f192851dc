"""Looking for the best intervention by an outcome model: which variables to set, and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from causal_bayes_opt.acquisition.outcome import Candidates, OutcomeModel
from causal_bayes_opt.acquisition.state import AcquisitionState

MAX_TARGETS = 3
MAX_SETTABLE = 12

# From expected outcomes [n_candidates, n_members], to be made small, to a score, to be made large.
Score: TypeAlias = Callable[[np.ndarray], np.ndarray]

_GRID = 9  # values of each variable alone
_DRAWN = 96  # interventions drawn over all variables
_ROUNDS = (0.15, 0.06, 0.02)  # widths of the moves around the best, as shares of the ranges
_KEPT, _MOVES = 8, 8
_AGAIN = 32  # of what was tried, from which the search starts too
_SPARSER = 0.25  # share of moves that leave out a variable, or take one in


class Found(NamedTuple):
    """All interventions that were looked at, without repetition of the work."""

    candidates: Candidates
    means: np.ndarray  # [n, n_members], signed: always to be made small
    scores: np.ndarray  # [n]


class Tried(NamedTuple):
    """Doing nothing, which comes first, and all different experiments that may be done again."""

    candidates: Candidates
    means: np.ndarray  # [n, n_members], signed: always to be made small

    @property
    def best(self) -> int:
        """Which of them has the best expected outcome."""
        return int(self.means.mean(axis=1).argmin())


def search(
    state: AcquisitionState,
    model: OutcomeModel,
    score: Score,
    key: jax.Array,
    max_targets: int = MAX_TARGETS,
    tried: Tried | None = None,
) -> Found:
    """Score interventions on up to `max_targets` of the variables that seem to matter most.

    Where expected outcomes are linear in what is set, all corners of the ranges. Elsewhere a grid
    for each variable alone, draws over sets of variables and the best of what was tried, then moves
    around the best of all these.
    """
    names = _most_relevant(state, model)
    columns = np.array([model.variables.index(name) for name in names])
    ends = np.array([state.range_of(name) for name in names])
    if model.corners_suffice:
        slots, there, upper = _corners(len(names), min(max_targets, len(names)))
        values = np.where(upper, ends[slots, 1], ends[slots, 0])
        return _looked_at(state, model, score, Candidates(columns[slots], there, values))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    width = min(max_targets, len(names))

    def look(units: np.ndarray) -> Found:
        return _looked_at(state, model, score, _scaled(units, columns, ends, width))

    units = _first_round(rng, len(names), width)
    found = look(units)
    if tried is not None:
        before, again = _again(tried, score, columns, ends, width)
        units, found = np.concatenate([units, before]), _joined(found, again)
    for step in _ROUNDS:
        moved = _moves(rng, _best(units, found), step, width)
        units, found = np.concatenate([units, moved]), _joined(found, look(moved))
    sparser = _without_one(_best(units, found))
    return _joined(found, look(sparser)) if len(sparser) else found


def most_at_once(model: OutcomeModel, asked: int | None) -> int:
    """How many variables an intervention may set: as asked, or by how the search is done.

    Corners of more than `MAX_TARGETS` variables are too many to list. Where interventions are
    drawn, setting a variable that only some members call a cause is a hedge, and costs no time.
    """
    if asked is not None:
        return asked
    return MAX_TARGETS if model.corners_suffice else MAX_SETTABLE


def tried_so_far(state: AcquisitionState, model: OutcomeModel, max_targets: int) -> Tried:
    """What was tried within the ranges, on few enough variables; the target was not set."""
    values, mask = state.buffer.all_rows()
    variables, may = state.problem.variables, state.problem.may_set
    ends = np.array([state.range_of(v) if v in may else (np.inf, -np.inf) for v in variables])
    inside = (ends[:, 0] <= values) & (values <= ends[:, 1])
    used = (inside | ~mask).all(axis=1) & mask.any(axis=1) & (mask.sum(axis=1) <= max_targets)
    rows = np.hstack([mask, np.where(mask, values, 0.0)])[used]
    d = len(variables)
    # In the order of `unique`, doing nothing comes first.
    done = np.unique(np.vstack([np.zeros(2 * d), rows]), axis=0)
    candidates = Candidates.of_rows(done[:, d:], done[:, :d] > 0)
    return Tried(candidates, signed_means(state, model, candidates))


def _again(
    tried: Tried, score: Score, columns: np.ndarray, ends: np.ndarray, width: int
) -> tuple[np.ndarray, Found]:
    """The best of what was tried on these variables: as shares of the ranges, and as it was."""
    own = tried.candidates
    d = int(max(columns.max(), own.columns.max(initial=0))) + 1
    is_set, value = own.spread(own.values, d)
    possible = is_set.any(axis=1) & (is_set[:, columns].sum(axis=1) == is_set.sum(axis=1))
    scores = np.where(possible, score(tried.means), -np.inf)
    kept = np.argsort(-scores, kind="stable")[: min(_AGAIN, int(possible.sum()))]
    low, high = ends.T
    shares = (value[:, columns] - low) / (high - low)
    units = np.where(is_set[:, columns], shares, np.nan)[kept]
    spare = ((0, 0), (0, width - own.columns.shape[1]))
    candidates = Candidates(*(np.pad(field[kept], spare) for field in own))
    return units, Found(candidates, tried.means[kept], scores[kept])


def signed_means(
    state: AcquisitionState, model: OutcomeModel, candidates: Candidates
) -> np.ndarray:
    """Expected outcomes ``[n, n_members]`` with the sign that is always to be made small."""
    return state.problem.sign * model.means(state.problem.target, candidates)


def _best(units: np.ndarray, found: Found) -> np.ndarray:
    return units[np.argsort(-found.scores, kind="stable")[:_KEPT]]


def _looked_at(
    state: AcquisitionState, model: OutcomeModel, score: Score, candidates: Candidates
) -> Found:
    means = signed_means(state, model, candidates)
    return Found(candidates, means, score(means))


def _joined(first: Found, second: Found) -> Found:
    pairs = zip(first.candidates, second.candidates, strict=True)
    return Found(
        Candidates(*(np.concatenate(pair) for pair in pairs)),
        np.concatenate([first.means, second.means]),
        np.concatenate([first.scores, second.scores]),
    )


@lru_cache(maxsize=64)
def _corners(n_names: int, max_targets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All corners of all sets: places, which are there, and whether at the upper end."""
    slots, there, upper = [], [], []
    for size in range(1, max_targets + 1):
        spare = [0] * (max_targets - size)
        for subset in combinations(range(n_names), size):
            for corner in np.ndindex(*([2] * size)):
                slots.append([*subset, *spare])
                there.append([True] * size + [False] * len(spare))
                upper.append([*corner, *spare])
    return np.array(slots), np.array(there), np.array(upper, dtype=bool)


def _first_round(rng: np.random.Generator, n_names: int, max_targets: int) -> np.ndarray:
    """Shares of the ranges ``[n, n_names]``, NaN where a variable is not set."""
    alone = np.full((n_names, _GRID, n_names), np.nan)
    for i in range(n_names):
        alone[i, :, i] = np.linspace(0.0, 1.0, _GRID)
    drawn = rng.random((_DRAWN, n_names))
    # Half of the values drawn are ends.
    drawn = np.where(rng.random(drawn.shape) < 0.5, np.round(drawn), drawn)
    size = rng.integers(1, max_targets + 1, _DRAWN)
    rank = np.argsort(np.argsort(rng.random(drawn.shape), axis=1), axis=1)
    drawn[rank >= size[:, None]] = np.nan
    return np.concatenate([alone.reshape(-1, n_names), drawn])


def _moves(
    rng: np.random.Generator, best: np.ndarray, width: float, max_targets: int
) -> np.ndarray:
    """Neighbours of the best: values moved, now and then a variable left out or taken in."""
    start = np.repeat(best, _MOVES, axis=0)
    moved = np.clip(start + width * rng.normal(size=start.shape), 0.0, 1.0)
    for row in np.flatnonzero(rng.random(len(moved)) < _SPARSER):
        own = np.flatnonzero(~np.isnan(moved[row]))
        other = int(rng.integers(moved.shape[1]))
        if other in own:
            if len(own) > 1:
                moved[row, other] = np.nan
            continue
        if len(own) >= max_targets:
            moved[row, int(rng.choice(own))] = np.nan
        # Where another of the best sets this variable already, at that value.
        known = best[~np.isnan(best[:, other]), other]
        moved[row, other] = known[0] if len(known) else rng.random()
    return moved


def _without_one(best: np.ndarray) -> np.ndarray:
    """The best with one variable left out, so that none is set for nothing."""
    fewer = [np.where(np.arange(len(row)) == i, np.nan, row) for row in best for i in _set(row)]
    return np.array([row for row in fewer if len(_set(row))]).reshape(-1, best.shape[1])


def _set(row: np.ndarray) -> np.ndarray:
    return np.flatnonzero(~np.isnan(row))


def _scaled(units: np.ndarray, columns: np.ndarray, ends: np.ndarray, width: int) -> Candidates:
    """Shares of the ranges as candidates in `width` slots, the variables that are set first."""
    there = ~np.isnan(units)
    order = np.argsort(~there, axis=1, kind="stable")[:, :width]
    chosen = np.take_along_axis(there, order, axis=1)
    shares = np.where(chosen, np.take_along_axis(units, order, axis=1), 0.0)
    low, high = ends[order, 0], ends[order, 1]
    # Rounding must not lead beyond an end.
    return Candidates(columns[order], chosen, np.clip(low + shares * (high - low), low, high))


def _most_relevant(state: AcquisitionState, model: OutcomeModel) -> list[str]:
    """The settable variables; of many, those whose ends move the target most."""
    names = list(state.problem.may_set)
    if len(names) <= MAX_SETTABLE:
        return names
    alone: Sequence[dict[str, float]] = [
        {name: end} for name in names for end in state.range_of(name)
    ]
    means = signed_means(state, model, Candidates.of(alone, model.variables))
    reach = np.abs(np.diff(means.reshape(len(names), 2, -1), axis=1)).mean(axis=(1, 2))
    kept = np.argsort(-reach, kind="stable")[:MAX_SETTABLE]
    return [name for i, name in enumerate(names) if i in kept]
