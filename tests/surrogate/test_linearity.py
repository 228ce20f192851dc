import numpy as np
import pytest

from causal_bayes_opt.surrogate.linearity import log_odds_of_linear


def standardised(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


def chain(function, n, d=4, seed=0):
    """Each variable a function of the one before it, and noise."""
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=n)]
    for _ in range(d - 1):
        columns.append(function(columns[-1]) + 0.5 * rng.normal(size=n))
    return standardised(np.column_stack(columns))


def test_each_surely_linear_mechanism_counts_log_2():
    found = log_odds_of_linear(chain(lambda x: x, 2000))
    assert found == pytest.approx(4 * np.log(2.0), abs=0.05)


@pytest.mark.parametrize("function", [np.tanh, np.abs, lambda x: x + 0.3 * x**2], ids="tap")
def test_curves_are_found_and_the_more_surely_the_more_rows(function):
    few, many = (log_odds_of_linear(chain(lambda x: function(1.5 * x), n)) for n in (200, 1000))
    assert many < few < 0.0


def test_units_and_order_do_not_matter():
    z = standardised(np.random.default_rng(1).normal(size=(30, 2)))
    again = standardised(np.random.default_rng(1).normal(size=(30, 2)) * [3.0, 0.1])
    assert log_odds_of_linear(z) == pytest.approx(log_odds_of_linear(again), abs=1e-4)
    assert log_odds_of_linear(z[:, ::-1]) == pytest.approx(log_odds_of_linear(z), abs=1e-4)


@pytest.mark.parametrize("d", [2, 7, 9])
def test_any_number_of_variables_has_an_answer(d):
    z = standardised(np.random.default_rng(d).normal(size=(20, d)))
    assert -20.0 < log_odds_of_linear(z) <= d * np.log(2.0)


def test_constant_columns_and_copies_have_an_answer():
    z = standardised(np.random.default_rng(0).normal(size=(50, 3)))
    z = np.column_stack([z, z[:, 0], np.zeros(50)])
    assert np.isfinite(log_odds_of_linear(z))
