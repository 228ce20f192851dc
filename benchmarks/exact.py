"""Exact inference: time and memory by number of variables, one core."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from benchmarks.table import print_table
from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets
from causal_bayes_opt.surrogate.exact import (
    parent_set_log_posterior,
    sample_graphs,
    set_posteriors,
)

# Variables, rows, limit on parents, repeats, bar.
CASES = (
    (5, 200, None, 20, ""),
    (8, 200, None, 20, "10 ms"),
    (11, 6_618, None, 10, "1 s"),
    (12, 200, None, 10, "80 ms"),
    (15, 200, None, 5, "1 s"),
    (20, 200, 3, 2, "30 s"),
)


def rows() -> list[dict[str, object]]:
    result: list[dict[str, object]] = []
    for d, n, cap, repeats, bar in CASES:
        values, mask = _data(d, n=n)
        call = partial(parent_set_log_posterior, values, mask, 0, max_parents=cap)
        seconds = _seconds(call, repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        limit = f", at most {cap} parents" if cap else ""
        result.append(
            {
                "what": f"exact inference, d={d}, n={n:,}{limit}",
                "measured": f"{1e3 * np.median(seconds):.1f} ms",
                "bar": bar,
                "note": f"min {1e3 * min(seconds):.1f} of {repeats}; process peak {peak:.0f} MB",
            }
        )
    result.append(_against_gies())
    batch = Statistics.stack([Statistics.of(*_data(8, seed)) for seed in range(64)])
    seconds = _seconds(lambda: set_posteriors(batch, range(8)), 5)
    result.append(
        {
            "what": "exact inference, all 8 targets, batch of 64",
            "measured": f"{1e3 * np.median(seconds) / 64:.2f} ms a system",
            "note": f"min {1e3 * min(seconds) / 64:.2f} of 5",
        }
    )
    statistics, key = Statistics.of(*_data(12)), jax.random.key(0)
    seconds = _seconds(lambda: sample_graphs(key, statistics, 1000), 5)
    result.append(
        {
            "what": "1,000 whole graphs from the exact posterior, d=12",
            "measured": f"{1e3 * np.median(seconds):.1f} ms",
            "note": f"min {1e3 * min(seconds):.1f} of 5",
        }
    )
    return result


def main() -> None:
    """Print the one table."""
    print_table(rows())


def _seconds(call: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _against_gies() -> dict[str, object]:
    """BGe against the penalised likelihood of GIES (Hauser and Buehlmann, 2012), same rows.

    The differences between sets agree to a constant of a few nats, whatever the number of rows
    (Schwarz, 1978). GIES' score drops a set variable's own rows as ours does.
    """
    from gies.scores import GaussIntL0Pen

    values, _ = _data(4)
    values = np.tile(values, (50, 1)) + np.random.default_rng(1).normal(size=(10_000, 4))
    values -= values.mean(axis=0)
    mask = np.zeros(values.shape, bool)
    mask[5000:, 1] = True
    theirs = GaussIntL0Pen([values[:5000], values[5000:]], [[], [1]])
    ours = scores_of_all_sets(Statistics.of(values, mask))
    gaps, differences = [], []
    for j in range(4):
        others = [i for i in range(4) if i != j]
        empty = theirs.local_score(j, set())
        for row in range(1, 8):
            parents = {others[s] for s in range(3) if row >> s & 1}
            differences.append(abs(ours[j, row] - ours[j, 0]))
            gaps.append(ours[j, row] - ours[j, 0] - (theirs.local_score(j, parents) - empty))
    return {
        "what": "BGe differences against GIES' penalised likelihood, d=4, n=10,000",
        "measured": f"{max(map(abs, gaps)):.1f} nats at most",
        "note": f"of differences of up to {max(differences):.0f} nats to the empty set",
    }


def _data(d: int, seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return (values - values.mean(axis=0)) / values.std(axis=0), rng.random((n, d)) < 0.05


if __name__ == "__main__":
    main()
