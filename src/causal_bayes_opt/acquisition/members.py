"""Which graphs the members of an outcome model get: doubted ones too, by what they foretold.

The graphs come from posteriors, which can be sure of something false, and the question itself says
that something moves the target.
"""

from __future__ import annotations

import numpy as np

from causal_bayes_opt.core.graphs import reachable

DOUBT = 0.2  # what a doubted graph counts beside one as it was drawn


def with_more_causes(
    graphs: np.ndarray, target: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Give every other graph one more cause of the target, where that closes no cycle.

    Args:
        graphs: bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m.
        target: position of the target.
        rng: chooses the cause.

    Returns:
        The graphs, and logarithms of what each counts before experiments speak ``[n]``.
    """
    more, weights = graphs.copy(), np.zeros(len(graphs))
    for number in range(0, len(graphs), 2):
        graph = more[number]
        possible = ~reachable(graph)[target] & ~graph[:, target]
        possible[target] = False
        if possible.any():
            graph[rng.choice(np.flatnonzero(possible)), target] = True
            weights[number] = np.log(DOUBT)
    return more, weights


def resample(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `n` draws by weights ``[n_graphs]``, as evenly as can be.

    Systematic resampling: Kitagawa, Journal of Computational and Graphical Statistics 5 (1996).
    """
    weights = np.exp(log_weights - log_weights.max())
    cumulative = np.cumsum(weights / weights.sum())
    levels = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(cumulative, levels), len(weights) - 1)
