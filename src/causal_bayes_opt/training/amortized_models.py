"""Training the amortized model: from demonstrations, from simulation, on one device or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.losses import (
    compute_calibration_loss,
    compute_entropy,
    compute_kl_divergence,
)
from causal_bayes_opt.surrogate.predictor import AmortizedModel, ParentSetPredictor, PredictorConfig
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator, TrainingExample
from causal_bayes_opt.training.loaders import ExampleBatch, SimpleDataLoader
from causal_bayes_opt.training.loop import Progress, train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.parallel import data_mesh, spread
from causal_bayes_opt.training.sources import (
    Demonstrations,
    LossWeights,
    demonstration_loss,
    widen,
)
from causal_bayes_opt.training.steps import StepFunction, make_optimizer, make_step

__all__ = [
    "AdvancedTrainingConfig",
    "AmortizedModel",
    "MinimalTrainingConfig",
    "ParentSetPredictor",
    "compute_calibration_loss",
    "compute_entropy",
    "compute_kl_divergence",
    "create_advanced_training_step",
    "create_training_step",
    "train_amortized_model",
    "train_minimal_model",
    "training_step",
]

_HELD_BACK = 0.1


@dataclass(frozen=True)
class MinimalTrainingConfig:
    """Training on demonstrations that fit into memory.

    Attributes:
        hidden_dim: width of the network.
        num_layers: its blocks.
        nonlinear: whether it looks beyond second moments.
        learning_rate: peak rate.
        batch_size: examples a batch.
        num_epochs: times that every example is seen.
        use_mixed_precision: trunk in bfloat16.
        gradient_accumulation_steps: batches whose gradients are averaged.
        validation_frequency: epochs between validations on the systems held back.
        early_stopping_patience: epochs without a better validation after which training ends.
        truth_weight: of the negative log-probability of the true parent set.
        expert_weight: of the divergence from the teacher's marginals.
        calibration_weight: of `compute_calibration_loss`. Proper scores calibrate by themselves.
        seed: of the weights, of the systems held back and of the order of batches.
    """

    hidden_dim: int = 128
    num_layers: int = 4
    nonlinear: bool = False
    learning_rate: float = 1e-3
    batch_size: int = 32
    num_epochs: int = 100
    use_mixed_precision: bool = False
    gradient_accumulation_steps: int = 1
    validation_frequency: int = 10
    early_stopping_patience: int = 20
    truth_weight: float = 1.0
    expert_weight: float = 0.1
    calibration_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "num_epochs",
            "gradient_accumulation_steps",
            "validation_frequency",
            "early_stopping_patience",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        _ = self.weights

    @property
    def model(self) -> AmortizedModel:
        """The network of this size."""
        config = PredictorConfig(self.hidden_dim, self.num_layers, nonlinear=self.nonlinear)
        return AmortizedModel(config, mixed_precision=self.use_mixed_precision)

    @property
    def weights(self) -> LossWeights:
        """The weights of the losses."""
        return LossWeights(self.truth_weight, self.expert_weight, self.calibration_weight)


@dataclass(frozen=True)
class AdvancedTrainingConfig:
    """How a step is computed on several devices.

    Attributes:
        use_pmap: split batches along a mesh of devices; the name is that of JAX's older way.
        devices_per_host: devices of the mesh for each process, as far as there are so many.
        gradient_accumulation_steps: batches whose gradients are averaged.
        use_mixed_precision: trunk in bfloat16.
        gradient_checkpointing: compute activations again for the gradient.
        dynamic_batching: `prepare` pads each batch to the bucket of its size; off: all to the
            bucket of `max_variables`, so that one size is compiled.
        max_variables: see there.
        minimal: everything else.
    """

    use_pmap: bool = True
    devices_per_host: int = 8
    gradient_accumulation_steps: int = 4
    use_mixed_precision: bool = True
    gradient_checkpointing: bool = True
    dynamic_batching: bool = True
    max_variables: int = 12
    minimal: MinimalTrainingConfig = MinimalTrainingConfig()

    @property
    def model(self) -> AmortizedModel:
        """The network, computed in this way."""
        return AmortizedModel(
            self.minimal.model.config,
            mixed_precision=self.use_mixed_precision,
            remat=self.gradient_checkpointing,
        )

    def prepare(self, batch: ExampleBatch) -> ExampleBatch:
        """Pad a batch of a loader for the step.

        Raises:
            ConfigError: more variables than fit.
        """
        return widen(batch, None if self.dynamic_batching else self.max_variables)

    @property
    def mesh(self) -> Mesh | None:
        """The devices along which batches are split; None: one device."""
        if not self.use_pmap:
            return None
        return data_mesh(min(self.devices_per_host * jax.process_count(), jax.device_count()))


def create_training_step(
    model: AmortizedModel,
    optimizer: optax.GradientTransformation,
    weights: LossWeights | None = None,
    mesh: Mesh | None = None,
) -> StepFunction:
    """The jitted step ``(params, opt_state, batch, key) -> (params, opt_state, metrics)``.

    A batch is an `ExampleBatch`; metrics are ``loss``, ``truth``, ``expert``, ``calibration`` and
    ``grad_norm``. The key is not used: the network has no randomness.
    """
    chosen = weights or LossWeights()

    def loss(params: hk.Params, batch: ExampleBatch, key: jax.Array) -> tuple[Any, Any]:
        return demonstration_loss(model, params, spread(batch), chosen)

    return make_step(loss, optimizer, mesh)


def create_advanced_training_step(config: AdvancedTrainingConfig) -> StepFunction:
    """The step of `create_training_step` on a mesh, with the configured precision and memory."""
    return create_training_step(
        config.model, advanced_optimizer(config), config.minimal.weights, config.mesh
    )


def advanced_optimizer(config: AdvancedTrainingConfig) -> optax.GradientTransformation:
    """The optimizer of `create_advanced_training_step`; its schedule counts steps as epochs."""
    return make_optimizer(_loop_config(config.minimal, 1, config.gradient_accumulation_steps))


def training_step(
    params: hk.Params, opt_state: optax.OptState, batch: ExampleBatch, key: jax.Array
) -> tuple[hk.Params, optax.OptState, dict[str, jax.Array]]:
    """One jitted step of the default configuration (`MinimalTrainingConfig`).

    ``AmortizedModel(PredictorConfig(128, 4)).init`` gives the weights, and `default_optimizer`
    the optimizer whose ``init`` gives `opt_state`.
    """
    return _default_step()(params, opt_state, batch, key)


def default_optimizer() -> optax.GradientTransformation:
    """The optimizer of `training_step`: AdamW with clipping at the configured rate."""
    config = MinimalTrainingConfig()
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(config.learning_rate))


@cache
def _default_step() -> StepFunction:
    config = MinimalTrainingConfig()
    return create_training_step(config.model, default_optimizer(), config.weights)


def train_amortized_model(
    demonstrations: Sequence[TrainingExample],
    config: MinimalTrainingConfig | None = None,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    start: hk.Params | None = None,
    mesh: Mesh | None = None,
) -> tuple[AmortizedModel, hk.Params]:
    """Train on demonstrations; return the model and the weights of the best validation.

    A tenth of the systems is held back for validation, where there are ten or more.

    Args:
        demonstrations: examples; those of one run stay together.
        config: see the class.
        folder: keeps checkpoints; the same call goes on from them.
        report: called after every step.
        start: weights to begin with.
        mesh: devices along which batches are split.

    Raises:
        ConfigError: no examples, or the loss is lost.
    """
    config = config or MinimalTrainingConfig()
    learned, held_back = _divided(demonstrations, config.seed)
    source = Demonstrations(learned, config.batch_size, config.weights, config.seed)
    per_epoch = batches_an_epoch(demonstrations, config)
    loop = _loop_config(config, per_epoch, config.gradient_accumulation_steps)
    validate = partial(_validation_loss, config.model, held_back) if held_back else None
    params = train(config.model, source, loop, folder, report, start, validate, mesh)
    return AmortizedModel(config.model.config), params


def batches_an_epoch(
    demonstrations: Sequence[TrainingExample], config: MinimalTrainingConfig
) -> int:
    """Number of batches of `train_amortized_model` in which every example is seen once."""
    learned, _ = _divided(demonstrations, config.seed)
    return sum(1 for _ in SimpleDataLoader(learned, config.batch_size).get_batches(_key(0)))


def train_minimal_model(
    config: MinimalTrainingConfig | None = None,
    generator: MinimalDatasetGenerator | None = None,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> tuple[AmortizedModel, hk.Params]:
    """Generate the minimal dataset (960 demonstrations and the states before them), and train."""
    examples = (generator or MinimalDatasetGenerator()).generate_training_dataset()
    return train_amortized_model(examples, config, folder, report)


def _loop_config(config: MinimalTrainingConfig, per_epoch: int, accumulation: int) -> LoopConfig:
    every = config.validation_frequency * per_epoch
    return LoopConfig(
        steps=config.num_epochs * per_epoch,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        accumulation=accumulation,
        ema_decay=0.99,
        checkpoint_every=every,
        validate_every=every,
        patience=max(config.early_stopping_patience // config.validation_frequency, 1),
        seed=config.seed,
    )


def _divided(
    examples: Sequence[TrainingExample], seed: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Examples to learn from and to validate on, runs kept whole."""
    runs = list(dict.fromkeys(example.graph_metadata["seed"] for example in examples))
    count = int(len(runs) * _HELD_BACK)
    order = np.random.default_rng(seed).permutation(len(runs))
    chosen = {runs[i] for i in order[:count].tolist()}
    learned = [e for e in examples if e.graph_metadata["seed"] not in chosen]
    return learned, [e for e in examples if e.graph_metadata["seed"] in chosen]


def _validation_loss(
    model: AmortizedModel, examples: Sequence[TrainingExample], params: hk.Params
) -> float:
    """Mean negative log-probability of the true sets, in nats."""
    total = 0.0
    for batch in SimpleDataLoader(examples, 64).get_batches(_key(0)):
        _, parts = _jitted_loss(model)(params, widen(batch))
        total += float(parts["truth"]) * len(batch.target_index)
    return total / len(examples)


@cache
def _jitted_loss(model: AmortizedModel) -> Any:
    return jax.jit(partial(demonstration_loss, model, weights=LossWeights()))


def _key(seed: int) -> jax.Array:
    return jax.random.key(seed)
