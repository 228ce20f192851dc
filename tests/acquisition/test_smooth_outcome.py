"""Smooth mechanisms and their outcome model against functions and systems that are known."""

import jax
import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import multivariate_normal

from causal_bayes_opt.acquisition import mechanism_scales
from causal_bayes_opt.acquisition import smooth_mechanisms as smooth
from causal_bayes_opt.acquisition.mechanism_scales import FIRST, LEARN_FROM, SECOND, Scales
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.acquisition.smooth_functions import (
    Evidence,
    Mechanism,
    condition,
    learn,
    learn_from,
    log_odds_of_linear,
    usual_values,
    waves_of,
)
from causal_bayes_opt.acquisition.smooth_outcome import (
    N_MEMBERS,
    SmoothOutcomeModel,
    representatives,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.mechanisms import from_function, gaussian, linear
from causal_bayes_opt.core.padding import double
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM

QUIET = gaussian(0.1)
MEDIATED = SCM(
    ("X1", "X2", "Y"),
    {
        "X1": linear([], []),
        "X2": from_function(["X1"], lambda x: np.sin(2 * x), QUIET),
        "Y": from_function(["X1", "X2"], lambda a, b: a + b**2, QUIET),
    },
)
COLLIDER = SCM(
    ("X1", "Y", "X2"),
    {
        "X1": linear([], []),
        "Y": linear([], []),
        "X2": from_function(["X1", "Y"], lambda a, b: np.tanh(a) + b**2, QUIET),
    },
)
FORK = SCM(
    ("X1", "X2", "Y"),
    {
        "X1": linear([], []),
        "X2": from_function(["X1"], lambda x: x**2, QUIET),
        "Y": from_function(["X1"], np.cos, QUIET),
    },
)
RANGES = (-1.5, 1.5)


def model_of(scm, n=300):
    buffer = ExperienceBuffer.from_dataframe(sample(scm, n, seed=3))
    graphs = np.repeat(scm.adjacency()[None], N_MEMBERS, axis=0)
    ranges = {name: RANGES for name in scm.variables if name != "Y"}
    return SmoothOutcomeModel.fit(buffer, graphs, "Y", jax.random.key(0), ranges)


@pytest.fixture(scope="module")
def models():
    return {id(scm): model_of(scm) for scm in (MEDIATED, COLLIDER, FORK)}


@pytest.mark.parametrize("scm", [MEDIATED, COLLIDER, FORK], ids=["chain", "collider", "fork"])
@pytest.mark.parametrize("intervention", [{"X1": 1.0}, {"X2": -0.5}, {"X1": -1.0, "X2": 0.5}])
def test_learned_model_agrees_with_the_truth_within_its_own_spread(models, scm, intervention):
    mean, spread, _ = models[id(scm)].predict("Y", intervention)
    truth = sample(scm, 20_000, intervention=intervention, seed=9)["Y"].mean()
    nothing = sample(scm, 300, seed=3)["Y"]
    # Its spread over members, and the error of the observed mean that it starts from.
    error = np.hypot(spread, nothing.std() / np.sqrt(300))
    assert abs(mean - truth) < 4 * error
    assert abs(mean - truth) < 0.35 * nothing.std()


def test_what_no_path_leads_from_does_nothing_at_all(models):
    asked = Candidates.of([{"X2": 1.0}, {"X2": -1.0}, {}], FORK.variables)
    means = models[id(FORK)].means("Y", asked)
    np.testing.assert_allclose(means, means[2:].repeat(3, axis=0), atol=1e-5)
    # In standardised units the observed mean is 0; the functions know it to a few hundredths.
    assert np.abs(means).max() < 0.2


def test_many_candidates_are_answered_as_one_by_one(models):
    model = models[id(MEDIATED)]
    asked = [{"X1": x} for x in np.linspace(-1, 1, 5)] + [{"X1": 0.2, "X2": 0.4}]
    together = model.means("Y", Candidates.of(asked, model.variables))
    for row, own in zip(together, asked, strict=True):
        alone = model.means("Y", Candidates.of([own], model.variables))[0]
        np.testing.assert_allclose(row, alone, atol=1e-5)


def likeliest(rows, ends):
    found = mechanism_scales.learn_scales(rows, len(ends), -ends, ends).scales
    return jax.tree.map(lambda leaf: leaf[0], found)


@pytest.fixture(scope="module")
def function():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(60, 2))
    y = np.sin(3 * x[:, 0]) + 0.1 * rng.normal(size=60)
    ends = np.full(2, 2.0)
    scales = likeliest(mechanism_scales.Rows.of(x, y), ends)
    domain = smooth.Domain(np.zeros(2), 2.0 + 2.0 * scales.lengths, -ends, ends)
    waves = np.random.default_rng(1).normal(size=(smooth.N_FEATURES, 3))
    return x, y, scales, domain, waves


