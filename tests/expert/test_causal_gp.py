import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from causal_bayes_opt.core import padding
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.expert import causal_gp, gp, trials
from causal_bayes_opt.expert.bfgs import minimise
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import Beliefs

NAMES = ("A", "B", "C", "Y")
N = 50
SYSTEM = SCM.linear(
    NAMES, {("A", "B"): 0.8, ("A", "Y"): 1.0, ("B", "Y"): -1.5, ("C", "Y"): 0.3}, target="Y"
)


@pytest.fixture(scope="module")
def observations():
    return sample(SYSTEM, N, seed=3).to_numpy()


@pytest.fixture(scope="module")
def rows(observations):
    unit = (observations - observations.mean(0)) / observations.std(0)
    with padding.double():
        return causal_gp.Rows(
            jnp.asarray(padding.pad(unit, 64, 8)),
            jnp.asarray(padding.pad(unit[:, 3], 64)),
            jnp.arange(64) < N,
        )


@pytest.fixture(scope="module")
def fitted(rows):
    members = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=float)
    with padding.double():
        wanted = np.array([True, True, True, False])
        return causal_gp.regress(rows, padding.pad(members, 4, 8), wanted, np.array(False))


def kernel(fitted, s, a, b):
    scaled = np.asarray(fitted.members)[s, :4] / float(fitted.length[s])
    gaps = ((a * scaled)[:, None] - (b * scaled)[None]) ** 2
    return float(fitted.variance[s]) * np.exp(-0.5 * gaps.sum(-1))


def test_box_search_finds_what_scipy_finds():
    def rosenbrock(x):
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + 0.1 * x[2] ** 2

    for high in (2.0, 0.7):
        low, start = np.full(3, -2.0), np.array([-1.2, 0.5, 0.6])
        with padding.double():
            found, value = minimise(
                jax.value_and_grad(rosenbrock), start, low, np.full(3, high), evaluations=300
            )
        best = minimize(rosenbrock, start, bounds=[(-2.0, high)] * 3)
        assert float(value) == pytest.approx(best.fun, abs=1e-6)
        assert np.asarray(found) == pytest.approx(best.x, abs=2e-3)


def test_hyperparameters_are_as_likely_as_those_of_scipy(rows, fitted):
    x, y = np.asarray(rows.x)[:N, :4], np.asarray(rows.y)[:N]

    def loss(logs, members):
        length, variance, noise = np.exp(logs)
        gaps = (((x * members)[:, None] - (x * members)[None]) ** 2).sum(-1)
        matrix = variance * np.exp(-0.5 * gaps / length**2) + noise * np.eye(N)
        return 0.5 * y @ np.linalg.solve(matrix, y) + 0.5 * np.linalg.slogdet(matrix)[1]

    bounds = np.log([(gp.SHORTEST, gp.LONGEST), (gp.LEAST, gp.MOST), (gp.LEAST, gp.MOST)])
    for s in range(3):
        members = np.asarray(fitted.members)[s, :4]
        ours = np.log([fitted.length[s], fitted.variance[s], fitted.noise[s]])
        best = minimize(loss, np.zeros(3), args=(members,), method="L-BFGS-B", bounds=bounds)
        assert loss(ours, members) <= best.fun + 1e-4


def test_effects_are_means_over_rows_with_the_columns_replaced(rows, fitted):
    x, y = np.asarray(rows.x)[:N, :4], np.asarray(rows.y)[:N]
    columns = padding.pad(np.array([[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0.0]]), 8, 8)
    with padding.double():
        effects = causal_gp.effects(rows, fitted, columns, np.arange(8) < 3)
    for e, set_to in enumerate(({1: 1.3}, {0: -0.5, 1: 2.0}, {2: 0.4})):
        replaced, value = x.copy(), np.zeros((1, 8))
        for i, v in set_to.items():
            replaced[:, i], value[0, i] = v, v
        own = jax.tree.map(lambda leaf, e=e: leaf[e], effects)
        for s in range(3):
            inverse = np.linalg.inv(kernel(fitted, s, x, x) + float(fitted.noise[s]) * np.eye(N))
            cross = kernel(fitted, s, replaced, x)
            means = cross @ inverse @ y
            variances = float(fitted.variance[s]) - ((cross @ inverse) * cross).sum(1)
            with padding.double():
                weights = jnp.asarray(np.eye(4)[s])
                mean, variance = causal_gp.causal_prior(own, weights, value)
                scatter = causal_gp.outcome_variance(own, weights, value)
            assert float(mean[0]) == pytest.approx(means.mean(), abs=1e-8)
            assert float(variance[0]) == pytest.approx(variances.mean(), abs=1e-8)
            assert float(scatter[0]) == pytest.approx(
                means.var() + float(fitted.noise[s]), abs=1e-8
            )


