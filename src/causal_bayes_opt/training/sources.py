"""What a run learns from: simulated systems, or demonstrations in memory or in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.padding import bucket
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.joint import Network, log_prob_of_set
from causal_bayes_opt.surrogate.losses import compute_calibration_loss, compute_kl_divergence
from causal_bayes_opt.surrogate.network import VARIABLE_BUCKETS
from causal_bayes_opt.surrogate.training import (
    SimulatedBatch,
    TrainingDistribution,
    negative_log_probability,
    simulate,
)
from causal_bayes_opt.training.data_generation import TrainingExample
from causal_bayes_opt.training.loaders import (
    AdvancedDataLoader,
    ExampleBatch,
    Position,
    SimpleDataLoader,
)
from causal_bayes_opt.training.parallel import spread
from causal_bayes_opt.training.storage import DatasetStore

_HELD_OUT = 2**31 - 2  # folded into a key; no step of a run has this number


class Place(NamedTuple):
    """How far a source has come; what a checkpoint keeps of it."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


class Source(Protocol):
    """Gives batches, and the loss on them; what compares equal has the same loss."""

    def __hash__(self) -> int:
        """Compiled steps are kept by source."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the batches follow from, as JSON values."""
        ...

    def batches(self, place: Place) -> Iterator[tuple[Place, Any]]:
        """Batches from a place on, each with the place behind it, without end."""
        ...

    def loss(
        self, model: Any, params: hk.Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch and its parts, scalars; traced."""
        ...


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses on demonstrations.

    Attributes:
        truth: of the negative log-probability of the true parent set.
        expert: of the divergence from the teacher's marginals.
        calibration: of `compute_calibration_loss` against the true parents.
    """

    truth: float = 1.0
    expert: float = 0.1
    calibration: float = 0.0

    def __post_init__(self) -> None:
        if min(self.truth, self.expert, self.calibration) < 0:
            raise ConfigError(f"weights of losses cannot be negative: {asdict(self)}")
        if max(self.truth, self.expert) == 0:
            raise ConfigError("one of the weights truth and expert must be above 0")


@dataclass(frozen=True)
class Simulated:
    """Fresh systems at every step; every variable is a target.

    Attributes:
        distribution: of systems and designs.
        batch_size: systems a step.
    """

    distribution: TrainingDistribution
    batch_size: int

    def describe(self) -> dict[str, Any]:
        """The distribution and the batch size."""
        return {"distribution": asdict(self.distribution), "batch_size": self.batch_size}

    def batches(self, place: Place) -> Iterator[tuple[Place, Any]]:
        """Nothing: a step's key is all that a batch needs."""
        while True:
            place = place._replace(batch=place.batch + 1)
            yield place, None

    def loss(
        self, model: Network, params: hk.Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Negative log-probability of the true parent sets, nats a variable."""
        simulated = spread(simulate(key, self.batch_size, self.distribution))
        return negative_log_probability(model, params, simulated), {}


def held_out_loss(
    model: Network, distribution: TrainingDistribution, seed: int
) -> Callable[[hk.Params], float]:
    """The loss of weights on 256 systems that no step of a run with this seed simulates."""
    judge = _judge(model)

    def loss(params: hk.Params) -> float:
        keys = [jax.random.fold_in(jax.random.key(seed + i), _HELD_OUT) for i in range(4)]
        return float(np.mean([judge(params, simulate(key, 64, distribution)) for key in keys]))

    return loss


@lru_cache(maxsize=8)
def _judge(model: Network) -> Callable[[hk.Params, SimulatedBatch], jax.Array]:
    return jax.jit(partial(negative_log_probability, model))


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Examples in memory, epoch after epoch.

    Attributes:
        examples: what to learn from.
        batch_size: examples a batch.
        weights: of the losses.
        seed: of the order of batches.
    """

    examples: Sequence[TrainingExample]
    batch_size: int = 32
    weights: LossWeights = LossWeights()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.examples:
            raise ConfigError("there are no examples to learn from")

    def describe(self) -> dict[str, Any]:
        """A hash of the examples, and how they are used."""
        found = hashlib.sha256()
        for example in self.examples:
            found.update(np.ascontiguousarray(example.observational_data).tobytes())
            found.update(np.ascontiguousarray(example.interventional_data).tobytes())
            found.update(np.ascontiguousarray(example.parent_posterior).tobytes())
        return {
            "examples": found.hexdigest()[:16],
            "batch_size": self.batch_size,
            "weights": asdict(self.weights),
            "seed": self.seed,
        }

    def batches(self, place: Place) -> Iterator[tuple[Place, ExampleBatch]]:
        """Full batches, padded to the bucket of their number of variables.

        What is left over of a number of variables is filled up by repeating its examples.
        """
        loader = SimpleDataLoader(self.examples, self.batch_size)
        while True:
            key = jax.random.fold_in(jax.random.key(self.seed), place.epoch)
            for number, batch in enumerate(loader.get_batches(key)):
                if number >= place.batch:
                    yield place._replace(batch=number + 1), _full(widen(batch), self.batch_size)
            place = Place(place.epoch + 1)

    def loss(
        self, model: Network, params: hk.Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of the losses."""
        return demonstration_loss(model, params, spread(batch), self.weights)


@dataclass(frozen=True)
class StoredDemonstrations:
    """Examples of a store that need not fit into memory, epoch after epoch.

    Attributes:
        folder: of the store.
        batch_size: examples a batch.
        weights: of the losses.
        seed: of the order of batches.
    """

    folder: str | Path
    batch_size: int = 64
    weights: LossWeights = LossWeights()
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """The store's configuration, and how it is used."""
        return {
            "dataset": DatasetStore.open(self.folder).configuration,
            "batch_size": self.batch_size,
            "weights": asdict(self.weights),
            "seed": self.seed,
        }

    def batches(self, place: Place) -> Iterator[tuple[Place, ExampleBatch]]:
        """Full batches; see `Demonstrations.batches`."""
        loader = AdvancedDataLoader(self.folder, self.batch_size)
        while True:
            key = jax.random.fold_in(jax.random.key(self.seed), place.epoch)
            for position, batch in loader.stream(key, Position(*place[1:])):
                yield Place(place.epoch, *position), _full(widen(batch), self.batch_size)
            place = Place(place.epoch + 1)

    def loss(
        self, model: Network, params: hk.Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of the losses."""
        return demonstration_loss(model, params, spread(batch), self.weights)


def demonstration_loss(
    model: Network, params: hk.Params, batch: ExampleBatch, weights: LossWeights
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted loss of a batch, and its parts ``truth``, ``expert`` and ``calibration``."""
    joint = jax.vmap(partial(model.joint, params))(rows_of(batch))
    target = jnp.asarray(batch.target_index)
    log_probs = jax.vmap(log_prob_of_set)(joint, target, jnp.asarray(batch.true_parents))
    marginals = joint.marginals[jnp.arange(len(target)), target]
    parts = {
        "truth": -log_probs.mean(),
        "expert": compute_kl_divergence(marginals, jnp.asarray(batch.parent_posterior)),
        "calibration": compute_calibration_loss(marginals, jnp.asarray(batch.true_parents)),
    }
    total = sum(weight * parts[name] for name, weight in asdict(weights).items())
    return jnp.asarray(total), parts


def rows_of(batch: ExampleBatch) -> Rows:
    """What the network takes of a batch."""
    return Rows(
        *map(
            jnp.asarray,
            (
                batch.observational_data,
                batch.interventional_data,
                batch.obs_rows,
                batch.int_rows,
                batch.present,
            ),
        )
    )


def widen(batch: ExampleBatch, n_vars: int | None = None) -> ExampleBatch:
    """Pad the variables of a batch to a bucket, and its rows to powers of two.

    Args:
        batch: of a loader.
        n_vars: the bucket is the one of so many variables; None: of those that the batch has.

    Raises:
        ConfigError: more variables than fit.
    """
    own = batch.present.shape[1]
    asked = own if n_vars is None else n_vars
    size = next((bucket for bucket in VARIABLE_BUCKETS if bucket >= asked), 0)
    if size < own:
        raise ConfigError(f"{own} variables do not fit into a bucket of {size or 'any size'}")
    spare = size - own
    obs = bucket(batch.obs_rows.shape[1], 16) - batch.obs_rows.shape[1]
    trials = bucket(batch.int_rows.shape[1], 16) - batch.int_rows.shape[1]
    return ExampleBatch(
        observational_data=_pad(batch.observational_data, (0, obs), (0, spare)),
        interventional_data=_pad(batch.interventional_data, (0, trials), (0, spare), (0, 0)),
        parent_posterior=_pad(batch.parent_posterior, (0, spare)),
        target_index=batch.target_index,
        true_parents=_pad(batch.true_parents, (0, spare)),
        obs_rows=_pad(batch.obs_rows, (0, obs)),
        int_rows=_pad(batch.int_rows, (0, trials)),
        present=_pad(batch.present, (0, spare)),
    )


def _full(batch: ExampleBatch, size: int) -> ExampleBatch:
    """Repeat the examples of a batch up to a size, so that one shape is compiled."""
    index = np.arange(size) % len(batch.target_index)
    return ExampleBatch(*(field[index] for field in batch))


def _pad(array: np.ndarray, *room: tuple[int, int]) -> np.ndarray:
    return np.pad(array, ((0, 0), *room))
