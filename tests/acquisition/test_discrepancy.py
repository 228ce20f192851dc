"""What experiments say against an outcome model, on a system with a hidden common cause."""

import jax
import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.acquisition.discrepancy import CorrectedOutcomeModel, Experiments, corrected
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.acquisition.smooth_outcome import N_MEMBERS, SmoothOutcomeModel
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.core.scaling import Scaling

VARIABLES = ("X", "W", "Y")
RANGES = {"X": (-2.0, 2.0), "W": (-2.0, 2.0)}
GRAPH = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)


def simulate(n, seed, hidden, done):
    """``Y = W^2 / 2 - X + 2 hidden U + noise`` with U behind X: seen only, X seems to raise Y."""
    rng = np.random.default_rng(seed)
    u, w = rng.normal(size=(2, n))
    x = np.full(n, done["X"]) if "X" in done else u + 0.3 * rng.normal(size=n)
    w = np.full(n, done["W"]) if "W" in done else w
    y = 0.5 * w**2 - x + 2.0 * hidden * u + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"X": x, "W": w, "Y": y})


def studied(hidden, times):
    """A model that saw 200 rows and three experiments, and the rows."""
    buffer = ExperienceBuffer(VARIABLES)
    buffer.add_observations(simulate(200, 0, hidden, {}))
    for number, x in enumerate((-1.5, 0.0, 1.5)):
        done = make_intervention({"X": x})
        for row in simulate(times, 10 + number, hidden, done).to_dict("records"):
            buffer.add_intervention(done, row)
    graphs = np.repeat(GRAPH[None], N_MEMBERS, axis=0)
    return SmoothOutcomeModel.fit(buffer, graphs, "Y", jax.random.key(0), RANGES), buffer


@pytest.fixture(scope="module")
def confounded():
    model, buffer = studied(hidden=1.0, times=300)
    return model, corrected(model, buffer, RANGES, np.random.default_rng(0))


def error(model, interventions):
    asked = [model.predict("Y", done)[0] for done in interventions]
    truth = [-done.get("X", 0.0) + 0.5 * done.get("W", 1.0) ** 2 for done in interventions]
    return np.abs(np.subtract(asked, truth)).max()


def test_what_was_measured_counts_where_it_was_measured(confounded):
    model, better = confounded
    assert isinstance(better, CorrectedOutcomeModel)
    done, t, units = better.experiments, VARIABLES.index("Y"), better.scaling
    outcomes = dict(enumerate(done.means * units.stds[t] + units.means[t]))
    foretold = {i: better.predict("Y", done.candidates.named(i, VARIABLES))[0] for i in outcomes}
    # The mean of 300 outcomes is known to 0.13; the model alone is up to 0.3 off.
    assert foretold == pytest.approx(outcomes, abs=0.1)
    between = [{"X": x} for x in (-1.3, 0.2, 1.3)]
    assert error(better, between) < error(model, between)


def test_far_from_experiments_the_model_stays_and_its_spread_grows(confounded):
    model, better = confounded
    far = Candidates.of([{"X": -1.5}, {"X": -0.7, "W": 1.5}], VARIABLES)
    shift = np.abs((better.means("Y", far) - model.means("Y", far)).mean(axis=1))
    assert shift[1] < shift[0]
    spread, before = better.means("Y", far).std(axis=1), model.means("Y", far).std(axis=1)
    assert spread[0] < before[0]
    assert spread[1] > before[1]


def test_doing_nothing_was_measured_too(confounded):
    model, better = confounded
    nothing = Candidates.of([{}], VARIABLES)
    # The error of the mean of 200 observed rows, in deviations.
    known_to = 1.0 / np.sqrt(200.0)
    assert abs(better.means("Y", nothing).mean()) < 2.0 * known_to
    assert better.means("Y", nothing).std() < 1.5 * known_to + model.means("Y", nothing).std()


def test_which_outcomes_count():
    buffer = ExperienceBuffer(VARIABLES)
    buffer.add_observations(simulate(50, 0, 0.0, {}))
    scaling = Scaling.of(buffer)
    for number in range(150):
        value = number / 100.0
        name = "X" if number < 140 else "W"
        row = simulate(1, number, 0.0, {name: value}).to_dict("records")[0]
        buffer.add_intervention(make_intervention({name: value}), row)
    buffer.add_intervention(make_intervention({"Y": 1.0}), {"X": 0.0, "W": 0.0, "Y": 1.0})
    found = Experiments.of(buffer, "Y", scaling)
    # Nothing at all with its 50 outcomes, and the latest of the others; none that set the target.
    named = [found.candidates.named(i, VARIABLES) for i in range(len(found.means))]
    assert len(named) == 128
    assert found.counts[named.index({})] == 50
    assert found.means[named.index({})] == pytest.approx(0.0, abs=1e-6)
    assert {"W": 1.49} in named
    assert {"X": 1.39} in named
    assert {"X": 0.0} not in named
    assert not any("Y" in done for done in named)


def test_answers_are_those_of_predict_in_the_users_units(confounded):
    _, better = confounded
    done = {"X": 0.4, "W": -0.3}
    mean, spread, _ = better.predict("Y", done)
    own = better.means("Y", Candidates.of([done], VARIABLES))[0] * better.scaling.stds[2]
    assert mean == pytest.approx(own.mean() + better.scaling.means[2], abs=1e-5)
    assert spread == pytest.approx(own.std(), abs=1e-5)


def test_a_model_that_experiments_agree_with_stays_as_it_is():
    model, buffer = studied(hidden=0.0, times=1)
    assert corrected(model, buffer, RANGES, np.random.default_rng(0)) is model


def test_without_experiments_nothing_is_corrected():
    model, _ = studied(hidden=0.0, times=1)
    seen = ExperienceBuffer(VARIABLES)
    seen.add_observations(simulate(50, 0, 0.0, {}))
    assert corrected(model, seen, RANGES, np.random.default_rng(0)) is model
