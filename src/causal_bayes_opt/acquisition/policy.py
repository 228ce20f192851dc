"""Policies: functions from a state to the next experiment. Here those that ask an outcome model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import jax
import numpy as np
from scipy.special import ndtr

from causal_bayes_opt.acquisition.causes import Causes, chances_of_effects, judged, suspected
from causal_bayes_opt.acquisition.discrepancy import corrected
from causal_bayes_opt.acquisition.graph_samples import listed_sets, sample_graphs
from causal_bayes_opt.acquisition.linearity import is_linear, standardised_evidence
from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel, OutcomeModel
from causal_bayes_opt.acquisition.search import (
    MAX_SETTABLE,
    Found,
    Tried,
    like_failed,
    search,
    tried_so_far,
)
from causal_bayes_opt.acquisition.smooth_outcome import SmoothOutcomeModel
from causal_bayes_opt.acquisition.state import N_GRAPHS, AcquisitionState
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.intervention import Intervention, make_intervention, number_text

_WORTH_IT = 0.01  # of what has been gained so far
_HORIZON = 20  # trials in which an improvement is earned
_CAUTION = 0.25  # deviations that certainty is worth where forecasts are approximate


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
    state: AcquisitionState, key: jax.Array, *, max_targets: int = MAX_SETTABLE
) -> Suggestion:
    """Expected improvement of the expected outcome less its price, joint interventions allowed.

    The improvement is over the best expected outcome among what was tried, and is earned in every
    trial that follows; its price is how much worse than that best the trial itself is expected to
    be, paid once: a twentieth of it counts (the online knowledge gradient of Ryzhov, Powell and
    Frazier, Operations Research 60, 2012, with expected improvement in place of theirs). Both are
    convex in mean and deviation and do not fall with the deviation, so that outcomes that are
    linear in the values set have the maximum over a box at a corner. Among interventions within a
    twentieth of the best, the cheapest wins, then the one that sets fewest variables. Where
    nothing promises a hundredth of what has been gained over doing nothing, the best so far is
    done again (unless nothing has been gained, or it failed once): a regret that small is not worth
    looking for. At most `max_targets` variables are set, fewer where the problem says so.
    """
    k_model, k_search = keys.split(key)
    model = fit_outcome_model(state, k_model)
    done = tried_so_far(state, model, max_targets)
    best = done.means[done.best].mean()
    failed = like_failed(state, done.candidates)
    found = search(state, model, partial(_worth, best), k_search, max_targets, done.without(failed))
    most = found.scores.max()
    # The first of what is known is to set nothing, which is no experiment.
    may_repeat = done.best > 0 and not failed[done.best]
    if may_repeat and most < _WORTH_IT * (done.means[0].mean() - best):
        reason = "nothing promises much more than the best expected outcome so far: that again"
        return _suggestion(state, model, done.candidates, done.best, reason)
    near = np.flatnonzero(found.scores >= most - 0.05 * abs(most))
    chosen = _cheapest(state, found, near)
    gain = float(_improvement(best, found.means[[chosen]])[0]) * _scale(state, model)
    reason = (
        f"largest expected improvement for its price, {gain:.3g} over the best expected outcome "
        f"so far, among {len(found.scores)} candidates"
    )
    return _suggestion(state, model, found.candidates, chosen, reason)


def thompson_sampling(
    state: AcquisitionState, key: jax.Array, *, max_targets: int = MAX_SETTABLE
) -> Suggestion:
    """The best intervention by one member of the outcome model, drawn at random.

    A member is a draw of graph and mechanisms from their posterior (Thompson 1933).
    """
    k_model, k_search, k_member = keys.split(key, 3)
    model = fit_outcome_model(state, k_model)
    uniform = keys.generator(k_member).random()

    def score(means: np.ndarray) -> np.ndarray:
        return -means[:, int(uniform * means.shape[1])]

    found = search(state, model, score, k_search, max_targets)
    near = np.flatnonzero(found.scores >= found.scores.max() - 1e-9)
    chosen = _cheapest(state, found, near)
    return _suggestion(
        state, model, found.candidates, chosen, "best under one draw of graph and mechanisms"
    )


def recommend(
    state: AcquisitionState, key: jax.Array, *, max_targets: int = MAX_SETTABLE
) -> Suggestion:
    """What to do when trials end: the best expected outcome.

    Where mechanisms are not linear, less a quarter of its deviation: forecasts are approximate
    there, and the best of several hundred is a lucky one (the winner's curse). Of those within a
    hundredth of the best, the one that sets fewest variables. What failed counts as impossible
    unless something like it gave outcomes, too. Where doing nothing is better than all of them, a
    warning says so.
    """
    k_model, k_search = keys.split(key)
    model = fit_outcome_model(state, k_model)
    done = tried_so_far(state, model, max_targets)
    state = _without_bad_luck(state, done)
    score = _expected if model.corners_suffice else _cautious
    found = search(state, model, score, k_search, max_targets, done)
    best = found.scores.max()
    near = np.flatnonzero(found.scores >= best - 0.01 * abs(best))
    sizes = found.candidates.there[near].sum(axis=1)
    chosen = int(near[np.lexsort((-found.scores[near], sizes))[0]])
    reason = "best expected outcome of the target by the outcome model"
    suggestion = _suggestion(state, model, found.candidates, chosen, reason)
    if found.means[chosen].mean() <= done.means[0].mean():
        return suggestion
    worse = f"nothing that may be set is expected to improve {state.problem.target!r}: do nothing"
    return replace(suggestion, warnings=(*suggestion.warnings, worse))


def fit_outcome_model(state: AcquisitionState, key: jax.Array) -> OutcomeModel:
    """Take the state's graphs, or draw some from its posteriors, and mechanisms for each.

    Mechanisms are linear where the data speak for it (`linearity.seems_linear`), and then outcomes
    of the target alone count, too (see `target_alone`). Elsewhere they are Gaussian processes, the
    posterior of the target's causes is doubted and pooled with their evidence (see `causes`), and
    what experiments say against them counts (see `discrepancy`).
    """
    k_graphs, k_weights = keys.split(key)
    names, target = state.problem.variables, state.problem.target
    if state.systems is not None:
        return state.systems.outcome_model(keys.generator(k_weights))
    if is_linear(state):
        graphs = state.graphs
        if graphs is None:
            graphs = sample_graphs(state.posteriors, names, N_GRAPHS, k_graphs)
        return LinearOutcomeModel.fit(state.buffer, graphs, k_weights)
    ranges = {name: state.range_of(name) for name in state.problem.may_set}
    causes = causes_of(state, ranges)
    graphs = sample_graphs(state.posteriors, names, N_GRAPHS, k_graphs, {target: causes})
    model = SmoothOutcomeModel.fit(state.buffer, graphs, target, k_weights, ranges)
    rng = keys.generator(keys.numbered(k_weights, 1))
    return corrected(model, state.buffer, ranges, rng)


def _without_bad_luck(state: AcquisitionState, done: Tried) -> AcquisitionState:
    """The same without failures of what has worked as well."""

    def never_worked(failed: Intervention) -> bool:
        return not like_failed(replace(state, failed=(failed,)), done.candidates).any()

    return replace(state, failed=tuple(filter(never_worked, state.failed)))


def causes_of(state: AcquisitionState, ranges: Mapping[str, tuple[float, float]]) -> Causes:
    """What may cause the target, where mechanisms are not linear; see `causes`."""
    names, target = state.problem.variables, state.problem.target
    t, posteriors = names.index(target), state.posteriors
    edges = np.array([[posteriors[j].marginals.get(i, 0.0) for j in names] for i in names])
    # No posterior is 0 but of what was ruled out.
    chances = np.where(edges[:, t] > 0, 1.0 - edges[t], 0.0)
    suspects = suspected(Causes(*listed_sets(posteriors, target, names)), chances)
    evidence, usual = standardised_evidence(state.buffer, ranges)
    return judged(suspects, t, evidence, usual, chances_of_effects(edges, t))


def _worth(best: float, means: np.ndarray) -> np.ndarray:
    """The improvement, less the part of a trial's own price that one of those to come bears."""
    price = np.asarray(means.mean(axis=1) - best)
    return _improvement(best, means) - price / _HORIZON


def _improvement(best: float, means: np.ndarray) -> np.ndarray:
    """E max(best - f, 0) for f normal with the members' mean and deviation (Mockus 1978).

    Members are few: their own average would see no improvement that one in a hundred has.
    """
    mean, deviation = means.mean(axis=1), np.maximum(means.std(axis=1), 1e-12)
    z = (best - mean) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)))


