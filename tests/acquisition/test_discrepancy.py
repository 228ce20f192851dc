"""What experiments say against an outcome model, on a system with a hidden common cause."""

import jax
import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.acquisition.discrepancy import CorrectedOutcomeModel, corrected
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.acquisition.smooth_outcome import N_MEMBERS, SmoothOutcomeModel
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import make_intervention

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
    where = [{"X": x} for x in (-1.5, 0.0, 1.5)]
    t, units = VARIABLES.index("Y"), better.scaling
    outcomes = better.experiments.means * units.stds[t] + units.means[t]
    # The mean of 300 outcomes is known to 0.13; the model alone is up to 0.3 off.
    assert [better.predict("Y", done)[0] for done in where] == pytest.approx(outcomes, abs=0.1)
    between = [{"X": x} for x in (-1.3, 0.2, 1.3)]
    assert error(better, between) < error(model, between)


def test_far_from_experiments_the_model_stays_and_its_spread_grows(confounded):
    model, better = confounded
    far = Candidates.of([{"X": -1.5}, {"X": -0.7, "W": 1.5}], VARIABLES)
    shift = np.abs((better.means("Y", far) - model.means("Y", far)).mean(axis=1))
    assert shift[1] < shift[0]
    spread, before = better.means("Y", far).std(axis=1), model.means("Y", far).std(axis=1)
    assert spread[0] < better.deviation
    assert spread[1] > before[1]


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
