"""Ask and tell: any surrogate and policy, by hand or on a simulator; nothing half done."""

import pickle

import jax
import pandas as pd
import pytest

from causal_bayes_opt.acquisition.baselines import random_choice
from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policies import POLICIES, policy_named
from causal_bayes_opt.acquisition.policy import expected_improvement, thompson_sampling
from causal_bayes_opt.api import suggest
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample, simulator
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, UnknownNameError
from causal_bayes_opt.expert.parent_scale import parent_scale_rule
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.training.deployment import deploy_trained_system

SYSTEM = SCM.linear(["A", "B", "Y"], {("A", "Y"): 1.0, ("B", "Y"): -1.0})
PROBLEM = Problem(SYSTEM.variables, "Y", ranges={"A": (-1.0, 1.0), "B": (-1.0, 1.0)})
ROWS = ExperienceBuffer.from_dataframe(sample(SYSTEM, 80, seed=0))


def pipeline(policy=expected_improvement, **options):
    return ACBOPipeline(SurrogateUpdate(exact_posterior), policy, ROWS, PROBLEM, **options)


def test_by_hand_and_on_a_simulator_are_the_same_study():
    seeds = []

    def simulate(intervention, n, seed):
        seeds.append(seed)
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    whole = pipeline(random_choice, seed=4).run(simulate, 3)
    assert len(set(seeds)) == 3
    study = pipeline(random_choice, seed=4)
    for seed in seeds:
        tried = study.ask().intervention
        row = sample(SYSTEM, 1, intervention=tried, seed=seed)
        study.tell(tried, row.drop(columns="do"))
    assert study.recommend().intervention == whole.best_intervention
    assert len(study.state.buffer) == 83
    assert study.state.step == 3


def test_another_run_goes_on_with_the_study():
    study = pipeline(random_choice, seed=4)
    first, second = (study.run(simulator(SYSTEM), 2).trials for _ in range(2))
    assert [*first["trial"], *second["trial"]] == [1, 2, 3, 4]
    assert not set(first["Y"]) & set(second["Y"])
    assert not set(first["A"].dropna()) & set(second["A"].dropna())


def test_trials_that_fail_later_are_no_end_of_a_study():
    def broken(intervention, n, seed):
        raise RuntimeError("no power")

    study = pipeline(random_choice, seed=4)
    study.run(simulator(SYSTEM), 1)
    found = study.run(broken, 2)
    assert list(found.trials["error"]) == ["RuntimeError: no power"] * 2
    assert found.best_intervention
    nothing = study.run(lambda intervention, n, seed: None, 1)
    assert list(nothing.trials["error"]) == ["the simulator returned no DataFrame with a row"]


def test_a_table_without_rows_is_refused():
    study = pipeline()
    with pytest.raises(DataError, match="the table has no rows"):
        study.tell({"A": 0.5}, sample(SYSTEM, 1, seed=0).iloc[:0])
    assert study.state.step == 0


def test_a_table_of_another_experiment_is_refused():
    study = pipeline()
    rows = sample(SYSTEM, 2, intervention={"A": 0.5}, seed=0)
    with pytest.raises(DataError, match="column 'do' says 'A' where the intervention sets 'B'"):
        study.tell({"B": 0.5}, rows.assign(B=0.5))
    assert study.state.step == 0
    study.tell({"A": 0.5}, rows)
    assert study.state.step == 2


def test_what_failed_is_not_suggested_again():
    tried = []

    def frail(intervention, n, seed):
        tried.append(dict(intervention))
        if intervention.get("A", 0.0) < -0.9:
            raise RuntimeError("too little of A")
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    found = pipeline().run(frail, 6)
    assert tried[0] == {"A": -1.0, "B": 1.0}
    failed = [done for done in tried if done.get("A", 0.0) < -0.9]
    assert len(failed) == len({tuple(done.items()) for done in failed}) < 6
    assert dict(found.best_intervention) not in failed


def test_what_worked_before_it_failed_is_not_insisted_on():
    tried = []

    def goes_down(intervention, n, seed):
        tried.append(tuple(intervention.items()))
        if len(tried) > 2:
            raise RuntimeError("no power")
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    study = pipeline()
    study.run(goes_down, 6)
    assert tried[0] == tried[1] == tried[2]
    assert len(set(tried[2:])) == 4
    # It gave outcomes, so that it is known to be good.
    assert tuple(study.recommend().intervention.items()) == tried[0]


