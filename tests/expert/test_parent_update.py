import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, multivariate_t

from causal_bayes_opt.core import padding
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.expert import parent_update
from causal_bayes_opt.expert.parent_update import NOISE_RATE, NOISE_SHAPE, replay

SETS = np.array([[False, False], [True, False], [False, True], [True, True]])


def absorb(x, y, n_observed, *, weights=None, noise="unit", nonlinear=False, predictive="exact"):
    """Log-weights after each scored row, for all subsets of two variables."""
    with padding.double():
        state = parent_update.start(
            SETS, np.ones(4) if weights is None else weights, noise=noise, nonlinear=nonlinear
        )
        observed = parent_update.padded_rows(x[:n_observed], y[:n_observed])
        state = parent_update.condition(state, *observed)
        rows, outcomes, present = parent_update.padded_rows(x[n_observed:], y[n_observed:])
        floors = np.zeros(len(outcomes))
        state, steps = parent_update.absorb(
            state, rows, outcomes, present, floors, predictive=predictive, noise=noise
        )
    return state, np.asarray(steps)[: len(y) - n_observed]


def rows(seed, n=9, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2)) * scale
    return x, x @ [1.5, -0.5] + rng.standard_normal(n)


def test_every_recorded_posterior_is_repeated(records):
    n_rows = 0
    for record in records:
        steps = replay(record, predictive="public")
        for step, update in zip(steps, record["updates"], strict=True):
            expected = {frozenset(parents): p for parents, p in update["posterior"]}
            assert set(step) == set(expected)
            for parents, p in expected.items():
                assert step[parents] == pytest.approx(p, abs=1e-9)
            n_rows += 1
    assert n_rows == sum(len(record["updates"]) for record in records)


def test_the_right_variance_finds_parents_better_than_the_public_one(records):
    def mean_f1(predictive):
        scores = []
        for record in records:
            last = replay(record, predictive=predictive)[-1]
            names = set(record["variables"])
            found = {n for n in names if sum(p for s, p in last.items() if n in s) > 0.5}
            true = set(record["true_parents"])
            scores.append(2 * len(found & true) / (len(found) + len(true)))
        return np.mean(scores)

    assert mean_f1("exact") > mean_f1("public")


@given(seed=st.integers(0, 2**32 - 1), n_observed=st.integers(0, 8), scale=st.floats(0.1, 10))
def test_scored_rows_have_the_density_of_scipy(seed, n_observed, scale):
    x, y = rows(seed, scale=scale)
    expected = []
    for members in SETS:
        design = x[:, members]
        kernel = np.eye(len(y)) + design @ design.T
        joint = multivariate_normal(np.zeros(len(y)), kernel).logpdf(y)
        if n_observed:
            part = kernel[:n_observed, :n_observed]
            joint -= multivariate_normal(np.zeros(n_observed), part).logpdf(y[:n_observed])
        expected.append(joint)
    _, steps = absorb(x, y, n_observed)
    assert relative(steps[-1]) == pytest.approx(relative(expected), abs=1e-8)


@given(seed=st.integers(0, 2**32 - 1), n_observed=st.integers(0, 8), scale=st.floats(0.1, 10))
def test_learned_noise_has_the_student_density_of_scipy(seed, n_observed, scale):
    x, y = rows(seed, scale=scale)
    expected = []
    for members in SETS:
        design = np.column_stack([x[:, members], np.ones(len(y))])
        kernel = (np.eye(len(y)) + design @ design.T) * NOISE_RATE / NOISE_SHAPE
        joint = multivariate_t(np.zeros(len(y)), kernel, df=2 * NOISE_SHAPE).logpdf(y)
        if n_observed:
            part = kernel[:n_observed, :n_observed]
            before = multivariate_t(np.zeros(n_observed), part, df=2 * NOISE_SHAPE)
            joint -= before.logpdf(y[:n_observed])
        expected.append(joint)
    _, steps = absorb(x, y, n_observed, noise="learned")
    assert relative(steps[-1]) == pytest.approx(relative(expected), abs=1e-7)


