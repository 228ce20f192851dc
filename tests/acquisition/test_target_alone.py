"""Experiments of which the target alone was measured, against what whole rows say."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel
from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policy import expected_improvement
from causal_bayes_opt.acquisition.state import N_GRAPHS, AcquisitionState
from causal_bayes_opt.acquisition.target_alone import (
    WeighedSystems,
    _log_evidence,
    n_graphs,
    reweighed,
)
from causal_bayes_opt.api import infer_parents
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.posterior import MAX_SETS, ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior

NAMES = ("A", "B", "Y", "Z")
SYSTEM = SCM.linear(NAMES, {("A", "B"): 0.6, ("A", "Y"): -0.3, ("B", "Y"): 0.5})
# With Z known to stand apart, a row that lacks Z says as much as one that has it.
APART = EdgePrior(forbidden=[edge for x in "ABY" for edge in (("Z", x), (x, "Z"))])
TRIED = [{"A": a, "B": b} for a in (-2.0, 2.0) for b in (-2.0, 2.0)]
ASKED = Candidates.of([{"A": 2.0}, {"B": 2.0}, {"A": -2.0, "B": 2.0}], NAMES)


def told(seed, rows=40, times=1):
    """Observed rows; those with experiments told by the target alone; and with whole ones."""
    observed = ExperienceBuffer.from_dataframe(sample(SYSTEM, rows, seed=seed))
    alone, whole = observed.copy(), observed.copy()
    for number, done in enumerate(TRIED):
        outcomes = sample(SYSTEM, times, intervention=done, seed=100 * seed + number)
        for row in outcomes.drop(columns="do").to_dict("records"):
            alone.add_intervention(done, {"Y": row["Y"]})
            whole.add_intervention(done, row)
    return observed, alone, whole


def weighed(buffer, seed=0):
    key = jax.random.key(seed)
    posteriors = exact_posterior.posteriors(buffer, prior=APART)
    graphs = posteriors.draw_graphs(key, n_graphs(len(NAMES)))
    systems = WeighedSystems.draw(buffer, graphs, "Y", key)
    return systems, reweighed(posteriors, graphs, systems.of_graphs)


@pytest.mark.parametrize("times", [1, 50])  # where single systems tell, and where none agrees
def test_posteriors_are_those_of_whole_rows_where_what_is_lacking_says_nothing(times):
    off, before = [], []
    for seed in range(8):
        observed, alone, whole = told(seed, times=times)
        wanted = exact_posterior(whole, "Y", prior=APART)
        off.append(weighed(alone)[1]["Y"].total_variation(wanted))
        before.append(exact_posterior(observed, "Y", prior=APART).total_variation(wanted))
    assert np.mean(before) > 0.15  # the experiments do say something
    assert np.mean(off) < 0.2 * np.mean(before)


def test_expected_outcomes_are_those_of_whole_rows_likewise():
    off, before, spreads = [], [], []
    for seed in range(8):
        observed, alone, whole = told(seed, times=4)
        means, spread = [], []
        for buffer in (observed, whole):
            key = jax.random.key(seed)
            graphs = exact_posterior.posteriors(buffer, prior=APART).draw_graphs(key, 512)
            found = LinearOutcomeModel.fit(buffer, graphs, key).means("Y", ASKED)
            means.append(found.mean(axis=1))
            spread.append(found.std(axis=1))
        ours = weighed(alone)[0].outcome_model(np.random.default_rng(0)).means("Y", ASKED)
        off.append(np.abs(ours.mean(axis=1) - means[1]).mean())
        before.append(np.abs(means[0] - means[1]).mean())
        spreads.append(ours.std(axis=1).mean() / spread[1].mean())
    assert np.mean(off) < 0.3 * np.mean(before)
    assert 0.75 < np.mean(spreads) < 1.35


def test_many_outcomes_are_believed_and_expectations_stay_linear():
    _, alone, _ = told(1, times=1000)
    systems, _ = weighed(alone)
    assert systems.power < 0.5  # next to no system drawn beforehand agrees with all of them
    model = systems.outcome_model(np.random.default_rng(0))
    known = model.means("Y", systems.told.candidates)
    error = np.sqrt(systems.variances.mean(axis=1))
    assert (np.abs(known.mean(axis=1) - systems.told.means) < 4 * error).all()
    assert (known.std(axis=1) < 2 * error).all()
    assert (known.std(axis=1) > 0.4 * error).all()  # it is known no better than it was measured
    low, middle, high = model.means("Y", Candidates.of([{"A": a} for a in (-2.0, 0.0, 2.0)], NAMES))
    np.testing.assert_allclose(middle, 0.5 * (low + high), atol=1e-8)
    mean, spread, one = model.predict("Y", {"A": 2.0})
    unit, t = model.scaling, NAMES.index("Y")
    assert mean == pytest.approx(high.mean() * unit.stds[t] + unit.means[t])
    assert spread == pytest.approx(high.std() * unit.stds[t])
    truth = LinearOutcomeModel.of_system(SYSTEM).predict("Y", {"A": 2.0})[2]
    assert one == pytest.approx(truth, rel=0.3)


def test_evidence_of_graphs_is_the_normal_density_over_their_systems():
    rng = np.random.default_rng(0)
    told, each = rng.normal(size=5), 12
    expected, variances = rng.normal(size=(5, 3 * each)), rng.gamma(2.0, size=(5, 3 * each))
    found = _log_evidence(told, expected, variances, each)
    for number in range(3):
        own = slice(number * each, (number + 1) * each)
        covariance = np.cov(expected[:, own]) + np.diag(variances[:, own].mean(axis=1))
        density = multivariate_normal(expected[:, own].mean(axis=1), covariance).logpdf(told)
        assert found[number] == pytest.approx(density + 2.5 * np.log(2 * np.pi))


def test_graphs_are_told_apart_where_no_single_system_agrees():
    """A treatment that only experiments vary moves Y by eight deviations, by way of W or not."""
    rng = np.random.default_rng(0)
    buffer = ExperienceBuffer(["T", "W", "Y"])
    w = rng.normal(size=40)
    buffer.add_observations(np.stack([0 * w, w, w + 0.4 * rng.normal(size=40)], axis=1))
    for level in (1.0, 2.0):
        for noise in rng.normal(size=4):
            buffer.add_intervention({"T": level}, {"Y": -4.0 * level + noise})
    state = AcquisitionState.start(buffer, Problem(("T", "W", "Y"), "Y"), exact_posterior)
    assert state.systems is not None
    assert state.systems.power < 0.5
    # It acts on Y, or on W and W on Y.
    assert state.posterior.probability([]) < 0.05
    before = exact_posterior(buffer, "Y").marginals["T"]
    assert state.posterior.marginals["T"] > before + 0.2


def test_graphs_of_equal_weight_leave_posteriors_as_they_are():
    observed, _, _ = told(0)
    posteriors = exact_posterior.posteriors(observed)
    graphs = posteriors.draw_graphs(jax.random.key(0), 64)
    after = reweighed(posteriors, graphs, np.ones(64))
    for name in NAMES:
        before, same = posteriors[name], after[name]
        assert before.total_variation(same) == pytest.approx(0.0, abs=1e-12)
        assert same.uncertainty == pytest.approx(before.uncertainty)
        assert dict(same.marginals) == pytest.approx(dict(before.marginals))


def test_of_sets_that_are_not_listed_the_rest_is_kept():
    # Fourteen candidates have more sets than are listed.
    names = (*(f"X{i}" for i in range(14)), "Y")
    members = np.array([[*map(int, f"{i:014b}"), 0] for i in range(2**14)], dtype=bool)
    log_probs = np.random.default_rng(0).normal(size=2**14)
    before = ParentSetPosterior.from_log_probs(names, "Y", members, log_probs)
    gains, loses = (parents for parents, _ in before.top_sets(2))
    graphs = np.zeros((2, 15, 15), dtype=bool)
    for graph, parents in zip(graphs, (gains, loses), strict=True):
        graph[[names.index(name) for name in parents], 14] = True
    after = reweighed(dict.fromkeys(names, before), graphs, np.array([1.9, 0.1]))["Y"]
    # What was not drawn loses where a member is in the second graph alone; the rest stays.
    only = [name in loses and name not in gains for name in names]
    listed = np.argsort(-log_probs, kind="stable")[:MAX_SETS]
    factors = np.where((members[listed] & only).any(axis=1), 1.1 / 2, 1.0)
    factors[:2] = 2.9 / 2, 1.1 / 2
    log_probs[listed] += np.log(factors)
    wanted = ParentSetPosterior.from_log_probs(names, "Y", members, log_probs)
    for parents in (gains, loses, before.top_sets(3)[2][0]):
        assert after.probability(parents) == pytest.approx(wanted.probability(parents))
    assert after.uncertainty == pytest.approx(wanted.uncertainty)
    assert dict(after.marginals) == pytest.approx(dict(wanted.marginals))


def test_a_state_knows_of_outcomes_told_alone_and_draws_graphs_without_them():
    observed, alone, whole = told(1, rows=400)  # rows that do not leave in doubt what is linear
    problem = Problem(NAMES, "Y")
    states = [AcquisitionState.start(b, problem, exact_posterior) for b in (observed, alone, whole)]
    assert [state.systems is not None for state in states] == [False, True, False]
    assert states[1].linear
    assert np.shape(states[1].graphs) == (N_GRAPHS, 4, 4)
    assert infer_parents(alone, "Y", method="exact").marginals == states[1].posterior.marginals
    # Without what was drawn, as in a state that was made by hand, they count nothing.
    key = jax.random.key(1)
    without = [replace(states[1], systems=None), replace(states[0], graphs=states[1].graphs)]
    first, second = (expected_improvement(state, key).predicted_mean for state in without)
    assert first == pytest.approx(second)


def test_experiments_told_by_the_target_alone_show_that_a_cause_is_none():
    """Y causes X, which rows cannot tell from the reverse; a hundred outcomes can."""
    scm = SCM.linear(["X", "W", "Y"], {("Y", "X"): 1.0, ("W", "Y"): 0.6})
    rows = ExperienceBuffer.from_dataframe(sample(scm, 200, seed=0))
    study = ACBOPipeline(
        SurrogateUpdate(exact_posterior), expected_improvement, rows, Problem(scm.variables, "Y")
    )
    for level in (-2.0, 2.0):
        outcomes = sample(scm, 50, intervention={"X": level}, seed=int(level) + 5)
        study.tell({"X": level}, outcomes[["Y"]])
    assert infer_parents(rows, "Y", method="exact").marginals["X"] > 0.2
    assert study.state.posterior.marginals["X"] < 0.05
    moved = [
        study.state.systems.outcome_model(np.random.default_rng(0)).predict("Y", {"X": x})[0]
        for x in (-2.0, 2.0)
    ]
    assert abs(moved[1] - moved[0]) < 0.6
    assert "lack a value: of these, outcomes of the target" in study.ask().warnings[0]
