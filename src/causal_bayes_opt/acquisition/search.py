"""Looking for the best intervention by an outcome model: which variables to set, and where."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from causal_bayes_opt.acquisition.outcome import Candidates, OutcomeModel
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.padding import pad
from causal_bayes_opt.errors import ConfigError

MAX_TARGETS = 3
MAX_SETTABLE = 12

# From expected outcomes [n_candidates, n_members], to be made small, to a score, to be made large.
Score: TypeAlias = Callable[[np.ndarray], np.ndarray]

_GRID = 9  # values of each variable alone
_DRAWN = 96  # interventions drawn over all variables
_ROUNDS = (0.15, 0.06, 0.02)  # widths of the moves around the best, as shares of the ranges
_KEPT, _MOVES = 8, 8
_GROWN = 4  # corners that get a variable more
_GAIN = 0.01  # of a score, that a variable must bring for another to be tried
_AGAIN = 32  # of what was tried, from which the search starts too
_ALIKE = 0.05  # of a range, around what failed
_INWARD = (0.1, 0.25, 0.5)  # of a range, from where an experiment failed towards the middle
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

    def without(self, some: np.ndarray) -> Tried:
        """The others; bool ``[n]``."""
        return Tried(Candidates(*(field[~some] for field in self.candidates)), self.means[~some])


def search(
    state: AcquisitionState,
    model: OutcomeModel,
    score: Score,
    key: jax.Array,
    max_targets: int = MAX_TARGETS,
    tried: Tried | None = None,
    listed: int = MAX_TARGETS,
) -> Found:
    """Score interventions on up to `max_targets` of the variables that seem to matter most.

    Fewer where the problem says so.

    Where expected outcomes are linear in what is set, all corners of the ranges of up to `listed`
    variables, and one variable more on the best of these as long as that helps; besides, what lies
    inward of each experiment that failed. Elsewhere a grid for each variable alone, draws over sets
    of variables and the best of what was tried, then moves around the best of all these, and the
    best with ever fewer variables. What is like an experiment that failed scores nothing; where
    everything is, it may be tried again.

    Raises:
        ConfigError: `max_targets` is below 1.
    """
    if max_targets < 1:
        raise ConfigError(f"max_targets is {max_targets}; an experiment sets at least one variable")
    max_targets = state.at_most(max_targets)
    names = _most_relevant(state, model)
    columns = np.array([model.variables.index(name) for name in names])
    ends = np.array([state.range_of(name) for name in names])
    width = min(max_targets, len(names))
    if model.corners_suffice:
        slots, there, upper = _corners(len(names), min(listed, width))
        low, high = ends.T
        values = np.where(upper, high[slots], low[slots])
        found = _looked_at(state, model, score, Candidates(columns[slots], there, values))
        found = _with_more(state, model, score, found, columns, ends, width)
        inward = _inward_of_failed(state, columns, ends, width)
        if len(inward.columns):
            found = found._replace(candidates=_padded(found.candidates, width))
            found = _joined(found, _looked_at(state, model, score, inward))
        return _any_left(found, score)
    rng = keys.generator(key)

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
    best = _best(units, found)
    sparser = _without_one(best)
    if len(sparser):
        fewer = look(sparser)
        found = _joined(found, fewer)
        smaller = _without_least(best[0], fewer.scores)
        found = _joined(found, look(smaller)) if len(smaller) else found
    return _any_left(found, score)


def _any_left(found: Found, score: Score) -> Found:
    """As if nothing had failed, where everything has."""
    return found if np.isfinite(found.scores).any() else found._replace(scores=score(found.means))


def _inward_of_failed(
    state: AcquisitionState, columns: np.ndarray, ends: np.ndarray, width: int
) -> Candidates:
    """Each experiment that failed, with some of its variables nearer to the middle.

    One variable, or all of them: what lies beyond a bound, or a trial that failed by chance, costs
    little of the outcome then.
    """
    names = [state.problem.variables[column] for column in columns]
    low, high = ends.T
    units = []
    for failed in state.failed:
        if not (set(failed) <= set(names) and len(failed) <= width):
            continue
        level = np.array([failed.get(name, np.nan) for name in names])
        share = (level - low) / (high - low)
        own = _set(share)
        moved = np.eye(len(names), dtype=bool)[own]
        for some in (*moved, moved.any(axis=0)) if len(own) > 1 else moved:
            for step in _INWARD:
                towards = np.where(share < 0.5, 1.0, -1.0) * step
                units.append(np.clip(share + some * towards, 0.0, 1.0))
    return _scaled(np.array(units).reshape(-1, len(names)), columns, ends, width)


def tried_so_far(state: AcquisitionState, model: OutcomeModel, max_targets: int) -> Tried:
    """What was tried within the ranges, on few enough variables; the target was not set."""
    max_targets = state.at_most(max_targets)
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
    candidates = _padded(Candidates(*(field[kept] for field in own)), width)
    return units, Found(candidates, tried.means[kept], scores[kept])


def signed_means(
    state: AcquisitionState, model: OutcomeModel, candidates: Candidates
) -> np.ndarray:
    """Expected outcomes ``[n, n_members]`` with the sign that is always to be made small."""
    return state.problem.sign * model.means(state.problem.target, candidates)


def _with_more(
    state: AcquisitionState,
    model: OutcomeModel,
    score: Score,
    found: Found,
    columns: np.ndarray,
    ends: np.ndarray,
    width: int,
) -> Found:
    """Add variables to the best corners, one at a time, while the last one gained something."""
    d = len(model.variables)
    low, high = np.zeros(d), np.zeros(d)
    low[columns], high[columns] = ends.T
    for size in range(found.candidates.columns.shape[1], width):
        largest = found.candidates.there.sum(axis=1) == size
        most, before = (found.scores[own].max(initial=-np.inf) for own in (largest, ~largest))
        if not np.isfinite(most) or most - before <= _GAIN * abs(most):
            break
        order = np.argsort(-np.where(largest, found.scores, -np.inf), kind="stable")[:_GROWN]
        best = Candidates(*(field[order] for field in found.candidates))
        is_set, value = best.spread(best.values, d)
        row, added = np.nonzero(~is_set[:, columns])
        row, added, more = np.repeat(row, 2), np.repeat(columns[added], 2), np.arange(2 * len(row))
        is_set, value = is_set[row], value[row]
        is_set[more, added] = True
        value[more, added] = np.where(more % 2 == 0, low[added], high[added])
        larger = _looked_at(state, model, score, Candidates.of_rows(value, is_set))
        found = _joined(found._replace(candidates=_padded(found.candidates, size + 1)), larger)
    return found


def _padded(candidates: Candidates, width: int) -> Candidates:
    """The same with room for `width` variables."""
    return Candidates(*(pad(field, len(field), width) for field in candidates))


def _best(units: np.ndarray, found: Found) -> np.ndarray:
    return units[np.argsort(-found.scores, kind="stable")[:_KEPT]]


def _looked_at(
    state: AcquisitionState, model: OutcomeModel, score: Score, candidates: Candidates
) -> Found:
    means = signed_means(state, model, candidates)
    scores = score(means)
    if state.failed:
        scores = np.where(like_failed(state, candidates), -np.inf, scores)
    return Found(candidates, means, scores)


def like_failed(state: AcquisitionState, candidates: Candidates) -> np.ndarray:
    """Which set the same variables as an experiment that failed, to about the same values."""
    variables = state.problem.variables
    found = np.zeros(len(candidates.columns), dtype=bool)
    is_set, value = candidates.spread(candidates.values, len(variables))
    for done in state.failed:
        same = (is_set == [name in done for name in variables]).all(axis=1)
        for name, level in done.items() if same.any() else ():
            low, high = state.range_of(name)
            same &= np.abs(value[:, variables.index(name)] - level) <= _ALIKE * (high - low)
        found |= same
    return found


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


def _without_least(best: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The best without its two, three and more variables that matter least, one always left.

    Args:
        best: shares of the ranges ``[n_names]``.
        scores: without each of its variables, first ones of ``[n]``.
    """
    own = _set(best)
    least = own[np.argsort(-scores[: len(own)], kind="stable")]
    rows = np.repeat(best[None], max(len(own) - 2, 0), axis=0)
    for number, row in enumerate(rows):
        row[least[: number + 2]] = np.nan
    return rows


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
    """The settable variables; of many, those that move the target most at an end or half-way."""
    names = list(state.problem.may_set)
    if len(names) <= MAX_SETTABLE:
        return names
    levels = {name: np.linspace(*state.range_of(name), 3) for name in names}
    alone = [{name: float(level)} for name in names for level in levels[name]]
    means = signed_means(state, model, Candidates.of(alone, model.variables))
    # Between the levels, not to doing nothing: an effect may be the same at both ends.
    reach = np.ptp(means.reshape(len(names), 3, -1), axis=1).mean(axis=1)
    kept = np.argsort(-reach, kind="stable")[:MAX_SETTABLE]
    return [name for i, name in enumerate(names) if i in kept]
