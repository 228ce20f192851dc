"""A judge that can fail: bad models get their no-go for the right reason, small samples none."""

import json
import time
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest

from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.errors import ConfigError, GateError, UnknownNameError
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.network import (
    TrainedModel,
    load_pretrained,
    model_digest,
    save_model,
)
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior, all_subsets
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.training import criteria as rules
from causal_bayes_opt.training.cost_benefit import Costs, break_even, costs_of
from causal_bayes_opt.training.criteria import Criterion, Measured, ValidationCriteria, Verdict
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.evidence import order_change, peak_memory
from causal_bayes_opt.training.held_out import (
    HeldOut,
    digest_of_systems,
    generate_test_graphs,
)
from causal_bayes_opt.training.scaling_gate import check_scaling_gate, content_digest
from causal_bayes_opt.training.scaling_study import ScalingStudy, runs_by_number
from causal_bayes_opt.training.transfer import conditions
from causal_bayes_opt.training.validation import (
    ValidationConfig,
    ValidationReport,
    judge,
    measure_amortized_inference,
    measure_parent_scale_performance,
)
from causal_bayes_opt.training.validation_report import write_validation_report

HELD_OUT = HeldOut(graph_sizes=(4,), rows_per_variable=(3,))
# Stands for the training of whatever is judged.
CARD = {
    "systems": [asdict(SystemDistribution(n_vars=(2, 4)))],
    "loop": {"steps": 4, "batch_size": 3, "seed": 0},
}
CONFIG = ValidationConfig(
    systems=30,
    trials=1,
    studies=1,
    held_out=HELD_OUT,
    resamples=100,
    transfer_systems=0,
    scaling=None,
)
TINY = AmortizedModel(PredictorConfig(hidden_dim=8, num_layers=1, num_heads=2, rank=2))


def told(scores_of):
    """A surrogate that gives each candidate a probability of its own, whatever the data say."""

    def surrogate(buffer, target, *, prior=None, key=None):
        names = buffer.get_variable_names()
        scores = np.array(scores_of([name for name in names if name != target]))
        members = np.insert(all_subsets(len(names) - 1), names.index(target), False, axis=1)
        inside = np.delete(members, names.index(target), axis=1)
        log_probs = np.where(inside, np.log(scores), np.log1p(-scores)).sum(axis=1)
        return ParentSetPosterior.from_log_probs(names, target, members, log_probs, {})

    return surrogate


def slow(buffer, target, *, prior=None, key=None):
    time.sleep(0.3)
    return exact_posterior(buffer, target)


def broken(buffer, target, *, prior=None, key=None):
    raise ValueError("no answer today")


def judged(surrogate, **changes):
    return judge(surrogate, replace(CONFIG, **changes), name="under test", card=CARD).content


def verdict(content, part, start):
    (found,) = [c for c in content[part] if c["name"].startswith(start)]
    return found["verdict"]


@pytest.fixture(scope="module")
def good():
    return judged(exact_posterior)


def test_exact_inference_passes_for_quality_order_and_failures(good):
    for start in ("drop of F1", "drop of average", "failures", "change of", "held-out systems"):
        assert verdict(good, "week_2", start) == "go", start
    methods = good["quality"]["methods"]
    assert methods["amortized"] == methods["exact"]
    nothing = good["quality"]["differences"]["exact"]["negative_log_probability"]
    assert (nothing["low"], nothing["high"]) == (0.0, 0.0)
    # Nobody measured its memory, so nobody knows whether all holds.
    assert good["verdicts"]["week_2"] != "go"


def test_random_answers_get_their_no_go_for_quality():
    rng = np.random.default_rng(0)
    content = judged(told(lambda names: rng.uniform(0.05, 0.95, len(names))), systems=80)
    assert verdict(content, "week_2", "drop of average") == "no-go"
    assert verdict(content, "week_2", "failures") == "go"
    assert content["verdicts"]["week_2"] == "no-go"


def test_a_copy_of_the_prior_gets_its_no_go_for_quality():
    content = judged(told(lambda names: [0.25] * len(names)))
    assert verdict(content, "week_2", "drop of F1") == "no-go"
    assert verdict(content, "no_go_indicators", "drop of F1") == "no-go"
    assert verdict(content, "week_2", "change of") == "go"


def test_answers_by_position_get_their_no_go_for_order():
    content = judged(told(lambda names: np.linspace(0.9, 0.1, len(names))))
    assert verdict(content, "week_2", "change of") == "no-go"


