"""The network's symmetries, its normalisation, and what its compiler does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.avici_adapter import AxialConfig, AxialModel
from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets
from causal_bayes_opt.surrogate.encoding import Rows, encode
from causal_bayes_opt.surrogate.joint import joint_of_many, log_prob_of_sets
from causal_bayes_opt.surrogate.local_scores import inverse, log_odds, set_scores
from causal_bayes_opt.surrogate.network import pad_rows
from causal_bayes_opt.surrogate.posterior import all_subsets
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.training import (
    DesignDistribution,
    TrainingDistribution,
    negative_log_probability,
    simulate,
)

DATA = TrainingDistribution(
    (SystemDistribution(n_vars=(3, 6)),), DesignDistribution(n_obs=(20, 64), max_experiments=24)
)
# float32 statistics of tens of rows, taken in another order, agree to about five digits; the
# local scores multiply them by the number of rows.
CLOSE = {"atol": 5e-3}
encode_rows = jax.jit(encode, static_argnames="nonlinear")


class Joint:
    """A model's joint posterior, compiled once for each shape; counts how often it was traced."""

    def __init__(self, model):
        self.traces = 0
        self.model = model
        self.compiled = jax.jit(self.traced)

    def traced(self, params, rows):
        self.traces += 1
        return self.model.joint(params, rows)

    def __call__(self, params, rows):
        return self.compiled(params, rows)


MODELS = {
    "moments": AmortizedModel(PredictorConfig(16, 1, 2, 4)),
    "stream": AmortizedModel(PredictorConfig(16, 1, 2, 4, nonlinear=True, stream=4)),
    "rows": AxialModel(AxialConfig(16, 1, 2)),
}


PROGRAMS = {name: Joint(model) for name, model in MODELS.items()}


@pytest.fixture(scope="module", params=PROGRAMS.values(), ids=PROGRAMS)
def program(request):
    return request.param


@pytest.fixture(scope="module")
def model(program):
    return program.model


@pytest.fixture(scope="module")
def params(model):
    drawn = model.init(jax.random.key(0))
    # The head starts small on purpose, and the stream at zero; enlarge them so that a broken
    # symmetry would show.
    drawn = jax.tree.map(lambda leaf: leaf * 2.0, drawn)
    return {
        module: jax.tree.map(lambda leaf: leaf + 0.05, own) if "embed_stream" in module else own
        for module, own in drawn.items()
    }


@pytest.fixture(scope="module")
def joint(program, params):
    return partial(program, params)


@pytest.fixture(scope="module")
def batch():
    return simulate(jax.random.key(1), 12, DATA)


def system(batch, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf[i]), batch.rows)


def test_posteriors_are_distributions(joint, batch):
    for i in range(6):
        rows = system(batch, i)
        found = joint(rows)
        np.testing.assert_allclose(np.exp(found.log_probs).sum(axis=1), 1.0, rtol=1e-5)
        marginals = np.asarray(found.marginals)
        assert ((marginals >= 0) & (marginals <= 1)).all()
        assert (np.diag(marginals) == 0).all()
        assert (marginals[~rows.present] == 0).all()
        assert (marginals[:, ~rows.present] == 0).all()


def test_order_of_variables(joint, batch):
    for i in range(4):
        rows = system(batch, i)
        order = np.random.default_rng(i).permutation(6)
        moved = Rows(
            rows.obs_data[:, order],
            rows.int_data[:, order],
            rows.obs_rows,
            rows.int_rows,
            rows.present[order],
        )
        first, second = joint(rows).marginals, joint(moved).marginals
        np.testing.assert_allclose(np.asarray(first)[np.ix_(order, order)], second, **CLOSE)


def test_order_of_rows(joint, batch):
    rows = system(batch, 1)
    rng = np.random.default_rng(0)
    a, b = rng.permutation(len(rows.obs_rows)), rng.permutation(len(rows.int_rows))
    moved = Rows(
        rows.obs_data[a], rows.int_data[b], rows.obs_rows[a], rows.int_rows[b], rows.present
    )
    np.testing.assert_allclose(joint(rows).marginals, joint(moved).marginals, **CLOSE)


def test_units(joint, batch):
    rows = system(batch, 2)
    factor, offset = np.array([1e3, 1e-3, 7, 1, 2, 5]), np.array([10.0, 0, -3, 1, 0, 4])
    trials = rows.int_data.copy()
    trials[..., 0] = trials[..., 0] * factor + offset
    scaled = rows._replace(obs_data=rows.obs_data * factor + offset, int_data=trials)
    np.testing.assert_allclose(joint(rows).marginals, joint(scaled).marginals, **CLOSE)