def weights_of(x, y, function):
    _, _, scales, domain, waves = function
    there, is_row = np.ones(2, bool), np.ones(len(y), bool)
    with double():
        found = smooth.fit_weights(x, y, is_row, there, scales, domain, waves)
    return jax.tree.map(np.asarray, found)


def test_function_is_found_between_its_rows(function):
    x, y, scales, domain, waves = function
    found = weights_of(x, y, function)
    rng = np.random.default_rng(5)
    new = rng.uniform(-1.8, 1.8, size=(200, 2))
    with double():
        value = np.asarray(smooth.basis(new, np.ones(2, bool), scales, domain, waves)) @ found.mean
    assert np.sqrt(np.mean((value - np.sin(3 * new[:, 0])) ** 2)) < 0.15
    # The parent that matters bends over a shorter length than the one that does not.
    assert scales.alone[0] > scales.alone[1] or scales.lengths[0] < scales.lengths[1]


def test_scales_learned_from_averages_are_those_learned_from_all_rows():
    rng = np.random.default_rng(2)
    x = np.repeat(rng.uniform(-2, 2, size=(8, 2)), 6, axis=0)
    y = np.sin(2 * x[:, 0]) + 0.3 * rng.normal(size=len(x))
    ends = np.full(2, 2.0)
    rows = mechanism_scales.averaged(x, y, np.ones(len(x)))
    assert len(rows.mean) == 8
    assert rows.worth.tolist() == [6.0] * 8
    short = likeliest(rows, ends)
    every = likeliest(mechanism_scales.Rows.of(x, y), ends)
    for ours, theirs in zip(short, every, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def rows_of(function, n, noise, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(n, 3))
    x[:, 2] = function(x) + noise * rng.normal(size=n)
    return Evidence.of(x, np.zeros(x.shape, dtype=bool)), np.tile([-2.0, 2.0], (3, 1))


@pytest.mark.parametrize(
    ("function", "linear_is_right"),
    [
        (lambda x: x[:, 0] - 0.5 * x[:, 1], True),
        (lambda x: np.tanh(2 * x[:, 0]) - 0.5 * x[:, 1], False),
        (lambda x: x[:, 0] * x[:, 1], False),
        (lambda x: np.sin(3 * x[:, 0]), False),
    ],
    ids=["linear", "saturates", "product", "wave"],
)
def test_rows_tell_a_linear_mechanism_from_others(function, linear_is_right):
    mechanism = Mechanism(2, (0, 1))
    found = [log_odds_of_linear(mechanism, *rows_of(function, 90, 0.3, seed)) for seed in range(8)]
    assert [odds > 0 for odds in found] == [linear_is_right] * 8


def test_few_rows_of_a_linear_mechanism_are_taken_for_linear():
    """Few rows cannot speak for much; the simplest kind must not be what they are denied."""
    mechanism = Mechanism(2, (0, 1))
    found = [
        log_odds_of_linear(mechanism, *rows_of(lambda x: x[:, 0] - 0.5 * x[:, 1], n, 0.3, seed)) > 0
        for n in (8, 12, 20)
        for seed in range(8)
    ]
    assert np.mean(found) > 0.8


def test_scales_drawn_differ_the_less_the_more_rows_say_of_them():
    def spread(n):
        evidence, usual = rows_of(lambda x: np.sin(2 * x[:, 0]), n, 0.1)
        rows = learn_from(evidence, Mechanism(2, (0, 1)))
        found = mechanism_scales.learn_scales(rows, 2, *usual[:2].T).scales
        assert all(np.isfinite(leaf).all() for leaf in found)
        return np.std(np.log(found.noise)), found

    few, many = spread(6), spread(90)
    assert many[0] < 0.5 * few[0]
    np.testing.assert_allclose(many[1].noise, 0.1, rtol=0.5)


def test_members_average_to_the_mean_of_their_mechanisms():
    """Where all parents are set; a mean of draws alone would be off by a fifth of the spread."""
    rng = np.random.default_rng(0)
    buffer = ExperienceBuffer.from_dataframe(sample(COLLIDER, 40, seed=1))
    t = COLLIDER.variables.index("Y")
    graph = np.zeros((1, 3, 3), dtype=bool)
    graph[0, [i for i in range(3) if i != t], t] = True
    ranges = {name: (-2.0, 2.0) for name in COLLIDER.variables if name != "Y"}
    model = SmoothOutcomeModel.fit(buffer, graph.repeat(8, axis=0), "Y", jax.random.key(0), ranges)
    asked = [{name: float(rng.uniform(-2, 2)) for name in ranges} for _ in range(20)]
    candidates = Candidates.of(asked, model.variables)
    means = model.means("Y", candidates)
    values, mask = buffer.rows()
    evidence = Evidence.of(model.scaling.apply(values), mask)
    usual = usual_values(evidence.values, mask, model.scaling, model.variables, ranges)
    distinct = [Mechanism(t, tuple(i for i in range(3) if i != t), 1 + i % 4) for i in range(12)]
    functions, waves = learn(distinct, evidence, 2, usual), waves_of(2)
    weights = condition(functions, distinct, evidence, waves)
    is_set, level = candidates.spread(candidates.standardised(model.scaling), 3)
    assert is_set.sum() == 40
    expected = []
    with double():
        for i, own in enumerate(distinct):
            parts = jax.tree.map(lambda leaf, i=i: leaf[i], tuple(functions)[1:])
            features = smooth.basis(level[:, own.parents], *parts, waves)
            expected.append(np.asarray(features) @ weights.mean[i])
    # The model takes out the luck of the few rows that it follows, alike for all candidates.
    off = means.mean(axis=1) - np.mean(expected, axis=0)
    np.testing.assert_allclose(off, off.mean(), atol=1e-3)
    assert means.std(axis=1).mean() > 0.05


def test_outcomes_of_one_experiment_count_less_each_and_more_together():
    def worth(times):
        mask = np.zeros((3 + times, 2), dtype=bool)
        mask[2:, 0] = True
        values = np.zeros(mask.shape)
        values[2, 0], values[3:, 0] = 0.5, 1.0
        return Evidence.of(values, mask).worth

    assert worth(1).tolist() == [1.0, 1.0, 1.0, 1.0]
    few, many = worth(10), worth(1000)
    # Observed rows, and an experiment that was done once, count whole.
    assert few[:3].tolist() == many[:3].tolist() == [1.0, 1.0, 1.0]
    assert few[3:].sum() > 9.0
    assert few[3:].sum() < many[3:].sum() < 100.0


def test_fewer_rows_of_experiments_weigh_what_all_did():
    rng = np.random.default_rng(3)
    mask = np.zeros((1030, 2), dtype=bool)
    mask[20:, 0] = True
    values = rng.normal(size=mask.shape)
    values[20:1020, 0] = np.repeat([0.5, 1.5], 500)
    evidence = Evidence.of(values, mask)
    fewer = evidence.fewer(120)
    assert len(fewer.values) < 20 + 120
    # Observed rows and experiments that were done once are all there.
    assert (fewer.kind < 0).sum() == 20
    assert len(np.unique(fewer.kind)) == len(np.unique(evidence.kind)) == 1 + 2 + 10
    for kind in np.unique(evidence.kind):
        own, left = (some.worth[some.kind == kind].sum() for some in (evidence, fewer))
        assert left == pytest.approx(own)


def test_scales_are_learned_anew_with_every_tenth_experiment_only():
    rng = np.random.default_rng(4)
    mask = np.zeros((55, 2), dtype=bool)
    mask[40:, 0] = True
    values = rng.normal(size=mask.shape)
    values[50:, 0] = values[40, 0]  # an experiment done again, and again

    def rows(n):
        return learn_from(Evidence.of(values[:n], mask[:n]), Mechanism(1, (0,)))

    for ours, theirs in zip(rows(50), rows(55), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_row_that_counts_twice_is_the_row_twice(function):
    x, y, scales, domain, waves = function
    there, worth = np.ones(2, bool), np.where(np.arange(len(y)) < 10, 2.0, 1.0)
    again = np.concatenate([np.arange(len(y)), np.arange(10)])
    is_new = np.arange(len(y)) % 3 == 0
    with double():
        short = smooth.fit_weights(x, y, worth, there, scales, domain, waves)
        every = smooth.fit_weights(
            x[again], y[again], np.ones(len(again)), there, scales, domain, waves
        )
        foretold = smooth.log_predictive(x, y, worth, is_new, there, scales, domain, waves)
        in_full = smooth.log_predictive(
            x[again], y[again], np.ones(len(again)), is_new[again], there, scales, domain, waves
        )
    np.testing.assert_allclose(short.mean, every.mean, atol=1e-8)
    covariances = [np.asarray(w.root) @ np.asarray(w.root).T for w in (short, every)]
    np.testing.assert_allclose(*covariances, atol=1e-8)
    assert float(foretold) == pytest.approx(float(in_full))


def test_representatives_average_like_all_rows():
    rng = np.random.default_rng(0)
    functions = (np.positive, np.square, np.tanh)

    def off(some, rows):
        errors = [np.mean(f(some), axis=0) - np.mean(f(rows), axis=0) for f in functions]
        return np.abs(errors).mean()

    found, at_random = [], []
    for _ in range(5):
        x = rng.normal(size=(300, 4)) + rng.exponential(size=(300, 1)) * rng.normal(size=4)
        rows = (x - x.mean(axis=0)) / x.std(axis=0)
        found.append(off(representatives(rows, 16), rows))
        drawn = [rows[rng.choice(300, 16, replace=False)] for _ in range(30)]
        at_random.append(np.mean([off(some, rows) for some in drawn]))
    assert np.mean(found) < 0.6 * np.mean(at_random)
    # Of fewer rows than are wanted each is used as often as the others, or once more.
    again = representatives(rows[:5], 16)
    _, times = np.unique(again, axis=0, return_counts=True)
    assert sorted(times) == [3, 3, 3, 3, 4]


def test_recurrence_equals_the_basis(function):
    x, _, scales, domain, waves = function
    x = np.concatenate([x, [[1e6, 0.0], [-300.0, 2.0]]])
    there = np.array([True, False])
    weights = np.random.default_rng(3).normal(size=smooth.n_basis(2))
    with double():
        direct = smooth.basis(x, there, scales, domain, waves) @ weights
        quick = jax.jit(smooth.evaluate)(x, weights, there, scales, domain, waves)
    np.testing.assert_allclose(quick, direct, atol=1e-9)
    # What another variable's guess throws far out is no reason for a guess as far out.
    assert np.abs(quick[-2:]).max() < 100.0


def test_saturating_kinds_are_networks_without_end(function):
    """Their covariance is that of random error functions; the basis draws a few of these."""
    rng = np.random.default_rng(7)
    x, slopes = rng.normal(size=(LEARN_FROM, 2)), rng.normal(size=(100_000, 3)) / 0.8
    of_one = erf(np.outer(x[:, 0], slopes[:, 0]) + slopes[:, 2])
    of_both = erf(x @ slopes[:, :2].T + slopes[:, 2])
    units = Scales(0.0, np.array([1.0, 0.0]), 0.0, np.full(2, 0.8), 0.1, True)
    domain, waves = function[3], waves_of(2)
    domain = domain._replace(low=np.full(2, -9.0), high=np.full(2, 9.0))
    weights = rng.normal(size=smooth.n_basis(2))
    for expected, scales in (
        (of_one, units),
        (of_both, units._replace(alone=np.zeros(2), together=1.0)),
    ):
        covariance = expected @ expected.T / len(slopes)
        inner = (1.0 + x @ x.T if scales.together else 1.0 + np.outer(x[:, 0], x[:, 0])) / 0.8**2
        with double():
            pairs = mechanism_scales.of_pairs(inner[FIRST, SECOND])
            design = np.asarray(smooth.basis(x, np.ones(2, bool), scales, domain, waves))
            value = jax.jit(smooth.evaluate)(x, weights, np.ones(2, bool), scales, domain, waves)
        exact = symmetric(pairs)
        np.testing.assert_allclose(exact, covariance, atol=0.02)
        # 32 units for one parent, evenly spread, and 128 for all, at random.
        drawn = design @ design.T - 1.0
        assert np.sqrt(np.mean((drawn - exact) ** 2)) < 0.1
        np.testing.assert_allclose(value, design @ weights, atol=1e-9)


def symmetric(pairs):
    found = np.zeros((LEARN_FROM, LEARN_FROM))
    found[FIRST, SECOND] = found[SECOND, FIRST] = pairs
    return found


def test_density_of_rows_and_its_slopes_are_those_of_a_normal():
    rng = np.random.default_rng(0)
    x, values = rng.normal(size=(LEARN_FROM, 2)), rng.normal(size=LEARN_FROM)
    kernel = np.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(axis=-1))
    pairs, noise = kernel[FIRST, SECOND], rng.uniform(0.2, 1.0, LEARN_FROM)

    def plain(pairs, noise, values):
        matrix = jax.numpy.zeros((LEARN_FROM, LEARN_FROM)).at[FIRST, SECOND].set(pairs)
        whole = matrix + matrix.T - jax.numpy.diag(jax.numpy.diag(matrix))
        return jax.scipy.stats.multivariate_normal.logpdf(
            values, jax.numpy.zeros(LEARN_FROM), whole + jax.numpy.diag(noise)
        )

    with double():
        ours, slopes = jax.value_and_grad(mechanism_scales.log_density, (0, 1, 2))(
            *map(jax.numpy.asarray, (pairs, noise, values))
        )
        theirs, expected = jax.value_and_grad(plain, (0, 1, 2))(
            *map(jax.numpy.asarray, (pairs, noise, values))
        )
    assert float(ours) == pytest.approx(
        float(theirs) + 0.5 * LEARN_FROM * np.log(2 * np.pi), rel=1e-10
    )
    for own, other in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-9)


