"""Demonstrations: making a dataset, its size, streaming it, and Ray beside this process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from benchmarks.table import print_table
from causal_bayes_opt.surrogate.training import DesignDistribution
from causal_bayes_opt.training.data_generation import (
    MinimalDatasetGenerator,
    measure_conversion_performance,
)
from causal_bayes_opt.training.generation import generate_dataset
from causal_bayes_opt.training.loaders import AdvancedDataLoader, padding_of

STREAMED = 50_000
SYSTEMS = 96
MEGABYTE = 1e6
FIXED = DesignDistribution(n_obs=(100, 100), rows_per_variable=(20, 20), max_experiments=20)


def rows() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*_expert(folder), *_conversion(), *_stream(folder), *_mixed(folder)]


def _expert(folder: Path) -> list[dict[str, object]]:
    local = _command(folder / "local", folder / "cache-local")
    ray = _command(folder / "ray", folder / "cache-ray", "--engine", "ray", "--workers", "2")
    same = _digest(folder / "local") == _digest(folder / "ray")
    size = sum(file.stat().st_size for file in (folder / "local").rglob("*") if file.is_file())
    examples = SYSTEMS * 11
    trials = SYSTEMS * 10
    return [
        {
            "what": f"{trials} demonstrations of {SYSTEMS} PARENT_SCALE runs, d=3..8, cold start",
            "measured": f"{local:.0f} s",
            "bar": "120 s",
            "note": f"{os.cpu_count()} cores; nothing compiled before",
        },
        {
            "what": "the same on Ray, 2 workers on this machine",
            "measured": f"{ray:.0f} s",
            "bar": "",
            "note": f"ratio to this process {ray / local:.2f}; same content: {same}",
        },
        {
            "what": "store of 1,000 examples of the expert",
            "measured": f"{size / examples * 1000 / MEGABYTE:.2f} MB",
            "bar": "10 MB",
            "note": f"{examples} examples, {size / MEGABYTE:.2f} MB",
        },
    ]


def _conversion() -> list[dict[str, object]]:
    seconds = measure_conversion_performance()
    return [
        {
            "what": "a run of 10 trials to examples",
            "measured": f"{seconds * 1e3:.2f} ms",
            "bar": "1 ms",
            "note": "best of 5",
        }
    ]


def _stream(folder: Path) -> list[dict[str, object]]:
    generator = MinimalDatasetGenerator(
        (8,), n_systems=STREAMED, teacher="truth", design=FIXED, mean_parents=1.5
    )
    began = time.perf_counter()
    generate_dataset(generator, folder / "streamed", force=True)
    made = time.perf_counter() - began
    # A process of its own, so that the memory is that of streaming.
    script = f"""
import jax, resource, time
from causal_bayes_opt.training.loaders import AdvancedDataLoader
loader = AdvancedDataLoader({str(folder / "streamed")!r}, 256)
for key in (0, 1):
    began, count = time.perf_counter(), 0
    for batch in loader.get_batches_efficient(jax.random.key(key)):
        count += len(batch["target_index"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(count, count / (time.perf_counter() - began), peak)
"""
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    count, speed, peak = map(float, output.stdout.splitlines()[-1].split())
    return [
        {
            "what": f"{count:,.0f} examples, d=8, 120 rows, streamed, warm",
            "measured": f"{speed:,.0f} a second",
            "bar": "50,000",
            "note": f"batches of 256; peak resident memory {peak / MEGABYTE:.0f} MB of 1,000",
        },
        {
            "what": f"{STREAMED:,} synthetic examples made",
            "measured": f"{made:.0f} s",
            "bar": "",
            "note": f"{STREAMED / made:,.0f} a second, {os.cpu_count()} cores",
        },
    ]


def _mixed(folder: Path) -> list[dict[str, object]]:
    generator = MinimalDatasetGenerator(n_systems=12_000, teacher="truth")
    generate_dataset(generator, folder / "mixed", force=True)
    shares = []
    for place, batch_size in (("mixed", 64), ("local", 32)):
        loader = AdvancedDataLoader(folder / place, batch_size)
        shares.append(padding_of(batch for _, batch in loader.stream(jax.random.key(0))))
    return [
        {
            "what": "padding, systems of 3..8 variables, 20..512 observed rows, 0..80 experiments",
            "measured": f"{shares[0]:.1%}",
            "bar": "15 %",
            "note": "batches of 64",
        },
        {
            "what": "padding, runs of the expert",
            "measured": f"{shares[1]:.1%}",
            "bar": "15 %",
            "note": "batches of 32",
        },
    ]


def _command(folder: Path, cache: Path, *options: str) -> float:
    """Seconds that the command takes with nothing compiled before."""
    program = Path(sys.executable).parent / "acbo"
    began = time.perf_counter()
    subprocess.run(
        [program, "generate", "--systems", str(SYSTEMS), "--out", folder, *options],
        check=True,
        capture_output=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    return time.perf_counter() - began


def _digest(folder: Path) -> str:
    from causal_bayes_opt.training.generation import digest_of

    return digest_of(folder)


if __name__ == "__main__":
    print_table(rows())
