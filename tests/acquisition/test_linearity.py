"""Whether mechanisms are taken for linear: observed rows first, then experiments."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.acquisition.linearity import (
    is_linear,
    seems_linear,
    standardised_evidence,
)
from causal_bayes_opt.acquisition.outcome import LinearOutcomeModel
from causal_bayes_opt.acquisition.policy import fit_outcome_model
from causal_bayes_opt.acquisition.smooth_functions import Mechanism, log_odds_of_linear
from causal_bayes_opt.acquisition.smooth_outcome import SmoothOutcomeModel
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.api import infer_parents
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.mechanisms import from_function, gaussian, linear
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import MethodLimitError
from causal_bayes_opt.surrogate.router import auto_posterior

NAMES = ("X", "Z", "Y")


def state_of(function, experiments, seed=0, noise=0.3):
    scm = SCM(
        NAMES,
        {
            "X": linear([], []),
            "Z": linear(["X"], [0.5], noise=gaussian(0.5)),
            "Y": from_function(["Z"], function, gaussian(noise)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=seed))
    for number, level in enumerate(np.linspace(-5.0, 5.0, experiments)):
        row = sample(scm, 1, intervention={"Z": level}, seed=100 * seed + number).iloc[0]
        buffer.add_intervention({"Z": level}, {name: float(row[name]) for name in NAMES})
    problem = Problem(NAMES, "Y", ranges={"X": (-5.0, 5.0), "Z": (-5.0, 5.0)})
    return AcquisitionState.start(buffer, problem, auto_posterior)


@pytest.mark.parametrize("experiments", [0, 12])
def test_what_is_linear_stays_linear(experiments):
    state = state_of(lambda z: 0.8 * z, experiments)
    assert is_linear(state)
    assert isinstance(fit_outcome_model(state, jax.random.key(0)), LinearOutcomeModel)


def test_experiments_bring_posterior_and_outcome_model_beyond_linear_together():
    """A wave looks linear where it was observed; taken for linear, its cause would be ruled out."""

    def wave(z):
        return 2.0 * np.sin(z / 2.0)

    assert is_linear(state_of(wave, 0))
    state = state_of(wave, 12)
    assert not is_linear(state)
    assert state.posterior.metadata["model"] == "mixed-v1"
    assert state.posterior.marginals["Z"] > 0.4
    answer = infer_parents(state.buffer, "Y")
    assert answer.marginals["Z"] == pytest.approx(state.posterior.marginals["Z"], abs=1e-5)
    outcomes = fit_outcome_model(state, jax.random.key(0))
    assert isinstance(outcomes, SmoothOutcomeModel)
    levels = [outcomes.predict("Y", {"Z": level})[0] for level in (-1.5, 1.5, 4.5)]
    np.testing.assert_allclose(levels, [wave(level) for level in (-1.5, 1.5, 4.5)], atol=0.3)


def test_linear_must_be_clear_once_there_are_experiments_and_mostly_is():
    """Of what is likelier linear than not, more is refused where it saturates."""
    ranges = dict.fromkeys("XZ", (-5.0, 5.0))

    def share_refused(function):
        likelier, taken = 0, 0
        for seed in range(300, 324):
            state = state_of(function, 20, seed, noise=0.6)
            evidence = standardised_evidence(state.buffer, ranges)
            if log_odds_of_linear(Mechanism(2, (1,)), *evidence) > 0:
                likelier += 1
                taken += seems_linear(state.buffer, "Y", state.posterior, ranges)
        return 1 - taken / likelier

    assert share_refused(lambda z: 4.0 * np.tanh(z / 4.0)) > 1 / 4
    assert share_refused(lambda z: 0.8 * z) < 1 / 6


def test_without_another_answer_the_first_look_counts():
    state = state_of(lambda z: 0.8 * z, 0)
    ranges = dict.fromkeys(("X", "Z"), (-5.0, 5.0))
    asked = []

    def silent(buffer):
        asked.append(len(buffer))
        raise MethodLimitError("the network has no answer")

    assert seems_linear(state.buffer, "Y", state.posterior, ranges, silent)
    assert len(asked) == 1
    # The verdict is kept until there are ten experiments more.
    buffer = state.buffer.copy()
    for number in range(10):
        assert seems_linear(buffer, "Y", state.posterior, ranges, silent)
        assert len(asked) == 1
        level = 0.1 * number
        buffer.add_intervention({"Z": level}, {"X": 0.0, "Z": level, "Y": 0.8 * level})
    assert seems_linear(buffer, "Y", state.posterior, ranges, silent)
    assert asked == [len(state.buffer), len(buffer)]


def test_many_causes_that_are_set_together_do_not_pass_for_bends():
    """The best corner, done again and again, moves the target by all of its causes."""
    causes = [f"X{i}" for i in range(1, 7)]
    scm = SCM.linear([*causes, "Y"], dict.fromkeys([(name, "Y") for name in causes], 1.0))
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=0))
    for number in range(12):
        done = dict.fromkeys(causes, 5.0)
        row = sample(scm, 1, intervention=done, seed=number).iloc[0]
        buffer.add_intervention(done, {name: float(row[name]) for name in scm.variables})
    problem = Problem(scm.variables, "Y", ranges=dict.fromkeys(causes, (-5.0, 5.0)))
    assert is_linear(AcquisitionState.start(buffer, problem, auto_posterior))


@pytest.mark.parametrize(
    ("function", "sets_the_effect", "right"),
    [(lambda z: 2.0 * np.tanh(z / 1.5), False, False), (lambda z: 0.8 * z, True, True)],
    ids=["bent", "linear"],
)
def test_effects_of_the_target_speak_neither_for_nor_against_linear_mechanisms(
    function, sets_the_effect, right
):
    """Of a faithful effect the target looks linear, until experiments set the effect."""
    names = (*NAMES, "E")
    scm = SCM(
        names,
        {
            "X": linear([], []),
            "Z": linear(["X"], [0.5], noise=gaussian(0.5)),
            "Y": from_function(["Z"], function, gaussian(0.3)),
            "E": linear(["Y"], [1.0], noise=gaussian(0.1)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=0))
    for number, level in enumerate(np.linspace(-5.0, 5.0, 20)):
        done = {"Z": level} | ({"E": 5.0 - number % 10} if sets_the_effect else {})
        row = sample(scm, 1, intervention=done, seed=number).iloc[0]
        buffer.add_intervention(done, {name: float(row[name]) for name in names})
    ranges = dict.fromkeys(("X", "Z", "E"), (-5.0, 5.0))
    state = AcquisitionState.start(buffer, Problem(names, "Y", ranges=ranges), auto_posterior)
    assert is_linear(state) is right
