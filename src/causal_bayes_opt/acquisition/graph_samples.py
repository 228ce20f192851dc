"""Whole graphs drawn from the posteriors of all variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import SystemPosterior

_SWEEPS = 12
_MAX_SETS = 256
_LEAST = 1e-12


def sample_graphs(
    posteriors: Mapping[str, ParentSetPosterior],
    variables: Sequence[str],
    n: int,
    key: jax.Array,
    instead: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> np.ndarray:
    """Draw acyclic graphs from the product of the variables' posteriors.

    A Gibbs sampler: from the empty graph, each variable in turn draws its parents from its own
    posterior, restricted to sets that close no cycle. `n` chains run side by side. The posteriors
    know already that there is no cycle, so that it counts twice: where an edge is certain and its
    direction open, a third of the graphs lack it.

    Args:
        posteriors: one for each variable.
        variables: their order.
        n: number of graphs.
        key: JAX key.
        instead: sets of parents, bool ``[n_sets, n_vars]``, and their probabilities for variables
            whose posterior shall not be used.

    Returns:
        bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m.
    """
    d = len(variables)
    given = instead or {}
    tables = [
        _with_none(*(given[name] if name in given else listed_sets(posteriors, name, variables)))
        for name in variables
    ]
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


def listed_sets(
    posteriors: Mapping[str, ParentSetPosterior], name: str, variables: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable sets of parents, bool ``[n_sets, n_vars]``, and their probabilities."""
    if isinstance(posteriors, SystemPosterior) and posteriors.list_sets is not None:
        return posteriors.list_sets(name, _MAX_SETS)
    listed = posteriors[name].top_sets(_MAX_SETS)
    members = np.array([[other in parents for other in variables] for parents, _ in listed])
    return members, np.array([p for _, p in listed])


def _with_none(members: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with the empty set among them, so that an acyclic choice always exists."""
    if members.any(axis=1).all():
        members = np.vstack([members, np.zeros((1, members.shape[1]), dtype=bool)])
        probs = np.append(probs, 0.0)
    return members, np.maximum(probs, np.where(members.any(axis=1), 0.0, _LEAST))


def _descendants(graphs: np.ndarray, node: int) -> np.ndarray:
    """The node and all that it causes, directly or not ``[n, n_vars]``."""
    reached = np.zeros(graphs.shape[:2], dtype=bool)
    reached[:, node] = True
    fresh = reached
    while fresh.any():
        # Only what was reached last can reach more; most graphs have few of those.
        chain, parent = np.nonzero(fresh)
        found = np.zeros_like(reached)
        np.logical_or.at(found, chain, graphs[chain, parent])
        fresh = found & ~reached
        reached = reached | fresh
    return reached
