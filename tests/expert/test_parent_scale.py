import numpy as np
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.mechanisms import from_function, gaussian, linear
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, ProblemError
from causal_bayes_opt.expert import (
    PARENT_SCALE,
    ParentScaleOptions,
    init,
    observe,
    parent_scale_posterior,
    parent_scale_surrogate,
    run_many,
    suggest,
)

NAMES = ("A", "B", "C", "Y")
SYSTEM = SCM.linear(NAMES, {("A", "B"): 1.0, ("B", "Y"): 1.2, ("C", "Y"): -0.8}, target="Y")
ALONE = SCM.linear(NAMES, {("A", "B"): 1.0, ("Y", "C"): 1.0}, target="Y")
PUBLISHED = {"support": "votes", "noise": "unit", "predictive": "public"}


@pytest.fixture(scope="module")
def run():
    return PARENT_SCALE(SYSTEM, seed=3).run_algorithm(T=3)


def rows(system=SYSTEM, n_observed=100, n_tried=4):
    buffer = ExperienceBuffer.from_dataframe(sample(system, n_observed, seed=1))
    rng = np.random.default_rng(0)
    for name in system.variables:
        if name == system.target:
            continue
        for seed in range(n_tried):
            done = {name: float(rng.uniform(-2, 2))}
            row = sample(system, 1, intervention=done, seed=seed)
            buffer.add_intervention(done, {n: float(row[n].iloc[0]) for n in system.variables})
    return buffer


def test_a_run_reports_all_that_is_asked_of_it(run):
    assert {
        "global_opt",
        "current_y",
        "current_cost",
        "intervention_set",
        "intervention_values",
        "average_uncertainty",
        "D_O_standardized",
        "posterior_probabilities",
        "posterior_sets",
        "target",
        "variables",
        "true_parents",
        "seed",
        "elapsed_s",
        "means",
        "stds",
        "ranges",
    } <= set(run)
    assert run["true_parents"] == ("B", "C")
    assert run["current_cost"] == [1.0, 2.0, 3.0]
    assert np.array_equal(run["global_opt"], np.minimum.accumulate(run["current_y"]))
    for marginals, sets in zip(run["posterior_probabilities"], run["posterior_sets"], strict=True):
        assert sum(sets.values()) == pytest.approx(1.0)
        for i, name in enumerate(NAMES):
            expected = sum(p for parents, p in sets.items() if name in parents)
            assert marginals[i] == pytest.approx(expected)


def test_a_run_loses_no_row(run):
    values, mask, trial = run["row_values"], run["row_mask"], run["row_trial"]
    assert values.shape == mask.shape == (100 + 3 * 2 + 3, 4)
    assert np.bincount(trial + 1).tolist() == [100, 6, 1, 1, 1]
    unit = (values[trial < 0] - run["means"]) / run["stds"]
    assert np.allclose(unit, run["D_O_standardized"])
    for number, (names, tried) in enumerate(
        zip(run["intervention_set"], run["intervention_values"], strict=True), start=1
    ):
        row = int(np.flatnonzero(trial == number)[0])
        assert [NAMES[i] for i in np.flatnonzero(mask[row])] == list(names)
        assert values[row][mask[row]].tolist() == list(tried)


def test_rows_give_the_posterior_again(run):
    """What was stored is enough to repeat the posterior, by the surrogate of the same seed."""
    buffer = ExperienceBuffer.from_arrays(run["row_values"], run["row_mask"], NAMES)
    again = parent_scale_posterior(buffer, "Y", key=np.array([3], dtype=np.uint32))
    for parents, p in run["posterior_sets"][-1].items():
        assert again.probability(parents) == pytest.approx(p, abs=1e-9)


def test_the_same_seed_gives_the_same_run(run):
    again = PARENT_SCALE(SYSTEM, seed=3).run_algorithm(T=3)
    assert again["intervention_values"] == run["intervention_values"]
    assert again["current_y"] == run["current_y"]
    assert again["posterior_sets"] == run["posterior_sets"]
    other = PARENT_SCALE(SYSTEM, seed=4).run_algorithm(T=3)
    assert other["current_y"] != run["current_y"]


def test_many_runs_are_as_each_alone(run):
    many = run_many([ALONE, SYSTEM], T=3, seeds=[0, 3])
    assert many[1]["current_y"] == run["current_y"]
    assert many[1]["posterior_sets"] == run["posterior_sets"]
    with pytest.raises(ConfigError, match="1 seeds for 2 systems"):
        run_many([SYSTEM, SYSTEM], seeds=[0])


def test_a_linear_system_is_optimised_to_its_best_single_variable(run):
    low, high = run["ranges"]["B"]
    best = min(1.2 * low, -0.8 * run["ranges"]["C"][1])
    assert run["global_opt"][-1] == pytest.approx(best, rel=0.1)
    assert high > low