def test_prior_over_sets_mixes_means_and_variances(rows, fitted):
    columns = padding.pad(np.array([[0, 1.0]]), 8, 8)
    weights = np.array([0.5, 0.3, 0.2, 0.0])
    value = padding.pad(np.array([[0.0, 0.9]]), 1, 8)
    with padding.double():
        effects = causal_gp.effects(rows, fitted, columns, np.arange(8) < 1)
        own = jax.tree.map(lambda leaf: leaf[0], effects)
        each = [causal_gp.causal_prior(own, jnp.asarray(np.eye(4)[s]), value) for s in range(4)]
        mean, variance = causal_gp.causal_prior(own, jnp.asarray(weights), value)
    means, variances = (np.array([float(part[i][0]) for part in each]) for i in (0, 1))
    assert float(mean[0]) == pytest.approx(weights @ means)
    expected = weights @ (variances + means**2) - (weights @ means) ** 2
    assert float(variance[0]) == pytest.approx(expected)


@pytest.mark.parametrize("z", [-2000.0, -40.0, -5.0, -1.0, -0.999, 0.0, 3.0, 50.0])
def test_log_improvement_is_the_integral(z):
    with padding.double():
        ours = float(
            causal_gp.log_improvement(jnp.asarray(z * 2.0), jnp.asarray(0.0), jnp.asarray(2.0))
        )
    if z > -6:
        improvement = quad(lambda y: (2 * z - 2 * y) * norm.pdf(y), min(z, -12) - 1, z)[0]
        assert ours == pytest.approx(np.log(improvement), rel=1e-6)
    else:
        # E ~ s phi(z) / z² (1 - 6 / z² + ...) far below.
        expected = np.log(2.0) + norm.logpdf(z) - 2 * np.log(-z)
        assert ours == pytest.approx(expected, abs=8 / z**2)


def workbench(observations, max_targets=1):
    buffer = ExperienceBuffer.from_arrays(observations, None, NAMES)
    beliefs = Beliefs.of(buffer, "Y", ParentScaleOptions(max_targets=max_targets), (0,))
    return trials.start(Problem(NAMES, "Y"), beliefs, observations, (0,)), beliefs


@pytest.mark.parametrize("max_targets", [1, 2])
def test_search_is_no_worse_than_lbfgs_from_100_starts(observations, max_targets):
    bench, beliefs = workbench(observations, max_targets)
    rng = np.random.default_rng(0)
    tried = []
    for number in range(6 * len(bench.elements)):
        element = bench.elements[number % len(bench.elements)]
        done = make_intervention({n: float(rng.uniform(*bench.ranges[n])) for n in element})
        row = sample(SYSTEM, 1, intervention=done, seed=number)
        tried.append(trials.Tried(done, float(row["Y"].iloc[0])))
    with padding.double():
        weights = np.exp(beliefs.log_weights())[list(bench.active)]
        weights = jnp.asarray(padding.pad(weights / weights.sum(), bench.effects.prior.shape[1]))
        elements, experiments = trials._search_space(bench), trials._experiments(bench, tried)
        published = np.array(False)
        choices, best = causal_gp.choose(
            bench.effects, elements, experiments, weights, jnp.asarray(0.0), bench.costs, published
        )

        @jax.jit
        def loss_and_slope(own, surrogate, values):
            effects, _, experiments = own

            def loss(values):
                mean, deviation = causal_gp._predict(
                    effects, experiments, surrogate, weights, values[None]
                )
                return -causal_gp.log_improvement(best, mean, deviation)[0]

            return jax.value_and_grad(loss)(values)

        for e, element in list(enumerate(bench.elements))[-1:]:
            own = jax.tree.map(lambda leaf, e=e: leaf[e], (bench.effects, elements, experiments))
            surrogate = jax.jit(causal_gp._condition)(own[0], own[2], weights, published)
            low, high = np.asarray(own[1].low), np.asarray(own[1].high)
            starts = np.random.default_rng(e).uniform(low, high, size=(100, len(low)))
            found = [
                minimize(
                    lambda v, own=own, fit=surrogate: tuple(
                        map(np.array, loss_and_slope(own, fit, v))
                    ),
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=np.stack([low, high], axis=-1),
                ).fun
                for start in starts
            ]
            # In logarithms: the improvement falls short by at most a thousandth.
            assert float(choices.score[e]) >= -min(found) - 1e-3, element
