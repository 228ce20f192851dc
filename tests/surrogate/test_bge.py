"""BGe scores against their definitions, and data that would break a careless determinant."""

from itertools import permutations

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import t as student

from causal_bayes_opt.errors import DataError
from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets, scores_up_to


def data(d, n=40, seed=0, share=0.2):
    """Correlated rows, a share of whose values was set (several in a row at times)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d)))
    return values, rng.random((n, d)) < share


def score_by_formula(values, mask, node, parents):
    """The score from determinants, with alpha_mu = 1, alpha_w = n_vars + 2 and nu = 0."""
    rows = values[~mask[:, node]]
    n, k, d = len(rows), len(parents), values.shape[1]
    alpha_w, t = d + 2, 0.5
    mean = rows.mean(axis=0) if n else np.zeros(d)
    centred = rows - mean
    R = t * np.eye(d) + centred.T @ centred + n / (n + 1) * np.outer(mean, mean)
    family = [*parents, node]
    return (
        0.5 * np.log(1 / (n + 1))
        + gammaln((n + alpha_w - d + k + 1) / 2)
        - gammaln((alpha_w - d + k + 1) / 2)
        - n / 2 * np.log(np.pi)
        + (alpha_w - d + 2 * k + 1) / 2 * np.log(t)
        + (n + alpha_w - d + k) / 2 * np.linalg.slogdet(R[np.ix_(parents, parents)])[1]
        - (n + alpha_w - d + k + 1) / 2 * np.linalg.slogdet(R[np.ix_(family, family)])[1]
    )


@pytest.mark.parametrize(("d", "n", "share"), [(2, 5, 0.0), (4, 40, 0.3), (5, 3, 0.2), (3, 6, 0.7)])
def test_scores_are_those_of_the_formula(d, n, share):
    values, mask = data(d, n=n, seed=d, share=share)
    scores = scores_of_all_sets(Statistics.of(values, mask))
    for node in range(d):
        others = [i for i in range(d) if i != node]
        for row in range(2 ** (d - 1)):
            parents = [others[s] for s in range(d - 1) if row >> s & 1]
            expected = score_by_formula(values, mask, node, parents)
            assert scores[node, row] == pytest.approx(expected, abs=1e-9)


def test_score_of_a_variable_set_in_every_row_is_zero():
    values, mask = data(4)
    mask[:, 2] = True
    np.testing.assert_allclose(scores_of_all_sets(Statistics.of(values, mask))[2], 0.0, atol=1e-12)


def test_rows_in_which_a_variable_was_set_do_not_count_for_it():
    values, mask = data(3, share=0.0)
    mask[30:, [0, 2]] = True
    whole, first = Statistics.of(values, mask), Statistics.of(values[:30], mask[:30])
    scores, without = scores_of_all_sets(whole), scores_of_all_sets(first)
    np.testing.assert_allclose(scores[[0, 2]], without[[0, 2]], rtol=1e-12)
    assert np.abs(scores[1] - without[1]).max() > 1


def test_observations_cannot_tell_equivalent_graphs_apart():
    """All complete graphs are equivalent, as are a chain, its reverse and a fork."""
    values, mask = data(4, share=0.0)
    scores = scores_of_all_sets(Statistics.of(values, mask))

    def score(parents_of):
        total = 0.0
        for node, parents in parents_of.items():
            others = [i for i in range(4) if i != node]
            total += scores[node, sum(1 << others.index(i) for i in parents)]
        return total

    complete = [
        score({node: order[:place] for place, node in enumerate(order)})
        for order in permutations(range(4))
    ]
    np.testing.assert_allclose(complete, complete[0], rtol=1e-12)
    chain = score({0: (), 1: (0,), 2: (1,)})
    assert chain == pytest.approx(score({2: (), 1: (2,), 0: (1,)}), abs=1e-9)
    assert chain == pytest.approx(score({1: (), 0: (1,), 2: (1,)}), abs=1e-9)
    assert abs(chain - score({0: (), 2: (), 1: (0, 2)})) > 0.1


@pytest.mark.parametrize("max_parents", [0, 1, 2, 5, 9])
def test_scores_with_a_limit_are_those_without(max_parents):
    statistics = Statistics.of(*data(6, seed=7))
    rows, scores = scores_up_to(statistics, max_parents)
    sizes = [row.bit_count() for row in rows.tolist()]
    assert sorted(rows.tolist()) == [r for r in range(32) if r.bit_count() <= max_parents]
    assert max(sizes) == min(max_parents, 5)
    np.testing.assert_allclose(scores, scores_of_all_sets(statistics)[:, rows], rtol=1e-12)


def test_score_is_the_evidence_by_its_definition():
    """Chain rule: the evidence is a product of Student predictive densities, row after row."""
    values, mask = data(3, n=12, seed=8, share=0.0)
    score = scores_of_all_sets(Statistics.of(values, mask))[2, 0b11]
    # Normal-inverse-gamma regression: 1/v ~ Gamma((2 + k + 1)/2, rate 1/4), coefficients
    # N(0, 2 v), intercept N(0, v): the prior whose evidence the BGe score is.
    k = 2
    design = np.column_stack([np.ones(12), values[:, :2]])
    precision, moment = np.diag([1.0, 0.5, 0.5]), np.zeros(3)
    shape, rate = (3 + k) / 2, 0.25
    total = 0.0
    for x, y in zip(design, values[:, 2], strict=True):
        mean = np.linalg.solve(precision, moment)
        scale = rate / shape * (1 + x @ np.linalg.solve(precision, x))
        total += student.logpdf(y, 2 * shape, x @ mean, np.sqrt(scale))
        before = mean @ precision @ mean
        precision, moment = precision + np.outer(x, x), moment + x * y
        after = np.linalg.solve(precision, moment)
        shape, rate = shape + 0.5, rate + 0.5 * (y * y + before - after @ precision @ after)
    assert score == pytest.approx(total, abs=1e-8)


def test_no_rows_at_all_give_zero():
    empty = Statistics.of(np.zeros((0, 3)), np.zeros((0, 3), dtype=bool))
    np.testing.assert_allclose(scores_of_all_sets(empty), 0.0, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 1e6, 1e9, 1e90])
def test_copies_of_one_variable_stay_finite_at_any_size(spread):
    """Each pivot is a difference of large numbers, which rounding may turn negative."""
    values = np.tile(np.random.default_rng(0).normal(size=(40, 1)), (1, 6))
    values[20:] *= spread
    statistics = Statistics.of(values, np.zeros(values.shape, dtype=bool))
    assert np.isfinite(scores_of_all_sets(statistics)).all()
    assert np.isfinite(scores_up_to(statistics, 2)[1]).all()
    assert statistics.loses_digits() == (spread > 1e6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_values_that_cannot_be_squared_are_refused(value):
    values, mask = data(3)
    values[4, 1] = value
    with pytest.raises(DataError, match="standard deviations from the observed mean; less than"):
        Statistics.of(values, mask)