def test_a_failure_that_is_told_by_hand_counts(tmp_path):
    study = pipeline()
    first = study.ask().intervention
    study.tell_failed(first)
    second = study.ask().intervention
    assert second != first
    study.state.buffer.to_csv(tmp_path / "study.csv")
    rows = ExperienceBuffer.from_csv(tmp_path / "study.csv")
    again = ACBOPipeline(SurrogateUpdate(exact_posterior), expected_improvement, rows, PROBLEM)
    assert again.ask().intervention == second
    after = study.surrogate_update_fn(study.state, {"A": 0.5}, {"A": 0.5, "B": 0.0, "Y": 0.5})
    assert after.failed == (first,)
    for wrong, error in (({}, DataError), ({"C": 1.0}, UnknownNameError)):
        with pytest.raises(error):
            study.tell_failed(wrong)
    assert study.ask().intervention == second


def test_a_table_of_many_outcomes_is_one_trial():
    study = pipeline(random_choice)
    study.tell({"A": 0.5}, sample(SYSTEM, 10, intervention={"A": 0.5}, seed=1))
    assert list(study.run(simulator(SYSTEM), 2).trials["trial"]) == [2, 3]


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "auto"])
def test_no_policy_sets_more_than_the_problem_allows(name):
    problem = Problem(SYSTEM.variables, "Y", ranges=dict(PROBLEM.ranges), max_targets=1)
    study = ACBOPipeline(SurrogateUpdate(exact_posterior), policy_named(name), ROWS, problem)
    found = study.run(simulator(SYSTEM), 3)
    assert not found.trials["do"].str.contains(";").any()
    assert len(found.best_intervention) == 1


def test_rows_that_lack_values_are_told_with_the_next_suggestion():
    study = pipeline()
    assert study.ask().warnings == ()
    study.tell({"A": 0.5}, {"Y": -3.0})
    assert study.ask().warnings[0] == (
        "1 of 81 rows lack a value: of these, outcomes of the target alone count, and for its "
        "causes only where mechanisms are linear"
    )


def test_a_table_may_lack_what_was_not_measured():
    told = pd.DataFrame({"A": [0.5, 0.5], "B": pd.array([0.1, None], dtype="Float64"), "Y": 1.0})
    study = pipeline()
    study.tell({"A": 0.5}, told)
    assert (len(study.state.buffer), len(study.state.buffer.rows()[0])) == (82, 81)
    for lacks in ("A", "Y"):
        with pytest.raises(DataError, match=f"'{lacks}' is"):
            study.tell({"A": 0.5}, told.assign(**{lacks: float("nan")}))
    assert study.state.step == 2


def test_rows_of_any_kind_are_taken_and_nothing_is_dropped():
    study = pipeline()
    rows = sample(SYSTEM, 3, intervention={"A": 0.5}, seed=1)
    study.tell({"A": 0.5}, rows)
    study.tell({"A": 0.5}, rows.drop(columns="do").iloc[0])
    assert study.state.step == 4
    with pytest.raises(DataError, match="expected a mapping"):
        study.tell({"A": 0.5}, 3.0)


def test_rows_to_begin_with_are_not_changed():
    study = pipeline()
    study.tell({"A": 0.5}, {"A": 0.5, "B": 0.0, "Y": 0.5})
    assert len(ROWS) == 80


@pytest.mark.parametrize(
    ("intervention", "outcome", "error"),
    [
        ({"A": 0.5}, {"A": 0.1, "B": 0.0, "Y": 0.5}, DataError),
        ({"C": 0.5}, {"A": 0.1, "B": 0.0, "Y": 0.5}, UnknownNameError),
        ({"A": 0.5}, {"Y": float("nan")}, DataError),
        ({"A": 0.5}, {"A": 0.5, "B": 0.0, "Y": 1e200}, DataError),
    ],
)
def test_refused_outcome_leaves_the_study_as_it_was(intervention, outcome, error):
    study = pipeline()
    before = study.ask()
    with pytest.raises(error):
        study.tell(intervention, outcome)
    assert study.ask() == before
    assert len(study.state.buffer) == 80


