"""One suite for every policy, and what expected improvement must get right."""

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
import pytest

from benchmarks import bayesian_optimization
from causal_bayes_opt.acquisition.baselines import (
    KnownSystem,
    oracle,
    random_choice,
    random_over_parents,
)
from causal_bayes_opt.acquisition.learned import LearnedPolicy, TrainedPolicy
from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel
from causal_bayes_opt.acquisition.policy import expected_improvement, recommend, thompson_sampling
from causal_bayes_opt.acquisition.policy_network import PolicyConfig, PolicyNetwork
from causal_bayes_opt.acquisition.search import MAX_TARGETS, search, tried_so_far
from causal_bayes_opt.acquisition.smooth_outcome import SmoothOutcomeModel
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.benchmarks.problems import named_problem
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.mechanisms import from_function, linear
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, ProblemError
from causal_bayes_opt.expert.parent_scale import parent_scale_rule
from causal_bayes_opt.surrogate.exact import exact_posterior

SYSTEM = SCM.linear(
    ["temperature", "p H", "Ausbeute", "colour"],
    {
        ("temperature", "Ausbeute"): 1.0,
        ("p H", "Ausbeute"): -2.0,
        ("temperature", "p H"): 0.5,
        ("Ausbeute", "colour"): 1.0,
    },
    target="Ausbeute",
)
RANGES = {name: (-2.0, 1.0) for name in SYSTEM.variables if name != "Ausbeute"}
FIT = "causal_bayes_opt.acquisition.policy.fit_outcome_model"
UNTRAINED = PolicyNetwork(PolicyConfig(hidden_dim=8, num_layers=1, num_heads=2))
POLICIES = {
    "PARENT_SCALE": parent_scale_rule(),
    "shipped network": LearnedPolicy(),
    "untrained network": LearnedPolicy(
        TrainedPolicy("untrained", UNTRAINED, UNTRAINED.init(jax.random.key(0)), {})
    ),
    "random": random_choice,
    "random over parents": random_over_parents,
    "Thompson sampling": thompson_sampling,
    "expected improvement": expected_improvement,
    "recommend": recommend,
    "oracle": oracle(SYSTEM),
    "Bayesian optimisation": bayesian_optimization.policy,
}
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "Bayesian optimisation" and find_spec("torch") is None,
            reason="torch is installed by hand",
        ),
    )
    for name in POLICIES
]


def state_of(frame, **options):
    problem = Problem(tuple(SYSTEM.variables), "Ausbeute", **options)
    return AcquisitionState.start(ExperienceBuffer.from_dataframe(frame), problem, exact_posterior)


