"""Steps 4 to 6 of PARENT_SCALE in the user's terms: what was tried, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pyrsistent import PMap, pmap
from scipy.stats import qmc

from causal_bayes_opt.acquisition.policy import Suggestion
from causal_bayes_opt.core import padding
from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
from causal_bayes_opt.errors import ProblemError
from causal_bayes_opt.expert import causal_gp
from causal_bayes_opt.expert.parent_posterior import Beliefs

# A set has an effect where its weight is above this, and it is among so many of the most probable.
LEAST_WEIGHT, MOST_SETS = 1e-5, 16
# Time and memory grow with elements, sets and the square of the observational rows of a GP.
MOST_ROWS, MOST_ELEMENTS = 128, 32
N_STARTS, N_NEAR, N_ROUNDS = 128, 32, 8
N_KNOTS = 257

_Leaf = TypeVar("_Leaf")


@dataclass(frozen=True)
class Tried:
    """One experiment: what was set, and the mean of the target over its outcomes."""

    intervention: Intervention
    mean: float
    n_samples: int = 1


@dataclass(frozen=True)
class Workbench:
    """The GPs of a run. Columns are all variables; the target's are in no set and no element.

    Attributes:
        problem: what is asked.
        shift: ``[n_vars]``; the GPs work on (value - shift) / scale, the target's sign flipped
            where it is to be made large.
        scale: ``[n_vars]``.
        ranges: lowest and highest value of each settable variable, user's units.
        rows: what was observed, padded.
        costs: knots and costs at them, padded.
        published: whether the GPs are those of the public code.
        fitted: for each candidate set that was ever probable its GP, one row of `Regressions`.
        active: the sets that the effects are of, by index.
        elements: names that may be set together.
        effects: of the active sets on each element, padded.
    """

    problem: Problem
    shift: np.ndarray
    scale: np.ndarray
    ranges: Mapping[str, tuple[float, float]]
    rows: causal_gp.Rows
    costs: tuple[np.ndarray, np.ndarray]
    published: bool
    fitted: PMap[int, causal_gp.Regressions]
    active: tuple[int, ...] = ()
    elements: tuple[tuple[str, ...], ...] = ()
    effects: causal_gp.Effects | None = None


def start(
    problem: Problem, beliefs: Beliefs, observations: np.ndarray, seed: Sequence[int]
) -> Workbench:
    """Set up the GPs of a run.

    Args:
        problem: what is asked.
        beliefs: step 3 so far.
        observations: ``[n_obs, n_vars]``, user's units.
        seed: of the choice of rows where there are more than the GPs take.

    Raises:
        ProblemError: nothing may be set, or a cost that is not positive.
    """
    names = problem.variables
    t = names.index(problem.target)
    if len(observations) > MOST_ROWS:
        rng = np.random.default_rng([*seed, 2])
        kept = np.sort(rng.choice(len(observations), MOST_ROWS, replace=False))
        subset = observations[kept]
    else:
        subset = observations
    published = beliefs.options.noise == "unit"
    shift = np.zeros(len(names)) if published else beliefs.scaling.means
    scale = np.ones(len(names)) if published else beliefs.scaling.stds.copy()
    scale[t] *= problem.sign
    ranges = {
        name: problem.range_of(name)
        or (float(observations[:, i].min()), float(observations[:, i].max()))
        for i, name in enumerate(names)
        if name in problem.may_set
    }
    working = (subset - shift) / scale
    n_rows = padding.bucket(len(subset), padding.ROWS)
    with padding.double():
        rows = causal_gp.Rows(
            jnp.asarray(padding.pad(working, n_rows, _width(names))),
            jnp.asarray(padding.pad(working[:, t], n_rows)),
            jnp.arange(n_rows) < len(subset),
        )
    bench = Workbench(
        problem,
        shift,
        scale,
        ranges,
        rows,
        _costs(problem, ranges, shift, scale),
        published,
        pmap(),
    )
    return update(bench, beliefs)


def update(bench: Workbench, beliefs: Beliefs) -> Workbench:
    """Fit what has become probable, and average its effects; nothing is done twice."""
    weights = np.exp(beliefs.log_weights())
    ranked = np.argsort(-weights, kind="stable")[:MOST_SETS]
    active = tuple(sorted(int(s) for s in ranked if weights[s] > LEAST_WEIGHT))
    elements = _elements(bench.problem, beliefs, weights, active)
    if active == bench.active and elements == bench.elements:
        return bench
    fitted = bench.fitted
    missing = [s for s in active if s not in fitted]
    columns = _indicator(bench.problem.variables, elements)
    exists = np.arange(len(columns)) < len(elements)
    width = _width(bench.problem.variables)
    with padding.double():
        if missing:
            new = causal_gp.regress(
                bench.rows,
                padding.pad(beliefs.members[missing].astype(np.float64), MOST_SETS, width),
                np.arange(MOST_SETS) < len(missing),
                np.array(bench.published),
            )
            fitted = fitted.update({s: _row(new, i) for i, s in enumerate(missing)})
        stacked = _stack([fitted[s] for s in active], MOST_SETS)
        effects = causal_gp.effects(bench.rows, stacked, columns, exists)
    return replace(bench, fitted=fitted, active=active, elements=elements, effects=effects)


def best_trial(
    bench: Workbench, beliefs: Beliefs, tried: Sequence[Tried]
) -> tuple[Suggestion, float]:
    """Return the trial with the largest expected improvement for its cost.

    Returns:
        The suggestion, and the mean standard deviation of the target's mean over what might be
        tried, in the user's units.
    """
    assert bench.effects is not None
    problem, names = bench.problem, bench.problem.variables
    t = names.index(problem.target)
    weights = np.exp(beliefs.log_weights())[list(bench.active)]
    weights = padding.pad(weights / weights.sum(), MOST_SETS)
    real = bench.rows.present
    with padding.double():
        choices, best = causal_gp.choose(
            bench.effects,
            _search_space(bench),
            _experiments(bench, tried),
            weights,
            bench.rows.y[real].mean(),
            bench.costs,
            np.array(bench.published),
        )
    choice = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(bench.elements)], choices)
    winner = int(choice.score.argmax())
    element = bench.elements[winner]
    values = choice.values[winner, : len(names)] * bench.scale + bench.shift
    intervention = make_intervention(
        {
            # Rounding on the way to working units and back must not leave the range.
            name: float(np.clip(values[names.index(name)], *bench.ranges[name]))
            for name in element
        }
    )
    size = abs(bench.scale[t])
    so_far = float(best) * bench.scale[t] + bench.shift[t]
    variance = choice.deviation[winner] ** 2 + choice.scatter[winner]
    suggestion = Suggestion(
        intervention,
        float(choice.mean[winner] * bench.scale[t] + bench.shift[t]),
        float(np.sqrt(variance) * size),
        problem.cost(intervention),
        f"largest expected improvement for its cost over the best mean so far, {so_far:.4g}, "
        f"among {len(bench.elements)} elements",
        beliefs.warnings,
    )
    return suggestion, float(choice.uncertainty.mean() * size)


def _elements(
    problem: Problem, beliefs: Beliefs, weights: np.ndarray, active: Sequence[int]
) -> tuple[tuple[str, ...], ...]:
    """Subsets of the surviving parent sets that may be set.

    Without any parent to set, every settable variable is an element: only a trial can tell.
    """
    settable = [problem.variables.index(name) for name in problem.may_set]
    members = beliefs.members[list(active)]
    mass = weights[list(active)]
    found: dict[tuple[int, ...], float] = {}
    limit = problem.max_targets or len(settable)
    for size in range(1, min(beliefs.options.max_targets, len(settable), limit) + 1):
        joint = {
            subset
            for row in np.unique(members[:, settable], axis=0)
            for subset in combinations(np.asarray(settable)[row].tolist(), size)
        }
        found |= {s: float(mass[members[:, list(s)].all(axis=1)].sum()) for s in joint}
    found = found or {(i,): 0.0 for i in settable}
    # Single variables first, then the subsets that are most probably parents together.
    ranked = sorted(found, key=lambda s: (len(s) > 1, -found[s], s))[:MOST_ELEMENTS]
    return tuple(tuple(problem.variables[i] for i in s) for s in sorted(ranked))


def _search_space(bench: Workbench) -> causal_gp.Element:
    names, n_elements = bench.problem.variables, len(bench.elements)
    room = padding.bucket(n_elements, padding.VARIABLES, 4)
    width = _width(names)
    low, high = np.zeros((room, width)), np.zeros((room, width))
    exists = np.arange(room) < n_elements
    starts = np.zeros((room, N_STARTS, width))
    offsets = np.zeros((room, N_ROUNDS, N_NEAR, width))
    for e, element in enumerate(bench.elements):
        at = [names.index(name) for name in element]
        ends = np.array([bench.ranges[name] for name in element])
        low[e, at], high[e, at] = ((ends - bench.shift[at, None]) / bench.scale[at, None]).T
        span = high[e, at] - low[e, at]
        design, near = _design(len(element))
        starts[e][:, at] = low[e, at] + design * span
        offsets[e][:, :, at] = near * span
    return causal_gp.Element(
        *map(jnp.asarray, (exists, _indicator(names, bench.elements), starts, low, high, offsets))
    )


def _experiments(bench: Workbench, tried: Sequence[Tried]) -> causal_gp.Experiments:
    names = bench.problem.variables
    t = names.index(bench.problem.target)
    own = [[done for done in tried if set(done.intervention) == set(e)] for e in bench.elements]
    room = padding.bucket(len(own), padding.VARIABLES, 4)
    length = padding.bucket(max(map(len, own)), padding.EXPERIMENTS)
    values = np.zeros((room, length, _width(names)))
    outcomes, n_samples = np.zeros((room, length)), np.ones((room, length))
    present = np.zeros((room, length), dtype=bool)
    for e, done in enumerate(own):
        for k, trial in enumerate(done):
            for name, value in trial.intervention.items():
                i = names.index(name)
                values[e, k, i] = (value - bench.shift[i]) / bench.scale[i]
            outcomes[e, k] = (trial.mean - bench.shift[t]) / bench.scale[t]
            n_samples[e, k], present[e, k] = trial.n_samples, True
    return causal_gp.Experiments(*map(jnp.asarray, (values, outcomes, n_samples, present)))


@cache
def _design(n_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Where to look, in shares of the range.

    Returns:
        Starts ``[n_starts, n_targets]``, the corners among them, and offsets
        ``[n_rounds, n_near, n_targets]`` that close in on the best start.
    """
    if n_targets == 1:
        starts = np.linspace(0.0, 1.0, N_STARTS)[:, None]
        near, gap, closer = np.linspace(-1.0, 1.0, N_NEAR)[:, None], 1.0 / (N_STARTS - 1), 1 / 8
    else:
        corners = np.array(list(np.ndindex(*([2] * n_targets))), dtype=float)
        sequence = qmc.Sobol(n_targets, scramble=False).random(N_STARTS)
        starts = np.concatenate([corners, sequence[1 : N_STARTS - len(corners) + 1]])
        near = 2 * qmc.Sobol(n_targets, scramble=False).random(N_NEAR) - 1
        gap, closer = N_STARTS ** (-1.0 / n_targets), 1 / 2
    return starts, np.stack([near * gap * closer**r for r in range(N_ROUNDS)])


