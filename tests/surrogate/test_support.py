"""What data look like: the check for linear Gaussian systems, the support, and the choice."""

import jax
import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.errors import UnknownNameError
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.network import load_pretrained
from causal_bayes_opt.surrogate.router import (
    auto_posterior,
    measured_gap,
    network_posterior,
    surrogate_named,
)
from causal_bayes_opt.surrogate.support import (
    looks_linear_gaussian,
    measure_support,
    summarise,
    support_of,
)
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution

SYSTEMS = 100


def share_taken_for_linear(distribution, n=200):
    systems = [random_scm(seed, 5, distribution) for seed in range(SYSTEMS)]
    rows = [sample(scm, n, seed=7).to_numpy(dtype=float) for scm in systems]
    return np.mean([looks_linear_gaussian(summarise(values)) for values in rows])


def test_linear_gaussian_systems_pass_the_check():
    # The test of residuals refuses one in 1,000, and a Bayes factor of 1 hardly more.
    assert share_taken_for_linear(SystemDistribution()) >= 0.96


@pytest.mark.parametrize(
    "options",
    [
        {"mechanisms": ("polynomial",)},
        {"mechanisms": ("sigmoid",)},
        {"mechanisms": ("neural",)},
        {"noises": ("laplace",)},
    ],
    ids=["polynomial", "sigmoid", "neural", "tails"],
)
def test_other_systems_mostly_do_not(options):
    assert share_taken_for_linear(SystemDistribution(**options)) <= 0.5


def test_summary_does_not_depend_on_units_or_order():
    values = np.random.default_rng(0).normal(size=(60, 4)) @ np.random.default_rng(1).normal(
        size=(4, 4)
    )
    changed = (values * [1e6, 1e-6, 3, 1] + [5, 0, -2, 1])[::-1, [2, 0, 3, 1]]
    first, second = summarise(values), summarise(changed)
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_support_names_what_lies_outside():
    buffer = ExperienceBuffer.from_arrays(np.random.default_rng(0).normal(size=(50, 3)))
    inside = support_of({"n_vars": [3, 8], "n_obs": [20, 100]}, buffer, "small")
    assert inside.score == 1.0
    assert inside.outside == ()
    near = support_of({"n_vars": [4, 8]}, buffer, "small")
    far = support_of({"n_vars": [30, 32]}, buffer, "small")
    assert 0 <= far.score < near.score < 1
    assert near.outside == ("3 variables: the network small was trained on 4 to 8",)


def test_measured_ranges_hold_the_systems_they_are_of():
    distribution = TrainingDistribution(
        (SystemDistribution(n_vars=(3, 4)),), DesignDistribution((30, 60), max_experiments=8)
    )
    ranges = measure_support(distribution, systems=250)
    assert ranges["n_vars"] == [3, 4]
    inside = 0
    for seed in range(40):
        rows = sample(random_scm(seed, 4), 50, seed=1)
        support = support_of(ranges, ExperienceBuffer.from_dataframe(rows), "m")
        inside += support.score == 1.0
    assert inside >= 34  # 1 % lie outside of each of seven ranges at most


def buffer_of(distribution, n_vars=5, n=200, seed=3):
    return ExperienceBuffer.from_dataframe(
        sample(random_scm(seed, n_vars, distribution), n, seed=1)
    )


def test_shipped_cards_say_what_the_models_were_trained_on():
    for name in ("linear-gaussian-v1", "mixed-v1"):
        card = load_pretrained(name).card
        assert card["trained_on"]["n_vars"] == [3, 12]
        assert card["systems"]
        assert card["training_seconds"] > 0


def test_choice_follows_the_data_and_says_why():
    curved = buffer_of(SystemDistribution(mechanisms=("polynomial",)))
    posterior = auto_posterior(curved, "X2")
    assert posterior.metadata["model"] == "mixed-v1"
    assert "not linear Gaussian" in posterior.metadata["chosen_because"]
    straight = buffer_of(SystemDistribution())
    reason = auto_posterior(straight, "X2").metadata["chosen_because"]
    assert "linear Gaussian" in reason
    assert network_posterior(straight, "X2").metadata["model"] == "linear-gaussian-v1"
    many = buffer_of(SystemDistribution(), n_vars=17)
    posterior = auto_posterior(many, "X2")
    assert posterior.metadata["model"] == "linear-gaussian-v1"
    assert any("17" in warning for warning in posterior.warnings)


def test_graphs_and_posteriors_of_a_small_linear_system_are_of_one_kind():
    """Where graphs come from one distribution and posteriors from another they contradict."""
    straight = buffer_of(SystemDistribution())
    found, exact = auto_posterior.posteriors(straight), exact_posterior.posteriors(straight)
    assert all(found[name].marginals == exact[name].marginals for name in exact)
    assert "exact inference" in found["X2"].metadata["chosen_because"]
    assert found.draw_graphs is not None
    drawn = found.draw_graphs(jax.random.key(0), 2000).mean(axis=0)
    names = straight.get_variable_names()
    edges = np.array([[exact[child].marginals.get(name, 0.0) for child in names] for name in names])
    assert np.abs(drawn - edges).max() < 5 * np.sqrt(0.25 / 2000)
    many = auto_posterior.posteriors(buffer_of(SystemDistribution(), n_vars=17))
    assert many["X2"].metadata["model"] == "linear-gaussian-v1"


