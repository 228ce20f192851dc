"""Quality measures against small cases worked out by hand."""

import numpy as np
import pytest
from pyrsistent import pmap

from causal_bayes_opt.errors import DataError
from causal_bayes_opt.surrogate.metrics import (
    average_precision,
    calibration_error,
    f1_score,
    judge,
    set_loss,
)
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior


def posterior(probs):
    sets = pmap({frozenset(parents): p for parents, p in probs.items()})
    return ParentSetPosterior("Y", sets, 0.0, variables=("A", "B", "Y"))


def test_average_precision_by_hand():
    scores, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    assert average_precision(scores, truth) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_constant_scores_have_the_precision_of_chance():
    truth = np.array([True, False, False, False])
    for order in (truth, truth[::-1]):
        assert average_precision(np.full(4, 0.3), order) == pytest.approx(0.25)


def test_f1_by_hand_and_where_nothing_is_there():
    assert f1_score(np.array([1, 1, 0], bool), np.array([1, 0, 1], bool)) == pytest.approx(0.5)
    assert f1_score(np.zeros(3, bool), np.zeros(3, bool)) == 1.0
    assert f1_score(np.ones(3, bool), np.zeros(3, bool)) == 0.0


def test_judge_pools_edges_and_averages_losses():
    sure, torn = posterior({("A",): 1.0}), posterior({("A",): 0.25, (): 0.75})
    quality = judge([sure, torn], [frozenset("A"), frozenset("A")])
    assert quality.negative_log_probability == pytest.approx(-np.log(0.25) / 2)
    assert quality.f1 == pytest.approx(2 * 1 / (1 + 2))
    assert quality.exact_match == 0.5


def test_excluded_truth_costs_the_floor_and_stays_finite():
    assert set_loss(posterior({("A",): 1.0}), frozenset("B")) == pytest.approx(-np.log(1e-12))


def test_nothing_to_judge_is_refused():
    with pytest.raises(DataError, match="0 posteriors"):
        judge([], [])


def test_calibration_error_sees_a_shift_and_forgives_chance():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 1.5, size=20_000)
    edges = rng.random(p.size) < p
    assert calibration_error(p, edges) < 0.005
    assert calibration_error(np.clip(p + 0.1, 0, 1), edges) == pytest.approx(0.1, abs=0.02)
