"""Tempered networks: what a temperature changes, and that it is part of the model."""

import json
from functools import cache
from typing import NamedTuple

import jax
import numpy as np
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.avici_adapter import AxialConfig, AxialModel
from causal_bayes_opt.surrogate.joint import Network
from causal_bayes_opt.surrogate.network import (
    NetworkSurrogate,
    TrainedModel,
    load_pretrained,
    model_digest,
    pad_rows,
    save_model,
)
from causal_bayes_opt.surrogate.posterior import all_subsets
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.temperature import Tempered, features

MODELS = {
    "pairs": AmortizedModel(PredictorConfig(8, 1, 2, 2)),
    "rows": AxialModel(AxialConfig(8, 1, 2)),
}
UNSURE = (0.5, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def network(request):
    return request.param


@cache
def params_of(network):
    return jax.tree.map(lambda leaf: 2.0 * leaf, network.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def params(network):
    return params_of(network)


def buffer_of(n_vars, n_rows=60):
    values = np.random.default_rng(3).normal(size=(n_rows, n_vars))
    values[:, 0] += values[:, 1:].sum(axis=1)
    return ExperienceBuffer.from_arrays(values)


@cache
def compiled(network):
    return jax.jit(network.joint)


class Compiled(NamedTuple):
    """A network that is compiled once for all temperatures."""

    network: Network

    def joint(self, params, rows):
        return compiled(self.network)(params, rows)


@cache
def answers(network, n_vars, temperature=None):
    model = Compiled(network)
    model = model if temperature is None else Tempered(model, temperature)
    return model.joint(params_of(network), pad_rows(buffer_of(n_vars)))


@pytest.mark.parametrize("n_vars", [4, 15])
def test_temperature_of_one_changes_nothing(network, n_vars):
    plain = answers(network, n_vars)
    found = answers(network, n_vars, (0.0, 0.0, 0.0, 0.0))
    np.testing.assert_allclose(np.exp(found.log_probs), np.exp(plain.log_probs), atol=1e-6)
    np.testing.assert_allclose(found.marginals, plain.marginals, atol=1e-5)


@pytest.mark.parametrize("n_vars", [4, 15])
def test_higher_temperature_is_less_sure_and_keeps_the_order(network, n_vars):
    plain = answers(network, n_vars)
    found = answers(network, n_vars, UNSURE)
    for t in range(n_vars):
        own = np.flatnonzero(np.asarray(plain.log_probs[t]) > -1e8)
        before, after = (
            np.exp(np.asarray(j.log_probs[t][own], np.float64)) for j in (plain, found)
        )
        expected = before ** np.exp(-0.5)
        np.testing.assert_allclose(after, expected / expected.sum(), atol=1e-5)
        assert np.asarray(found.log_probs[t]).argmax() == np.asarray(plain.log_probs[t]).argmax()
    assert (np.asarray(found.marginals)[np.asarray(plain.marginals) == 0] == 0).all()
    np.testing.assert_allclose(np.exp(found.log_probs).sum(axis=1), 1.0, rtol=1e-4)


def test_marginals_are_those_of_the_tempered_sets(network):
    found = answers(network, 4, UNSURE)
    inside = np.exp(np.asarray(found.log_probs)) @ all_subsets(found.candidates.shape[1])
    for t in range(4):
        for slot, j in enumerate(np.asarray(found.candidates[t])):
            if found.marginals[t, j] > 0:
                assert found.marginals[t, j] == pytest.approx(inside[t, slot], abs=1e-5)


def test_independent_variables_are_tempered_by_their_odds(network):
    plain, found = (answers(network, 15, temperature) for temperature in (None, UNSURE))
    for t in range(15):
        outside = np.setdiff1d(np.arange(15), [t, *np.asarray(plain.candidates[t]).tolist()])
        before, after = (np.asarray(j.marginals[t, outside], float) for j in (plain, found))
        assert before.size
        expected = np.exp(-0.5) * np.log(before / (1 - before))
        np.testing.assert_allclose(np.log(after / (1 - after)), expected, atol=1e-3)


def test_temperature_follows_rows_experiments_and_variables_within_bounds(network):
    values = np.random.default_rng(0).normal(size=(132, 4))
    mask = np.zeros((132, 4), bool)
    mask[100:, 1] = True
    buffer = ExperienceBuffer.from_arrays(values, mask)
    rows = pad_rows(buffer)
    np.testing.assert_allclose(features(rows), [1, 0, np.log(9), np.log(0.5)], atol=1e-6)
    hot, bound = (
        answers(network, 4, coefficients).log_probs
        for coefficients in ((50.0, 0.0, 0.0, 0.0), (float(np.log(2)), 0.0, 0.0, 0.0))
    )
    np.testing.assert_allclose(hot, bound, atol=1e-4)


def test_saved_temperature_is_loaded_back_and_counts_in_the_digest(network, params, tmp_path):
    plain = TrainedModel("plain", network, params, {})
    tempered = TrainedModel("tempered", Tempered(network, (0.2, 0.1, -0.1, 0.05)), params, {})
    loaded = [load_pretrained(save_model(m, tmp_path / m.name)) for m in (plain, tempered)]
    assert [m.model for m in loaded] == [plain.model, tempered.model]
    assert model_digest(loaded[1]) == model_digest(tempered) != model_digest(plain)
    assert model_digest(loaded[0]) == model_digest(plain)
    asked = [NetworkSurrogate(m)(buffer_of(4), "X1") for m in (plain, tempered, loaded[1])]
    assert asked[1].posterior_probs == asked[2].posterior_probs != asked[0].posterior_probs


@pytest.mark.parametrize("temperature", [[1.0], [0, 0, 0, "hot"], [0, 0, 0, float("nan")]])
def test_temperature_that_is_none_is_refused(network, params, tmp_path, temperature):
    path = save_model(TrainedModel("small", network, params, {}), tmp_path / "small")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": temperature}))
    with pytest.raises(ModelError, match="a temperature has 4 finite coefficients"):
        load_pretrained(path)
