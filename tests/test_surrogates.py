"""One suite that every surrogate must pass."""

import jax
import numpy as np
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import DataError, UnknownNameError
from causal_bayes_opt.expert.parent_posterior import parent_scale_posterior
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, all_posteriors
from causal_bayes_opt.surrogate.router import auto_posterior, network_posterior

SURROGATES = {
    "exact": exact_posterior,
    "network": network_posterior,
    "auto": auto_posterior,
    "PARENT_SCALE": parent_scale_posterior,
}
# float32 in the network: statistics of a hundred rows agree to about five digits.
TOLERANCE = {"network": 2e-3}
KEY = jax.random.key(0)
SYSTEM = SCM.linear(
    ["B", "Y", "A 1", "größe"],
    {("B", "Y"): 1.5, ("A 1", "Y"): -1.0, ("Y", "größe"): 1.0, ("A 1", "B"): 0.7},
)


@pytest.fixture(params=SURROGATES)
def named(request):
    return request.param, SURROGATES[request.param]


def experiments(n_observed=100, n_tried=5):
    buffer = ExperienceBuffer.from_dataframe(sample(SYSTEM, n_observed, seed=1))
    for number, name in enumerate(("B", "A 1", "größe")):
        rows = sample(SYSTEM, n_tried, intervention={name: 2.0}, seed=number + 2)
        for row in rows.drop(columns="do", errors="ignore").to_dict("records"):
            buffer.add_intervention({name: 2.0}, {str(k): v for k, v in row.items()})
    return buffer


def changed(buffer, order, factors, offsets):
    values, mask = buffer.all_rows()
    values = values * factors + offsets
    names = np.array(buffer.get_variable_names())
    return ExperienceBuffer.from_arrays(values[:, order], mask[:, order], names[order].tolist())


def assert_same(name, first, second):
    tolerance = TOLERANCE.get(name, 1e-6)
    for parents in set(first.posterior_probs) | set(second.posterior_probs):
        assert first.probability(parents) == pytest.approx(
            second.probability(parents), abs=tolerance
        )


def test_answer_is_a_distribution_over_sets_without_the_target(named):
    _, surrogate = named
    posterior = surrogate(experiments(), "Y", key=KEY)
    total = sum(posterior.posterior_probs.values()) + posterior.mass_left_out
    assert total == pytest.approx(1.0, abs=1e-6)
    assert all("Y" not in parents for parents in posterior.posterior_probs)
    assert posterior.variables == ("B", "Y", "A 1", "größe")
    assert posterior.marginal_vector()[1] == 0.0
    assert posterior.method != "unknown"


def test_parents_of_a_clear_system_are_found(named):
    _, surrogate = named
    posterior = surrogate(experiments(400, 30), "Y", key=KEY)
    assert posterior.marginals["B"] > 0.9
    assert posterior.marginals["A 1"] > 0.9
    assert posterior.marginals["größe"] < 0.1


def test_same_key_gives_the_same_answer(named):
    _, surrogate = named
    assert surrogate(experiments(), "Y", key=KEY) == surrogate(experiments(), "Y", key=KEY)


def test_order_of_variables_does_not_matter(named):
    name, surrogate = named
    buffer = experiments()
    other = changed(buffer, np.array([2, 0, 3, 1]), 1.0, 0.0)
    assert_same(name, surrogate(buffer, "Y", key=KEY), surrogate(other, "Y", key=KEY))


def test_units_do_not_matter(named):
    name, surrogate = named
    factors = np.array([1e3, 1e6, 1e-3, 7.0])
    buffer = experiments()
    other = changed(buffer, np.arange(4), factors, 10 * factors)
    assert_same(name, surrogate(buffer, "Y", key=KEY), surrogate(other, "Y", key=KEY))


def test_buffer_is_not_changed(named):
    _, surrogate = named
    buffer = experiments()
    before = buffer.copy()
    surrogate(buffer, "Y", key=KEY)
    assert buffer == before


def test_observations_alone_are_enough(named):
    _, surrogate = named
    posterior = surrogate(experiments(60, 0), "Y", key=KEY)
    assert np.isfinite(posterior.marginal_vector()).all()