def with_experiments(scm, n_observed, n_tried):
    """Observations, then experiments on each variable but the target, as a DataFrame."""
    parts = [sample(scm, n_observed, seed=0).assign(do="")]
    for seed, name in enumerate(name for name in scm.variables if name != scm.target):
        for value in (-0.5, 0.5):
            parts.append(sample(scm, n_tried, intervention={name: value}, seed=seed + 1))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def frame():
    return with_experiments(SYSTEM, 200, 10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_suggestion_is_legal_and_repeatable(frame, name, direction):
    state = state_of(frame, direction=direction, ranges=RANGES, settable=("temperature", "p H"))
    key = jax.random.key(3)
    suggestion = POLICIES[name](state, key)
    assert suggestion == POLICIES[name](state, key)
    assert 1 <= len(suggestion.intervention) <= MAX_TARGETS
    for variable, value in suggestion.intervention.items():
        assert variable in ("temperature", "p H")
        assert -2.0 <= value <= 1.0
    assert np.isfinite([suggestion.predicted_mean, suggestion.predicted_std]).all()
    assert suggestion.predicted_std > 0


DRAWN = ("random", "random over parents", "oracle")
ORDERED = [name for name in NAMES if name.values[0] not in DRAWN]


@pytest.mark.parametrize("name", ORDERED)
def test_order_and_units_of_the_variables_do_not_matter(frame, name):
    """The same choice from turned columns in other units; draws may differ, the best may not."""
    turned = list(reversed(SYSTEM.variables))
    shift, scale = 3.0, {"temperature": 10.0, "p H": 0.1, "Ausbeute": 5.0, "colour": 2.0}
    other = frame[[*turned, "do"]].copy()
    for variable in turned:
        other[variable] = shift + scale[variable] * other[variable]
    ranges = {v: tuple(shift + scale[v] * end for end in ends) for v, ends in RANGES.items()}
    problem = Problem(tuple(turned), "Ausbeute", ranges=ranges, settable=("temperature", "p H"))
    state = AcquisitionState.start(ExperienceBuffer.from_dataframe(other), problem, exact_posterior)
    key = jax.random.key(4)
    first = POLICIES[name](state_of(frame, ranges=RANGES, settable=("temperature", "p H")), key)
    second = POLICIES[name](state, key)
    assert set(first.intervention) == set(second.intervention)
    for variable, value in first.intervention.items():
        width = RANGES[variable][1] - RANGES[variable][0]
        back = (second.intervention[variable] - shift) / scale[variable]
        assert back == pytest.approx(value, abs=0.05 * width)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_set_is_refused(frame, name):
    with pytest.raises(ProblemError, match="no variable may be set"):
        POLICIES[name](state_of(frame, settable=()), jax.random.key(0))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_best_joint_corner_is_found(frame, direction):
    state = state_of(frame, direction=direction, ranges=RANGES)
    sign = state.problem.sign
    slope = {"temperature": 1.0, "p H": -2.0}
    truth = min(
        product((-2.0, 1.0), repeat=2),
        key=lambda v: sign * (v[0] * slope["temperature"] - 2 * v[1]),
    )
    for policy in (expected_improvement, recommend, oracle(SYSTEM)):
        found = policy(state, jax.random.key(1)).intervention
        assert found["temperature"] == truth[0]
        assert found["p H"] == truth[1]


def test_more_variables_than_corners_are_listed_for_are_set_where_that_helps():
    names = [f"x{i}" for i in range(5)]
    scm = SCM.linear([*names, "y"], dict.fromkeys([(name, "y") for name in names], 1.0), target="y")
    problem = Problem(scm.variables, "y", ranges=dict.fromkeys(names, (-1.5, 1.5)))
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 400, seed=0))
    state = AcquisitionState.start(buffer, problem, exact_posterior)
    for policy in (expected_improvement, thompson_sampling, recommend):
        found = policy(state, jax.random.key(0)).intervention
        assert dict(found) == dict.fromkeys(names, -1.5)
    few = recommend(state, jax.random.key(0), max_targets=4).intervention
    assert len(few) == 4


def test_directions_mirror_each_other(frame):
    negated = frame.assign(Ausbeute=-frame["Ausbeute"])
    low = expected_improvement(state_of(frame, ranges=RANGES), jax.random.key(2))
    high = expected_improvement(
        state_of(negated, direction="maximize", ranges=RANGES), jax.random.key(2)
    )
    assert low.intervention == high.intervention
    # Both are means over 64 members; four standard errors of their spread.
    margin = 4 * low.predicted_std / np.sqrt(64)
    assert low.predicted_mean == pytest.approx(-high.predicted_mean, abs=margin)


def test_effects_of_the_target_are_not_set(frame):
    state = state_of(frame, ranges=RANGES)
    assert "colour" not in recommend(state, jax.random.key(0)).intervention


