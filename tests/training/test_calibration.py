"""A model that is too sure is mended by its temperature."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_bayes_opt.cli import main
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.joint import Network
from causal_bayes_opt.surrogate.network import TrainedModel, load_pretrained, save_model
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.temperature import Tempered, at_temperature
from causal_bayes_opt.training.calibration import calibrate
from causal_bayes_opt.training.configuration import distribution_of

SHIPPED = load_pretrained("linear-gaussian-v1")
PART = {"n_vars": [3, 4], "weights": [0.25, 2.0], "scaling": "iscm"}
DESIGN = {"n_obs": [20, 100], "max_experiments": 24}
CARD = {"systems": [PART], "design": DESIGN}


@dataclass(frozen=True)
class TooSure:
    """The shipped network with log-probabilities half as large again."""

    network: Network = SHIPPED.model
    config: Any = SHIPPED.model.config

    def init(self, key):
        return self.network.init(key)

    def joint(self, params, rows):
        return at_temperature(self.network.joint(params, rows), -jnp.log(1.5))

    def describe(self):
        return self.network.describe()


@pytest.fixture(scope="module")
def mended():
    sure = TrainedModel("sure", TooSure(), SHIPPED.params, CARD)
    return calibrate(sure, distribution_of(CARD), systems=512)


def test_overconfident_model_is_mended_on_other_systems(mended):
    assert mended.after.negative_log_probability < mended.before.negative_log_probability - 0.01
    assert mended.after.calibration_error < 0.5 * mended.before.calibration_error
    assert mended.helps
    assert not replace(mended, before=mended.after).helps


def test_model_that_is_too_sure_by_half_gets_a_temperature_higher_by_half(mended):
    plain = TrainedModel("plain", SHIPPED.model, SHIPPED.params, CARD)
    found = calibrate(plain, distribution_of(CARD), systems=512)
    higher = np.array(mended.temperatures) / np.array(found.temperatures)
    np.testing.assert_allclose(higher, 1.5, rtol=0.02)


def test_command_fits_anew_and_writes_the_temperature_into_the_header(tmp_path, capsys):
    network = AmortizedModel(PredictorConfig(8, 1, 2, 2))
    params = network.init(jax.random.key(0))
    found = []
    for name, model in (("plain", network), ("tempered", Tempered(network, (0.6, 0.0, 0.0, 0.0)))):
        path = save_model(TrainedModel(name, model, params, CARD), tmp_path / name)
        assert main(["calibrate", "--model", str(path), "--systems", "64"]) == 0
        assert "tempered" in capsys.readouterr().out
        found.append(load_pretrained(path))
    # What the temperature was before does not count.
    assert found[0].model == found[1].model
    assert found[0].model.coefficients[0] > 0.1
    assert all(
        (found[0].params[m][k] == v).all() for m, own in params.items() for k, v in own.items()
    )


def test_card_without_systems_and_no_systems_are_refused():
    with pytest.raises(ConfigError, match="the model's card needs systems"):
        distribution_of({})
    with pytest.raises(ConfigError, match="at least 1"):
        calibrate(SHIPPED, distribution_of(CARD), systems=0)
