"""Exact inference: time and memory by number of variables, one core."""

from __future__ import annotations

import resource
import time

import numpy as np

from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets
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
    result.append(_against_gies())
    batch = Statistics.stack([Statistics.of(*_data(8, seed)) for seed in range(64)])
    start = time.perf_counter()
    set_posteriors(batch, range(8))
    each = 1e3 * (time.perf_counter() - start) / 64
    what = "exact inference, all 8 targets, batch of 64"
    result.append({"what": what, "measured": f"{each:.2f} ms a system"})
    return result


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


def _data(d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, d)) @ rng.normal(size=(d, d))
    return (values - values.mean(axis=0)) / values.std(axis=0), rng.random((200, d)) < 0.05