def test_recommendation_prefers_what_is_sure_where_forecasts_are_approximate(monkeypatch):
    """B moves the target a little further on average, but half of the graphs say not at all."""
    scm = SCM.linear(["A", "B", "Y"], {("A", "Y"): 1.0, ("B", "Y"): 2.4}, target="Y")
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 500, seed=0))
    problem = Problem(scm.variables, "Y", ranges={"A": (-1.0, 1.0), "B": (-1.0, 1.0)})
    graphs = np.zeros((64, 3, 3), dtype=bool)
    graphs[:, 0, 2] = True
    graphs[::2, 1, 2] = True
    posteriors = exact_posterior.posteriors(buffer)
    key = jax.random.key(0)
    ranges = dict.fromkeys(("A", "B"), (-1.0, 1.0))
    smooth = SmoothOutcomeModel.fit(buffer, graphs, "Y", key, ranges)
    linear_one = LinearOutcomeModel.fit(buffer, graphs, key)
    state = AcquisitionState(buffer, problem, posteriors)
    for model, chosen in ((smooth, "A"), (linear_one, "B")):
        monkeypatch.setattr(FIT, lambda state, key, model=model: model)
        found = recommend(state, key, max_targets=1)
        assert list(found.intervention) == [chosen]
        assert model.predict("Y", {"B": -1.0})[0] < model.predict("Y", {"A": -1.0})[0]


def test_ranges_come_from_the_data_where_none_are_given(frame):
    state = state_of(frame)
    for name in ("temperature", "p H", "colour"):
        assert state.range_of(name) == (frame[name].min(), frame[name].max())


def test_state_owns_its_buffer(frame):
    buffer = ExperienceBuffer.from_dataframe(frame)
    problem = Problem(tuple(SYSTEM.variables), "Ausbeute")
    state = AcquisitionState.start(buffer, problem, exact_posterior)
    buffer.add_observation(dict.fromkeys(SYSTEM.variables, 1e6))
    assert len(state.buffer) == len(frame)
    assert state.best_observed == frame["Ausbeute"].min()


@dataclass(frozen=True)
class LongShot:
    """To set A to 1 is known to give -1, to set B alone gives `mean` give or take `deviation`."""

    scaling: Scaling
    mean: float
    deviation: float
    variables: tuple[str, ...] = ("A", "B", "Y")
    corners_suffice: ClassVar[bool] = True

    def means(self, target, candidates):
        is_set, value = candidates.spread(candidates.values, 3)
        on_b = (is_set[:, 1] & ~is_set[:, 0])[:, None]
        known = np.where(is_set[:, [0]], -value[:, [0]], 0.0)
        return np.where(on_b, self.mean + self.deviation * np.array([-1.0, 1.0]), known)

    def predict(self, target, intervention):
        (means,) = self.means(target, Candidates.of([intervention], self.variables))
        return float(means.mean()), float(means.std()), 1.0


@pytest.mark.parametrize(
    ("mean", "deviation", "chosen"),
    [
        (-0.95, 0.1, {"B"}),  # improves by 0.020 and costs 0.05 / 20
        (-0.99, 0.02, {"A"}),  # by 0.004, which nobody looks for
        (0.8, 1.2, {"A"}),  # by 0.035, and costs 1.8 / 20
        (0.8, 2.4, {"B"}),  # by 0.31
    ],
)
def test_an_improvement_must_be_worth_its_price(monkeypatch, mean, deviation, chosen):
    rows = pd.DataFrame({"A": [0.0, 1.0], "B": 0.0, "Y": [0.0, -1.0], "do": ["", "A"]})
    buffer = ExperienceBuffer.from_dataframe(rows)
    problem = Problem(("A", "B", "Y"), "Y", ranges={"A": (0.0, 1.0), "B": (0.0, 1.0)})
    posteriors = {"Y": exact_posterior(ExperienceBuffer.from_arrays(np.eye(3)), "X2")}
    model = LongShot(Scaling(np.zeros(3), np.ones(3)), mean, deviation)
    monkeypatch.setattr(FIT, lambda state, key: model)
    found = expected_improvement(AcquisitionState(buffer, problem, posteriors), jax.random.key(0))
    assert set(found.intervention) == chosen


