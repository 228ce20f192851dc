"""Whole graphs that agree with the posteriors of all variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from causal_bayes_opt.surrogate.posterior import ParentSetPosterior

_SWEEPS = 12
_MAX_SETS = 256


def sample_graphs(
    posteriors: Mapping[str, ParentSetPosterior],
    variables: Sequence[str],
    n: int,
    key: jax.Array,
) -> np.ndarray:
    """Draw acyclic graphs from the product of the variables' posteriors.

    A Gibbs sampler: from the empty graph, each variable in turn draws its parents from its own
    posterior, restricted to sets that close no cycle. `n` chains run side by side.

    Args:
        posteriors: one for each variable.
        variables: their order.
        n: number of graphs.
        key: JAX key.

    Returns:
        bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m.
    """
    d = len(variables)
    tables = [_table(posteriors[name], variables) for name in variables]
    # NumPy's generator, seeded by the key: JAX would compile for every new shape.
    draws = np.random.default_rng(np.asarray(jax.random.key_data(key))).random((_SWEEPS, d, n))
    graphs = np.zeros((n, d, d), dtype=bool)
    for sweep in range(_SWEEPS):
        for node in range(d):
            members, probs = tables[node]
            graphs[:, :, node] = False
            below = _descendants(graphs, node)
            legal = below.astype(np.float32) @ members.T.astype(np.float32) == 0
            cumulative = np.cumsum(legal * probs, axis=1)
            level = draws[sweep, node] * cumulative[:, -1]
            chosen = np.minimum((cumulative <= level[:, None]).sum(axis=1), len(probs) - 1)
            graphs[:, :, node] = members[chosen]
    return graphs


def _table(
    posterior: ParentSetPosterior, variables: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable sets as bool ``[n_sets, n_vars]``, with their probabilities.

    The empty set is always among them, so that an acyclic choice always exists.
    """
    listed = posterior.top_sets(_MAX_SETS)
    probs = dict(listed)
    probs[frozenset()] = max(probs.get(frozenset(), 0.0), 1e-12)
    members = np.array([[name in parents for name in variables] for parents in probs])
    return members, np.array(list(probs.values()))


def _descendants(graphs: np.ndarray, node: int) -> np.ndarray:
    """The node and all that it causes, directly or not ``[n, n_vars]``."""
    reached = np.zeros(graphs.shape[:2], dtype=bool)
    reached[:, node] = True
    edges = graphs.astype(np.float32)
    for _ in range(graphs.shape[1]):
        further = reached | (np.einsum("ni,nij->nj", reached.astype(np.float32), edges) > 0)
        if (further == reached).all():
            break
        reached = further
    return reached
