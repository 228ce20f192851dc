"""Named problems: published systems, what may be set in them, and the best that can be reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.outcome import LinearOutcomeModel
from causal_bayes_opt.benchmarks import systems
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Direction, Intervention, Problem, make_intervention
from causal_bayes_opt.core.sample import Simulator, sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.errors import ProblemError, check_name


@dataclass(frozen=True)
class NamedProblem:
    """A known system with a known optimum.

    Attributes:
        name: its key in `PROBLEMS`.
        scm: the system, hidden variables included.
        problem: what is asked; its variables are those that are not hidden.
        optimum: the best expected outcome of the target over all interventions that the problem
            allows, on any number of variables.
        optimal_intervention: one that reaches it (there may be others).
        hidden: variables that nobody sees.
    """

    name: str
    scm: SCM
    problem: Problem
    optimum: float
    optimal_intervention: Intervention
    hidden: tuple[str, ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether all mechanisms are linear, so that expected outcomes have a closed form."""
        return all(m.function is None and not m.activations for m in self.scm.mechanisms.values())

    def simulator(self) -> Simulator:
        """The system as ``(intervention or None, n, seed) -> DataFrame`` without hidden columns."""

        def simulate(intervention: Intervention | None, n: int, seed: int) -> pd.DataFrame:
            self._check(intervention or {})
            frame = sample(self.scm, n, intervention=intervention, seed=seed)
            return frame.drop(columns=list(self.hidden))

        return simulate

    def expected_outcome(
        self, intervention: Mapping[str, float], *, n: int = 20_000, seed: int = 0
    ) -> float:
        """The target's mean under an intervention (empty: when only observing).

        In closed form for linear systems. For others, by Monte Carlo on `n` rows, as the difference
        to the optimal intervention under the same noise, added to the known optimum: the error
        that both have in common cancels.

        Raises:
            UnknownNameError: it sets a variable that is hidden or does not exist.
            ProblemError: it sets the target.
        """
        self._check(intervention)
        done = make_intervention(intervention)
        if self.is_linear:
            return _linear_model(self.scm).predict(self.problem.target, dict(done))[0]
        difference = self.sampled_outcome(done, n=n, seed=seed) - self.sampled_outcome(
            self.optimal_intervention, n=n, seed=seed
        )
        return self.optimum + difference

    def sampled_outcome(
        self, intervention: Mapping[str, float], *, n: int = 20_000, seed: int = 0
    ) -> float:
        """The target's mean under an intervention over `n` simulated rows."""
        done = make_intervention(intervention)
        return _mean_by_sampling(self.scm, self.problem.target, n=n, seed=seed, intervention=done)

    def data(
        self, n_observations: int, experiments_per_variable: int, seed: int
    ) -> ExperienceBuffer:
        """Rows to begin with: observations, then experiments on one settable variable each.

        The values set are uniform over the variable's range.
        """
        simulate = self.simulator()
        buffer = ExperienceBuffer(self.problem.variables)
        buffer.add_observations(simulate(None, n_observations, seed))
        rng = np.random.default_rng(seed)
        for name in self.problem.may_set:
            low, high = self.range_of(name)
            for _ in range(experiments_per_variable):
                done = make_intervention({name: float(rng.uniform(low, high))})
                row = simulate(done, 1, int(rng.integers(2**31))).drop(columns=DO_COLUMN)
                buffer.add_intervention(done, {str(k): float(v) for k, v in row.iloc[0].items()})
        return buffer

    def range_of(self, name: str) -> tuple[float, float]:
        """The range of a settable variable; every named problem states it."""
        found = self.problem.range_of(name)
        if found is None:
            raise ProblemError(f"{name!r} cannot be set in the problem {self.name!r}")
        return found

    def _check(self, intervention: Mapping[str, float]) -> None:
        for name in intervention:
            check_name(name, self.problem.variables, "variable")
            if name == self.problem.target:
                raise ProblemError(f"the target {name!r} is what is measured; it cannot be set")


def named_problem(name: str) -> NamedProblem:
    """The problem of a name, one of `PROBLEMS`.

    Raises:
        UnknownNameError: there is none of that name; the message offers the nearest.
    """
    check_name(name, PROBLEMS, "problem")
    return _built(name)


