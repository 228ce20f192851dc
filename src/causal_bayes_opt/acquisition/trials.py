"""Trials in a row: ask a policy, run the experiment, tell the buffer, and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from causal_bayes_opt.acquisition.policy import Policy, Suggestion
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem
from causal_bayes_opt.core.sample import Simulator
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.surrogate.protocol import Surrogate


@dataclass(frozen=True)
class Trial:
    """One experiment: what was tried, what came out, and what was recommended after it."""

    suggestion: Suggestion
    outcome: float
    recommended: Intervention


def run_trials(
    simulate: Simulator,
    problem: Problem,
    buffer: ExperienceBuffer,
    surrogate: Surrogate,
    policy: Policy,
    recommend: Policy,
    n_trials: int,
    seed: int,
    report: Callable[[int], None] | None = None,
) -> list[Trial]:
    """Run trials on a simulator, each one outcome of one experiment.

    Args:
        simulate: ``(intervention, n, seed) -> DataFrame``.
        problem: what is asked.
        buffer: the rows to begin with; it is not changed.
        surrogate: gives the posteriors before each trial.
        policy: chooses the experiment.
        recommend: after each trial, what would be chosen if trials ended there.
        n_trials: number of trials.
        seed: of the policy and of the outcomes.
        report: called with the number of trials done.
    """
    buffer = buffer.copy()
    key = jax.random.key(seed)
    state = AcquisitionState.start(buffer, problem, surrogate, key=key)
    trials = []
    for number in range(n_trials):
        own = jax.random.fold_in(key, number)
        suggestion = policy(state, own)
        row = simulate(suggestion.intervention, 1, seed * 100_003 + number)
        row = row.drop(columns=DO_COLUMN, errors="ignore")
        outcome = {str(name): float(value) for name, value in row.iloc[0].items()}
        buffer.add_intervention(suggestion.intervention, outcome)
        state = AcquisitionState.start(buffer, problem, surrogate, key=own, step=number + 1)
        recommended = recommend(state, jax.random.fold_in(own, 1)).intervention
        trials.append(Trial(suggestion, outcome[problem.target], recommended))
        if report is not None:
            report(number + 1)
    return trials
