"""A whole study in one call: it finds the optimum, repeats itself, and outlives failures."""

import numpy as np
import pytest

import causal_bayes_opt as acbo
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample, simulator
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, ProblemError, UnknownNameError
from causal_bayes_opt.optimization import optimize
from causal_bayes_opt.surrogate.protocol import EdgePrior

SYSTEM = SCM.linear(
    ["X1", "X2", "Z", "Y"],
    {("X1", "X2"): 1.0, ("X1", "Y"): 1.0, ("X2", "Y"): -1.5, ("Y", "Z"): 1.0},
)
RANGES = dict.fromkeys(("X1", "X2", "Z"), (-1.0, 1.0))
PROBLEM = Problem(SYSTEM.variables, "Y", "minimize", RANGES)
OBSERVED = sample(SYSTEM, 100, seed=0)


@pytest.fixture(scope="module")
def study():
    return optimize(simulator(SYSTEM), PROBLEM, OBSERVED, trials=4, seed=1)


def test_study_finds_the_optimum_over_several_variables(study):
    # X1 at -1 and X2 at 1 give -2.5; setting the effect Z does nothing.
    assert study.best_intervention["X1"] == -1.0
    assert study.best_intervention["X2"] == 1.0
    truth = sample(SYSTEM, 20_000, intervention=study.best_intervention, seed=3)["Y"].mean()
    assert truth == pytest.approx(-2.5, abs=0.03)
    assert study.best_value < OBSERVED["Y"].mean()
    assert study.posterior.target_variable == "Y"
    marginals = study.posterior.marginals
    assert marginals["Z"] < min(marginals["X1"], marginals["X2"])


def test_what_is_recommended_comes_with_its_deviation_and_warnings(study):
    assert study.best_std > 0.5
    assert study.warnings == ()
    harmful = SCM.linear(["X1", "Y"], {("X1", "Y"): 1.0})
    problem = Problem(harmful.variables, "Y", ranges={"X1": (2.0, 3.0)})
    found = optimize(simulator(harmful), problem, sample(harmful, 60, seed=0), trials=1)
    assert any("do nothing" in warning for warning in found.warnings)


def test_by_hand_it_is_the_same_study(study):
    begun = acbo.study(PROBLEM, OBSERVED, seed=1)
    first = begun.ask()
    assert ";".join(v for v in SYSTEM.variables if v in first.intervention) == study.trials["do"][0]
    assert first.predicted_mean == study.trials["predicted_mean"][0]
    begun.tell(first.intervention, study.trials.iloc[0][list(SYSTEM.variables)])
    second = begun.ask()
    assert second.predicted_mean == study.trials["predicted_mean"][1]


def test_trials_are_a_table_in_the_users_units(study):
    assert list(study.trials["trial"]) == [1, 2, 3, 4]
    assert (study.trials["error"] == "").all()
    for _, row in study.trials.iterrows():
        for name in row["do"].split(";"):
            assert -1.0 <= row[name] <= 1.0
    assert np.isfinite(study.trials[["Y", "predicted_mean", "predicted_std", "cost"]]).all(
        axis=None
    )


def test_same_seed_gives_the_same_study(study):
    again = acbo.optimize(simulator(SYSTEM), PROBLEM, OBSERVED, trials=4, seed=1)
    assert again.trials.equals(study.trials)
    assert again.best_intervention == study.best_intervention


def test_what_is_known_about_edges_holds_in_every_trial():
    # X1 is said to cause nothing, so that nothing is gained by setting it.
    prior = EdgePrior(forbidden=tuple(("X1", name) for name in ("X2", "Z", "Y")))
    told = optimize(simulator(SYSTEM), PROBLEM, OBSERVED, trials=4, seed=1, prior=prior)
    assert not told.trials["do"].str.contains("X1").any()
    assert "X1" not in told.best_intervention
    assert told.posterior.marginals["X1"] == 0.0
    assert told.best_intervention["X2"] == 1.0


def test_failed_trials_are_recorded_and_the_study_goes_on():
    calls = []

    def unsteady(intervention, n, seed):
        calls.append(intervention)
        if len(calls) == 1:
            raise RuntimeError("the pump is blocked")
        rows = sample(SYSTEM, n, intervention=intervention, seed=seed)
        return rows.assign(Y=np.nan) if len(calls) == 2 else rows

    found = optimize(unsteady, PROBLEM, OBSERVED, trials=4, policy="random")
    assert list(found.trials["error"]) == [
        "RuntimeError: the pump is blocked",
        "'Y' has no finite value",
        "",
        "",
    ]
    assert all(type(intervention) is dict for intervention in calls)


def test_variables_keep_their_names_in_the_table():
    scm = SCM.linear(["cost", "weight", "error"], {("cost", "error"): -2.0, ("weight", "error"): 1})
    ranges = {"cost": (-2.0, 2.0), "weight": (-2.0, 2.0)}
    problem = Problem(scm.variables, "error", ranges=ranges, costs={"cost": 7.0})
    found = optimize(simulator(scm), problem, sample(scm, 100, seed=0), trials=1)
    row = found.trials.iloc[0]
    assert (row["cost"], row["cost_"], row["error_"]) == (2.0, 8.0, "")
    assert np.isfinite(row["error"])


@pytest.mark.parametrize("seed", [2**31 - 1, 2**31, 2**32 - 1])
def test_large_seeds_are_seeds(seed):
    found = optimize(simulator(SYSTEM), PROBLEM, OBSERVED, trials=1, seed=seed)
    assert np.isfinite(found.best_value)


def test_all_trials_failed_is_told():
    def broken(intervention, n, seed):
        raise OSError("no answer")

    with pytest.raises(DataError, match="all 2 trials failed; the last one: OSError: no answer"):
        optimize(broken, PROBLEM, OBSERVED, trials=2, policy="random")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"trials": 0}, ConfigError, "the budget is spent"),
        ({"trials": 1.5}, ConfigError, "trials is 1.5; it must be a whole number"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"seed": 1.5}, ConfigError, "seed is 1.5; it must be a whole number"),
        ({"policy": "greddy"}, UnknownNameError, "unknown policy"),
        ({"surrogate": "exct"}, UnknownNameError, "did you mean 'exact'"),
        ({"policy": None}, UnknownNameError, "unknown policy None"),
        ({"surrogate": 3}, UnknownNameError, "unknown method 3"),
        ({"simulate": None}, ConfigError, "simulate is None; it must be a function"),
        ({"observations": OBSERVED.drop(columns="Z")}, ProblemError, "has the variables"),
    ],
)
def test_impossible_studies_are_refused_before_any_experiment(changes, error, message):
    def never(intervention, n, seed):
        raise AssertionError("an experiment was made")

    asked = {"simulate": never, "observations": OBSERVED, "trials": 2, **changes}
    with pytest.raises(error, match=message):
        optimize(problem=PROBLEM, **asked)
    assert "do" not in OBSERVED.columns or OBSERVED["do"].eq("").all()