def _costs(
    problem: Problem,
    ranges: Mapping[str, tuple[float, float]],
    shift: np.ndarray,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Cost of each variable at knots over its range, in working units.

    All are 0, which stands for no division by cost, where the problem names none: a joint
    intervention is then no dearer than a single one.
    """
    width = _width(problem.variables)
    knots = np.tile(np.linspace(0.0, 1.0, N_KNOTS), (width, 1))
    costs = np.zeros((width, N_KNOTS))
    for name, (low, high) in ranges.items() if problem.costs else ():
        i = problem.variables.index(name)
        at = np.linspace(low, high, N_KNOTS)
        knots[i] = (at - shift[i]) / scale[i]
        costs[i] = [problem.cost({name: float(value)}) for value in at]
        if not (np.isfinite(costs[i]).all() and (costs[i] > 0).all()):
            worst = int(np.argmin(np.where(np.isfinite(costs[i]), costs[i], -np.inf)))
            raise ProblemError(
                f"setting {name!r} to {at[worst]:g} costs {costs[i][worst]:g}; costs must be "
                "positive numbers (add a fixed part)"
            )
    return knots, costs


def _indicator(names: Sequence[str], elements: Sequence[tuple[str, ...]]) -> np.ndarray:
    """1.0 where a variable is in an element ``[n_elements, n_vars]``, padded."""
    columns = np.zeros((padding.bucket(len(elements), padding.VARIABLES, 4), _width(names)))
    for e, element in enumerate(elements):
        columns[e, [names.index(name) for name in element]] = 1.0
    return columns


def _width(names: Sequence[str]) -> int:
    return padding.bucket(len(names), padding.VARIABLES)


def _row(stacked: _Leaf, index: int) -> _Leaf:
    row: _Leaf = jax.tree.map(lambda leaf: np.asarray(leaf)[index], stacked)
    return row


def _stack(rows: Sequence[Any], room: int) -> Any:
    return jax.tree.map(lambda *leaves: padding.pad(np.stack(leaves), room), *rows)