def test_asked_and_told_on_what_is_no_simulator():
    def laboratory(done):
        b = done.get("B", 0.2)
        return {"A": 0.1, "B": b, "C": done.get("C", -0.3), "Y": (b - 1.0) ** 2} | done

    state = init(rows(n_tried=0), Problem(NAMES, "Y", settable=("B",)))
    first = state
    for _ in range(5):
        done = suggest(state).intervention
        state = observe(state, done, laboratory(dict(done)))
    assert first.n_trials == 0
    assert len(first.buffer) == 100
    assert (state.n_trials, len(state.buffer), len(state.tried)) == (5, 105, 5)
    assert suggest(first) == suggest(first)
    assert min(t.mean for t in state.tried) < 0.3


def test_the_target_alone_may_be_told():
    state = init(rows(n_tried=0), Problem(NAMES, "Y"))
    after = observe(state, {"B": 1.0}, {"Y": -4.0})
    assert after.posterior.posterior_probs == state.posterior.posterior_probs
    assert after.tried[-1].mean == -4.0
    with pytest.raises(DataError, match="lacks the target 'Y'"):
        observe(state, {"B": 1.0}, {"A": 0.0})
    with pytest.raises(DataError, match="n_samples is 5"):
        observe(state, {"B": 1.0}, {"Y": 0.0}, n_samples=5)
    with pytest.raises(DataError, match="finite"):
        observe(state, {"B": 1.0}, {"Y": 0.0}, mean=float("nan"))


def test_units_of_nothing_matter():
    buffer = rows()
    values, mask = buffer.all_rows()
    factors, offsets = np.array([10.0, 1e-3, 1.0, 1e4]), np.array([5.0, -3.0, 100.0, 7e5])
    other = ExperienceBuffer.from_arrays(values * factors + offsets, mask, NAMES)
    problem = Problem(NAMES, "Y")
    plain, scaled = suggest(init(buffer, problem)), suggest(init(other, problem))
    (name,) = plain.intervention
    i = NAMES.index(name)
    expected = plain.intervention[name] * factors[i] + offsets[i]
    width = abs(factors[i])
    assert scaled.intervention[name] == pytest.approx(expected, abs=1e-5 * width)
    assert scaled.predicted_mean == pytest.approx(plain.predicted_mean * 1e4 + 7e5, rel=1e-6)
    assert scaled.predicted_std == pytest.approx(plain.predicted_std * 1e4, rel=1e-4)


def test_maximising_is_minimising_the_negative():
    buffer = rows()
    values, mask = buffer.all_rows()
    other = ExperienceBuffer.from_arrays(values * [1, 1, 1, -1], mask, NAMES)
    low = suggest(init(buffer, Problem(NAMES, "Y")))
    high = suggest(init(other, Problem(NAMES, "Y", direction="maximize")))
    assert dict(high.intervention) == pytest.approx(dict(low.intervention))
    assert high.predicted_mean == pytest.approx(-low.predicted_mean)
    run = PARENT_SCALE(SYSTEM, direction="maximize").run_algorithm(T=2)
    assert np.array_equal(run["global_opt"], np.maximum.accumulate(run["current_y"]))
    assert run["global_opt"][-1] > 1.0


def test_order_of_the_variables_does_not_matter():
    buffer, order = rows(), [2, 3, 0, 1]
    values, mask = buffer.all_rows()
    names = tuple(NAMES[i] for i in order)
    other = ExperienceBuffer.from_arrays(values[:, order], mask[:, order], names)
    plain = suggest(init(buffer, Problem(NAMES, "Y")))
    turned = suggest(init(other, Problem(names, "Y")))
    assert dict(turned.intervention) == pytest.approx(dict(plain.intervention), rel=1e-5)


def test_a_run_ends_when_nothing_improves():
    result = PARENT_SCALE(SYSTEM, patience=2).run_algorithm(T=20)
    trials = len(result["current_y"])
    assert trials < 20
    assert all(len(result[key]) == trials for key in ("posterior_sets", "current_cost"))


def test_progress_is_shown_where_asked_for(capsys):
    PARENT_SCALE(SYSTEM, progress=True).run_algorithm(T=1)
    PARENT_SCALE(SYSTEM).run_algorithm(T=1)
    assert "PARENT_SCALE on Y" in capsys.readouterr().out


def test_experiments_may_be_given():
    result = PARENT_SCALE(SYSTEM, buffer=rows()).run_algorithm(T=1)
    assert np.array_equal(result["row_values"][:112], rows().rows()[0])


def test_no_experiments_at_all():
    result = PARENT_SCALE(SYSTEM, n_experiments=0).run_algorithm(T=2)
    assert_finite(result)


@pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["corrected", "published"])
def test_a_target_that_nothing_causes(options):
    result = PARENT_SCALE(ALONE, n_experiments=5, **options).run_algorithm(T=3)
    assert_finite(result)
    if not options:
        sets = result["posterior_sets"][-1]
        assert max(sets, key=sets.get) in (frozenset(), frozenset({"C"}))


@pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["corrected", "published"])
def test_two_variables(options):
    system = SCM.linear(["X", "Y"], {("X", "Y"): 1.0}, target="Y")
    result = PARENT_SCALE(system, **options).run_algorithm(T=2)
    assert_finite(result)
    assert result["posterior_probabilities"][-1][0] > 0.9


def test_one_variable():
    system = SCM("Y", {"Y": linear([], [])}, "Y")
    posterior = parent_scale_posterior(ExperienceBuffer.from_dataframe(sample(system, 20)), "Y")
    assert posterior.posterior_probs == {frozenset(): 1.0}
    with pytest.raises(ProblemError, match="no variable may be set"):
        PARENT_SCALE(system)


def test_fewer_rows_than_variables():
    names = [f"X{i}" for i in range(7)]
    system = SCM.linear([*names, "Y"], {("X0", "Y"): 1.0}, target="Y")
    for n_observations in (2, 4):
        result = PARENT_SCALE(system, n_observations=n_observations).run_algorithm(T=1)
        assert_finite(result)


def test_equal_columns():
    values, mask = rows(n_tried=0).all_rows()
    buffer = ExperienceBuffer.from_arrays(
        np.column_stack([values, values[:, 1]]), np.column_stack([mask, mask[:, 1]]), [*NAMES, "D"]
    )
    state = init(buffer, Problem((*NAMES, "D"), "Y"))
    marginals = state.posterior.marginals
    assert marginals["B"] == pytest.approx(marginals["D"])
    assert np.isfinite(suggest(state).predicted_mean)


def test_a_constant_column_is_refused():
    values, mask = rows().all_rows()
    values[:, 0] = 3.0
    with pytest.raises(DataError, match="'A' is constant"):
        init(ExperienceBuffer.from_arrays(values, mask, NAMES), Problem(NAMES, "Y"))


def test_experiments_on_the_target_say_nothing_of_its_parents():
    buffer = rows()
    problem = Problem(NAMES, "Y")
    before = init(buffer, problem)
    for value in (-3.0, 5.0):
        row = sample(SYSTEM, 1, intervention={"Y": value})
        buffer.add_intervention({"Y": value}, {n: float(row[n].iloc[0]) for n in NAMES})
    after = init(buffer, problem)
    assert after.posterior.posterior_probs == before.posterior.posterior_probs
    assert after.tried == before.tried
    assert suggest(after) == suggest(before)


def test_nonlinear_systems_are_understood():
    system = SCM(
        ["A", "B", "Y"],
        {
            "A": linear([], []),
            "B": linear([], []),
            "Y": from_function(["A"], lambda a: 3 * np.cos(2 * a), gaussian(0.3)),
        },
        "Y",
    )
    options = {"n_experiments": 5, "support": "votes", "n_bootstraps": 2}
    result = PARENT_SCALE(system, mechanism="nonlinear", **options).run_algorithm(T=4)
    assert_finite(result)
    assert result["posterior_probabilities"][-1][0] > 0.9
    assert result["global_opt"][-1] < -2.0
    every = parent_scale_surrogate(mechanism="nonlinear", regressor="least_squares")
    buffer = ExperienceBuffer.from_arrays(
        result["row_values"], result["row_mask"], system.variables
    )
    assert every(buffer, "Y").marginals["A"] > 0.9


def test_unknown_options_name_the_nearest():
    with pytest.raises(ConfigError, match="unknown option 'suport'; did you mean 'support'"):
        PARENT_SCALE(SYSTEM, suport="all")
    with pytest.raises(ConfigError, match="did you mean 'votes'"):
        PARENT_SCALE(SYSTEM, support="vote")
    with pytest.raises(ConfigError, match="did you mean 'direction'"):
        PARENT_SCALE(SYSTEM, directions="maximize")
    with pytest.raises(ConfigError, match="n_bootstraps is 0"):
        parent_scale_surrogate(n_bootstraps=0)
    with pytest.raises(ConfigError, match="at most 6"):
        parent_scale_surrogate(max_targets=7)
    with pytest.raises(ConfigError, match="repeats the linear code"):
        ParentScaleOptions(predictive="public")
    with pytest.raises(ConfigError, match="T is 0"):
        PARENT_SCALE(SYSTEM).run_algorithm(T=0)
    with pytest.raises(ProblemError, match="no target"):
        PARENT_SCALE(SCM.linear(["A"], {}))
    with pytest.raises(ProblemError, match="the problem has the variables"):
        init(rows(), Problem(("A", "Y"), "Y"))


def assert_finite(result):
    for key in ("current_y", "average_uncertainty", "global_opt", "current_cost"):
        assert np.isfinite(result[key]).all()
    assert np.isfinite(result["posterior_probabilities"]).all()
    assert all(np.isfinite(values).all() for values in result["intervention_values"])
    assert all(sum(sets.values()) == pytest.approx(1.0) for sets in result["posterior_sets"])
