"""Loaders: examples of different sizes as padded batches, from memory or from a store."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.training.data_generation import TrainingExample
from causal_bayes_opt.training.records import PADDING, RunRecords, stack_records
from causal_bayes_opt.training.storage import DatasetStore

_FIELDS = (
    "target",
    "true_parents",
    "observed",
    "tried",
    "was_set",
    "trial",
    "means",
    "stds",
    "marginals",
)
_READERS = 2
_STEPS_PER_OCTAVE = 32


class ExampleBatch(NamedTuple):
    """Examples of one number of variables side by side, rows padded. A pytree of arrays."""

    observational_data: np.ndarray  # [n_examples, n_obs, n_vars], float32, standardised
    interventional_data: np.ndarray  # [n_examples, n_int, n_vars, 2], float32
    parent_posterior: np.ndarray  # [n_examples, n_vars], of the teacher
    target_index: np.ndarray  # int [n_examples]
    true_parents: np.ndarray  # bool [n_examples, n_vars]
    obs_rows: np.ndarray  # bool [n_examples, n_obs], False where padded
    int_rows: np.ndarray  # bool [n_examples, n_int]
    present: np.ndarray  # bool [n_examples, n_vars]


class Position(NamedTuple):
    """How far a stream of batches has come: the next batch to give."""

    window: int = 0
    batch: int = 0


START = Position()


@dataclass(frozen=True)
class SimpleDataLoader:
    """Shuffled batches of examples that are held in memory.

    A batch holds examples of one number of variables and of similar numbers of rows.

    Attributes:
        examples: what to load.
        batch_size: examples a batch.
        drop_last: whether what is left over of a number of variables, less than a batch, is left
            out.
    """

    examples: Sequence[TrainingExample]
    batch_size: int = 32
    drop_last: bool = False

    def __post_init__(self) -> None:
        _require_batch_size(self.batch_size)

    def get_batches(self, key: jax.Array) -> Iterator[ExampleBatch]:
        """All examples once, in an order that the key decides."""
        rng = _generator(key)
        sizes = np.array(
            [(*e.observational_data.shape[::-1], len(e.interventional_data)) for e in self.examples]
        ).reshape(-1, 3)
        for chosen in _batches(rng, sizes, self.batch_size, self.drop_last):
            yield stack_examples([self.examples[i] for i in chosen])


@dataclass(frozen=True)
class AdvancedDataLoader:
    """Streams the examples of a store that need not fit into memory.

    Chunks come in an order that the key decides, some at a time (a window); examples are shuffled
    within a window, and the next window is read while the last one is used.

    Attributes:
        data_path: folder of the store.
        batch_size: examples a batch.
        window_size: about how many examples are held and shuffled at a time.
        drop_last: whether batches that are not full (one a number of variables and window at
            most) are left out.
    """

    data_path: str | Path
    batch_size: int = 64
    window_size: int = 8192
    drop_last: bool = False

    def __post_init__(self) -> None:
        _require_batch_size(self.batch_size)
        if self.window_size < 1:
            raise ConfigError(f"window_size is {self.window_size}; it must be at least 1")

    def get_batches_efficient(
        self, key: jax.Array, start: Position = START
    ) -> Iterator[dict[str, np.ndarray]]:
        """All examples once, as dictionaries of the fields of `ExampleBatch`."""
        for _, batch in self.stream(key, start):
            yield batch._asdict()

    def stream(
        self, key: jax.Array, start: Position = START
    ) -> Iterator[tuple[Position, ExampleBatch]]:
        """Batches, each with the position behind it, from which the same key goes on exactly.

        Raises:
            StoreError: no dataset, or a chunk that cannot be read.
        """
        store = DatasetStore.open(self.data_path)
        windows = self._windows(store, _generator(key))
        with ThreadPoolExecutor(1) as pool:
            ahead = [
                pool.submit(_read_window, store, names) for names in windows[start.window :][:1]
            ]
            for window in range(start.window, len(windows)):
                held = ahead.pop().result()
                if window + 1 < len(windows):
                    ahead.append(pool.submit(_read_window, store, windows[window + 1]))
                skipped = start.batch if window == start.window else 0
                rng = np.random.default_rng([window, *_words(key)])
                chosen = list(_batches(rng, held.sizes, self.batch_size, self.drop_last))
                for number in range(skipped, len(chosen)):
                    last = number + 1 == len(chosen)
                    position = Position(window + 1) if last else Position(window, number + 1)
                    yield position, held.take(chosen[number])

    def _windows(self, store: DatasetStore, rng: np.random.Generator) -> list[list[str]]:
        chunks = store.chunks
        windows: list[list[str]] = [[]]
        held = 0
        for name in rng.permutation(sorted(chunks)).tolist():
            if held >= self.window_size:
                windows.append([])
                held = 0
            windows[-1].append(name)
            held += chunks[name]["n_runs"] * chunks[name]["n_states"]
        return [window for window in windows if window]


class _Window(NamedTuple):
    """Examples in memory: the runs by number of variables, and where each example lies."""

    runs: dict[int, RunRecords]  # rows standardised, float32, 0 where padded
    sizes: np.ndarray  # int [n_examples, 3]: variables, observed rows, tried rows
    place: np.ndarray  # int [n_examples, 2]: run, state

    def take(self, chosen: np.ndarray) -> ExampleBatch:
        """The batch of some examples of one number of variables."""
        n_vars, n_obs, n_int = self.sizes[chosen].max(axis=0).tolist()
        n_obs, n_int = _rounded(n_obs), _rounded(n_int)
        runs = self.runs[n_vars]
        run, state = self.place[chosen].T
        obs_rows = np.arange(n_obs) < self.sizes[chosen, 1:2]
        int_rows = np.arange(n_int) < self.sizes[chosen, 2:]
        was_set = _fit(runs.was_set[run], n_int) & int_rows[..., None]
        values = np.where(int_rows[..., None], _fit(runs.tried[run], n_int), np.float32(0))
        return ExampleBatch(
            observational_data=_fit(runs.observed[run], n_obs),
            interventional_data=np.stack([values, was_set.astype(np.float32)], axis=-1),
            parent_posterior=runs.marginals[run, state].astype(np.float32),
            target_index=runs.target[run].astype(np.int32),
            true_parents=runs.true_parents[run],
            obs_rows=obs_rows,
            int_rows=int_rows,
            present=np.ones((len(run), n_vars), dtype=bool),
        )


def padding_of(batches: Iterator[ExampleBatch]) -> float:
    """Share of the elements of the rows in some batches that are padding."""
    held = filled = 0
    for batch in batches:
        n_vars = batch.present.shape[1]
        held += (batch.obs_rows.size + batch.int_rows.size) * n_vars
        own = batch.obs_rows.sum(axis=1) + batch.int_rows.sum(axis=1)
        filled += int((own * batch.present.sum(axis=1)).sum())
    return 1.0 - filled / held if held else 0.0


def stack_examples(examples: Sequence[TrainingExample]) -> ExampleBatch:
    """Stack examples of one number of variables, their rows padded with zeros.

    Raises:
        ConfigError: several numbers of variables.
    """
    shapes = {example.observational_data.shape[1] for example in examples}
    if len(shapes) != 1:
        raise ConfigError(f"one batch cannot hold systems of {sorted(shapes)} variables")
    (d,) = shapes
    count = len(examples)
    n_obs = _rounded(max(len(example.observational_data) for example in examples))
    n_int = _rounded(max(len(example.interventional_data) for example in examples))
    batch = ExampleBatch(
        observational_data=np.zeros((count, n_obs, d), np.float32),
        interventional_data=np.zeros((count, n_int, d, 2), np.float32),
        parent_posterior=np.zeros((count, d), np.float32),
        target_index=np.zeros(count, np.int32),
        true_parents=np.zeros((count, d), bool),
        obs_rows=np.zeros((count, n_obs), bool),
        int_rows=np.zeros((count, n_int), bool),
        present=np.ones((count, d), bool),
    )
    for i, example in enumerate(examples):
        rows, trials = len(example.observational_data), len(example.interventional_data)
        names = list(example.graph_metadata["variables"])
        parents = example.graph_metadata["true_parents"]
        batch.observational_data[i, :rows] = example.observational_data
        batch.interventional_data[i, :trials] = example.interventional_data
        batch.parent_posterior[i] = example.parent_posterior
        batch.target_index[i] = names.index(example.target_variable)
        batch.true_parents[i] = [name in parents for name in names]
        batch.obs_rows[i, :rows] = batch.int_rows[i, :trials] = True
    return batch


def _read_window(store: DatasetStore, names: Sequence[str]) -> _Window:
    with ThreadPoolExecutor(_READERS) as pool:
        chunks = list(pool.map(lambda name: _read_chunk(store, name), names))
    parts: dict[int, list[RunRecords]] = {}
    for chunk in chunks:
        parts.setdefault(chunk.means.shape[1], []).append(chunk)
    runs = {n_vars: stack_records(own) for n_vars, own in sorted(parts.items())}
    sizes, place = [], []
    for n_vars, own in runs.items():
        n_obs = (~np.isnan(own.observed[..., 0])).sum(axis=1)
        run, state = np.nonzero(~np.isnan(own.marginals[..., 0]))
        seen = (own.trial[run] > PADDING) & (own.trial[run] <= state[:, None])
        sizes.append(np.stack([np.full(len(run), n_vars), n_obs[run], seen.sum(axis=1)], axis=1))
        place.append(np.stack([run, state], axis=1))
        for rows in (own.observed, own.tried):
            rows[np.isnan(rows)] = 0.0
    return _Window(runs, np.concatenate(sizes), np.concatenate(place))


def _read_chunk(store: DatasetStore, name: str) -> RunRecords:
    """Records with standardised rows in float32, without what no batch holds."""
    arrays = store.read(name, _FIELDS)
    kind = arrays["observed"].dtype
    means = arrays["means"][:, None].astype(kind)
    stds = arrays["stds"][:, None].astype(kind)
    for rows in ("observed", "tried"):
        scaled = arrays[rows] - means
        scaled /= np.where(stds > 0, stds, 1.0)
        arrays[rows] = scaled.astype(np.float32, copy=False)
    nothing = np.zeros((len(means), 0))
    return RunRecords(**{name: arrays.get(name, nothing) for name in RunRecords._fields})


def _batches(
    rng: np.random.Generator, sizes: np.ndarray, batch_size: int, drop_last: bool
) -> Iterator[np.ndarray]:
    """Examples of similar sizes together, otherwise drawn at random; batches in random order.

    `sizes` holds variables, observed rows and tried rows ``[n_examples, 3]``.
    """
    order = rng.permutation(len(sizes))
    batches: list[np.ndarray] = []
    for n_vars in np.unique(sizes[:, 0]):
        batches += _divided(order[sizes[order, 0] == n_vars], sizes, batch_size)
    for number in rng.permutation(len(batches)):
        if len(batches[number]) == batch_size or not drop_last:
            yield batches[number]


def _divided(chosen: np.ndarray, sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Halve examples, by observed or by tried rows as wastes less, until each part is a batch."""
    if len(chosen) <= batch_size:
        return [chosen]
    rows = sizes[chosen, 1:]
    middle = -(-len(chosen) // batch_size) // 2 * batch_size
    orders = [np.argsort(column, kind="stable") for column in rows.T]
    costs = [
        middle * rows[order[:middle]].max(axis=0).sum()
        + (len(chosen) - middle) * rows[order[middle:]].max(axis=0).sum()
        for order in orders
    ]
    order = chosen[orders[int(np.argmin(costs))]]
    halves = order[:middle], order[middle:]
    return [batch for half in halves for batch in _divided(half, sizes, batch_size)]


def _rounded(n: int) -> int:
    """The next of 32 sizes an octave, so that few shapes are ever compiled."""
    if n <= _STEPS_PER_OCTAVE:
        return n
    step = 2 ** (math.ceil(math.log2(n)) - 1) // _STEPS_PER_OCTAVE or 1
    return -(-n // step) * step


def _fit(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows ``[n_examples, count, ...]``: cut off, or padded with zeros."""
    if rows.shape[1] >= count:
        return rows[:, :count]
    room = [(0, 0), (0, count - rows.shape[1])] + [(0, 0)] * (rows.ndim - 2)
    return np.pad(rows, room)


def _require_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")


def _words(key: jax.Array) -> list[int]:
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def _generator(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(_words(key))