def test_outcome_of_the_target_alone_is_taken():
    study = pipeline()
    study.tell({"A": 0.5}, {"Y": -3.0})
    assert study.state.best_observed == min(-3.0, ROWS.rows()[0][:, 2].min())
    assert study.ask().intervention


def test_study_without_a_problem_or_trials_is_refused():
    empty = ACBOPipeline(SurrogateUpdate(exact_posterior), random_choice, ExperienceBuffer())
    with pytest.raises(ConfigError, match="call begin"):
        empty.ask()
    with pytest.raises(ConfigError, match="the budget is spent"):
        pipeline().run(simulator(SYSTEM), 0)
    with pytest.raises(ConfigError, match="whole number"):
        pipeline().run(simulator(SYSTEM), True)


def test_trained_model_is_deployed_into_a_study():
    model = AmortizedModel(PredictorConfig(hidden_dim=8, num_layers=1, num_heads=2, rank=2))
    study = deploy_trained_system(model, model.init(jax.random.key(0)))
    study.begin(PROBLEM, ROWS)
    found = study.run(simulator(SYSTEM), 2)
    assert list(found.trials["error"]) == ["", ""]
    assert found.posterior.metadata["model"] == "amortized_model"


@pytest.mark.parametrize("policy", [expected_improvement, thompson_sampling])
def test_a_study_goes_on_inside_a_range_whose_ends_fail(policy):
    problem = Problem(SYSTEM.variables, "Y", ranges={"A": (-1.0, 1.0)}, settable=("A",))

    def frail(intervention, n, seed):
        if abs(intervention["A"]) > 0.8:
            raise RuntimeError("too much of A")
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    study = ACBOPipeline(SurrogateUpdate(exact_posterior), policy, ROWS, problem)
    trials = study.run(frail, 6).trials
    assert (trials["error"] == "").sum() >= 4
    assert abs(study.recommend().intervention["A"]) <= 0.8


def test_where_everything_failed_something_is_tried_again():
    problem = Problem(SYSTEM.variables, "Y", ranges={"A": (-1.0, 1.0)}, settable=("A",))
    study = ACBOPipeline(SurrogateUpdate(exact_posterior), expected_improvement, ROWS, problem)

    def broken(intervention, n, seed):
        raise RuntimeError("no power")

    with pytest.raises(
        DataError, match="all 7 trials failed; the last one: RuntimeError: no power"
    ):
        study.run(broken, 7)
    assert study.ask().intervention


def test_an_absurd_outcome_is_a_trial_that_failed():
    def broken(intervention, n, seed):
        return sample(SYSTEM, n, intervention=intervention, seed=seed).assign(
            Y=lambda rows: rows["Y"] * (1e200 if "A" in intervention else 1.0)
        )

    study = pipeline(random_choice, seed=4)
    errors = study.run(broken, 6).trials["error"]
    assert "check its units" in errors[errors != ""].iloc[0]
    assert (errors == "").any()
    assert study.recommend().intervention


@pytest.mark.parametrize("policy", [policy_named("grpo-linear-v1"), parent_scale_rule()])
def test_a_policy_that_scores_nothing_does_not_insist_on_what_failed(policy):
    study = pipeline(policy)
    first = study.ask().intervention

    def frail(intervention, n, seed):
        if intervention == dict(first):
            raise RuntimeError("not that")
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    errors = study.run(frail, 4).trials["error"]
    assert errors[0]
    assert (errors[1:] == "").all()


