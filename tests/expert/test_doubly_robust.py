import numpy as np
import pytest
from scipy import stats

from causal_bayes_opt.expert import doubly_robust
from causal_bayes_opt.expert.doubly_robust import (
    N_FOLDS,
    bootstrap_votes,
    select,
    smoothed_shares,
    vote_shares,
)


def linear_rows(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, 2.0 * x[:, 0] - 1.0 * x[:, 2] + rng.standard_normal(n), list("abcdefgh"[:d])


def test_closed_form_is_cross_fitted_least_squares_with_paired_tests():
    x, y, names = linear_rows()
    drawn = np.random.default_rng([7, 1]).integers(len(y), size=(10, len(y)))
    votes = bootstrap_votes(x, y, names, (7,))
    for vote, index in zip(votes, drawn, strict=True):
        rows, target, fold = x[index], y[index], np.arange(len(y)) % N_FOLDS
        scores = np.zeros((len(y), 5))
        for f in range(N_FOLDS):
            own = fold == f
            design = np.column_stack([np.ones(len(y)), rows])
            weights = np.linalg.lstsq(design[~own], target[~own], rcond=None)[0]
            for column in range(5):
                without = design[own].copy()
                if column:
                    without[:, column] = 0.0
                fitted, held = without @ weights, target[own]
                scores[own, column] = held * fitted - fitted * (fitted - held)
        p_values = [stats.ttest_rel(scores[:, 0], scores[:, i]).pvalue for i in range(1, 5)]
        adjusted = stats.false_discovery_control(p_values, method="by")
        assert np.array_equal(vote, adjusted <= 0.05)


def test_selection_is_that_of_benjamini_and_yekutieli():
    statistics = np.random.default_rng(0).standard_normal((200, 7)) * 3
    p_values = 2 * stats.t.sf(np.abs(statistics), 49)
    expected = stats.false_discovery_control(p_values, axis=1, method="by") <= 0.05
    assert np.array_equal(select(statistics, 50), expected)


@pytest.mark.parametrize("regressor", ["least_squares", "mlp"])
def test_shares_of_votes_agree_with_the_recorded_ones(recorded_rows, regressor):
    """Mean difference of a run's shares, over parents and over other variables, is about 0.

    Shares of the same run are of bootstraps of the same rows, so over runs their differences have
    mean 0 if both regressors select alike; one t-test each at 0.001, so that a right
    implementation fails once in 500 sets of records. The networks (one bootstrap a run, for time)
    are the recorded method and are tested on both sides. Least squares may only be better than
    they are on these linear systems: no fewer parents, no more of the others.
    """
    n_bootstraps = 1 if regressor == "mlp" else 10
    parents, others = [], []
    for number, rows in enumerate(recorded_rows):
        votes = bootstrap_votes(
            rows.x, rows.y, rows.names, (number,), n_bootstraps=n_bootstraps, regressor=regressor
        )
        difference = votes.mean(axis=0) - rows.shares
        parents.append(difference[rows.is_parent].mean())
        others += [difference[~rows.is_parent].mean()] if not rows.is_parent.all() else []
    sides = ("two-sided",) * 2 if regressor == "mlp" else ("less", "greater")
    for differences, side in zip((parents, others), sides, strict=True):
        assert stats.ttest_1samp(differences, 0.0, alternative=side).pvalue > 1e-3


def test_votes_do_not_depend_on_units_of_the_target_or_on_order():
    x, y, names = linear_rows()
    votes = bootstrap_votes(x, y, names, (0,))
    assert np.array_equal(bootstrap_votes(x, 1e4 * y - 3e5, names, (0,)), votes)
    turned = bootstrap_votes(x[:, ::-1], y, names[::-1], (0,))
    assert np.array_equal(turned[:, ::-1], votes)


def test_networks_see_what_least_squares_cannot():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 2))
    y = np.abs(x[:, 0]) * 4 + 0.3 * rng.standard_normal(100)
    assert not bootstrap_votes(x, y, ["a", "b"], (0,))[:, 0].any()
    assert bootstrap_votes(x, y, ["a", "b"], (0,), n_bootstraps=2, regressor="mlp")[:, 0].all()


def test_equal_columns_and_fewer_rows_than_variables_give_votes():
    x, y, names = linear_rows()
    twice = bootstrap_votes(np.column_stack([x, x[:, 0]]), y, [*names, "copy"], (0,))
    assert np.array_equal(twice[:, 0], twice[:, 4])
    for n in (2, 3, 5):
        assert bootstrap_votes(x[:n], y[:n], names, (0,)).shape == (10, 4)


def test_shares_leave_out_the_empty_set():
    votes = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=bool)
    members, shares = vote_shares(votes)
    assert members.tolist() == [[True, False], [True, True]]
    assert shares.tolist() == pytest.approx([2 / 3, 1 / 3])
    members, shares = vote_shares(np.zeros((10, 3), dtype=bool))
    assert np.array_equal(members, np.eye(3, dtype=bool))
    assert shares.tolist() == pytest.approx([1 / 3] * 3)


def test_smoothed_shares_leave_nothing_impossible():
    votes = np.array([[True, False]] * 10)
    sets = np.array([[False, False], [True, False], [False, True], [True, True]])
    shares = smoothed_shares(votes, sets, 0.5)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ sets == pytest.approx([10.5 / 11, 0.5 / 11])


def test_sizes_within_a_bucket_do_not_compile_again():
    bootstrap_votes(*linear_rows(60, 4), (0,))
    before = doubly_robust._least_squares_statistics._cache_size()
    bootstrap_votes(*linear_rows(41, 6), (1,))
    assert doubly_robust._least_squares_statistics._cache_size() == before
