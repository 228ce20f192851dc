"""Datasets: a generator's systems, chunk by chunk, in a store that survives a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from causal_bayes_opt.surrogate.network import DEFAULT_MODEL
from causal_bayes_opt.training.data_generation import (
    MinimalDatasetGenerator,
    TrainingExample,
    extract_expert_demonstrations,
)
from causal_bayes_opt.training.engines import Engine, LocalEngine
from causal_bayes_opt.training.records import RunRecords, to_runs
from causal_bayes_opt.training.scaling_gate import check_scaling_gate
from causal_bayes_opt.training.storage import DatasetStore

UNGATED_DEMONSTRATIONS = 1000
SYSTEMS_PER_CHUNK = {"parent_scale": 8, "truth": 2048, "exact": 256}
_TRAINING = 0


class Chunk(NamedTuple):
    """Systems of one size that are made and stored together."""

    name: str
    numbers: tuple[int, ...]


class Generated(NamedTuple):
    """What is reported after every chunk."""

    systems: int  # finished, of this and of earlier processes
    of: int
    remade: tuple[str, ...]  # chunks that were damaged


@dataclass(frozen=True)
class ChunkMaker:
    """The work of one chunk: a pure function of the configuration, on any machine."""

    generator: MinimalDatasetGenerator

    def __call__(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The arrays of a chunk."""
        return self.generator.records(_TRAINING, chunk.numbers)._asdict()


def plan_chunks(generator: MinimalDatasetGenerator) -> tuple[Chunk, ...]:
    """All chunks of a dataset, sizes in the order given."""
    room = SYSTEMS_PER_CHUNK[generator.teacher]
    chunks = []
    for size in dict.fromkeys(generator.graph_sizes):
        own = [n for n in range(generator.count) if generator.size_of(n) == size]
        for start in range(0, len(own), room):
            name = f"d{size:03d}-{start // room:05d}"
            chunks.append(Chunk(name, tuple(own[start : start + room])))
    return tuple(chunks)


def generate_dataset(
    generator: MinimalDatasetGenerator,
    folder: str | Path,
    *,
    engine: Engine | None = None,
    report: Callable[[Generated], None] | None = None,
    validation_report: Path | None = None,
    model: str | Path = DEFAULT_MODEL,
    force: bool = False,
) -> DatasetStore:
    """Make a dataset, or what is missing of it; the same configuration gives the same content.

    Args:
        generator: what to make.
        folder: of the store. A process that was killed goes on here.
        engine: where chunks are made; None: in this process.
        report: called after every chunk.
        validation_report: opens the gate before more than `UNGATED_DEMONSTRATIONS`.
        model: whose weights the report must have judged.
        force: pass the gate without a report.

    Raises:
        GateError: the gate is closed.
        StoreError: the folder holds something else, or cannot be written.
    """
    if generator.demonstrations > UNGATED_DEMONSTRATIONS:
        check_scaling_gate(validation_report, model=model, force=force)
    store = DatasetStore.create(folder, describe(generator))
    damaged = tuple(store.damaged())
    for name in damaged:
        store.forget(name)
    chunks = {chunk.name: chunk for chunk in plan_chunks(generator)}
    waiting = [chunk for name, chunk in chunks.items() if name not in store.chunks]

    def tell() -> None:
        if report is not None:
            done = sum(len(chunks[name].numbers) for name in store.chunks)
            report(Generated(done, generator.count, damaged))

    tell()
    for chunk, arrays in (engine or LocalEngine()).map(ChunkMaker(generator), waiting):
        about = {"n_runs": len(chunk.numbers), "n_states": arrays["marginals"].shape[1]}
        store.write(chunk.name, arrays, about)
        tell()
    return store


def describe(generator: MinimalDatasetGenerator) -> dict[str, Any]:
    """What the content of a dataset follows from, as JSON values."""
    fields = {**asdict(generator), "systems_per_chunk": SYSTEMS_PER_CHUNK[generator.teacher]}
    described: dict[str, Any] = json.loads(json.dumps(fields))
    return described


def read_generator(store: DatasetStore) -> MinimalDatasetGenerator:
    """The generator that a dataset was made by."""
    from causal_bayes_opt.core.random_systems import SystemDistribution
    from causal_bayes_opt.surrogate.training import DesignDistribution

    fields = {name: _frozen(value) for name, value in store.configuration.items()}
    del fields["systems_per_chunk"]
    fields["systems"] = SystemDistribution(**fields["systems"])
    fields["design"] = DesignDistribution(**fields["design"])
    return MinimalDatasetGenerator(**fields)


def digest_of(folder: str | Path) -> str:
    """One hash of a finished dataset's content.

    Raises:
        StoreError: no dataset, chunks are missing, or their content is damaged.
    """
    store = DatasetStore.open(folder)
    return store.digest(chunk.name for chunk in plan_chunks(read_generator(store)))


def read_examples(folder: str | Path, limit: int | None = None) -> list[TrainingExample]:
    """Examples of a dataset that fits into memory, bit by bit those of the runs."""
    store = DatasetStore.open(folder)
    examples: list[TrainingExample] = []
    for name in store.chunks:
        if limit is not None and len(examples) >= limit:
            break
        records = RunRecords(**store.read(name))
        examples += extract_expert_demonstrations(to_runs(records), None)
    return examples[:limit]


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list) else value