def _expected(means: np.ndarray) -> np.ndarray:
    return np.asarray(-means.mean(axis=1))


def _cautious(means: np.ndarray) -> np.ndarray:
    return np.asarray(_expected(means) - _CAUTION * means.std(axis=1))


def _cheapest(state: AcquisitionState, found: Found, near: np.ndarray) -> int:
    """Of some candidates the cheapest, then the smallest, then the best."""
    problem = state.problem
    sizes = costs = found.candidates.there[near].sum(axis=1)
    if problem.costs:
        named = (found.candidates.named(int(i), problem.variables) for i in near)
        costs = np.array([problem.cost(values) for values in named])
    return int(near[np.lexsort((-found.scores[near], sizes, costs))[0]])


def _scale(state: AcquisitionState, model: OutcomeModel) -> float:
    return float(model.scaling.stds[model.variables.index(state.problem.target)])


def _suggestion(
    state: AcquisitionState, model: OutcomeModel, candidates: Candidates, chosen: int, reason: str
) -> Suggestion:
    values = candidates.named(chosen, model.variables)
    mean, _, std = model.predict(state.problem.target, values)
    return Suggestion(
        make_intervention(values),
        mean,
        std,
        state.problem.cost(values),
        reason,
        (*state.posterior.warnings, *_extrapolates(state, mean)),
    )


def _extrapolates(state: AcquisitionState, mean: float) -> tuple[str, ...]:
    """Say so where the expected outcome lies outside of all outcomes so far."""
    low, high = state.outcome_range
    if low <= mean <= high:
        return ()
    expected, least, most = (number_text(value, high - low, 4) for value in (mean, low, high))
    return (
        f"the expected {state.problem.target!r} of {expected} lies outside of all outcomes so far "
        f"({least} to {most}): the outcome model extrapolates there",
    )
