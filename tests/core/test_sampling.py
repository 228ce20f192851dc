"""Sampling: closed forms of linear systems, and the same draws at every place in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.core.mechanisms import gaussian, laplace, linear, student, uniform
from causal_bayes_opt.core.random_systems import random_scm
from causal_bayes_opt.core.sample import (
    sample,
    sample_batch,
    sample_system,
    simulator,
    stack_systems,
    to_arrays,
)
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import MethodLimitError

WEIGHTS = {("a", "b"): 0.8, ("a", "c"): -1.2, ("b", "c"): 1.5, ("c", "d"): 0.7, ("b", "d"): -0.4}
SYSTEM = SCM.linear(
    ["d", "b", "a", "c"],
    WEIGHTS,
    biases={"a": 1.0, "c": -2.0},
    noise={"a": laplace(1.5), "b": uniform(0.5), "c": student(1.0, 6.0), "d": gaussian(0.3)},
)
N_ROWS = 16


def closed_form(scm, weights, done):
    """Mean and covariance of a linear system in which some variables are set."""
    names = list(scm.variables)
    matrix, bias, scale = np.zeros((4, 4)), np.zeros(4), np.zeros(4)
    for name in names:
        j = names.index(name)
        if name in done:
            bias[j] = done[name]
            continue
        bias[j], scale[j] = scm.mechanism(name).bias, scm.mechanism(name).noise.scale
        for (cause, effect), weight in weights.items():
            if effect == name:
                matrix[j, names.index(cause)] = weight
    total = np.linalg.inv(np.eye(4) - matrix)
    return total @ bias, total @ np.diag(scale**2) @ total.T


@pytest.mark.parametrize(
    "done", [{}, {"b": 2.0}, {"a": -1.0, "c": 3.0}, {"d": 5.0}, {"a": 1.0, "b": 1.0, "c": 1.0}]
)
def test_linear_systems_have_the_moments_of_the_closed_form(done):
    rows = sample(SYSTEM, 20_000, intervention=done, seed=11).drop(columns="do", errors="ignore")
    values = rows.to_numpy()
    mean, covariance = closed_form(SYSTEM, WEIGHTS, done)
    # Four standard errors: 14 comparisons of right numbers fail once in about 1,000 seeds.
    error = np.sqrt(np.diag(covariance) / len(values))
    assert (np.abs(values.mean(axis=0) - mean) <= 4 * error + 1e-12).all()
    products = (values - mean)[:, :, None] * (values - mean)[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(values))
    assert (np.abs(products.mean(axis=0) - covariance) <= 4 * error + 1e-12).all()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    levels=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]), st.floats(-1e6, 1e6), min_size=1, max_size=4
    ),
)
def test_what_is_set_is_set_and_what_does_not_follow_from_it_stays(seed, levels):
    seen = sample(SYSTEM, N_ROWS, seed=seed)
    done = sample(SYSTEM, N_ROWS, intervention=levels, seed=seed)
    below = {"a": "bcd", "b": "cd", "c": "d", "d": ""}
    changed = set(levels) | {effect for name in levels for effect in below[name]}
    for name in SYSTEM.variables:
        if name in levels:
            assert (done[name] == levels[name]).all()
        elif name not in changed:
            np.testing.assert_array_equal(done[name], seen[name])
    assert (done["do"] == ";".join(n for n in SYSTEM.variables if n in levels)).all()


def test_a_simulator_is_the_system():
    simulate, done = simulator(SYSTEM), make_intervention({"b": 1.0})
    assert simulate(None, N_ROWS, 3).equals(sample(SYSTEM, N_ROWS, seed=3))
    expected = sample(SYSTEM, N_ROWS, intervention={"b": 1.0}, seed=3)
    assert simulate(done, N_ROWS, 3).equals(expected)


def test_a_system_draws_by_its_place_in_the_batch_and_by_nothing_else():
    scms = [SYSTEM, random_scm(0, 4), random_scm(1, 4)]
    key = jax.random.key(5)
    systems = stack_systems(scms, n_vars=8)
    zeros = jnp.zeros((3, N_ROWS, 8))
    batch = np.asarray(sample_batch(key, systems, zeros, zeros > 0))
    alone = jax.jit(sample_system)
    for place, scm in enumerate(scms):
        nothing = jnp.zeros((N_ROWS, 8))
        rows = alone(jax.random.fold_in(key, place), to_arrays(scm, 8), nothing, nothing > 0)
        np.testing.assert_allclose(batch[place], rows, rtol=1e-5, atol=1e-5)
    # The neighbours change; the first one's draws do not.
    others = stack_systems([SYSTEM, scms[2], scms[1]], n_vars=8)
    again = np.asarray(sample_batch(key, others, zeros, zeros > 0))
    np.testing.assert_allclose(again[0], batch[0], rtol=1e-6, atol=1e-6)
    # The same system elsewhere draws other noise.
    twice = stack_systems([SYSTEM, SYSTEM, SYSTEM], n_vars=8)
    rows = np.asarray(sample_batch(key, twice, zeros, zeros > 0))
    assert not np.isclose(rows[0, :, :4], rows[1, :, :4]).any()


def test_rows_of_a_batch_may_each_set_something_else():
    key = jax.random.key(0)
    mask = np.zeros((1, N_ROWS, 8), bool)
    mask[0, 4:8, 1] = mask[0, 6:10, 3] = True  # b, b and c, c
    values = np.where(mask, 2.5, 0.0).astype(np.float32)
    systems = stack_systems([SYSTEM], n_vars=8)
    batch = np.asarray(sample_batch(key, systems, jnp.asarray(values), jnp.asarray(mask)))[0]
    plans = [({}, slice(0, 4)), ({"b": 2.5}, slice(4, 6)), ({"b": 2.5, "c": 2.5}, slice(6, 8))]
    for done, part in [*plans, ({"c": 2.5}, slice(8, 10)), ({}, slice(10, N_ROWS))]:
        named = sample(SYSTEM, N_ROWS, intervention=done, seed=0)
        expected = named[list(SYSTEM.variables)].to_numpy()[part]
        np.testing.assert_allclose(batch[part, :4], expected, rtol=1e-4, atol=1e-5)
    assert (batch[:, 4:] == 0).all()


def test_padding_of_units_changes_nothing():
    scm = SCM(["a", "b"], {"a": linear([], []), "b": linear(["a"], [2.0])})
    zeros = jnp.zeros((N_ROWS, 8))
    draw = jax.jit(sample_system)
    few, many = (
        draw(jax.random.key(1), to_arrays(scm, 8, units), zeros, zeros > 0) for units in (0, 5)
    )
    np.testing.assert_array_equal(few, many)


def test_what_does_not_fit_is_refused():
    with pytest.raises(MethodLimitError) as caught:
        to_arrays(SYSTEM, n_vars=3)
    message = "a system of 4 variables and 0 units does not fit into 3 and 0"
    assert str(caught.value) == message


def test_noise_of_a_huge_scale_keeps_its_digits():
    unit = SCM(["a"], {"a": linear([], [], noise=gaussian(1.0))})
    huge = SCM(["a"], {"a": linear([], [], noise=gaussian(1e200))})
    np.testing.assert_allclose(sample(huge, 9)["a"] / 1e200, sample(unit, 9)["a"], rtol=1e-14)