def _toy(name: str, shift: float, z_range: tuple[float, float]) -> NamedProblem:
    ranges = {"X": (-5.0, 5.0), "Z": z_range}
    # Minimum of cos z - exp(-z / 20).
    return _problem(name, systems.toy(shift), ranges, -2.1718057, {"Z": -3.2003028})


def _health(name: str, bmi_weight: float, optimum: float) -> NamedProblem:
    ranges = {"aspirin": (0.0, 1.0), "statin": (0.0, 1.0)}
    best = {"aspirin": 0.0, "statin": 1.0}
    return _problem(name, systems.health(bmi_weight), ranges, optimum, best)


def _epidemiology(name: str) -> NamedProblem:
    """Ranges of Durand et al. (2025). The optimum recurs every pi in R; this is one of three."""
    ranges = {"T": (4.0, 8.0), "R": (5.0, 15.0)}
    best = {"T": 7.0685925, "R": 12.2645598}
    return _problem(name, systems.epidemiology(), ranges, -1.4998429, best)


def _complete(name: str) -> NamedProblem:
    """Settable are the members of the published exploration sets; F is not among them."""
    ranges = {"B": (-5.0, 4.0), "D": (-5.0, 5.0), "E": (-6.0, 3.0)}
    best = {"B": -5.0, "D": 3.3429506}
    return _problem(name, systems.complete(), ranges, -3.4830554, best, hidden=("U1", "U2"))


def _linear(name: str) -> NamedProblem:
    """Random linear systems of Durand et al. (2025), with everything but the target settable.

    The optimum is over all sets of variables. It can lie below that of setting all parents, whose
    ranges bound what is set but not what follows: two ancestors push a parent beyond its own.
    """
    record = linear_records()[name]
    scm = systems.linear_system(
        record["variables"], record["edges"], record["noise"], record["target"]
    )
    return _problem(name, scm, record["ranges"], record["optimum"], record["optimal_intervention"])


def _problem(
    name: str,
    scm: SCM,
    ranges: Mapping[str, tuple[float, float]],
    optimum: float,
    best: Mapping[str, float],
    hidden: tuple[str, ...] = (),
    direction: Direction = "minimize",
) -> NamedProblem:
    seen = tuple(variable for variable in scm.variables if variable not in hidden)
    assert scm.target is not None
    fixed = {variable: (low, high) for variable, (low, high) in ranges.items()}
    problem = Problem(seen, scm.target, direction, fixed, tuple(fixed))
    return NamedProblem(name, scm, problem, optimum, make_intervention(best), hidden)


PROBLEMS: Mapping[str, Callable[[str], NamedProblem]] = MappingProxyType(
    {
        "health": partial(_health, bmi_weight=0.15, optimum=13.0602870),
        "health-minus-bmi": partial(_health, bmi_weight=-0.15, optimum=5.1552870),
        "toy": partial(_toy, shift=0.0, z_range=(-5.0, 20.0)),
        "toy-shifted": partial(_toy, shift=4.0, z_range=(-5.5, 13.0)),
        "epidemiology": _epidemiology,
        "complete": _complete,
        "er10": _linear,
        "er15": _linear,
        "er20": _linear,
    }
)
"""The names of all problems, each with the function that builds it."""


@cache
def linear_records() -> dict[str, dict[str, Any]]:
    """The linear systems as published: edges, ranges and optima, by name."""
    file = resources.files("causal_bayes_opt.benchmarks") / "linear_systems.json"
    records: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return records


@cache
def _built(name: str) -> NamedProblem:
    return PROBLEMS[name](name)


@lru_cache(maxsize=32)
def _linear_model(scm: SCM) -> LinearOutcomeModel:
    return LinearOutcomeModel.of_system(scm)


@lru_cache(maxsize=64)
def _mean_by_sampling(
    scm: SCM, target: str, *, n: int, seed: int, intervention: Intervention
) -> float:
    """Mean over `n` rows of the target's mechanism at its parents; its own noise has mean 0."""
    mechanism = scm.mechanism(target)
    rows = sample(scm, n, intervention=intervention, seed=seed)
    return float(mechanism.mean(rows[list(mechanism.parents)].to_numpy()).mean())
