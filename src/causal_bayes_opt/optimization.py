"""A whole study in one call: rows and a system to experiment on in, best intervention out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.baselines import random_choice, random_over_parents
from causal_bayes_opt.acquisition.policy import (
    Policy,
    Suggestion,
    expected_improvement,
    recommend,
    thompson_sampling,
)
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.api import Data, check_question, read_data
from causal_bayes_opt.core.intervention import Intervention, Problem
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.errors import ConfigError, DataError, check_name
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.router import surrogate_named

Experiment: TypeAlias = Callable[[dict[str, float] | None, int, int], pd.DataFrame]
SEEDS = 2**32

POLICIES: dict[str, Policy] = {
    "auto": expected_improvement,
    "expected_improvement": expected_improvement,
    "thompson_sampling": thompson_sampling,
    "random": random_choice,
    "random_over_parents": random_over_parents,
}


@dataclass(frozen=True)
class StudyResult:
    """What a study found, in the user's units.

    Attributes:
        trials: a row a trial: ``trial``, ``do`` (what was set, ``;`` between names), every
            variable's value, ``predicted_mean``, ``predicted_std``, ``cost``, and ``error``, empty
            where the trial came off.
        best_intervention: what the outcome model recommends after the last trial.
        best_value: the target's mean that the model expects of it.
        posterior: over the target's parent sets, after the last trial.
    """

    trials: pd.DataFrame
    best_intervention: Intervention
    best_value: float
    posterior: ParentSetPosterior


def optimize(
    simulate: Experiment,
    problem: Problem,
    observations: Data,
    trials: int,
    seed: int = 0,
    surrogate: str | Surrogate = "auto",
    policy: str | Policy = "auto",
    *,
    report: Callable[[int, Suggestion], None] | None = None,
) -> StudyResult:
    """Run a study: suggest, experiment, learn, and again; then recommend.

    A trial that fails (the system raises an error, or gives no finite row) is recorded with its
    reason, counts against the budget, and the study goes on.

    Args:
        simulate: the system, ``(intervention or None, n, seed) -> DataFrame`` of n rows with a
            column for each variable.
        problem: target, direction, what may be set, ranges, costs.
        observations: rows to begin with; see `infer_parents`. They are not changed.
        trials: how many experiments may be made.
        seed: the same seed, and a system that follows its own, give the same study.
        surrogate: a method of `infer_parents`, or any surrogate.
        policy: ``"auto"``, one of `POLICIES`, or any policy.
        report: called with the number of each trial and what is tried in it.

    Raises:
        ConfigError: no trials, or an impossible seed.
        DataError: observations that cannot be used, or every trial failed.
        ProblemError: nothing may be set, an impossible range, or other variables than the rows'.
        UnknownNameError: no such surrogate or policy.
    """
    if trials < 1:
        raise ConfigError(f"{trials} trials: the budget is spent before the first experiment")
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0 to {SEEDS - 1}")
    believe = surrogate_named(surrogate) if isinstance(surrogate, str) else surrogate
    choose = _policy(policy)
    buffer = read_data(observations).copy()
    check_question(buffer, problem.target)
    key = jax.random.key(seed)
    state = AcquisitionState.start(buffer, problem, believe, key=key)
    records = []
    for number in range(trials):
        own = jax.random.fold_in(key, number)
        suggestion = choose(state, own)
        if report is not None:
            report(number + 1, suggestion)
        outcome, error = _run(simulate, suggestion, problem, seed * 100_003 + number)
        records.append(_record(number, suggestion, problem, outcome, error))
        if outcome:
            buffer.add_intervention(suggestion.intervention, outcome)
            state = AcquisitionState.start(buffer, problem, believe, key=own, step=number + 1)
    table = pd.DataFrame(records)
    if (table["error"] != "").all():
        raise DataError(f"all {trials} trials failed; the last one: {table['error'].iloc[-1]}")
    best = recommend(state, jax.random.fold_in(key, trials))
    return StudyResult(table, best.intervention, best.predicted_mean, state.posterior)


def _policy(policy: str | Policy) -> Policy:
    if isinstance(policy, str):
        check_name(policy, POLICIES, "policy")
        return POLICIES[policy]
    return policy


def _run(
    simulate: Experiment, suggestion: Suggestion, problem: Problem, seed: int
) -> tuple[dict[str, float], str]:
    """The outcome of an experiment, or why there is none."""
    try:
        rows = simulate(dict(suggestion.intervention), 1, seed)
        row = rows.drop(columns=DO_COLUMN, errors="ignore").iloc[0]
        outcome = {name: float(row[name]) for name in problem.variables}
    except Exception as error:  # noqa: BLE001  # the system is the user's: it may raise anything
        return {}, f"{type(error).__name__}: {error}"
    missing = [name for name, value in outcome.items() if not np.isfinite(value)]
    if missing:
        return {}, f"{missing[0]!r} has no finite value"
    return {**outcome, **suggestion.intervention}, ""


def _record(
    number: int,
    suggestion: Suggestion,
    problem: Problem,
    outcome: Mapping[str, float],
    error: str,
) -> dict[str, Any]:
    done = [name for name in problem.variables if name in suggestion.intervention]
    values = outcome or suggestion.intervention
    return {
        "trial": number + 1,
        DO_COLUMN: ";".join(done),
        **{name: values.get(name, np.nan) for name in problem.variables},
        "predicted_mean": suggestion.predicted_mean,
        "predicted_std": suggestion.predicted_std,
        "cost": suggestion.cost,
        "error": error,
    }
