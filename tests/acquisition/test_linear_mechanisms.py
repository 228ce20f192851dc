"""Conjugate linear mechanisms: rank-one steps, padding, draws, and exact total effects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_bayes_opt.acquisition import linear_mechanisms as lm
from causal_bayes_opt.core.padding import double

N, D = 40, 4
GRAPHS = np.zeros((3, D, D), dtype=bool)
GRAPHS[0, 0, 1] = GRAPHS[0, 1, 2] = GRAPHS[0, 0, 2] = True
GRAPHS[1, 2, 1] = GRAPHS[1, 3, 1] = True
PARENTS = lm.parent_columns(GRAPHS, 2)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, D))
    values[:, 2] += 2.0 * values[:, 0]
    return values, rng.random((N, D)) < 0.2


def fitted(values, mask):
    with double():
        return jax.jit(lambda v, m, r: lm.fit(lm.moments(v, m, r), PARENTS))(
            values, mask, np.ones(len(values), dtype=bool)
        )


def test_rank_one_steps_give_what_all_rows_together_give(rows):
    values, mask = rows
    padded = np.zeros_like(values), np.zeros_like(mask)
    with double():
        start = jax.jit(lambda v, m, r: lm.fit(lm.moments(v, m, r), PARENTS))(
            *padded, np.zeros(N, dtype=bool)
        )
        step = jax.jit(lm.condition)
        for row, was_set in zip(values, mask, strict=True):
            start = step(start, row, was_set)
    whole = fitted(values, mask)
    for name in ("mean", "scale", "shape", "rate"):
        np.testing.assert_allclose(getattr(start, name), getattr(whole, name), atol=1e-10)


def test_graphs_gain_weight_by_the_student_density_of_a_row(rows):
    values, mask = rows
    before = fitted(values[:-1], mask[:-1])
    row, was_set = values[-1], np.array([True, False, False, True])
    with double():
        after = jax.jit(lm.condition)(before, row, was_set)
    expected = np.zeros(len(GRAPHS))
    for m, graph in enumerate(GRAPHS):
        for node in (1, 2):
            x = np.append(1.0, row[graph[:, node]])
            k = len(x)
            scale = np.asarray(before.scale[m, node])[:k, :k]
            spread = 1.0 + x @ scale @ x
            shape, rate = float(before.shape[node]), float(before.rate[m, node])
            expected[m] += stats.t.logpdf(
                row[node],
                2 * shape,
                x @ np.asarray(before.mean[m, node])[:k],
                np.sqrt(rate / shape * spread),
            )
    np.testing.assert_allclose(after.log_weights, expected, atol=1e-9)


def test_draws_have_the_mean_and_spread_of_the_posterior(rows):
    values, mask = rows
    found = fitted(values, mask)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 4000, axis=0), found.parents)
    with double():
        posterior = lm.fit(lm.moments(values, mask, np.ones(N, dtype=bool)), many)
        rng = np.random.default_rng(1)
        gammas = rng.gamma(np.asarray(posterior.shape), size=(4000, D))
        drawn = lm.draw(posterior, rng.normal(size=(4000, D, 3)), gammas)
    slopes = np.asarray(drawn.weights)[:, 0, 2]
    shape, rate = float(found.shape[2]), float(found.rate[0, 2])
    deviation = np.sqrt(rate / (shape - 1) * float(found.scale[0, 2, 1, 1]))
    assert slopes.mean() == pytest.approx(
        float(found.mean[0, 2, 1]), abs=5 * deviation / np.sqrt(4000)
    )
    assert slopes.std() == pytest.approx(deviation, rel=0.06)


def test_total_effects_are_the_inverse():
    rng = np.random.default_rng(2)
    weights = np.triu(rng.normal(size=(5, 9, 9)), 1)
    order = rng.permutation(9)
    weights = weights[:, order][:, :, order]
    with double():
        found = jax.jit(lm.total_effects)(weights)
    np.testing.assert_allclose(found, np.linalg.inv(np.eye(9) - weights), atol=1e-9)


def test_padding_does_not_change_a_mechanism(rows):
    values, mask = rows
    wide = lm.parent_columns(np.pad(GRAPHS, ((0, 0), (0, 3), (0, 3))), 4)
    more = np.pad(values, ((0, 9), (0, 3))), np.pad(mask, ((0, 9), (0, 3)))
    with double():
        padded = jax.jit(lambda v, m, r: lm.fit(lm.moments(v, m, r), wide))(
            *more, np.arange(N + 9) < N
        )
    own = fitted(values, mask)
    np.testing.assert_allclose(padded.mean[:, :D, :3], own.mean, atol=1e-12)
    np.testing.assert_allclose(padded.rate[:, :D], own.rate, atol=1e-10)