def test_where_nothing_helps_an_experiment_is_suggested_all_the_same(monkeypatch):
    """Known: to set nothing is better than A, and by far better than B."""
    rows = pd.DataFrame({"A": [0.0, -1.0], "B": 0.0, "Y": [0.0, 1.0], "do": ["", "A"]})
    buffer = ExperienceBuffer.from_dataframe(rows)
    problem = Problem(("A", "B", "Y"), "Y", ranges={"A": (-1.0, -0.5), "B": (0.0, 1.0)})
    posteriors = {"Y": exact_posterior(ExperienceBuffer.from_arrays(np.eye(3)), "X2")}
    model = LongShot(Scaling(np.zeros(3), np.ones(3)), 5.0, 0.1)
    monkeypatch.setattr(FIT, lambda state, key: model)
    found = expected_improvement(AcquisitionState(buffer, problem, posteriors), jax.random.key(0))
    assert dict(found.intervention) == {"A": -0.5}


def test_cheaper_of_two_equals_wins():
    twins = SCM.linear(["A", "B", "Y"], {("A", "Y"): 1.0}, target="Y")
    frame = with_experiments(twins, 100, 10)
    problem = Problem(
        twins.variables,
        "Y",
        ranges={"A": (-1.0, 1.0), "B": (-1.0, 1.0)},
        costs={"A": 1.0, "B": lambda value: 5.0},
    )
    state = AcquisitionState.start(ExperienceBuffer.from_dataframe(frame), problem, exact_posterior)
    suggestion = expected_improvement(state, jax.random.key(0))
    assert dict(suggestion.intervention) == {"A": -1.0}
    assert suggestion.cost == 1.0


def test_what_was_tried_is_repeated_only_where_it_may_be():
    """The best experiments so far set what may not be set now, or lie outside of the range."""
    scm = SCM.linear(["A", "B", "Y"], {("A", "Y"): 3.0, ("B", "Y"): 0.2}, target="Y")
    parts = [sample(scm, 200, seed=0).assign(do="")]
    for seed, done in enumerate(({"A": -3.0}, {"B": -9.0}, {"B": -0.9}, {"A": -3.0, "B": -1.0})):
        parts.append(sample(scm, 10, intervention=done, seed=seed + 1))
    buffer = ExperienceBuffer.from_dataframe(pd.concat(parts, ignore_index=True))
    problem = Problem(scm.variables, "Y", ranges={"B": (-1.0, 1.0)}, settable=("B",))
    state = AcquisitionState.start(buffer, problem, exact_posterior)
    for seed in range(5):
        chosen = dict(expected_improvement(state, jax.random.key(seed)).intervention)
        assert set(chosen) == {"B"}
        assert -1.0 <= chosen["B"] <= 1.0


def test_problem_with_other_variables_is_refused(frame):
    buffer = ExperienceBuffer.from_dataframe(frame)
    with pytest.raises(ProblemError, match="the problem has the variables"):
        AcquisitionState.start(buffer, Problem(("A", "B"), "A"), exact_posterior)


def test_extrapolated_outcome_carries_a_warning(frame):
    near = recommend(state_of(frame, ranges=dict.fromkeys(RANGES, (-0.1, 0.1))), jax.random.key(0))
    far = recommend(state_of(frame, ranges=dict.fromkeys(RANGES, (-90.0, 90.0))), jax.random.key(0))
    assert near.warnings == ()
    assert any("lies outside of all outcomes so far" in warning for warning in far.warnings)


def test_state_takes_whole_graphs_from_a_surrogate_that_draws_them(frame):
    state = state_of(frame, ranges=RANGES)
    assert state.graphs is not None
    parents = state.graphs[:, :, 2].mean(axis=0)
    # 64 independent graphs: four standard errors of a share.
    assert np.abs(parents - state.posterior.marginal_vector()).max() < 4 * 0.5 / np.sqrt(64)


