"""What is lost where experiments measure the target alone: studies of the same linear systems.

The default policy chooses; told is the whole row of each experiment, the target alone, or nothing
at all. Asked are the target's causes, and which experiment is best.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from benchmarks.intervals import mean_told
from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policies import policy_named
from causal_bayes_opt.benchmarks.families import random_problem
from causal_bayes_opt.benchmarks.problems import NamedProblem
from causal_bayes_opt.core.intervention import Intervention
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.surrogate.router import auto_posterior

SYSTEMS, ROWS, TRIALS = 40, 25, 10
_LEAST = 1e-12


class _Found(NamedTuple):
    """After a study: surprise at the true parents, and normalised regret."""

    nats: float
    regret: float


def rows() -> list[dict[str, object]]:
    systems = [random_problem("linear", number) for number in range(SYSTEMS)]
    return [_row(told, systems) for told in ("nothing", "the target alone", "the whole row")]


def _row(told: str, systems: list[NamedProblem]) -> dict[str, object]:
    found = [_study(named, told, seed) for seed, named in enumerate(systems)]
    nats, regret = (np.array(column) for column in zip(*found, strict=True))
    return {
        "what": f"{TRIALS} experiments on {SYSTEMS} linear systems, n={ROWS}, told: {told}",
        "measured": f"{mean_told(nats, '.2f')} nats of the true parents",
        "bar": "",
        "note": f"normalised regret {mean_told(regret)}, median {np.median(regret):.4f}",
    }


def _study(named: NamedProblem, told: str, seed: int) -> _Found:
    target, simulate = named.problem.target, named.simulator()
    study = ACBOPipeline(
        SurrogateUpdate(auto_posterior),
        policy_named("auto"),
        named.data(ROWS, 0, seed),
        named.problem,
        seed=seed,
    )
    for number in range(TRIALS if told != "nothing" else 0):
        done = study.ask().intervention
        row = simulate(done, 1, seed * 100_003 + number).drop(columns=DO_COLUMN)
        study.tell(done, row[[target]] if told == "the target alone" else row)
    true = frozenset(named.scm.parents(target))
    return _Found(
        -math.log(max(study.state.posterior.probability(true), _LEAST)),
        _regret(named, study.recommend().intervention),
    )


def _regret(named: NamedProblem, done: Intervention) -> float:
    reached, nothing = named.expected_outcome(done), named.expected_outcome({})
    return named.problem.sign * (reached - named.optimum) / abs(named.optimum - nothing)
