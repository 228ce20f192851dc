"""Saved policies: they come back whole, and what does not fit is refused."""

import json

import jax
import numpy as np
import pytest

from causal_bayes_opt.acquisition.learned import (
    LearnedPolicy,
    TrainedPolicy,
    load_policy,
    save_policy,
)
from causal_bayes_opt.acquisition.policy_network import PolicyConfig, PolicyNetwork
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.exact import exact_posterior

NETWORK = PolicyNetwork(PolicyConfig(hidden_dim=8, num_layers=1, num_heads=2))


@pytest.fixture
def saved(tmp_path):
    trained = TrainedPolicy("mine", NETWORK, NETWORK.init(jax.random.key(0)), {"note": 1})
    return trained, save_policy(trained, tmp_path / "mine")


def test_policy_comes_back_whole(saved):
    trained, path = saved
    found = load_policy(path)
    assert (found.name, found.network, found.card) == ("mine", NETWORK, {"note": 1})
    for own, other in zip(
        jax.tree.leaves(trained.params), jax.tree.leaves(found.params), strict=True
    ):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoding_version", 99, "was trained for encoding 99;"),
        ("format", "other/1", "has the format 'other/1'"),
        ("config", {"hidden_dim": 16, "num_layers": 1, "num_heads": 2}, "do not fit"),
        ("config", {"width": 16}, "no PolicyConfig"),
    ],
)
def test_file_of_another_version_is_refused_and_the_state_stays(saved, key, value, message):
    _, path = saved
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, key: value}))
    scm = SCM.linear(["A", "Y"], {("A", "Y"): 1.0})
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 30, seed=0))
    problem = Problem(("A", "Y"), "Y", ranges={"A": (-1.0, 1.0)})
    state = AcquisitionState.start(buffer, problem, exact_posterior)
    with pytest.raises(ModelError, match=message):
        LearnedPolicy(path)(state, jax.random.key(0))
    assert len(state.buffer) == 30
    assert state.step == 0


def test_a_header_that_lacks_something_is_refused(saved):
    _, path = saved
    header = json.loads(path.read_text())
    for key, message in (("config", "lacks 'config'"), ("card", "lacks 'card'")):
        path.write_text(json.dumps({name: own for name, own in header.items() if name != key}))
        with pytest.raises(ModelError, match=message):
            load_policy(path)
    path.write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        load_policy(path)


def test_missing_weights_and_unknown_names_are_told(saved, tmp_path):
    _, path = saved
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_policy(path)
    with pytest.raises(ModelError, match="did you mean 'grpo-linear-v1'"):
        load_policy("grpo-linear-v2")


def test_a_shipped_policy_says_where_it_was_not_trained():
    rng = np.random.default_rng(0)

    def warnings_of(n_vars, outcome):
        values = rng.normal(size=(150, n_vars))
        values[:, -1] = outcome(values[:, 0]) + 0.1 * values[:, -1]
        names = [f"X{i}" for i in range(n_vars)]
        buffer = ExperienceBuffer.from_arrays(values, names=names)
        problem = Problem(tuple(names), names[-1], ranges={names[0]: (-1.0, 1.0)})
        state = AcquisitionState.start(buffer, problem, exact_posterior)
        return LearnedPolicy()(state, jax.random.key(0)).warnings

    assert not any("grpo-linear-v1" in told for told in warnings_of(3, lambda x: 2.0 * x))
    bent = warnings_of(3, np.square)
    assert any("mechanisms do not look linear; the policy grpo-linear-v1" in told for told in bent)
    many = warnings_of(10, lambda x: 2.0 * x)
    assert any("10 variables; the policy grpo-linear-v1 was trained on 3 to 8" in t for t in many)
