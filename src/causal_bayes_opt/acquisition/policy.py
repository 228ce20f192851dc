"""Policies: functions from a state to the next experiment."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Protocol

import jax
import numpy as np

from causal_bayes_opt.acquisition.graph_samples import sample_graphs
from causal_bayes_opt.acquisition.outcome import LinearOutcomeModel
from causal_bayes_opt.acquisition.state import N_GRAPHS, AcquisitionState
from causal_bayes_opt.core.intervention import Intervention, make_intervention
from causal_bayes_opt.core.scm import SCM

MAX_TARGETS = 3
MAX_SETTABLE = 12


@dataclass(frozen=True)
class Suggestion:
    """The next experiment, in the user's units.

    Attributes:
        intervention: what to set, and to which values.
        predicted_mean: of the target under it.
        predicted_std: standard deviation of one outcome: what is not known, and noise.
        cost: by the problem's costs.
        reason: one sentence for the user.
        warnings: what the user should know before acting.
    """

    intervention: Intervention
    predicted_mean: float
    predicted_std: float
    cost: float
    reason: str
    warnings: tuple[str, ...] = ()


class Policy(Protocol):
    """State to suggestion; random choice, expected improvement and networks are such."""

    def __call__(self, state: AcquisitionState, key: jax.Array) -> Suggestion:
        """Return the next experiment; the same state and key give the same one."""
        ...


def expected_improvement(
    state: AcquisitionState, key: jax.Array, *, max_targets: int = MAX_TARGETS
) -> Suggestion:
    """Expected improvement on the linear outcome model, joint interventions allowed.

    The improvement is that of the expected outcome over the best expected outcome among what was
    tried, averaged over the model's members. It is convex in the values that are set, so its
    maximum over a box lies at a corner: corners are all that is looked at. Among interventions
    within a twentieth of the best, the cheapest wins, then the one that sets fewest variables.
    """
    model = fit_outcome_model(state, key)
    best = _best_tried(state, model)
    candidates = _corners(state, model, max_targets)
    gain = np.maximum(best - candidates.means, 0.0).mean(axis=1)
    near = np.flatnonzero(gain >= 0.95 * gain.max())
    costs = np.array([state.problem.cost(candidates.interventions[i]) for i in near])
    sizes = np.array([len(candidates.interventions[i]) for i in near])
    chosen = near[np.lexsort((-gain[near], sizes, costs))[0]]
    reason = (
        f"largest expected improvement over the best expected outcome so far, "
        f"{gain[chosen] * _scale(state, model):.3g}, among {len(gain)} candidates"
    )
    warnings = state.posterior.warnings
    return _suggestion(state, model, candidates.interventions[chosen], reason, warnings)


def recommend(
    state: AcquisitionState, key: jax.Array, *, max_targets: int = MAX_TARGETS
) -> Suggestion:
    """The intervention with the best expected outcome by the model: what to do when trials end."""
    model = fit_outcome_model(state, key)
    candidates = _corners(state, model, max_targets)
    expected = candidates.means.mean(axis=1)
    near = np.flatnonzero(expected <= expected.min() + 0.01 * np.abs(expected.min()))
    sizes = np.array([len(candidates.interventions[i]) for i in near])
    chosen = near[np.lexsort((expected[near], sizes))[0]]
    reason = "best expected outcome of the target by the outcome model"
    warnings = state.posterior.warnings
    return _suggestion(state, model, candidates.interventions[chosen], reason, warnings)


def random_choice(state: AcquisitionState, key: jax.Array) -> Suggestion:
    """A random non-empty subset of up to three settable variables, at uniform values."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    names = list(state.problem.may_set)
    size = int(rng.integers(1, min(len(names), MAX_TARGETS) + 1))
    chosen = rng.choice(len(names), size=size, replace=False)
    values = {names[i]: float(rng.uniform(*state.range_of(names[i]))) for i in sorted(chosen)}
    column = state.buffer.rows()[0][:, state.problem.variables.index(state.problem.target)]
    return Suggestion(
        make_intervention(values),
        float(column.mean()),
        float(column.std()),
        state.problem.cost(values),
        "random choice of variables and values",
    )


def linear_oracle(scm: SCM, *, max_targets: int = MAX_TARGETS) -> Policy:
    """The best corner for a known linear system: what nobody who does not know it can beat."""
    model = LinearOutcomeModel.of_system(scm)

    def policy(state: AcquisitionState, key: jax.Array) -> Suggestion:
        candidates = _corners(state, model, max_targets)
        chosen = int(candidates.means[:, 0].argmin())
        return _suggestion(state, model, candidates.interventions[chosen], "knows the system", ())

    return policy


