"""What may cause the target: doubt of the posterior, and what rows say to it."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.acquisition.causes import Causes, chances_of_effects, judged, suspected
from causal_bayes_opt.acquisition.linearity import standardised_evidence
from causal_bayes_opt.acquisition.policy import causes_of, fit_outcome_model
from causal_bayes_opt.acquisition.smooth_outcome import SmoothOutcomeModel
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.mechanisms import from_function, gaussian, linear
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.protocol import EdgePrior
from causal_bayes_opt.surrogate.router import auto_posterior

NONE = np.zeros((1, 3), dtype=bool)
NOTHING = Causes(NONE, np.ones(1))


def marginals(causes):
    return causes.probs @ causes.sets


def test_a_sure_posterior_is_doubted_by_one_cause_and_then_another():
    found = suspected(NOTHING, np.array([1.0, 0.5, 0.0]))
    weights = {tuple(row.tolist()): p for row, p in zip(*found, strict=True)}
    root = np.exp(0.5)
    first, second = 0.1 * root, 0.5 * 0.1 * root
    # Each of the two, after the other one.
    both = (0.2 * 0.1 * 0.5 + 0.2 * 0.05) * root**2
    total = 1.0 + first + second + both
    assert weights == pytest.approx(
        {
            (False, False, False): 1.0 / total,
            (True, False, False): first / total,
            (False, True, False): second / total,
            (True, True, False): both / total,
        }
    )


def test_sixteen_sets_of_many_are_kept_and_none_that_is_impossible():
    rng = np.random.default_rng(0)
    sets = np.unique(rng.random((200, 9)) < 0.3, axis=0)
    sets[:, [2, 8]] = False
    sets = np.unique(sets, axis=0)
    chances = 1.0 * (np.arange(9) % 6 != 2)
    found = suspected(Causes(sets, rng.dirichlet(np.ones(len(sets)))), chances)
    assert found.sets.shape == (16, 9)
    assert not found.sets[:, [2, 8]].any()
    assert found.probs.sum() == pytest.approx(1.0)
    assert (found.probs > 0).all()


def test_experiments_bring_back_a_cause_that_the_posterior_had_given_up():
    scm = SCM(
        ("X", "Z", "Y"),
        {
            "X": linear([], []),
            "Z": linear([], []),
            "Y": from_function(["Z"], lambda z: np.cos(2 * z), gaussian(0.3)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=1))
    for number, level in enumerate(np.linspace(-1.6, 1.6, 12)):
        row = sample(scm, 1, intervention={"Z": level}, seed=number).iloc[0]
        buffer.add_intervention({"Z": level}, {name: float(row[name]) for name in "XZY"})
    suspects = suspected(NOTHING, np.array([1.0, 1.0, 0.0]))
    assert marginals(suspects)[1] < 0.5
    ranges = {"X": (-2.0, 2.0), "Z": (-2.0, 2.0)}
    found = judged(suspects, 2, *standardised_evidence(buffer, ranges), np.zeros(3))
    assert marginals(found)[1] > 0.95
    assert marginals(found)[0] < 0.5


def test_what_the_user_ruled_out_is_no_suspect():
    names = ("X", "Z", "Y")
    scm = SCM(
        names,
        {
            "X": linear([], []),
            "Z": linear([], []),
            "Y": from_function(["X", "Z"], lambda x, z: np.sin(2 * x) + z**2, gaussian(0.3)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=1))
    ranges = {"X": (-2.0, 2.0), "Z": (-2.0, 2.0)}
    problem = Problem(names, "Y", ranges=ranges)
    prior = EdgePrior(forbidden=(("X", "Y"),))
    free, bound = (
        marginals(
            causes_of(AcquisitionState.start(buffer, problem, auto_posterior, prior=p), ranges)
        )
        for p in (None, prior)
    )
    assert free[0] > 0.5
    assert bound[0] == 0.0
    assert bound[1] > 0.5


def test_a_sure_effect_is_no_suspect_though_it_foretells_well():
    names = ("Z", "Y", "W")
    scm = SCM(
        names,
        {
            "Z": linear([], []),
            "Y": from_function(["Z"], np.tanh, gaussian(0.5)),
            "W": from_function(["Y"], lambda y: y + 0.2 * y**2, gaussian(0.3)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 1000, seed=1))
    ranges = {"Z": (-2.0, 2.0), "W": (-2.0, 2.0)}
    state = AcquisitionState.start(buffer, Problem(names, "Y", ranges=ranges), auto_posterior)
    assert state.posteriors["W"].marginals["Y"] > 0.999
    assert marginals(causes_of(state, ranges))[2] < 0.01
    outcomes = fit_outcome_model(state, jax.random.key(0))
    assert isinstance(outcomes, SmoothOutcomeModel)
    low, high = (outcomes.predict("Y", {"W": end})[0] for end in ranges["W"])
    assert abs(high - low) < 0.05
    low, high = (outcomes.predict("Y", {"Z": end})[0] for end in ranges["Z"])
    assert high - low > 1.2


def _rows_of_a_chain(sets_w):
    """Z -> Y -> W: observed rows, and experiments of two hundred outcomes each."""
    scm = SCM(
        ("Z", "Y", "W"),
        {
            "Z": linear([], []),
            "Y": from_function(["Z"], np.tanh, gaussian(0.5)),
            "W": from_function(["Y"], lambda y: y + 0.2 * y**2, gaussian(0.3)),
        },
        "Y",
    )
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=1))
    rng = np.random.default_rng(0)
    for number in range(6):
        done = {name: float(rng.uniform(-2, 2)) for name in ("ZW" if sets_w else "Z")}
        for _, row in sample(scm, 200, intervention=done, seed=number).iterrows():
            buffer.add_intervention(done, {name: float(row[name]) for name in "ZYW"})
    return standardised_evidence(buffer, {"Z": (-2.0, 2.0), "W": (-2.0, 2.0)})


def test_an_effect_that_foretells_is_no_cause_until_it_is_set():
    suspects = Causes(np.array([[True, False, False], [True, False, True]]), np.full(2, 0.5))
    effects = np.array([0.0, 0.0, 0.5])
    left_open = judged(suspects, 1, *_rows_of_a_chain(sets_w=False), effects)
    assert 0.3 < left_open.probs[1] < 0.7
    # Who knows that it is no effect may take it for a cause.
    assert judged(suspects, 1, *_rows_of_a_chain(sets_w=False), 0 * effects).probs[1] > 0.999
    assert judged(suspects, 1, *_rows_of_a_chain(sets_w=True), effects).probs[1] < 0.3


def test_chances_of_effects_follow_chains_and_leave_out_causes():
    edges = np.zeros((4, 4))
    edges[0, 1] = edges[1, 2] = 0.5  # of the target 0
    edges[3, 0], edges[0, 3] = 0.6, 0.2
    assert chances_of_effects(edges, 0) == pytest.approx([0.0, 0.5, 0.25, 0.5])
    edges[3, 0] = 1.0
    assert chances_of_effects(edges, 0)[3] == 1.0
