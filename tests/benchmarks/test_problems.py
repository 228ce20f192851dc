"""Named problems: the stated optimum is the optimum, and nobody sees what is hidden."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from causal_bayes_opt.benchmarks.problems import (
    PROBLEMS,
    NamedProblem,
    linear_records,
    named_problem,
)
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ProblemError, UnknownNameError

LINEAR = tuple(linear_records())
NONLINEAR = tuple(name for name in PROBLEMS if name not in LINEAR)
STANDARD_ERRORS = 5


def noise_of(scm: SCM, n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {}
    for name in scm.variables:
        noise = scm.mechanism(name).noise
        width = np.sqrt(3.0)
        unit = rng.uniform(-width, width, n) if noise.family == "uniform" else rng.normal(size=n)
        drawn[name] = noise.scale * unit
    return drawn


def outcomes(
    problem: NamedProblem, names: Sequence[str], settings: np.ndarray, n: int, seed: int = 0
) -> np.ndarray:
    """The target without its own noise ``[n_settings, n]``, by a simulation of its own."""
    scm = problem.scm
    rows: dict[str, np.ndarray] = {}
    noise = noise_of(scm, n, seed)
    shape = (len(settings), n)
    for name in scm.order:
        if name in names:
            rows[name] = np.broadcast_to(settings[:, [names.index(name)]], shape)
            continue
        mechanism = scm.mechanism(name)
        columns = [np.broadcast_to(rows[parent], shape).ravel() for parent in mechanism.parents]
        parents = np.stack(columns, axis=1) if columns else np.zeros((shape[0] * n, 0))
        mean = mechanism.mean(parents).reshape(shape)
        rows[name] = mean if name == problem.problem.target else mean + noise[name]
    return rows[problem.problem.target]


def best_of(problem: NamedProblem, n: int, seed: int = 0) -> np.ndarray:
    best = dict(problem.optimal_intervention)
    return outcomes(problem, list(best), np.array([list(best.values())]), n, seed).ravel()


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_optimum_is_the_mean_outcome_of_its_intervention(name: str) -> None:
    problem = named_problem(name)
    drawn = best_of(problem, 400_000, seed=1)
    error = drawn.std() / np.sqrt(drawn.size)
    assert abs(drawn.mean() - problem.optimum) < STANDARD_ERRORS * error + 1e-6


@pytest.mark.parametrize("name", NONLINEAR)
def test_no_intervention_on_a_grid_is_better_than_the_optimum(name: str) -> None:
    problem = named_problem(name)
    n, settable = 400, problem.problem.may_set
    reference = best_of(problem, n)
    for size in range(1, len(settable) + 1):
        points = {1: 401, 2: 41, 3: 11}[size]
        for subset in combinations(settable, size):
            axes = [np.linspace(*problem.range_of(one), points) for one in subset]
            settings = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, size)
            gain = reference - outcomes(problem, subset, settings, n)
            error = gain.std(axis=1) / np.sqrt(n)
            assert (gain.mean(axis=1) <= STANDARD_ERRORS * error + 1e-6).all(), subset


@pytest.mark.parametrize("name", NONLINEAR)
def test_no_intervention_near_the_optimum_is_better(name: str) -> None:
    problem = named_problem(name)
    best = dict(problem.optimal_intervention)
    steps = np.linspace(-0.05, 0.05, 21)
    ranges = [problem.range_of(one) for one in best]
    axes = [
        np.clip(value + (high - low) * steps, low, high)
        for value, (low, high) in zip(best.values(), ranges, strict=True)
    ]
    settings = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(axes))
    found = outcomes(problem, list(best), settings, 2_000)
    gain = best_of(problem, 2_000) - found
    error = gain.std(axis=1) / np.sqrt(2_000)
    assert (gain.mean(axis=1) <= STANDARD_ERRORS * error + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "observed"),
    [
        ("health", 13.711),
        ("health-minus-bmi", 5.806),
        ("toy", -0.720),
        ("toy-shifted", -0.661),
        ("complete", 2.305),
    ],
)
def test_the_published_mean_of_observing_is_reproduced(name: str, observed: float) -> None:
    problem = named_problem(name)
    drawn = outcomes(problem, (), np.zeros((1, 0)), 400_000)
    rounding = 0.0005
    error = STANDARD_ERRORS * drawn.std() / np.sqrt(drawn.size)
    assert abs(drawn.mean() - observed) < error + rounding


@pytest.mark.parametrize("name", ["toy", "health", "complete"])
def test_expected_outcome_agrees_with_a_simulation_of_its_own(name: str) -> None:
    problem = named_problem(name)
    rng = np.random.default_rng(0)
    for one in problem.problem.may_set:
        value = float(rng.uniform(*problem.range_of(one)))
        gain = outcomes(problem, (one,), np.array([[value]]), 100_000)[0] - best_of(
            problem, 100_000
        )
        found = problem.expected_outcome({one: value}) - problem.optimum
        error = gain.std() * np.sqrt(1 / 100_000 + 1 / 20_000)
        assert abs(found - gain.mean()) < STANDARD_ERRORS * error + 1e-9


@pytest.mark.parametrize("name", LINEAR)
def test_the_optimum_of_a_linear_problem_is_that_of_all_sets_of_causes(name: str) -> None:
    problem = named_problem(name)
    names, target = problem.scm.variables, problem.problem.target
    weights = np.zeros((len(names), len(names)))
    for cause, effect, weight in linear_records()[name]["edges"]:
        weights[names.index(cause), names.index(effect)] = weight
    t, unit = names.index(target), np.eye(len(names))
    causes = [i for i in np.flatnonzero(np.linalg.inv(unit - weights)[:, t]) if i != t]
    subsets = (np.arange(1, 2 ** len(causes))[:, None] >> np.arange(len(causes)) & 1).astype(bool)
    ends = np.array([problem.range_of(names[i]) for i in causes])
    lowest = 0.0
    for block in np.array_split(subsets, max(len(subsets) // 4096, 1)):
        cut = np.zeros((len(block), len(names)), bool)
        cut[:, causes] = block
        slopes = np.linalg.inv(unit - np.where(cut[:, None, :], 0.0, weights))[:, causes, t] * block
        reached = np.minimum(slopes * ends[:, 0], slopes * ends[:, 1]).sum(axis=1)
        lowest = min(lowest, float(reached.min()))
    assert problem.optimum == pytest.approx(lowest, rel=1e-12)
    assert problem.expected_outcome(problem.optimal_intervention) == pytest.approx(lowest)


@pytest.mark.parametrize("name", LINEAR)
def test_the_published_optima_of_a_linear_problem_are_reproduced(name: str) -> None:
    problem, record = named_problem(name), linear_records()[name]
    parents = problem.scm.parents(problem.problem.target)

    def lowest(one: str) -> float:
        weight = problem.scm.mechanism(problem.problem.target).weights[parents.index(one)]
        low, high = problem.range_of(one)
        return low if weight > 0 else high

    jointly = problem.expected_outcome({one: lowest(one) for one in parents})
    singly = min(problem.expected_outcome({one: lowest(one)}) for one in parents)
    assert jointly == pytest.approx(record["optimum_of_parents"])
    assert singly == pytest.approx(record["optimum_of_one_parent"])
    assert problem.optimum <= jointly + 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
def test_data_hold_what_was_asked_for(name: str) -> None:
    problem = named_problem(name)
    buffer = problem.data(30, 2, seed=3)
    assert tuple(buffer.get_variable_names()) == problem.problem.variables
    assert buffer.n_observations == 30
    assert buffer.n_interventions == 2 * len(problem.problem.may_set)
    values, mask = buffer.rows()
    assert not mask[:, problem.problem.variables.index(problem.problem.target)].any()
    for i, one in enumerate(problem.problem.variables):
        tried = values[mask[:, i], i]
        if one in problem.problem.may_set:
            low, high = problem.range_of(one)
            assert tried.size == 2
            assert ((low <= tried) & (tried <= high)).all()
        else:
            assert tried.size == 0


def test_data_follow_the_seed() -> None:
    problem = named_problem("toy")
    assert problem.data(20, 1, seed=5) == problem.data(20, 1, seed=5)
    assert problem.data(20, 1, seed=5) != problem.data(20, 1, seed=6)


def test_hidden_variables_are_simulated_and_never_seen() -> None:
    problem = named_problem("complete")
    assert {"U1", "U2"} <= set(problem.scm.variables)
    assert not {"U1", "U2"} & set(problem.problem.variables)
    simulate = problem.simulator()
    assert list(simulate(None, 3, 0).columns) == list(problem.problem.variables)
    seen = simulate(problem.optimal_intervention, 3, 0)
    assert list(seen.columns) == [*problem.problem.variables, "do"]
    with pytest.raises(UnknownNameError, match="unknown variable 'U1'"):
        simulate({"U1": 0.0}, 3, 0)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown variable 'U2'"):
        problem.expected_outcome({"U2": 0.0})


def test_the_target_cannot_be_set() -> None:
    with pytest.raises(ProblemError, match="'psa' is what is measured; it cannot be set"):
        named_problem("health").expected_outcome({"psa": 4.0})


def test_an_unknown_problem_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        named_problem("heath")
    assert str(caught.value) == "unknown problem 'heath'; did you mean 'health'?"
