"""Random problems: systems of a family with a target, ranges, and an optimum that is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import jax
import numpy as np

from causal_bayes_opt.acquisition.baselines import oracle
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.benchmarks.problems import NamedProblem
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import ancestors, random_graph
from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.errors import ProblemError, check_name

N_OBSERVATIONS = 100
_MOST_PARENTS = 3
_ATTEMPTS = 100
_SEARCHES = 8
_LEAST_SPAN = 0.05  # of the target's deviation: less is nothing that experiments could show


@dataclass(frozen=True)
class Family:
    """What random problems of a family have in common.

    Attributes:
        mechanisms: see `SystemDistribution`.
        graph: a key of `core.graphs.FAMILIES`.
        n_vars: fewest and most variables.
        scaling: see `SystemDistribution`; without it polynomials mostly run into their bound.
    """

    mechanisms: tuple[str, ...]
    graph: str = "erdos_renyi"
    n_vars: tuple[int, int] = (3, 8)
    scaling: str = "none"


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "linear": Family(("linear",)),
        "linear-large": Family(("linear",), n_vars=(9, 20)),
        "chain": Family(("linear",), "chain"),
        "fork": Family(("linear",), "fork"),
        "collider": Family(("linear",), "collider", (3, 4)),
        "scale-free": Family(("linear",), "scale_free"),
        "polynomial": Family(("polynomial",), scaling="iscm"),
        "sigmoid": Family(("sigmoid",), scaling="iscm"),
        "neural": Family(("neural",), scaling="iscm"),
        "nonlinear-large": Family(
            ("polynomial", "sigmoid", "neural"), n_vars=(9, 30), scaling="iscm"
        ),
    }
)
"""The families by name."""


@lru_cache(maxsize=256)
def random_problem(family: str, number: int) -> NamedProblem:
    """Problem `number` of a family.

    The target is the variable with most parents, but at most 3. Every other variable may be set,
    over the range of `N_OBSERVATIONS` observed rows. The optimum is over all sets of up to three
    variables, for linear systems over all sets of up to eight of the twelve that matter most.
    Systems in which nothing that can be set moves the target are left out.

    Raises:
        UnknownNameError: no such family.
        ProblemError: a hundred systems in a row had nothing to set.
    """
    check_name(family, FAMILIES, "family of problems")
    for attempt in range(_ATTEMPTS):
        found = _problem(family, FAMILIES[family], number, attempt)
        if found is not None:
            return found
    raise ProblemError(f"no system of the family {family!r} has a target that can be moved")


def _problem(name: str, family: Family, number: int, attempt: int) -> NamedProblem | None:
    code = sum(ord(letter) * 31**i for i, letter in enumerate(name)) % 2**31
    rng = np.random.default_rng((code, number, attempt))
    d = int(rng.integers(family.n_vars[0], family.n_vars[1] + 1))
    graph = random_graph(family.graph, rng, d)
    seed = int(rng.integers(2**31))
    distribution = SystemDistribution(mechanisms=family.mechanisms, scaling=family.scaling)
    scm = random_scm(seed, d, distribution, graph)
    parents = graph.sum(axis=0)
    target = int(np.argmax(np.where(parents <= _MOST_PARENTS, parents, -1)))
    if not ancestors(graph, target).any():
        return None
    scm = scm.with_target(scm.variables[target])
    observed = sample(scm, N_OBSERVATIONS, seed=seed)
    others = [v for v in scm.variables if v != scm.target]
    ranges = {v: (float(observed[v].min()), float(observed[v].max())) for v in others}
    assert scm.target is not None
    problem = Problem(scm.variables, scm.target, ranges=ranges)
    state = AcquisitionState(ExperienceBuffer.from_dataframe(observed), problem, {})
    best, optimum = _best(NamedProblem(name, scm, problem, 0.0, make_intervention({})), state)
    kept = NamedProblem(f"{name} {number}", scm, problem, optimum, best)
    span = abs(optimum - kept.expected_outcome({}))
    if span < _LEAST_SPAN * float(observed[scm.target].std()):
        return None
    return kept


def _best(named: NamedProblem, state: AcquisitionState) -> tuple[Intervention, float]:
    """The optimal intervention and its expected outcome: exact for linear systems.

    For others the best of several searches, by the large sample of `expected_outcome`.
    """
    others = len(named.problem.may_set)
    if named.is_linear:
        best = oracle(named.scm, max_targets=min(others, 8))(state, jax.random.key(0))
        return best.intervention, best.predicted_mean
    knows = oracle(named.scm)
    found = [knows(state, jax.random.key(number)).intervention for number in range(_SEARCHES)]
    outcomes = [named.sampled_outcome(each) for each in found]
    best_one = int(np.argmin(outcomes))
    return found[best_one], outcomes[best_one]