def test_experiments_on_the_target_are_taken(named):
    _, surrogate = named
    buffer = experiments()
    for row in (
        sample(SYSTEM, 5, intervention={"Y": 3.0}, seed=9).drop(columns="do").to_dict("records")
    ):
        buffer.add_intervention({"Y": 3.0}, row)
    assert np.isfinite(surrogate(buffer, "Y", key=KEY).marginal_vector()).all()


def test_one_and_two_variables(named):
    _, surrogate = named
    rng = np.random.default_rng(0)
    alone = ExperienceBuffer.from_arrays(rng.normal(size=(30, 1)), names=["Y"])
    assert dict(surrogate(alone, "Y", key=KEY).posterior_probs) == {frozenset(): 1.0}
    pair = ExperienceBuffer.from_arrays(rng.normal(size=(30, 2)), names=["X", "Y"])
    assert np.isfinite(surrogate(pair, "Y", key=KEY).marginal_vector()).all()


@pytest.mark.parametrize("kind", ["duplicates", "few rows", "huge values", "one experiment"])
def test_hard_data_give_a_finite_answer(named, kind):
    _, surrogate = named
    rng = np.random.default_rng(1)
    values, mask = rng.normal(size=(40, 3)), np.zeros((40, 3), dtype=bool)
    if kind == "duplicates":
        values[:, 1] = values[:, 0]
    elif kind == "few rows":
        values, mask = rng.normal(size=(4, 6)), np.zeros((4, 6), dtype=bool)
    elif kind == "huge values":
        values[0] = 1e12
    else:
        mask[-1, 0] = True
    buffer = ExperienceBuffer.from_arrays(values, mask)
    posterior = surrogate(buffer, "X3", key=KEY)
    assert np.isfinite(posterior.marginal_vector()).all()
    assert np.isfinite(posterior.uncertainty)


def test_nothing_that_causes_the_target_is_said_so(named):
    _, surrogate = named
    rng = np.random.default_rng(2)
    noise = ExperienceBuffer.from_arrays(rng.normal(size=(300, 4)))
    posterior = surrogate(noise, "X4", key=KEY)
    assert posterior.top_sets(1)[0][0] == frozenset()


def test_known_and_forbidden_edges_are_kept(named):
    _, surrogate = named
    prior = EdgePrior(known=(("B", "Y"),), forbidden=(("größe", "Y"),))
    posterior = surrogate(experiments(), "Y", prior=prior, key=KEY)
    assert posterior.marginals["B"] == pytest.approx(1.0)
    assert posterior.marginals["größe"] == 0.0


def test_all_variables_can_be_asked(named):
    _, surrogate = named
    found = all_posteriors(surrogate, experiments(), key=KEY)
    assert list(found) == ["B", "Y", "A 1", "größe"]
    assert all(posterior.target_variable == name for name, posterior in found.items())


def test_constant_column_and_unknown_target_are_refused(named):
    _, surrogate = named
    values = np.random.default_rng(0).normal(size=(30, 3))
    values[:, 1] = 4.0
    with pytest.raises(DataError, match="column 'X2' is constant"):
        surrogate(ExperienceBuffer.from_arrays(values), "X1", key=KEY)
    with pytest.raises(UnknownNameError, match="unknown target 'Z'"):
        surrogate(experiments(), "Z", key=KEY)
    with pytest.raises(DataError, match="at least 2 rows in which nothing was set"):
        surrogate(ExperienceBuffer.from_arrays(values[:1]), "X1", key=KEY)


def test_what_was_never_seen_to_vary_by_itself_shows_no_causes(named):
    _, surrogate = named
    values, mask = np.ones((30, 3)), np.zeros((30, 3), dtype=bool)
    mask[20:] = np.arange(10)[:, None] % 3 == np.arange(3)
    values[mask] = np.arange(10.0)
    with pytest.raises(DataError, match="every column is constant where nothing was set"):
        surrogate(ExperienceBuffer.from_arrays(values, mask), "X1", key=KEY)