def test_padding_of_rows_and_variables(joint, batch):
    rows = system(batch, 3)
    wider = Rows(
        np.pad(rows.obs_data, ((0, 64), (0, 2)), constant_values=9.0),
        np.pad(rows.int_data, ((0, 8), (0, 2), (0, 0)), constant_values=1.0),
        np.pad(rows.obs_rows, (0, 64)),
        np.pad(rows.int_rows, (0, 8)),
        np.pad(rows.present, (0, 2)),
    )
    np.testing.assert_allclose(joint(rows).marginals, joint(wider).marginals[:6, :6], **CLOSE)


def test_log_probability_of_the_truth_is_that_of_the_enumeration(joint, batch):
    rows, parents = system(batch, 4), np.asarray(batch.parents[4])
    found = joint(rows)
    log_probs = np.asarray(log_prob_of_sets(found, jnp.asarray(parents)))
    for t in np.flatnonzero(rows.present):
        slots = np.asarray(found.candidates[t])
        row = sum(1 << s for s, j in enumerate(slots) if parents[t, j])
        assert log_probs[t] == pytest.approx(float(found.log_probs[t, row]), abs=1e-5)


def test_apply_is_the_column_of_the_joint(model, params, batch, joint):
    rows = system(batch, 5)
    marginals = jax.jit(model.apply)(params, *rows[:2], 2, *rows[2:])
    np.testing.assert_allclose(marginals, joint(rows).marginals[2], **CLOSE)


def test_many_variables_keep_a_normalised_enumeration(joint):
    values = np.random.default_rng(0).normal(size=(80, 15))
    values[:, 0] += values[:, 1:].sum(axis=1)
    found = joint(pad_rows(ExperienceBuffer.from_arrays(values)))
    assert found.candidates.shape == (16, 11)
    np.testing.assert_allclose(np.exp(found.log_probs[0]).sum(), 1.0, rtol=1e-4)
    truth = np.zeros((16, 16), dtype=bool)
    truth[0, 1:15] = True
    assert np.isfinite(log_prob_of_sets(found, jnp.asarray(truth))[:15]).all()


def test_local_scores_are_those_of_exact_inference():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    statistics = Statistics.of(values, np.zeros(values.shape, bool))
    exact = scores_of_all_sets(statistics)[4]
    sizes = jnp.asarray([bin(i).count("1") for i in range(16)])
    scatter, total = jnp.asarray(values.T @ values), jnp.asarray(values.sum(axis=0))
    found = set_scores(scatter, total, jnp.asarray(40.0), 0.5, sizes)
    np.testing.assert_allclose(found, exact - exact[0], atol=5e-3)


def test_scores_of_functions_are_the_evidence_of_the_regression():
    rng = np.random.default_rng(1)
    scale, n = 1.5, 30
    causes = rng.normal(size=(n, 2))
    columns = np.stack([causes, np.tanh(causes), causes**2], axis=-1).reshape(n, 6)
    y = causes[:, 0] ** 2 + 0.1 * rng.normal(size=n)
    both = np.column_stack([columns, y])
    sizes = jnp.asarray([0, 1, 1, 2])
    found = set_scores(
        jnp.asarray(both.T @ both), jnp.asarray(both.sum(axis=0)), jnp.asarray(n), scale, sizes, 3
    )

    def evidence(chosen, k):
        # 1/v ~ Gamma((3 + k) / 2, rate t / 2), weights ~ N(0, v / t), intercept ~ N(0, v).
        spread = np.eye(n) + 1.0 + chosen @ chosen.T / scale
        return stats.multivariate_t(shape=spread * scale / (3 + k), df=3 + k).logpdf(y)

    exact = [
        evidence(columns[:, :0], 0),
        evidence(columns[:, :3], 1),
        evidence(columns[:, 3:], 1),
        evidence(columns, 2),
    ]
    np.testing.assert_allclose(found, np.array(exact) - exact[0], atol=5e-3)


def test_joint_experiments_set_each_number_of_variables_up_to_the_most():
    design = DesignDistribution(joint=0.5, at_once=4, observational=0.0, max_experiments=24)
    distribution = TrainingDistribution((SystemDistribution(n_vars=(6, 6)),), design)
    rows = simulate(jax.random.key(0), 64, distribution).rows
    set_at_once = np.asarray(rows.int_data[..., 1].sum(axis=-1))[np.asarray(rows.int_rows)]
    assert sorted(set(set_at_once.tolist())) == [1, 2, 3, 4]
    assert 0.2 < np.mean(set_at_once > 1) < 0.5
    with pytest.raises(ConfigError, match="at_once"):
        DesignDistribution(at_once=1)


