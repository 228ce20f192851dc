"""Distributions over systems: what they draw is what their fields say, and always finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_bayes_opt.core.mechanisms import NOISE_FAMILIES
from causal_bayes_opt.core.random_systems import (
    MECHANISM_FAMILIES,
    SCALINGS,
    SystemDistribution,
    draw_systems,
    random_scm,
    to_scm,
)
from causal_bayes_opt.core.sample import SystemArrays, sample, sample_batch, to_arrays
from causal_bayes_opt.errors import ConfigError, UnknownNameError

N_SYSTEMS = 2000
LINEAR = SystemDistribution((2, 5), noises=NOISE_FAMILIES)
MIXED = {
    scaling: SystemDistribution(
        (3, 6), mechanisms=MECHANISM_FAMILIES, noises=NOISE_FAMILIES, scaling=scaling
    )
    for scaling in SCALINGS
}


@pytest.fixture(scope="module")
def linear():
    return jax.tree.map(np.asarray, draw_systems(jax.random.key(0), N_SYSTEMS, LINEAR))


def one(systems, i):
    return SystemArrays(*(np.asarray(leaf)[i] for leaf in systems))


def test_every_number_of_variables_is_as_likely(linear):
    counts = np.bincount(linear.present.sum(axis=1), minlength=6)
    assert counts[:2].sum() == 0
    # One fixed sample: at a level of 0.001 an even draw fails once in 1,000 seeds.
    assert stats.chisquare(counts[2:]).pvalue > 0.001


def test_padding_takes_no_part(linear):
    absent = ~linear.present
    assert not linear.adjacency[absent].any()
    assert not linear.adjacency.swapaxes(1, 2)[absent].any()
    assert not linear.weights.swapaxes(1, 2)[absent].any()
    assert not linear.noise_scale[absent].any()
    assert not linear.bias[absent].any()


def test_edges_follow_the_order_with_the_probability_that_was_asked_for(linear):
    rank = np.argsort(linear.order, axis=1)
    assert (np.sort(linear.order, axis=1) == np.arange(5)).all()
    assert (rank[:, :, None] < rank[:, None, :])[linear.adjacency].all()
    d = linear.present.sum(axis=1)
    for n_vars in (2, 3, 4, 5):
        own = d == n_vars
        pairs = n_vars * (n_vars - 1) / 2
        p = min(0.5, 2 / (n_vars - 1))
        error = np.sqrt(p * (1 - p) / (own.sum() * pairs))
        found = linear.adjacency[own].sum() / (own.sum() * pairs)
        assert found == pytest.approx(p, abs=4 * error)
    # Either direction is as likely: place says nothing about causal order.
    edges = linear.adjacency.sum(axis=0)
    forward, total = np.triu(edges).sum(), edges.sum()
    assert forward / total == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(total))


def test_weights_and_noise_fill_their_ranges(linear):
    weights, scales = linear.weights[linear.adjacency], linear.noise_scale[linear.present]
    assert (linear.weights[~linear.adjacency] == 0).all()
    uniform = stats.uniform(0.5, 1.5)
    assert stats.kstest(np.abs(weights), uniform.cdf).pvalue > 0.001
    assert stats.binomtest(int((weights > 0).sum()), weights.size).pvalue > 0.001
    assert stats.kstest(scales, stats.uniform(0.2, 1.8).cdf).pvalue > 0.001
    families = np.bincount(linear.noise_family[linear.present])
    assert stats.chisquare(families).pvalue > 0.001


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rows_are_finite_in_every_family(scaling):
    systems = draw_systems(jax.random.key(1), 100, MIXED[scaling])
    values = np.zeros((100, 20, 6), np.float32)
    mask = np.zeros(values.shape, bool)
    values[:, 10:, 0], mask[:, 10:, 0] = 1e6, True  # far beyond all that is ever observed
    rows = np.asarray(
        sample_batch(jax.random.key(2), systems, jnp.asarray(values), jnp.asarray(mask))
    )
    assert np.isfinite(rows).all()
    # A mean saturates, and noise is at most ten times its scale in so few rows.
    most = float(systems.bound.max()) + 100 * float(systems.noise_scale.max())
    assert np.abs(rows[:, :, 1:]).max() < most


@pytest.mark.parametrize("scaling", SCALINGS)
def test_named_systems_go_to_arrays_and_back(scaling):
    systems = draw_systems(jax.random.key(1), 100, MIXED[scaling])
    for i in range(25):
        system = one(systems, i)
        scm = to_scm(system)
        back = to_arrays(scm, 6, system.readout.shape[-1])
        d = len(scm.variables)
        np.testing.assert_array_equal(scm.adjacency(), system.adjacency[:d, :d])
        for name in ("adjacency", "weights", "bias", "noise_scale", "present"):
            np.testing.assert_array_equal(getattr(back, name), getattr(system, name), name)
        present = system.present
        for name in ("noise_family", "noise_df", "bound"):
            expected = getattr(system, name)[present]
            np.testing.assert_array_equal(np.asarray(getattr(back, name))[present], expected)
        again = to_scm(back, scm.variables)
        assert again.edges == scm.edges
        for name in scm.variables:
            first, second = scm.mechanism(name), again.mechanism(name)
            assert first.noise == second.noise
            assert first.activations == second.activations
            columns = np.random.default_rng(i).normal(size=(10, len(first.parents)))
            np.testing.assert_allclose(first.mean(columns), second.mean(columns), rtol=1e-6)


def test_names_may_be_given():
    system = to_arrays(random_scm(0, 3), n_vars=5)
    scm = to_scm(system, ("ü", "X10", "X2"))
    assert scm.variables == ("ü", "X10", "X2")
    np.testing.assert_array_equal(scm.adjacency(), random_scm(0, 3).adjacency())


def test_one_seed_is_one_system_and_the_first_of_its_batch():
    distribution = SystemDistribution((4, 4), mechanisms=("neural",))
    first, second = random_scm(3, 4, distribution), random_scm(3, 4, distribution)
    batch = draw_systems(jax.random.key(3), 1, distribution)
    rows = sample(first, 5)
    assert rows.equals(sample(second, 5))
    assert rows.equals(sample(to_scm(one(batch, 0)), 5))
    assert not rows.equals(sample(random_scm(4, 4, distribution), 5))


def test_bge_intercepts_have_the_deviation_of_the_noise():
    distribution = SystemDistribution((4, 4), edge_probability=1.0, parameters="bge")
    systems = draw_systems(jax.random.key(0), 5000, distribution)
    ratio = np.asarray(systems.bias) / np.asarray(systems.noise_scale)
    assert stats.kstest(ratio.ravel(), stats.norm.cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_vars": (0, 3)}, ConfigError, "n_vars is (0, 3); expected 1 <= smallest <= largest"),
        ({"edge_probability": -0.1}, ConfigError, "edge_probability is -0.1; it must lie between"),
        (
            {"mechanisms": ("linar",)},
            UnknownNameError,
            "unknown mechanism family 'linar'; did you mean 'linear'?",
        ),
        ({"noises": ("normal",)}, UnknownNameError, "unknown noise family 'normal'"),
        ({"scaling": "iSCM"}, UnknownNameError, "unknown scaling 'iSCM'; did you mean 'iscm'?"),
        ({"parameters": "BGe"}, UnknownNameError, "unknown source of parameters 'BGe'; did you "),
        ({"noises": ()}, ConfigError, "at least one mechanism family and one noise family are "),
        (
            {"noise_scale": (2.0, 1.0)},
            ConfigError,
            "noise_scale is (2, 1); expected 0 <= low <= high",
        ),
        (
            {"parameters": "bge", "noises": ("laplace",)},
            ConfigError,
            "parameters='bge' is a prior of linear Gaussian systems only",
        ),
    ],
)
def test_impossible_distributions_are_refused_in_words(options, error, message):
    with pytest.raises(error) as caught:
        SystemDistribution(**options)
    assert str(caught.value).startswith(message)
