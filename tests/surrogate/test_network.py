"""Saving, loading and using trained networks."""

import json

import jax
import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.errors import MethodLimitError, ModelError, UnknownNameError
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.network import (
    NetworkSurrogate,
    TrainedModel,
    load_pretrained,
    model_digest,
    save_model,
)
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.protocol import EdgePrior, all_posteriors
from causal_bayes_opt.surrogate.router import Router

MODEL = AmortizedModel(PredictorConfig(hidden_dim=8, num_layers=1, num_heads=2, rank=2))
CARD = {"trained_on": {"n_vars": [3, 6], "n_obs": [20, 200]}}


@pytest.fixture(scope="module")
def trained():
    return TrainedModel("small", MODEL, MODEL.init(jax.random.key(1)), CARD)


def buffer_of(n_vars, n_rows=60):
    scm = random_scm(2, n_vars, SystemDistribution())
    return ExperienceBuffer.from_dataframe(sample(scm, n_rows, seed=1))


def test_saved_model_gives_the_same_answers(trained, tmp_path):
    path = save_model(trained, tmp_path / "deep" / "small")
    loaded = load_pretrained(path)
    buffer = buffer_of(4)
    first, second = (NetworkSurrogate(m)(buffer, "X2") for m in (trained, loaded))
    assert first == second
    assert loaded.card == CARD


def test_one_pass_equals_one_target_at_a_time(trained):
    surrogate, buffer = NetworkSurrogate(trained), buffer_of(5)
    at_once = all_posteriors(surrogate, buffer)
    assert list(at_once) == buffer.get_variable_names()
    for name, posterior in at_once.items():
        assert posterior == surrogate(buffer, name)


def test_known_and_forbidden_edges_condition_the_posterior(trained):
    surrogate, buffer = NetworkSurrogate(trained), buffer_of(4)
    free = surrogate(buffer, "X2")
    prior = EdgePrior(known=(("X1", "X2"),), forbidden=(("X3", "X2"),))
    told = surrogate(buffer, "X2", prior=prior)
    assert told.marginals["X1"] == pytest.approx(1.0)
    assert told.marginals["X3"] == 0.0
    agreeing = {s: p for s, p in free.posterior_probs.items() if "X1" in s and "X3" not in s}
    for parents, p in agreeing.items():
        assert told.probability(parents) == pytest.approx(p / sum(agreeing.values()))
    # What X2 causes for certain cannot cause it.
    assert surrogate(buffer, "X2", prior=EdgePrior(known=(("X2", "X4"),))).marginals["X4"] == 0.0


def test_prior_holds_for_variables_beyond_those_that_are_enumerated(trained):
    """Of 16 variables some are independent of the listed sets."""
    surrogate, buffer = NetworkSurrogate(trained), buffer_of(16)
    names, free = buffer.get_variable_names(), surrogate(buffer, "X1")
    causes = names[1:]
    outside = [name for name in causes if not any(name in s for s in free.posterior_probs)]
    assert outside
    none = surrogate(buffer, "X1", prior=EdgePrior(forbidden=tuple((c, "X1") for c in causes)))
    assert none.probability(()) == pytest.approx(1.0)
    assert set(none.marginals.values()) == {0.0}
    for name in outside:
        known = surrogate(buffer, "X1", prior=EdgePrior(known=((name, "X1"),)))
        assert known.marginals[name] == pytest.approx(1.0)
        effect = surrogate(buffer, "X1", prior=EdgePrior(known=(("X1", name),)))
        assert effect.marginals[name] == 0.0
        sparse = surrogate(buffer, "X1", prior=EdgePrior(edge_probability=1e-3))
        assert sparse.marginals[name] < free.marginals[name]


def test_denser_prior_raises_the_expected_number_of_parents(trained):
    surrogate, buffer = NetworkSurrogate(trained), buffer_of(4)
    sparse, dense = (
        surrogate(buffer, "X1", prior=EdgePrior(edge_probability=p)).marginal_vector().sum()
        for p in (0.1, 0.9)
    )
    assert dense > sparse


def test_what_the_target_is_known_to_lead_to_is_no_cause(trained):
    prior = EdgePrior(known=(("X2", "X3"), ("X3", "X1")))
    marginals = NetworkSurrogate(trained)(buffer_of(3), "X2", prior=prior).marginals
    assert marginals["X1"] == marginals["X3"] == 0.0


def test_data_outside_the_training_range_carry_a_warning(trained):
    surrogate = NetworkSurrogate(trained)
    assert surrogate(buffer_of(4), "X1").warnings == ()
    warnings = surrogate(buffer_of(7, 10), "X1").warnings
    assert "7 variables: the network small was trained on 3 to 6" in warnings
    assert "10 observational rows: the network small was trained on 20 to 200" in warnings


def test_many_variables_are_normalised_and_far_too_many_refused(trained):
    posterior = NetworkSurrogate(trained)(buffer_of(15, 200), "X3")
    total = sum(posterior.posterior_probs.values()) + posterior.mass_left_out
    assert total == pytest.approx(1.0, abs=1e-5)
    assert len(posterior.marginals) == 14
    values = np.random.default_rng(0).normal(size=(5, 101))
    with pytest.raises(MethodLimitError, match="101 variables; the network takes at most 100"):
        NetworkSurrogate(trained)(ExperienceBuffer.from_arrays(values), "X1")


