"""Loaders: examples of different sizes as padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.network import VARIABLE_BUCKETS
from causal_bayes_opt.training.data_generation import TrainingExample


class ExampleBatch(NamedTuple):
    """Examples side by side, padded to the largest of their bucket. A pytree of arrays."""

    observational_data: np.ndarray  # [n_examples, n_obs, n_vars], float32
    interventional_data: np.ndarray  # [n_examples, n_int, n_vars, 2], float32
    parent_posterior: np.ndarray  # [n_examples, n_vars], of the expert
    target_index: np.ndarray  # int [n_examples]
    true_parents: np.ndarray  # bool [n_examples, n_vars]
    obs_rows: np.ndarray  # bool [n_examples, n_obs], False where padded
    int_rows: np.ndarray  # bool [n_examples, n_int]
    present: np.ndarray  # bool [n_examples, n_vars]


@dataclass(frozen=True)
class SimpleDataLoader:
    """Shuffled batches of examples that are held in memory.

    A batch holds examples of one bucket of variables, so that few shapes are ever compiled.

    Attributes:
        examples: what to load.
        batch_size: examples a batch.
        drop_last: whether what is left over in a bucket, less than a batch, is left out.
    """

    examples: Sequence[TrainingExample]
    batch_size: int = 32
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be at least 1")

    def get_batches(self, key: jax.Array) -> Iterator[ExampleBatch]:
        """All examples once, in an order that the key decides."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        groups: dict[int, list[int]] = {}
        for index in rng.permutation(len(self.examples)).tolist():
            groups.setdefault(_bucket(self.examples[index]), []).append(index)
        batches = [
            group[start : start + self.batch_size]
            for group in groups.values()
            for start in range(0, len(group), self.batch_size)
        ]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        shapes = {bucket: self._shape(bucket, group) for bucket, group in groups.items()}
        for number in rng.permutation(len(batches)):
            chosen = [self.examples[i] for i in batches[number]]
            yield stack_examples(chosen, *shapes[_bucket(chosen[0])])

    def _shape(self, bucket: int, group: list[int]) -> tuple[int, int, int]:
        n_obs = max(len(self.examples[i].observational_data) for i in group)
        n_int = max(len(self.examples[i].interventional_data) for i in group)
        return bucket, n_obs, n_int


def stack_examples(
    examples: Sequence[TrainingExample], n_vars: int, n_obs: int, n_int: int
) -> ExampleBatch:
    """Stack examples, padded with zeros to these sizes."""
    count = len(examples)
    batch = ExampleBatch(
        observational_data=np.zeros((count, n_obs, n_vars), np.float32),
        interventional_data=np.zeros((count, n_int, n_vars, 2), np.float32),
        parent_posterior=np.zeros((count, n_vars), np.float32),
        target_index=np.zeros(count, np.int32),
        true_parents=np.zeros((count, n_vars), bool),
        obs_rows=np.zeros((count, n_obs), bool),
        int_rows=np.zeros((count, n_int), bool),
        present=np.zeros((count, n_vars), bool),
    )
    for i, example in enumerate(examples):
        rows, d = example.observational_data.shape
        trials = len(example.interventional_data)
        names = list(example.graph_metadata["variables"])
        batch.observational_data[i, :rows, :d] = example.observational_data
        batch.interventional_data[i, :trials, :d] = example.interventional_data
        batch.parent_posterior[i, :d] = example.parent_posterior
        batch.target_index[i] = names.index(example.target_variable)
        batch.true_parents[i, :d] = [
            name in example.graph_metadata["true_parents"] for name in names
        ]
        batch.obs_rows[i, :rows] = batch.int_rows[i, :trials] = batch.present[i, :d] = True
    return batch


def _bucket(example: TrainingExample) -> int:
    n_vars = example.observational_data.shape[1]
    found = [size for size in VARIABLE_BUCKETS if size >= n_vars]
    if not found:
        raise ConfigError(f"{n_vars} variables are more than the largest bucket takes")
    return found[0]