def test_some_systems_have_joint_experiments_alone_and_some_have_few():
    design = DesignDistribution(
        joint=0.3, at_once=6, few=0.5, observational=0.0, partial=0.0, max_experiments=60
    )
    distribution = TrainingDistribution((SystemDistribution(n_vars=(6, 6)),), design)
    rows = simulate(jax.random.key(1), 256, distribution).rows
    there, was_set = np.asarray(rows.int_rows), np.asarray(rows.int_data[..., 1])
    many = (was_set.sum(axis=-1) > 1) & there
    share = many.sum(axis=1) / there.sum(axis=1)
    # A draw that meets the first variable adds none: 0.29 expected, 0.02 its standard error.
    assert 0.22 < share.mean() < 0.36
    assert (share == 0).sum() > 30
    assert (share > 0.8).sum() > 5
    assert 0.5 < (there.sum(axis=1) <= 10).mean() < 0.75


def test_some_variables_vary_only_where_they_are_set_and_experiments_are_repeated():
    design = DesignDistribution(
        n_obs=(20, 40), observational=0.0, max_experiments=60, repeated=0.5, held=1.0
    )
    distribution = TrainingDistribution((SystemDistribution(n_vars=(4, 6)),), design)
    batch = jax.tree.map(np.asarray, simulate(jax.random.key(2), 128, distribution))
    rows, one_value, repeats = batch.rows, [], []
    for i, present in enumerate(rows.present):
        observed = rows.obs_data[i][rows.obs_rows[i]][:, present]
        tried, was_set = np.moveaxis(rows.int_data[i][rows.int_rows[i]][:, present], -1, 0)
        is_set = was_set > 0
        held = np.asarray((observed == observed[0]).all(axis=0))
        assert not held.all()
        assert not batch.parents[i][:, present][: present.sum()][held].any()
        assert (tried[~is_set & held] == 0).all()
        values = np.concatenate([observed, tried]).astype(np.float64)
        mask = np.concatenate([np.zeros_like(observed, bool), is_set])
        scaling = Scaling.of_rows(values, [f"X{j}" for j in range(len(held))], mask)
        np.testing.assert_array_equal(scaling.means[held], 0.0)  # as what is shown to a network
        np.testing.assert_allclose(scaling.stds[held], 1.0, rtol=1e-6)
        one_value += [len(set(tried[is_set[:, j], j])) == 1 for j in np.flatnonzero(held)]
        settings = np.where(is_set, tried, 1e9)
        repeats.append(len(tried) / max(len(np.unique(settings, axis=0)), 1))
    assert 40 < len(one_value) < 400
    assert 0.4 < np.mean(one_value) < 0.8  # some are set once only
    assert 0.2 < np.mean(np.array(repeats) > 1.5) < 0.6
    assert max(repeats) > 8


@pytest.mark.parametrize("nonlinear", [False, True])
def test_products_of_the_encoding_are_in_full_precision(nonlinear):
    rows = jax.tree.map(lambda leaf: leaf[0], simulate(jax.random.key(0), 1, DATA).rows)
    program = jax.jit(partial(encode, nonlinear=nonlinear)).lower(rows).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)


@pytest.mark.parametrize("n", [9, 31])
def test_inverse_of_many_small_matrices(n):
    half = np.random.default_rng(0).normal(size=(3, 4, 4 * n, n))
    matrices = np.einsum("abni,abnj->abij", half, half)
    found = np.asarray(inverse(jnp.asarray(matrices, jnp.float32)))
    np.testing.assert_allclose(
        found @ matrices, np.broadcast_to(np.eye(n), (3, 4, n, n)), atol=1e-4
    )


@pytest.mark.parametrize("seed", range(4))
def test_encoding_is_finite_where_columns_follow_from_each_other(seed):
    # A dense system with little noise, and experiments 1,000 deviations out.
    rng, d, n_obs, n_int = np.random.default_rng(seed), 8, 128, 512
    weights = np.triu(rng.normal(scale=2.0, size=(d, d)), 1)
    is_set = np.zeros((n_obs + n_int, d), bool)
    is_set[np.arange(n_obs, n_obs + n_int), rng.integers(d, size=n_int)] = True
    values = rng.normal(scale=10.0 ** rng.uniform(-2.0, 0.0, size=d), size=is_set.shape)
    for j in range(d):
        values[:, j] += values @ weights[:, j]
        values[is_set[:, j], j] = rng.choice([-1e3, 1e3], size=int(is_set[:, j].sum()))
    rows = Rows(
        jnp.asarray(values[:n_obs], jnp.float32),
        jnp.asarray(np.stack([values, is_set], axis=-1)[n_obs:], jnp.float32),
        jnp.ones(n_obs, bool),
        jnp.ones(n_int, bool),
        jnp.ones(d, bool),
    )
    encoding = encode_rows(rows, nonlinear=True)
    for field in (encoding.pairs, encoding.cells, encoding.scores, encoding.reverse):
        assert np.isfinite(np.asarray(field)).all()