def test_unknown_target_is_named(trained):
    with pytest.raises(UnknownNameError, match="unknown target 'X22'; did you mean 'X2'"):
        NetworkSurrogate(trained)(buffer_of(4), "X22")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/9"}, "has the format 'other/9'"),
        ({"encoding_version": 99}, "was trained for encoding 99"),
        ({"config": {"hidden_dim": 16, "num_layers": 1}}, "do not fit the network in its header"),
    ],
)
def test_file_that_does_not_fit_is_refused_with_the_reason(trained, tmp_path, change, message):
    path = save_model(trained, tmp_path / "small")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_pretrained(path)


def test_broken_or_missing_files_are_refused(trained, tmp_path):
    path = save_model(trained, tmp_path / "small")
    path.with_suffix(".safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"weights of .* cannot be read"):
        load_pretrained(path)
    with pytest.raises(ModelError, match="no such model file"):
        load_pretrained(tmp_path / "other.json")
    with pytest.raises(ModelError, match="no model is called 'linear-gausian-v1'"):
        load_pretrained("linear-gausian-v1")


def test_what_is_written_again_is_read_again(trained, tmp_path):
    path = save_model(trained, tmp_path / "small")
    assert load_pretrained(path) is load_pretrained(str(path))
    other = trained.model.init(jax.random.key(7))
    save_model(TrainedModel("small", trained.model, other, trained.card), path)
    assert model_digest(load_pretrained(path)) != model_digest(trained)


def test_names_may_have_dots(trained, tmp_path):
    for name in ("mixed-0.5", "mixed-0.7"):
        renamed = TrainedModel(name, trained.model, trained.params, trained.card)
        path = save_model(renamed, tmp_path / name)
        assert path == tmp_path / f"{name}.json"
    assert load_pretrained(tmp_path / "mixed-0.5.json").name == "mixed-0.5"
    assert (
        sorted(file.suffix for file in tmp_path.iterdir()) == [".json"] * 2 + [".safetensors"] * 2
    )


def test_shipped_names_hold_where_a_folder_has_one_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linear-gaussian-v1").mkdir()
    assert load_pretrained("linear-gaussian-v1").name == "linear-gaussian-v1"


def test_network_without_an_answer_says_so_and_the_router_asks_exact_inference():
    shipped = load_pretrained()
    lost = jax.tree.map(lambda leaf: leaf * np.nan, shipped.params)
    broken = NetworkSurrogate(TrainedModel("broken", shipped.model, lost, shipped.card))
    scm = random_scm(0, 4, SystemDistribution())
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 300, seed=0))
    with pytest.raises(MethodLimitError, match="'broken' has no answer"):
        broken(buffer, "X1")
    exact = exact_posterior(buffer, "X1")
    answer = Router(exact_posterior, broken, broken)(buffer, "X1")
    assert answer.marginals == exact.marginals
    assert "instead" in answer.metadata["chosen_because"]
    assert any("no answer" in warning for warning in answer.warnings)
    with pytest.raises(MethodLimitError):
        Router(None, broken, broken)(buffer, "X1")


def test_repeated_experiments_are_shown_as_far_as_the_network_knows_so_many():
    scm = random_scm(4, 4, SystemDistribution(mechanisms=("sigmoid",)))
    trials = [sample(scm, 100, intervention={"X1": level}, seed=7) for level in (-1.0, 0.0, 1.0)]
    observed = sample(scm, 60, seed=1).assign(do="")
    rows = pd.concat([observed, *trials], ignore_index=True)
    model = load_pretrained("mixed-v1")
    most = model.card["trained_on"]["n_int"][1]
    kept = np.linspace(0, 299, most).astype(int)
    fewer = pd.concat([observed, rows.iloc[60:].iloc[kept]], ignore_index=True)
    surrogate = NetworkSurrogate(model)
    of_all, of_kept = (
        surrogate(ExperienceBuffer.from_dataframe(data), "X2") for data in (rows, fewer)
    )
    np.testing.assert_allclose(of_all.marginal_vector(), of_kept.marginal_vector(), atol=1e-6)
    assert of_kept.warnings == ()
    assert of_all.warnings == (f"300 experiments: the network mixed-v1 was trained on 0 to {most}",)


def test_causes_that_are_not_enumerated_join_the_sets_of_a_study():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 18))
    values[:, 17] = values[:, 0] ** 2 + 0.4 * values[:, 1] + 0.3 * rng.normal(size=200)
    buffer = ExperienceBuffer.from_arrays(values)
    found = NetworkSurrogate("mixed-v1").posteriors(buffer)
    members, probs = found.list_sets("X18", 256)
    listed = (members * probs[:, None]).sum(axis=0) / probs.sum()
    for number in range(17):
        marginal = found["X18"].marginals.get(f"X{number + 1}", 0.0)
        assert listed[number] == pytest.approx(marginal, abs=0.15)
    assert found["X18"].marginals["X1"] > 0.5
    assert len(np.unique(members, axis=0)) == len(members)