def test_search_starts_from_what_was_tried_with_its_own_values():
    """An optimum that is narrower than any grid, known from an experiment at the end of a range."""
    low, high, name = -0.62, 0.04, "a"
    assert low + 1.0 * (high - low) > high
    scm = SCM(
        ("a", "b", "Y"),
        {
            "a": linear([], []),
            "b": linear([], []),
            "Y": from_function(["a", "b"], lambda a, b: a**2 - np.exp(-4000.0 * (b - 0.3337) ** 2)),
        },
        "Y",
    )
    problem = Problem(scm.variables, "Y", ranges={name: (low, high), "b": (-1.0, 1.0)})
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 50, seed=0))
    for done in ({name: high, "b": 0.3337}, {name: high}, {name: 9.0}, {"b": 0.1, "Y": 1.0}):
        frame = sample(scm, 1, intervention=done, seed=1).drop(columns="do")
        buffer.add_intervention(make_intervention(done), frame.to_dict("records")[0])
    state = AcquisitionState(buffer, problem, {})
    model = KnownSystem.of(scm)
    known = tried_so_far(state, model, MAX_TARGETS)
    named = [known.candidates.named(i, scm.variables) for i in range(len(known.means))]
    assert named[0] == {}
    assert len(named) == 3
    assert {name: high} in named
    key = jax.random.key(0)
    found = search(state, model, lambda means: -means[:, 0], key, MAX_TARGETS, known)
    best = found.candidates.named(int(found.scores.argmax()), scm.variables)
    assert best["b"] == pytest.approx(0.3337, abs=0.01)
    assert found.candidates.values.max() <= 1.0
    on_a = found.candidates.there & (found.candidates.columns == 0)
    assert found.candidates.values[on_a].max() <= high


def test_oracle_knows_systems_with_variables_that_nobody_sees():
    named = named_problem("complete")
    state = AcquisitionState(named.data(20, 2, 0), named.problem, {})
    searches = [oracle(named.scm)(state, jax.random.key(number)) for number in range(3)]
    best = min(searches, key=lambda found: found.predicted_mean)
    reached = named.expected_outcome(best.intervention)
    # 256 simulated rows say so, to a tenth.
    assert best.predicted_mean == pytest.approx(reached, abs=0.2)
    assert reached < 0.98 * named.optimum


def test_of_many_variables_one_with_equal_ends_is_not_forgotten():
    names = [f"X{i}" for i in range(13)]
    mechanisms = {name: linear([], []) for name in names}
    mechanisms["Y"] = from_function(names, lambda *x: 5.0 * x[0] ** 2 + 0.1 * sum(x[1:]))
    scm = SCM((*names, "Y"), mechanisms, "Y")
    problem = Problem(scm.variables, "Y", "maximize", dict.fromkeys(names, (-2.0, 2.0)))
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 20, seed=0))
    state = AcquisitionState(buffer, problem, {}, linear=False)
    assert oracle(scm)(state, jax.random.key(0)).predicted_mean > 15.0


def test_the_best_is_found_without_variables_that_do_nothing():
    names = [f"X{i}" for i in range(10)]
    mechanisms = {name: linear([], []) for name in names}
    mechanisms["Y"] = from_function(["X0", "X1"], lambda x, z: x**2 + 0.4 * z)
    scm = SCM((*names, "Y"), mechanisms, "Y")
    problem = Problem(scm.variables, "Y", "maximize", dict.fromkeys(names, (-2.0, 3.0)))
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 20, seed=0))
    state = AcquisitionState(buffer, problem, {}, linear=False)
    model = KnownSystem.of(scm)
    for seed in range(5):
        key = jax.random.key(seed)
        found = search(state, model, lambda means: -means[:, 0], key, max_targets=10)
        near = found.scores >= 0.99 * found.scores.max()
        smallest = int(np.argmin(np.where(near, found.candidates.there.sum(axis=1), 99)))
        assert found.scores.max() > 9.5
        assert set(found.candidates.named(smallest, scm.variables)) <= {"X0", "X1"}


def test_an_experiment_that_may_set_nothing_is_refused(frame):
    with pytest.raises(ConfigError, match="max_targets is 0"):
        expected_improvement(state_of(frame), jax.random.key(0), max_targets=0)
