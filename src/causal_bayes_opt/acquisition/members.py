"""Which graphs the members of an outcome model get: doubted ones too, by what they foretold.

The graphs come from posteriors, which can be sure of something false, and the question itself says
that something moves the target.
"""

from __future__ import annotations

import numpy as np

from causal_bayes_opt.core.graphs import reachable

_MOST = 6  # more causes at once
DOUBT = 0.2  # what a doubted graph counts beside one as it was drawn


def with_more_causes(
    graphs: np.ndarray, target: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Give every other graph more causes of the target, where that closes no cycle.

    One more to half of these, any number of them to the others.

    Args:
        graphs: bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m.
        target: position of the target.
        rng: chooses the causes.

    Returns:
        The graphs, and logarithms of what each counts before experiments speak ``[n]``.
    """
    more, weights = graphs.copy(), np.zeros(len(graphs))
    for number in range(0, len(graphs), 2):
        graph = more[number]
        possible = ~reachable(graph)[target] & ~graph[:, target]
        possible[target] = False
        room = min(int(possible.sum()), _MOST)
        if room:
            several = 1 if number % 4 else int(rng.integers(1, room + 1))
            graph[rng.choice(np.flatnonzero(possible), several, replace=False), target] = True
            weights[number] = np.log(DOUBT)
    return more, weights


def weightiest(causes: np.ndarray, log_weights: np.ndarray, most: int) -> np.ndarray:
    """Positions of the graphs that have one of the `most` sets of causes that count most.

    Args:
        causes: of the target, bool ``[n, n_vars]``.
        log_weights: what each graph counts ``[n]``.
        most: how many sets.
    """
    _, place = np.unique(causes, axis=0, return_inverse=True)
    count = np.bincount(place.ravel(), weights=np.exp(log_weights))
    return np.flatnonzero(np.isin(place.ravel(), np.argsort(-count, kind="stable")[:most]))


def resample(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `n` draws by weights ``[n_graphs]``, as evenly as can be.

    Systematic resampling: Kitagawa, Journal of Computational and Graphical Statistics 5 (1996).
    """
    weights = np.exp(log_weights - log_weights.max())
    cumulative = np.cumsum(weights / weights.sum())
    levels = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(cumulative, levels), len(weights) - 1)