def test_a_slow_one_gets_its_no_go_for_speed():
    content = judged(slow, systems=3, studies=3)
    assert verdict(content, "week_2", "share of graphs") == "no-go"
    assert verdict(content, "no_go_indicators", "median speed-up") == "no-go"
    assert verdict(content, "week_2", "change of") == "go"


def test_one_that_fails_gets_its_no_go_and_the_reason():
    content = judged(broken, systems=3, studies=1)
    assert verdict(content, "week_2", "failures") == "no-go"
    assert verdict(content, "week_4", "studies that did not end") == "no-go"
    assert "no answer today" in content["resources"]["failures"][0]


def test_a_small_sample_decides_nothing_about_quality():
    content = judged(exact_posterior, systems=6)
    assert verdict(content, "week_2", "drop of F1") == "undecided"
    assert verdict(content, "week_2", "share of graphs") != "go"


def test_systems_are_fresh_reproducible_and_spare_the_target():
    systems = generate_test_graphs(9, config=HeldOut(graph_sizes=(3, 5), rows_per_variable=(0, 2)))
    again = generate_test_graphs(9, config=HeldOut(graph_sizes=(3, 5), rows_per_variable=(0, 2)))
    assert digest_of_systems(systems) == digest_of_systems(again)
    other = generate_test_graphs(9, 1, HeldOut(graph_sizes=(3, 5), rows_per_variable=(0, 2)))
    assert digest_of_systems(systems) != digest_of_systems(other)
    for system in systems:
        _, mask = system.case.buffer.rows()
        names = system.case.buffer.get_variable_names()
        assert not mask[:, names.index(system.case.target)].any()
        each = system.factors["experiments"]
        assert mask.sum() == each * (len(names) - 1)
        assert system.case.parents == frozenset(system.scm.parents(system.case.target))


def test_what_cannot_be_compared_with_the_training_is_undecided(good):
    content = judge(exact_posterior, replace(CONFIG, systems=2, studies=1), name="no card").content
    assert verdict(content, "week_2", "held-out systems") == "undecided"
    assert good["resources"]["overlap"]["shared_systems"] == 0


def test_a_cost_that_nobody_recorded_leaves_the_break_even_open():
    expert, amortized = np.full(5, 1.5), np.full(5, 0.5)
    known = Costs(training=100.0, tuning=50.0, data=0.0, failed=50.0)
    assert break_even(known, expert, amortized, 50, 0.95)["break_even"]["high"] == 200.0
    found = break_even(replace(known, failed=None), expert, amortized, 50, 0.95)
    assert found["not_recorded"] == ["failed"]
    assert found["break_even"] == {"value": 150.0, "low": 150.0, "high": np.inf}
    card = {"loop": {}, "training_seconds": 7.0, "costs": {"tuning": 5.0}}
    assert costs_of(card, 1.0, {"tuning": 6.0}) == Costs(7.0, 6.0, 0.0, None, 1.0)
    with pytest.raises(UnknownNameError, match="did you mean 'tuning'"):
        costs_of(card, 1.0, {"tunning": 6.0})


def test_verdicts_follow_the_interval():
    assert rules.at_least("x", 2.0, Measured(3, 2.5, 4)).verdict is Verdict.GO
    assert rules.at_least("x", 2.0, Measured(2.2, 1.5, 4)).verdict is Verdict.UNDECIDED
    assert rules.at_least("x", 2.0, Measured(1.5, 1.1, 1.9)).verdict is Verdict.NO_GO
    assert rules.below("x", 0.2, Measured(0.1, 0.0, 0.2)).verdict is Verdict.UNDECIDED
    assert rules.at_most("x", 0.0, Measured.exactly(0)).verdict is Verdict.GO
    assert rules.at_most("x", 0.0, None).verdict is Verdict.UNDECIDED
    share = Measured.share(10, 10, 0.95)
    assert share.value == 1.0
    assert share.low == pytest.approx(0.7225, abs=1e-4)  # Wilson
    go, no, maybe = (
        Criterion("", "", 0, None, v) for v in (Verdict.GO, Verdict.NO_GO, Verdict.UNDECIDED)
    )
    assert rules.all_hold([go, go]) is Verdict.GO
    assert rules.all_hold([go, maybe]) is Verdict.UNDECIDED
    assert rules.all_hold([go, maybe, no]) is Verdict.NO_GO
    assert rules.most_hold([go, go, go, no]) is Verdict.GO
    assert rules.most_hold([go, go, maybe, no]) is Verdict.UNDECIDED
    assert rules.most_hold([go, go, no, no]) is Verdict.NO_GO