def test_that_nothing_helps_is_told():
    problem = Problem(SYSTEM.variables, "Y", ranges={"A": (5.0, 6.0)}, settable=("A",))
    study = ACBOPipeline(SurrogateUpdate(exact_posterior), expected_improvement, ROWS, problem)
    told = "nothing that may be set is expected to improve 'Y': do nothing"
    assert told in study.recommend().warnings
    assert told not in pipeline().recommend().warnings


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda rows: rows.assign(A=0.25, B=0.25), "DataError: '.' was set to .* its outcome is"),
        (lambda rows: rows.assign(do="Y"), "DataError: the table's column 'do' says 'Y' where"),
        (lambda rows: rows.drop(columns="A"), "the simulator's rows lack 'A'; the target and"),
        (lambda rows: rows.drop(columns="Y"), "the simulator's rows lack 'Y'; the target and"),
        (lambda rows: rows.assign(Y=float("nan")), "'Y' has no finite value"),
        (lambda rows: rows[["A", "B", "B", "Y"]], "the simulator's rows have the column 'B' more"),
    ],
)
def test_a_system_that_did_something_else_is_a_trial_that_failed(broken, told):
    """What was not set may not be told as if it had been."""

    def simulate(intervention, n, seed):
        return broken(sample(SYSTEM, n, intervention=intervention, seed=seed))

    study = pipeline()
    with pytest.raises(DataError, match=f"all 2 trials failed; the last one: {told}"):
        study.run(simulate, 2)
    assert study.state.step == 0


def test_a_system_may_leave_out_what_was_neither_set_nor_asked_for():
    problem = Problem(SYSTEM.variables, "Y", ranges={"A": (-1.0, 1.0)}, settable=("A",))

    def simulate(intervention, n, seed):
        rows = sample(SYSTEM, n, intervention=intervention, seed=seed)
        return rows.drop(columns="B") if seed % 2 else rows.assign(B=float("nan"))

    study = ACBOPipeline(SurrogateUpdate(exact_posterior), expected_improvement, ROWS, problem)
    trials = study.run(simulate, 3).trials
    assert (trials["error"] == "").all()
    assert trials["B"].isna().all()
    assert len(study.state.buffer.rows()[0]) == 80
    assert study.state.step == 3


def test_one_failure_does_not_cost_the_optimum():
    calls = []

    def late(intervention, n, seed):
        calls.append(intervention)
        if len(calls) == 1:
            raise TimeoutError("no answer")
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    found = pipeline().run(late, 4).best_intervention
    assert calls[0] == {"A": -1.0, "B": 1.0}
    # A tenth of one range is lost, of 2.0 that can be gained 0.2.
    assert found["A"] - found["B"] == pytest.approx(-1.8)


def test_an_outcome_without_the_target_is_refused():
    study = pipeline()
    with pytest.raises(DataError, match="the outcome lacks the target 'Y'"):
        study.tell({"A": 0.5}, {"B": 0.1})
    assert study.state.step == 0


def test_a_study_is_kept_on_disk_and_goes_on():
    study = pipeline(seed=2)
    study.ask()
    study.tell_failed({"A": 0.5})
    back = pickle.loads(pickle.dumps(study))
    assert back.ask() == study.ask()
    assert back.state.failed == study.state.failed


def test_a_study_from_rows_of_an_earlier_one_draws_anew():
    seeds = []

    def simulate(intervention, n, seed):
        seeds.append(seed)
        return sample(SYSTEM, n, intervention=intervention, seed=seed)

    first = pipeline(random_choice)
    first.run(simulate, 2)
    again = ACBOPipeline(SurrogateUpdate(exact_posterior), random_choice, first.state.buffer)
    again.begin(PROBLEM, first.state.buffer)
    second = again.run(simulate, 2).trials
    assert len(set(seeds)) == 4
    assert list(second["trial"]) == [1, 2]


def test_a_state_stays_as_it_is():
    state = pipeline().state
    with pytest.raises(DataError, match="stay as they are"):
        state.buffer.add_observation({"A": 0.0, "B": 0.0, "Y": 0.0})
    with pytest.raises(ValueError, match="read-only"):
        state.graphs[0, 0, 1] = True
    with pytest.raises(TypeError, match="item assignment"):
        state.posteriors["Y"] = None
    grown = state.buffer.copy()
    grown.add_observation({"A": 0.0, "B": 0.0, "Y": 0.0})
    assert (len(grown), len(state.buffer)) == (81, 80)


def test_a_study_warns_of_its_rows_like_a_single_question():
    few = sample(SYSTEM, 3, seed=0)
    study = ACBOPipeline(
        SurrogateUpdate(exact_posterior),
        expected_improvement,
        ExperienceBuffer.from_dataframe(few),
        PROBLEM,
    )
    told = suggest(few, problem=PROBLEM, method="exact").warnings
    assert "too few to tell causes apart" in told[0]
    assert told[0] in study.ask().warnings
    assert told[0] in study.recommend().warnings