def test_log_odds_are_those_of_the_sums():
    weights = np.random.default_rng(0).normal(scale=20.0, size=8)
    weights[5] = -np.inf
    members = np.asarray(all_subsets(3))
    expected = [
        np.logaddexp.reduce(weights[members[:, s]]) - np.logaddexp.reduce(weights[~members[:, s]])
        for s in range(3)
    ]
    np.testing.assert_allclose(log_odds(jnp.asarray(weights)), expected, rtol=1e-4)


def test_many_systems_at_once_are_each_alone(batch):
    program = PROGRAMS["moments"]
    params = program.model.init(jax.random.key(0))
    joint = partial(program, params)
    found = jax.jit(partial(joint_of_many, program.model, at_once=5))(params, batch.rows)
    for i in (0, 4, 11):
        np.testing.assert_allclose(found.marginals[i], joint(system(batch, i)).marginals, **CLOSE)


def test_the_stream_is_heard(batch):
    joint = PROGRAMS["stream"]
    params = joint.model.init(jax.random.key(0))
    louder = {
        module: jax.tree.map(lambda leaf: leaf + 0.3, own) if "embed_stream" in module else own
        for module, own in params.items()
    }
    first, second = (np.asarray(joint(own, system(batch, 0)).marginals) for own in (params, louder))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("kind", ["no experiments", "huge", "duplicates", "everything set"])
def test_hard_rows_stay_finite(model, joint, batch, kind):
    rows = system(batch, 6)
    if kind == "no experiments":
        rows = rows._replace(int_rows=np.zeros_like(rows.int_rows))
    elif kind == "huge":
        rows = rows._replace(int_data=rows.int_data * np.array([1e12, 1.0]))
    elif kind == "duplicates":
        rows = rows._replace(obs_data=rows.obs_data[:, [0, 0, 0, 0, 0, 0]])
    else:
        rows = rows._replace(
            int_data=np.stack([rows.int_data[..., 0], np.ones_like(rows.int_data[..., 1])], -1)
        )
    assert np.isfinite(joint(rows).marginals).all()
    encoding = encode_rows(rows, nonlinear=model is MODELS["stream"])
    assert np.isfinite(encoding.pairs).all()


def test_gradients_are_finite(model, params, batch):
    loss, grads = jax.jit(jax.value_and_grad(partial(negative_log_probability, model)))(
        params, batch
    )
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_other_row_counts_in_a_bucket_do_not_compile_again(program, joint):
    traces = []
    for n_vars, n_rows in ((5, 40), (6, 100), (8, 128)):
        values = np.random.default_rng(0).normal(size=(n_rows, n_vars))
        joint(pad_rows(ExperienceBuffer.from_arrays(values)))
        traces.append(program.traces)
    assert len(set(traces)) == 1


def test_parts_have_their_shares(batch):
    parts = (SystemDistribution(n_vars=(3, 6)), SystemDistribution(n_vars=(3, 6), weights=(9, 9)))
    mixture = TrainingDistribution(parts, DATA.design, shares=(3.0, 1.0))
    observed = np.asarray(simulate(jax.random.key(1), 16, mixture).rows.obs_data)
    np.testing.assert_array_equal(observed[:12], batch.rows.obs_data)
    assert len(observed) == 16
    for wrong in ((1.0,), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="shares"):
            TrainingDistribution(parts, DATA.design, wrong)


def test_simulated_data_are_what_they_say(batch):
    rows = jax.tree.map(np.asarray, batch.rows)
    assert np.isfinite(rows.obs_data).all()
    assert ((rows.obs_rows.sum(axis=1) >= 20) & (rows.obs_rows.sum(axis=1) <= 64)).all()
    assert not rows.int_data[..., 1][~rows.int_rows].any()
    assert not (rows.int_data[..., 1].any(axis=1) & ~rows.present).any()
    assert not np.asarray(batch.parents)[~rows.present].any()
