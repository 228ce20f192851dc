"""Training on demonstrations: the public names, and what each option changes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.joint import pad_masks
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training.amortized_models import (
    AdvancedTrainingConfig,
    MinimalTrainingConfig,
    compute_calibration_loss,
    compute_entropy,
    compute_kl_divergence,
    create_advanced_training_step,
    create_training_step,
    default_optimizer,
    train_amortized_model,
    training_step,
)
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator
from causal_bayes_opt.training.generation import generate_dataset
from causal_bayes_opt.training.loaders import SimpleDataLoader
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.parallel import data_mesh
from causal_bayes_opt.training.sources import (
    Demonstrations,
    LossWeights,
    Place,
    StoredDemonstrations,
    widen,
)

TRUTH = MinimalDatasetGenerator(
    (3, 4), n_systems=40, teacher="truth", design=DesignDistribution((20, 32), max_experiments=16)
)
SMALL = MinimalTrainingConfig(
    hidden_dim=8, num_layers=1, num_epochs=4, batch_size=8, validation_frequency=1
)
MODEL = AmortizedModel(PredictorConfig(8, 1, 2, 2))


@pytest.fixture(scope="module")
def examples():
    return TRUTH.generate_training_dataset()


@pytest.fixture(scope="module")
def batch(examples):
    return next(Demonstrations(examples, 8).batches(Place()))[1]


def test_kl_divergence_of_marginals():
    p = jnp.asarray([[0.0, 0.2, 0.9], [0.0, 1.0, 0.5]])
    assert float(compute_kl_divergence(p, p)) == pytest.approx(0.0, abs=1e-5)
    q = jnp.asarray([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    by_hand = [
        0.2 * np.log(0.4) + 0.8 * np.log(1.6) + 0.9 * np.log(1.8) + 0.1 * np.log(0.2),
        np.log(2.0),
    ]
    assert float(compute_kl_divergence(q, p)) == pytest.approx(np.mean(by_hand), rel=1e-5)
    wrong = compute_kl_divergence(jnp.asarray([0.0, 0.0]), jnp.asarray([0.0, 1.0]))
    assert 10 < float(wrong) < 20


def test_calibration_loss_is_small_for_calibrated_predictions_alone():
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.random(20_000))
    labels = jnp.asarray(rng.random(20_000) < np.asarray(p))
    calibrated = float(compute_calibration_loss(p, labels))
    overconfident = float(compute_calibration_loss(jnp.round(p), labels))
    assert calibrated < 1e-3
    # Rounding p gives an error of 1/4 in both of the bins that are left.
    assert overconfident == pytest.approx(1 / 16, abs=0.005)
    slope = jax.grad(lambda x: compute_calibration_loss(x, labels))(p)
    assert np.isfinite(slope).all()
    assert np.abs(slope).sum() > 0


def test_entropy_of_marginals():
    found = compute_entropy(jnp.asarray([[0.0, 0.5, 1.0], [0.5, 0.5, 0.0]]))
    np.testing.assert_allclose(found, [np.log(2), 2 * np.log(2)], rtol=1e-6)


def test_training_step_is_the_plans(batch):
    config = MinimalTrainingConfig()
    assert (config.hidden_dim, config.num_layers) == (128, 4)
    params = config.model.init(jax.random.key(0))
    opt_state = default_optimizer().init(params)
    losses = []
    for _ in range(3):
        params, opt_state, metrics = training_step(params, opt_state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[2] < losses[0]
    assert set(metrics) == {"loss", "truth", "expert", "calibration", "grad_norm"}


def test_loss_is_the_weighted_sum_of_its_parts(batch):
    optimizer = default_optimizer()
    params = MODEL.init(jax.random.key(1))
    weights = {"truth": 0.7, "expert": 0.4, "calibration": 3.0}
    step = create_training_step(MODEL, optimizer, LossWeights(**weights))
    found = step(params, optimizer.init(params), batch, jax.random.key(0))[2]
    assert all(found[name] > 0 for name in weights)
    total = sum(weight * float(found[name]) for name, weight in weights.items())
    assert float(found["loss"]) == pytest.approx(total, rel=1e-5)


def test_training_learns_and_keeps_the_best(examples, tmp_path):
    seen = []
    model, params = train_amortized_model(examples, SMALL, tmp_path, seen.append)
    validations = [done.validation for done in seen if done.validation is not None]
    assert len(validations) == 4
    assert min(validations) < validations[0]
    rows = pad_masks(jnp.zeros((20, 3)), jnp.zeros((1, 3, 2)), None, None, None)
    assert np.isfinite(model.joint(params, rows).marginals).all()
    again = train_amortized_model(examples, SMALL, tmp_path)[1]
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


class StopError(Exception):
    pass


def stop_at(step):
    def report(progress):
        if progress.step == step:
            raise StopError

    return report


def test_stored_demonstrations_are_resumed_exactly(tmp_path):
    generate_dataset(TRUTH, tmp_path / "data")
    source = StoredDemonstrations(tmp_path / "data", 8)
    config = LoopConfig(steps=12, checkpoint_every=1)
    whole = train(MODEL, source, config)
    for step in (3, 8):
        with pytest.raises(StopError):
            train(MODEL, source, config, tmp_path / "run", stop_at(step))
    resumed = train(MODEL, source, config, tmp_path / "run")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_demonstrations_go_on_from_any_place(examples):
    source = Demonstrations(examples, 16)
    stream = source.batches(Place())
    listed = [next(stream) for _ in range(9)]
    place = listed[4][0]
    assert place.epoch == 1
    again = source.batches(place)
    for _, expected in listed[5:]:
        _, found = next(again)
        np.testing.assert_array_equal(found.observational_data, expected.observational_data)


def test_accumulation_is_one_step_on_the_joined_batch(examples):
    alike = [e for e in examples if e.observational_data.shape[1] == 3]
    source, halves = Demonstrations(alike, 20), Demonstrations(alike, 10)
    once = train(MODEL, source, LoopConfig(steps=2, warmup_steps=1, ema_decay=0.0))
    twice = train(MODEL, halves, LoopConfig(steps=4, accumulation=2, warmup_steps=1, ema_decay=0.0))
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_precision_and_memory_change_the_way_and_not_the_model(batch):
    params = MODEL.init(jax.random.key(0))
    optimizer = default_optimizer()

    def step(model):
        made = create_training_step(model, optimizer)
        changed, _, metrics = made(params, optimizer.init(params), batch, jax.random.key(0))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(changed))
        return float(metrics["loss"])

    plain = step(MODEL)
    assert step(replace(MODEL, remat=True)) == pytest.approx(plain, rel=1e-4)
    mixed = replace(MODEL, mixed_precision=True)
    assert step(mixed) == pytest.approx(plain, rel=0.03)  # bfloat16 has three digits
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    data = first.observational_data, first.interventional_data
    traced = str(jax.make_jaxpr(lambda p: mixed.apply(p, *data, 0))(params))
    assert "bf16" in traced


def test_advanced_step_follows_its_configuration(examples):
    config = AdvancedTrainingConfig(
        devices_per_host=1, gradient_accumulation_steps=1, minimal=SMALL
    )
    assert config.model.mixed_precision
    assert config.model.remat
    assert config.mesh.size == 1
    assert replace(config, use_pmap=False).mesh is None
    batch = next(iter(SimpleDataLoader(examples, 8).get_batches(jax.random.key(0))))
    wide = replace(config, dynamic_batching=False, max_variables=12).prepare(batch)
    assert wide.present.shape[1] == 12
    batch = config.prepare(batch)
    assert batch.present.shape[1] == 8
    step = create_advanced_training_step(config)
    params = config.model.init(jax.random.key(0))
    from causal_bayes_opt.training.amortized_models import advanced_optimizer

    state = advanced_optimizer(config).init(params)
    _, _, metrics = step(params, state, batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"])


def test_impossible_configurations_are_refused(examples):
    with pytest.raises(ConfigError, match="num_epochs is 0"):
        MinimalTrainingConfig(num_epochs=0)
    with pytest.raises(ConfigError, match="cannot be negative"):
        MinimalTrainingConfig(expert_weight=-1.0)
    with pytest.raises(ConfigError, match="must be above 0"):
        MinimalTrainingConfig(truth_weight=0.0, expert_weight=0.0)
    with pytest.raises(ConfigError, match="no examples"):
        train_amortized_model([])
    with pytest.raises(ConfigError, match="9 devices were asked for"):
        data_mesh(9)
    batch = next(iter(SimpleDataLoader(examples, 8).get_batches(jax.random.key(0))))
    with pytest.raises(ConfigError, match="do not fit"):
        widen(batch._replace(present=np.ones((8, 101), bool)))
