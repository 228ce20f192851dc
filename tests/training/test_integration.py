"""The model in the loop of experiments, by the public names of the integration."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from pyrsistent import pmap

from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import DataError, MethodLimitError, UnknownNameError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.training.integration import (
    convert_amortized_to_posterior,
    create_amortized_surrogate_update_fn,
    generate_parent_sets_from_marginals,
    integrate_amortized_with_buffer,
    update_state_with_intervention,
)

NAMES = ["A", "Y", "B"]
SYSTEM = SCM.linear(NAMES, {("A", "Y"): 2.0, ("B", "Y"): -1.0})
MODEL = AmortizedModel(PredictorConfig(hidden_dim=8, num_layers=1, num_heads=2, rank=2))


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0))


@pytest.fixture
def buffer():
    return ExperienceBuffer.from_dataframe(sample(SYSTEM, 60, seed=1))


def test_marginals_become_the_product_distribution():
    posterior = convert_amortized_to_posterior(np.array([0.9, 0.7, 0.2]), NAMES, "Y")
    assert posterior.probability({"A"}) == pytest.approx(0.9 * 0.8)
    assert posterior.probability({"A", "B"}) == pytest.approx(0.9 * 0.2)
    assert posterior.marginals["B"] == pytest.approx(0.2)
    assert posterior.metadata["source"] == "amortized_model"
    expected = -sum(p * np.log(p) + (1 - p) * np.log(1 - p) for p in (0.9, 0.2))
    assert posterior.uncertainty == pytest.approx(expected)


def test_certain_marginals_stay_finite():
    posterior = convert_amortized_to_posterior(np.array([1.0, 0.0, 0.0]), NAMES, "Y")
    assert posterior.probability({"A"}) == 1.0
    assert posterior.uncertainty == 0.0


def test_joint_log_probabilities_are_kept_as_they_are():
    log_probs = np.log([0.1, 0.2, 0.3, 0.4])  # {}, {A}, {B}, {A, B}
    posterior = convert_amortized_to_posterior(log_probs, NAMES, "Y")
    assert posterior.probability({"B"}) == pytest.approx(0.3)
    assert posterior.probability({"A", "B"}) == pytest.approx(0.4)


def test_wrong_output_is_refused():
    with pytest.raises(DataError, match=r"shape \(5,\); expected \(3,\) marginals or \(4,\)"):
        convert_amortized_to_posterior(np.zeros(5), NAMES, "Y")
    with pytest.raises(DataError, match="between 0 and 1"):
        generate_parent_sets_from_marginals(np.array([1.2, 0.0, 0.1]), NAMES, "Y")
    with pytest.raises(UnknownNameError, match="unknown target 'Z'"):
        convert_amortized_to_posterior(np.zeros(3), NAMES, "Z")
    many = [f"X{i}" for i in range(20)]
    with pytest.raises(MethodLimitError, match="limit 16"):
        generate_parent_sets_from_marginals(np.full(20, 0.5), many, "X0")


def test_update_function_adds_the_trial_and_leaves_the_old_state_alone(buffer, params):
    before = integrate_amortized_with_buffer(buffer, MODEL, params, "Y")
    flat = {n: integrate_amortized_with_buffer(buffer, MODEL, params, n) for n in NAMES}
    state = AcquisitionState(buffer.copy(), Problem(tuple(NAMES), "Y"), flat)
    update = create_amortized_surrogate_update_fn(MODEL, params)
    outcome = pmap({"A": 1.0, "Y": 2.0, "B": 0.0})
    after = update(state, pmap({"A": 1.0}), outcome)
    assert after.step == 1
    assert after.buffer.n_interventions == 1
    assert after.posterior.total_variation(before) > 0
    assert state.step == 0
    assert state.buffer == buffer
    assert state.posterior == before
    again = integrate_amortized_with_buffer(after.buffer, MODEL, params, "Y")
    assert again.total_variation(after.posterior) == 0.0


def test_posterior_of_the_target_alone_replaces_only_its_own(buffer, params):
    flat = {n: integrate_amortized_with_buffer(buffer, MODEL, params, n) for n in NAMES}
    state = AcquisitionState(buffer, Problem(tuple(NAMES), "Y"), flat)
    new = ParentSetPosterior("Y", pmap({frozenset("A"): 1.0}), 0.0, variables=tuple(NAMES))
    state = replace(state, linear=True)
    after = update_state_with_intervention(state, {"A": 1.0}, {"Y": 2.0, "B": 0.0}, new)
    # It was so by the rows of before.
    assert after.linear is None
    assert after.posterior == new
    assert after.posteriors["B"] == flat["B"]


def test_of_two_variables_logarithms_are_told_from_marginals():
    with np.errstate(divide="ignore"):
        certain = np.log([0.0, 1.0])
    assert convert_amortized_to_posterior(certain, ["Y", "X"], "Y").marginals["X"] == 1.0
    likely = convert_amortized_to_posterior(np.log([0.3, 0.7]), ["Y", "X"], "Y")
    assert likely.marginals["X"] == pytest.approx(0.7)
    given = convert_amortized_to_posterior(np.array([0.0, 0.4]), ["Y", "X"], "Y")
    assert given.marginals["X"] == pytest.approx(0.4)


def test_posteriors_of_others_are_not_taken_for_the_target_s(buffer, params):
    problem = Problem(tuple(NAMES), "Y", ranges={"A": (-1.0, 1.0)})
    update = create_amortized_surrogate_update_fn(MODEL, params)
    state = update.start(buffer, problem)
    outcome = {"A": 1.0, "Y": 2.0, "B": 0.0}
    with pytest.raises(DataError, match="for 'Y' is over the parents of 'A'"):
        update_state_with_intervention(state, {"A": 1.0}, outcome, state.posteriors["A"])
    some = {name: state.posteriors[name] for name in ("A", "Y")}
    with pytest.raises(DataError, match="no posterior for 'B'"):
        update_state_with_intervention(state, {"A": 1.0}, outcome, some)
    assert len(state.buffer) == len(buffer)
