"""The outcome model against systems whose answer is known in closed form."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.mechanisms import gaussian, polynomial
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import GraphError

MEDIATED = SCM.linear(
    ["X1", "X2", "Y"],
    {("X1", "X2"): 1.5, ("X1", "Y"): -1.0, ("X2", "Y"): 2.0},
    biases={"X2": 0.5, "Y": 3.0},
)
COLLIDER = SCM.linear(["X1", "Y", "X2"], {("X1", "X2"): 1.0, ("Y", "X2"): -2.0})
FORK = SCM.linear(["X1", "X2", "Y"], {("X1", "X2"): 2.0, ("X1", "Y"): 1.0})


@pytest.mark.parametrize(
    ("scm", "intervention", "mean"),
    [
        (MEDIATED, {"X1": 1.0}, 3.0 - 1.0 + 2.0 * (0.5 + 1.5)),
        (MEDIATED, {"X2": 1.0}, 3.0 + 2.0),
        (MEDIATED, {"X1": 1.0, "X2": 1.0}, 3.0 - 1.0 + 2.0),
        (MEDIATED, {}, 3.0 + 2.0 * 0.5),
        (COLLIDER, {"X2": 5.0}, 0.0),
        (COLLIDER, {"X1": 5.0}, 0.0),
        (FORK, {"X2": 5.0}, 0.0),
        (FORK, {"X1": 2.0}, 2.0),
    ],
)
def test_known_system_gives_the_mean_under_any_intervention(scm, intervention, mean):
    model = LinearOutcomeModel.of_system(scm)
    assert model.predict("Y", intervention)[0] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("scm", [MEDIATED, COLLIDER, FORK])
@pytest.mark.parametrize("intervention", [{"X1": 1.5}, {"X2": -1.0}, {"X1": 1.5, "X2": -1.0}])
def test_learned_model_agrees_with_the_truth_within_its_own_spread(scm, intervention):
    buffer = ExperienceBuffer.from_dataframe(sample(scm, 2000, seed=3))
    graphs = np.repeat(scm.adjacency()[None], 200, axis=0)
    model = LinearOutcomeModel.fit(buffer, graphs, jax.random.key(0))
    mean, spread, outcome_std = model.predict("Y", intervention)
    truth, _, true_std = LinearOutcomeModel.of_system(scm).predict("Y", intervention)
    # Five standard errors of what is not known; nothing here is known better than by 2,000 rows.
    assert abs(mean - truth) < 5 * max(spread, 1 / np.sqrt(2000))
    assert outcome_std == pytest.approx(true_std, rel=0.1)


@pytest.mark.parametrize("n_slots", [2, 12])  # as one number, and too long for that
def test_expected_outcomes_do_not_depend_on_what_else_is_asked(n_slots):
    d = 60
    weights = np.triu(np.random.default_rng(0).normal(size=(3, d, d)) / d, k=1)
    model = LinearOutcomeModel(
        tuple(f"X{i}" for i in range(d)),
        Scaling(np.full(d, 2.0), np.full(d, 3.0)),
        np.linalg.inv(np.eye(d) - weights),
        np.random.default_rng(1).normal(size=(3, d)),
        np.ones((3, d)),
    )
    rng = np.random.default_rng(2)
    asked = [
        {
            f"X{i}": float(rng.normal())
            for i in rng.choice(d - 1, rng.integers(1, n_slots + 1), False)
        }
        for _ in range(20)
    ]
    together = model.means("X59", Candidates.of(asked, model.variables))
    for intervention, means in zip(asked, together, strict=True):
        alone, spread, _ = model.predict("X59", intervention)
        assert 3.0 * means.mean() + 2.0 == pytest.approx(alone)
        assert 3.0 * means.std() == pytest.approx(spread)


def test_outcome_deviation_is_that_of_simulated_outcomes():
    model = LinearOutcomeModel.of_system(MEDIATED)
    drawn = sample(MEDIATED, 20_000, intervention={"X1": 2.0}, seed=5)["Y"]
    mean, _, std = model.predict("Y", {"X1": 2.0})
    assert drawn.mean() == pytest.approx(mean, abs=5 * std / np.sqrt(20_000))
    assert drawn.std() == pytest.approx(std, rel=0.03)


def test_rows_in_which_a_variable_was_set_do_not_inform_its_own_mechanism():
    observed = sample(FORK, 300, seed=1)
    clean = ExperienceBuffer.from_dataframe(observed)
    with_trials = clean.copy()
    for value in (-50.0, 50.0):
        # X1 has no effect that reaches it; setting X2 to extremes must not bend X2's mechanism.
        with_trials.add_intervention({"X2": value}, {"X1": 0.0, "Y": 0.0})
    graphs = np.repeat(FORK.adjacency()[None], 50, axis=0)
    slopes = [
        LinearOutcomeModel.fit(buffer, graphs, jax.random.key(0)).total[:, 0, 1].mean()
        for buffer in (clean, with_trials)
    ]
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-2)


def test_units_do_not_change_predictions():
    frame = sample(MEDIATED, 200, seed=2)
    scaled = frame * [1e3, 1e-3, 7.0] + [5.0, -2.0, 100.0]
    graphs = np.repeat(MEDIATED.adjacency()[None], 30, axis=0)
    models = [
        LinearOutcomeModel.fit(ExperienceBuffer.from_dataframe(f), graphs, jax.random.key(0))
        for f in (frame, scaled)
    ]
    first = models[0].predict("Y", {"X1": 1.0})
    second = models[1].predict("Y", {"X1": 1.0 * 1e3 + 5.0})
    assert second[0] == pytest.approx(first[0] * 7.0 + 100.0, rel=1e-9)
    assert second[2] == pytest.approx(first[2] * 7.0, rel=1e-9)


def test_mechanism_that_is_not_linear_is_refused():
    curved = MEDIATED.with_mechanism(
        "X2", polynomial(["X1"], np.array([[1.0, 1.0]]), 0.0, gaussian())
    )
    with pytest.raises(GraphError, match="mechanism of 'X2' is not linear"):
        LinearOutcomeModel.of_system(curved)