def test_more_rows_than_trained_on_go_to_the_network_with_a_warning():
    scm = random_scm(3, 5, SystemDistribution(mechanisms=("polynomial",)))
    many = ExperienceBuffer.from_dataframe(sample(scm, 600, seed=1))  # trained on up to 512
    posterior = auto_posterior(many, "X2")
    assert posterior.metadata["model"] == "mixed-v1"
    assert any("600 observational rows" in warning for warning in posterior.warnings)


def test_data_that_nothing_fits_go_to_exact_inference_with_a_warning():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=300)
    cause[0] = 60.0  # tails as no training has them
    rows = np.column_stack([cause, np.abs(cause) + rng.normal(size=300), rng.normal(size=300)])
    buffer = ExperienceBuffer.from_arrays(rows)
    posterior = auto_posterior(buffer, "X2")
    assert posterior.method == "exact"
    assert any("neither linear Gaussian nor like" in warning for warning in posterior.warnings)


def test_joint_experiments_on_linear_systems_go_to_exact_inference():
    rows = sample(random_scm(3, 5), 100, seed=1)
    tried = sample(random_scm(3, 5), 2, intervention={"X1": 1.0, "X2": 0.0, "X3": 1.0}, seed=2)
    buffer = ExperienceBuffer.from_dataframe(pd.concat([rows.assign(do=""), tried]))
    assert auto_posterior(buffer, "X5").method == "exact"


def test_more_experiments_than_the_linear_network_saw_go_to_exact_inference():
    rows = sample(random_scm(3, 5), 100, seed=1)
    most = int(load_pretrained("linear-gaussian-v1").card["trained_on"]["n_int"][1])
    tried = sample(random_scm(3, 5), most + 1, intervention={"X1": 1.0}, seed=2)
    buffer = ExperienceBuffer.from_dataframe(pd.concat([rows.assign(do=""), tried]))
    assert auto_posterior(buffer, "X5").method == "exact"
    warnings = surrogate_named("linear-gaussian-v1")(buffer, "X5").warnings
    assert any(warning.startswith(f"{most + 1} experiments") for warning in warnings)


def test_each_method_can_be_forced():
    buffer = buffer_of(SystemDistribution())
    assert surrogate_named("exact")(buffer, "X1") == exact_posterior(buffer, "X1")
    assert surrogate_named("mixed-v1")(buffer, "X1").metadata["model"] == "mixed-v1"
    with pytest.raises(UnknownNameError, match="did you mean 'mixed-v1'"):
        surrogate_named("mixd-v1")


def test_measured_gap_is_that_of_the_nearest_data():
    table = [
        {"source": "a", "d": 5, "n": 100, "m": 0, "gap": -0.1},
        {"source": "a", "d": 8, "n": 500, "m": 10, "gap": 0.5},
        {"source": "b", "d": 5, "n": 100, "m": 0, "gap": 0.3},
    ]
    buffer = buffer_of(SystemDistribution(), n=120)
    assert measured_gap(table, buffer) == pytest.approx(0.1)
    assert measured_gap([], buffer) == np.inf


def test_too_few_rows_for_a_check_go_to_exact_inference_or_the_linear_network():
    values = np.random.default_rng(0).normal(size=(5, 3))
    buffer = ExperienceBuffer.from_arrays(values)
    assert auto_posterior.choose(buffer).surrogate is not auto_posterior.mixed
    posteriors = auto_posterior.posteriors(buffer, key=jax.random.key(0))
    assert set(posteriors) == {"X1", "X2", "X3"}


@pytest.mark.parametrize("n", [300, 1200, 6000])
def test_more_rows_of_the_same_system_do_not_make_it_stranger(n):
    """Evidence against linearity grows with rows."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    b = np.tanh(2 * a) + 0.3 * rng.normal(size=n)
    y = b**2 - a + 0.3 * rng.normal(size=n)
    buffer = ExperienceBuffer.from_dataframe(pd.DataFrame({"A": a, "B": b, "Y": y}))
    posterior = auto_posterior(buffer, "Y", key=jax.random.key(0))
    assert posterior.metadata["model"] == "mixed-v1"
    assert posterior.marginals["A"] > 0.95
    assert posterior.marginals["B"] > 0.95


@pytest.mark.parametrize("n", [2000, 20_000])
def test_many_rows_without_skewness_are_not_strange(n):
    rng = np.random.default_rng(0 if n == 2000 else 1)  # skewness 0.003 and 0.07
    cause = rng.normal(size=n)
    buffer = ExperienceBuffer.from_arrays(np.column_stack([cause, cause + rng.laplace(size=n)]))
    assert auto_posterior.choose(buffer).surrogate is auto_posterior.mixed


def test_nonlinear_data_with_a_held_treatment_go_to_the_network_that_knows_such():
    rng = np.random.default_rng(0)
    dose = np.where(np.arange(260) < 200, 0.0, rng.uniform(-2.0, 2.0, 260))
    cause = rng.normal(size=260)
    outcome = np.tanh(2 * dose) + cause**2 + 0.3 * rng.normal(size=260)
    frame = pd.DataFrame({"dose": dose, "cause": cause, "outcome": outcome})
    frame["do"] = np.where(np.arange(260) < 200, "", "dose")
    posterior = auto_posterior(ExperienceBuffer.from_dataframe(frame), "outcome")
    assert posterior.metadata["model"] == "mixed-v1"
    assert posterior.warnings == ()
    assert posterior.top_sets(1)[0][0] == {"dose", "cause"}
