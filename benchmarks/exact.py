"""Exact inference: time and memory by number of variables, one core."""

from __future__ import annotations

import resource
import time

import numpy as np

from causal_bayes_opt.surrogate.bge import Statistics
from causal_bayes_opt.surrogate.exact import parent_set_log_posterior, set_posteriors

CASES = ((5, None, 20, ""), (8, None, 20, "10 ms"), (12, None, 10, "80 ms"), (15, None, 5, "1 s"))
CAPPED = ((20, 3, 2, "30 s"),)


def rows() -> list[dict[str, object]]:
    result: list[dict[str, object]] = []
    for d, cap, repeats, bar in CASES + CAPPED:
        values, mask = _data(d)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            parent_set_log_posterior(values, mask, 0, max_parents=cap)
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        limit = f", at most {cap} parents" if cap else ""
        result.append(
            {
                "what": f"exact inference, d={d}, n=200{limit}",
                "measured": f"{1e3 * np.median(seconds):.1f} ms",
                "bar": bar,
                "note": f"min {1e3 * min(seconds):.1f} of {repeats}; process peak {peak:.0f} MB",
            }
        )
    batch = Statistics.stack([Statistics.of(*_data(8, seed)) for seed in range(64)])
    start = time.perf_counter()
    set_posteriors(batch, range(8))
    each = 1e3 * (time.perf_counter() - start) / 64
    what = "exact inference, all 8 targets, batch of 64"
    result.append({"what": what, "measured": f"{each:.2f} ms a system"})
    return result


def _data(d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, d)) @ rng.normal(size=(d, d))
    return (values - values.mean(axis=0)) / values.std(axis=0), rng.random((200, d)) < 0.05