def test_nonlinear_rows_are_scored_before_they_are_learned():
    x, y = rows(3)
    _, steps = absorb(x, y, 5, nonlinear=True)
    frequencies, phases = parent_update.fourier_features(SETS, ["0", "1"], (0,))
    expected = []
    for s in range(len(SETS)):
        inner = x @ frequencies[s] + phases[s]
        features = np.sqrt(2 / parent_update.N_FEATURES) * np.cos(inner)
        kernel = np.eye(len(y)) + features @ features.T
        joint = multivariate_normal(np.zeros(len(y)), kernel).logpdf(y)
        before = multivariate_normal(np.zeros(5), kernel[:5, :5]).logpdf(y[:5])
        expected.append(joint - before)
    assert relative(steps[-1]) == pytest.approx(relative(expected), abs=1e-8)


def test_random_features_follow_the_names():
    members = np.array([[True, False, True], [False, True, True]])
    straight = parent_update.fourier_features(members, ["a", "b", "c"], (0,))
    turned = parent_update.fourier_features(members[:, ::-1], ["c", "b", "a"], (0,))
    assert np.array_equal(straight[0], turned[0][:, ::-1])
    assert np.array_equal(straight[1], turned[1])


def test_the_empty_set_wins_where_nothing_matters():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((140, 2)) * 3, rng.standard_normal(140)
    for noise in ("unit", "learned"):
        _, steps = absorb(x, y, 60, noise=noise)
        assert steps[-1][:4].argmax() == 0


def test_a_dropped_set_does_not_return():
    x, y = rows(1, n=20)
    with padding.double():
        state = parent_update.start(SETS, np.array([1.0, 1.0, 1e-6, 1.0]))
        padded = parent_update.padded_rows(x, y)
        floors = np.where(padded[2], 1e-4, 0.0)
        _, steps = parent_update.absorb(state, *padded, floors)
    assert (np.asarray(steps)[:20, 2] == -np.inf).all()


def test_impossible_rows_leave_the_posterior_alone():
    x, y = rows(2)
    y[-1] = 1e200
    _, steps = absorb(x, y, 5)
    assert np.array_equal(steps[-1], steps[-2])
    assert np.isfinite(steps[-1][:4]).all()


def test_many_systems_under_one_vmap_are_as_each_alone():
    alone, stacked = [], []
    for seed in range(3):
        x, y = rows(seed)
        alone.append(absorb(x, y, 5)[1][-1])
        with padding.double():
            state = parent_update.start(SETS, np.ones(4))
            stacked.append(
                (
                    state,
                    parent_update.padded_rows(x[:5], y[:5]),
                    parent_update.padded_rows(x[5:], y[5:]),
                )
            )

    def one(state, observed, scored):
        state = parent_update.condition(state, *observed)
        return parent_update.absorb(state, *scored, np.zeros(16))[1]

    with padding.double():
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *stacked)
        together = np.asarray(jax.vmap(one)(*batch))
    # Rows that are padding repeat the last log-weights.
    assert np.allclose(together[:, -1, :4], np.array(alone)[:, :4], atol=1e-12)


def test_sizes_within_a_bucket_do_not_compile_again():
    x, y = rows(0, n=12)
    absorb(x, y, 5)
    before = parent_update.absorb._cache_size(), parent_update.condition._cache_size()
    absorb(x[:10], y[:10], 4)
    absorb(np.column_stack([x])[:, :2], y, 7, weights=np.array([1.0, 2.0, 3.0, 4.0]))
    assert (parent_update.absorb._cache_size(), parent_update.condition._cache_size()) == before


def test_there_is_no_public_code_to_repeat_beyond_the_linear_one():
    x, y = rows(0)
    with pytest.raises(ConfigError, match="repeats the linear code"):
        absorb(x, y, 5, noise="learned", predictive="public")


def relative(logs):
    logs = np.asarray(logs)[:4]
    return logs - logs.max()