def test_conditions_know_what_the_training_had():
    trained = {"n_vars": 12, "mechanisms": {"linear", "sigmoid"}, "noises": {"gaussian"}}
    unseen = {c.name: c.unseen for c in conditions(HeldOut(), [(9, 12), (20,)], trained)}
    assert [unseen["9 to 12 variables"], unseen["20 variables"]] == [False, True]
    assert [unseen["sigmoid mechanisms"], unseen["neural mechanisms"]] == [False, True]
    assert [unseen["scale_free graphs"], unseen["laplace noise"]] == [True, True]


def test_the_plans_names_measure_seconds_a_graph():
    systems = generate_test_graphs(2, config=HELD_OUT)
    params = TINY.init(jax.random.key(0))
    assert measure_amortized_inference(TINY, params, systems, trials=1) > 0
    assert measure_parent_scale_performance(systems, trials=1) > 0


def test_order_does_not_change_exact_inference():
    assert order_change(exact_posterior, generate_test_graphs(3, config=HELD_OUT)) < 1e-9


def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    path = save_model(TrainedModel("tiny", TINY, TINY.init(jax.random.key(0)), {}), tmp_path / "m")
    found = peak_memory(path, batch_size=2)
    assert 2**26 < found["inference"] < found["training"] < 2**34


def test_impossible_configurations_are_refused():
    with pytest.raises(ConfigError, match="0 systems"):
        generate_test_graphs(0)
    with pytest.raises(ConfigError, match="at least 1"):
        ValidationConfig(systems=0)
    with pytest.raises(ConfigError, match="lies in 0 to 1"):
        ValidationCriteria(min_share=90)


def test_the_first_part_of_the_demonstrations_is_like_the_whole(tmp_path):
    generator = MinimalDatasetGenerator(graph_sizes=(3, 5), n_systems=6, teacher="truth")
    told = []
    runs = runs_by_number(generator, tmp_path / "store", told.append)
    sizes = [run[0].observational_data.shape[1] for run in runs]
    assert sizes == [3, 5, 3, 5, 3, 5]
    assert told[-1] == "demonstrations on 6 of 6 systems"


def test_demonstrations_of_the_scaling_study_are_like_what_is_judged():
    study = ScalingStudy(demonstrations=(20, 55), compared=(20, 55))
    linear = study.generator(HELD_OUT)
    assert (linear.count, linear.graph_sizes) == (6, (4,))
    assert linear.expert["mechanism"] == "linear"
    held_out = replace(HELD_OUT, mechanisms=("neural", "linear"), noises=("laplace",))
    other = study.generator(held_out)
    assert other.systems.mechanisms == ("neural", "linear")
    assert other.systems.noises == ("laplace",)
    assert other.expert["mechanism"] == "nonlinear"


# -- the report, and the gate that it opens ---------------------------------------------------


def test_the_report_is_one_page_that_needs_no_network(good, tmp_path):
    path = write_validation_report(ValidationReport(good), tmp_path)
    text = path.read_text()
    assert "http" not in text
    assert "<script" not in text
    for name in ("reliability", "speedup", "quality_by_size", "break_even"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert text.count("data:image/png") == 4
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["digest"] == content_digest(content)


@pytest.fixture
def favourable(good):
    """A report on the shipped model that says go; the judge's own verdict is tested above."""
    content = json.loads(json.dumps(good))
    content["verdicts"]["week_2"] = "go"
    content["model"]["digest"] = model_digest(load_pretrained())
    return content


def written(content, path):
    path.write_text(ValidationReport(content).to_json())
    return path


def test_a_favourable_report_opens_the_gate(favourable, tmp_path):
    check_scaling_gate(written(favourable, tmp_path / "r.json"))


def test_other_reports_do_not(favourable, tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(GateError, match="judged other weights"):
        check_scaling_gate(written(favourable, path), model="mixed-v1")
    with pytest.raises(GateError, match="other thresholds"):
        check_scaling_gate(path, criteria=ValidationCriteria(min_speedup=3.0))
    path.write_text(path.read_text().replace('"systems": 30', '"systems": 300'))
    with pytest.raises(GateError, match="changed after it was written"):
        check_scaling_gate(path)
    foreign = {**favourable, "data": {**favourable["data"], "digest": "0" * 64}}
    with pytest.raises(GateError, match="does not draw"):
        check_scaling_gate(written(foreign, path))
    with pytest.raises(GateError, match="says 'no-go'"):
        check_scaling_gate(
            written({**favourable, "verdicts": {"week_2": "no-go", "week_4": "go"}}, path)
        )
    path.write_text("{}")
    with pytest.raises(GateError, match="no validation report"):
        check_scaling_gate(path)
    check_scaling_gate(path, force=True)