def test_the_quick_arcsine_is_the_arcsine():
    x = np.linspace(-1.0, 1.0, 2001)
    with double():
        quick = np.asarray(mechanism_scales.arcsine(jax.numpy.asarray(x)))
    np.testing.assert_allclose(quick, np.arcsin(x), atol=3e-8)


def test_what_saturates_stays_where_it_ends():
    """Beyond the rows a wave's prior goes back to the mean; of a dose more is not less."""
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.uniform(-2, 2, 80), np.zeros(80)])
    values[:, 1] = np.tanh(2 * values[:, 0]) + 0.1 * rng.normal(size=80)
    evidence = Evidence.of(values, np.zeros(values.shape, bool))
    usual = np.array([[-6.0, 6.0], [-2.0, 2.0]])
    mechanism, waves = Mechanism(1, (0,)), waves_of(2)
    functions = learn([mechanism], evidence, 2, usual)
    assert functions.scales.saturates[0]
    own = jax.tree.map(lambda leaf: leaf[0], functions)
    weights = condition(functions, [mechanism], evidence, waves)
    with double():
        far = np.array([[-5.0, 0.0], [5.0, 0.0]])
        design = np.asarray(smooth.basis(far, own.there, own.scales, own.domain, waves))
    np.testing.assert_allclose(design @ weights.mean[0], [-1.0, 1.0], atol=0.25)


def test_density_of_new_rows_is_that_of_a_gaussian_process(function):
    x, y, scales, domain, waves = function
    there, is_row, is_new = np.ones(2, bool), np.ones(len(y), bool), np.arange(len(y)) >= 50
    with double():
        found = smooth.log_predictive(x, y, is_row, is_new, there, scales, domain, waves)
        design = np.asarray(smooth.basis(x, there, scales, domain, waves))
    kernel = design @ design.T + scales.noise**2 * np.eye(len(y))
    old = kernel[:50, :50]
    gain = kernel[50:, :50] @ np.linalg.inv(old)
    expected = multivariate_normal(gain @ y[:50], kernel[50:, 50:] - gain @ kernel[:50, 50:])
    np.testing.assert_allclose(found, expected.logpdf(y[50:]), rtol=1e-8)


def test_values_far_out_are_drawn_near_in_order():
    values = np.array([[-100.0], [-1.0], [0.5], [1.0], [3.0], [148.0]])
    bent = mechanism_scales.bend(values, np.array([-1.0]), np.array([1.0])).ravel()
    np.testing.assert_array_equal(bent[1:4], values.ravel()[1:4])
    assert (np.diff(bent) > 0).all()
    assert np.abs(bent).max() < 7.0