def fit_outcome_model(state: AcquisitionState, key: jax.Array) -> LinearOutcomeModel:
    """Take the state's graphs, or draw some from its posteriors, and a linear system for each."""
    k_graphs, k_weights = jax.random.split(key)
    graphs = state.graphs
    if graphs is None:
        graphs = sample_graphs(state.posteriors, state.problem.variables, N_GRAPHS, k_graphs)
    return LinearOutcomeModel.fit(state.buffer, graphs, k_weights)


class _Candidates(NamedTuple):
    interventions: list[dict[str, float]]
    means: np.ndarray  # [n_candidates, n_members], signed: always to be made small


def _corners(state: AcquisitionState, model: LinearOutcomeModel, max_targets: int) -> _Candidates:
    """All corners of the ranges of all subsets of the variables that seem to matter most."""
    problem, t = state.problem, model.variables.index(state.problem.target)
    names = _most_relevant(state, model, t)
    interventions: list[dict[str, float]] = []
    means = []
    ends = {name: state.range_of(name) for name in names}
    for size in range(1, min(max_targets, len(names)) + 1):
        signs = np.array(list(np.ndindex(*([2] * size))))
        for subset in combinations(names, size):
            chosen = [model.variables.index(name) for name in subset]
            slopes, _ = model.effects(t, chosen)
            values = np.array([ends[name] for name in subset])[np.arange(size), signs]
            unit = (values - model.scaling.means[chosen]) / model.scaling.stds[chosen]
            shift = np.einsum("ck,mk->cm", unit, slopes)
            shift -= np.einsum("mk,mk->m", model.base[:, chosen], slopes)
            means.append(problem.sign * (model.base[:, t] + shift))
            interventions += [dict(zip(subset, row, strict=True)) for row in values.tolist()]
    return _Candidates(interventions, np.concatenate(means))


def _most_relevant(state: AcquisitionState, model: LinearOutcomeModel, t: int) -> list[str]:
    names = list(state.problem.may_set)
    if len(names) <= MAX_SETTABLE:
        return names
    reach = {}
    for name in names:
        i = model.variables.index(name)
        low, high = state.range_of(name)
        width = (high - low) / model.scaling.stds[i]
        reach[name] = width * np.abs(model.total[:, i, t]).mean()
    kept = set(sorted(names, key=lambda name: -reach[name])[:MAX_SETTABLE])
    return [name for name in names if name in kept]


def _best_tried(state: AcquisitionState, model: LinearOutcomeModel) -> float:
    """The best expected outcome, by the model, of observing and of everything tried so far."""
    values, mask = state.buffer.all_rows()
    t, sign = model.variables.index(state.problem.target), state.problem.sign
    mask[:, t] = False
    best = sign * model.base[:, t].mean()
    for was_set in np.unique(mask[mask.any(axis=1)], axis=0):
        chosen = np.flatnonzero(was_set)
        tried = values[(mask == was_set).all(axis=1)][:, chosen]
        slopes, _ = model.effects(t, chosen.tolist())
        unit = (tried - model.scaling.means[chosen]) / model.scaling.stds[chosen]
        # The mean over members of base + slopes . (unit - base), row by row.
        offset = model.base[:, t] - np.einsum("mk,mk->m", model.base[:, chosen], slopes)
        expected = offset.mean() + unit @ slopes.mean(axis=0)
        best = min(best, float((sign * expected).min()))
    return float(best)


def _scale(state: AcquisitionState, model: LinearOutcomeModel) -> float:
    return float(model.scaling.stds[model.variables.index(state.problem.target)])


def _suggestion(
    state: AcquisitionState,
    model: LinearOutcomeModel,
    values: dict[str, float],
    reason: str,
    warnings: tuple[str, ...],
) -> Suggestion:
    mean, _, std = model.predict(state.problem.target, values)
    warnings += _extrapolates(state, mean)
    return Suggestion(
        make_intervention(values),
        mean,
        std,
        state.problem.cost(values),
        reason,
        warnings,
    )


def _extrapolates(state: AcquisitionState, mean: float) -> tuple[str, ...]:
    """Say so where the expected outcome lies outside of all outcomes so far."""
    low, high = state.outcome_range
    if low <= mean <= high:
        return ()
    target = state.problem.target
    return (
        f"the expected {target!r} of {mean:.4g} lies outside of all outcomes so far ({low:.4g} to "
        f"{high:.4g}): the outcome model is linear and extrapolates there",
    )
