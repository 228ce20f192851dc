"""Studies on problems with a known optimum: contenders ask and are told, and regret is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policy import Policy, recommend
from causal_bayes_opt.benchmarks.problems import NamedProblem
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.expert import parent_scale
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.state import ParentScaleState
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate

CHECKPOINTS = (1, 2, 5, 10, 15, 20)  # trials after which a recommendation is asked for
_SAMPLE = 5000  # rows for expected outcomes that have no closed form


class Contender(Protocol):
    """A method in one study: asked for experiments, told what came out."""

    def ask(self) -> Intervention:
        """The next experiment."""
        ...

    def tell(self, intervention: Intervention, rows: pd.DataFrame) -> None:
        """Take the rows that came out of an experiment, one or many, in the user's units."""
        ...

    def recommend(self) -> Intervention:
        """What it would do if trials ended here."""
        ...


# From a problem, the rows to begin with and a seed.
Entry = Callable[[Problem, ExperienceBuffer, int], Contender]


@dataclass(frozen=True)
class Study:
    """What one contender did on one problem.

    Attributes:
        regret: normalised simple regret of what is recommended after each of `CHECKPOINTS` as far
            as there are so many trials: 0 is the optimum, 1 is doing nothing.
        outcomes: expected outcome of what each trial set ``[n_trials]``.
        noisy: what each trial gave: one outcome, or the mean of many ``[n_trials]``.
        values: expected outcome of what is recommended, likewise.
        seconds: of each decision, posterior included ``[n_trials]``.
        gap: the measure of Branchini et al. (2023) of the expected outcomes.
        noisy_gap: the same of what the trials gave.
    """

    regret: np.ndarray
    outcomes: np.ndarray
    noisy: np.ndarray
    values: np.ndarray
    seconds: np.ndarray
    gap: float
    noisy_gap: float


def run_study(
    named: NamedProblem,
    buffer: ExperienceBuffer,
    entry: Entry,
    trials: int,
    seed: int,
    outcomes_a_trial: int = 1,
) -> Study:
    """Run one study; every contender gets the same rows, and the same noise in its trials."""
    contender = entry(named.problem, buffer, seed)
    simulate, target = named.simulator(), named.problem.target
    nothing = named.expected_outcome({}, n=_SAMPLE)
    outcomes, noisy, values, seconds = [], [], [], []
    wanted = [k for k in CHECKPOINTS if k <= trials]
    for number in range(trials):
        began = time.perf_counter()
        intervention = contender.ask()
        seconds.append(time.perf_counter() - began)
        rows = simulate(intervention, outcomes_a_trial, seed * 100_003 + number)
        contender.tell(intervention, rows.drop(columns=DO_COLUMN, errors="ignore"))
        outcomes.append(named.expected_outcome(intervention, n=_SAMPLE))
        noisy.append(float(rows[target].mean()))
        if number + 1 in wanted:
            values.append(named.expected_outcome(contender.recommend(), n=_SAMPLE))
    sign, span = named.problem.sign, abs(named.optimum - nothing)
    return Study(
        sign * (np.array(values) - named.optimum) / span,
        np.array(outcomes),
        np.array(noisy),
        np.array(values),
        np.array(seconds),
        gap(sign * np.array(outcomes), sign * named.optimum),
        gap(sign * np.array(noisy), sign * named.optimum),
    )


def gap(outcomes: Sequence[float] | np.ndarray, optimum: float) -> float:
    """GAP of Branchini et al. (2023), for outcomes that are to be made small.

    ``[(y_best - y_start) / (y* - y_start) + (H - H_best) / H] / [1 + (H - 1) / H]`` with the first
    outcome as y_start and H_best the trial (from 1) of the best; 1 where the first is the optimum.
    An outcome beyond the optimum, by chance, counts as the optimum.
    """
    y = np.maximum(np.asarray(outcomes, dtype=np.float64), optimum)
    h = len(y)
    if np.isclose(y[0], optimum, rtol=1e-9, atol=1e-12):
        return 1.0
    best = int(np.argmin(y))
    reached = (y[best] - y[0]) / (optimum - y[0])
    return float((reached + (h - best - 1) / h) / (1 + (h - 1) / h))


def by_policy(
    policy: Policy,
    surrogate: Surrogate,
    recommended: Policy = recommend,
    prior: EdgePrior | None = None,
) -> Entry:
    """A policy with a surrogate as contender, and what it is told about edges beforehand."""
    return lambda problem, buffer, seed: _PolicyContender(
        ACBOPipeline(
            SurrogateUpdate(surrogate, seed, prior),
            policy,
            buffer,
            problem,
            recommendation=recommended,
            seed=seed,
        )
    )


def by_parent_scale(options: ParentScaleOptions) -> Entry:
    """PARENT_SCALE as contender.

    As published it takes the mean of a trial's outcomes for its choice and one row for its
    posterior. It recommends the trial with the best mean.
    """
    return lambda problem, buffer, seed: _ParentScaleContender(
        parent_scale.init(buffer, problem, options, seed=seed)
    )


@dataclass
class _PolicyContender:
    pipeline: ACBOPipeline

    def ask(self) -> Intervention:
        return self.pipeline.ask().intervention

    def tell(self, intervention: Intervention, rows: pd.DataFrame) -> None:
        self.pipeline.tell(intervention, rows)

    def recommend(self) -> Intervention:
        # A copy, so that the posterior after a trial counts to the next decision's seconds.
        return copy(self.pipeline).recommend().intervention


@dataclass
class _ParentScaleContender:
    state: ParentScaleState

    def ask(self) -> Intervention:
        return parent_scale.suggest(self.state).intervention

    def tell(self, intervention: Intervention, rows: pd.DataFrame) -> None:
        mean = float(rows[self.state.problem.target].mean())
        outcome = {str(name): float(value) for name, value in rows.iloc[0].items()}
        self.state = parent_scale.observe(
            self.state, intervention, outcome, mean=mean, n_samples=len(rows)
        )

    def recommend(self) -> Intervention:
        sign = self.state.problem.sign
        made = self.state.tried[-self.state.n_trials :]
        return min(made, key=lambda trial: sign * trial.mean).intervention
