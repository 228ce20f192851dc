"""Whole graphs drawn from the posteriors of all variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from causal_bayes_opt.core import keys
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import SystemPosterior

_SETTLED, _FITTED, _AFTER = 1, 8, 3  # sweeps before, while and after fields are fitted
_CHAINS = 64  # at least, from whose shares fields are fitted
_MAX_SETS = 256
_REST = 1e-3  # of a posterior's probability, that may be left out
_LEAST = 1e-12
_SLOWER = 0.6  # power at which steps of the fit grow smaller
_LEAST_SPREAD = 0.02  # variance of an edge, below which steps do not grow


def sample_graphs(
    posteriors: Mapping[str, ParentSetPosterior],
    variables: Sequence[str],
    n: int,
    key: jax.Array,
    instead: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> np.ndarray:
    """Draw acyclic graphs whose edges are as probable as the posteriors say.

    A Gibbs sampler: from the empty graph, each variable in turn draws its parents from its own
    posterior, restricted to sets that close no cycle. `n` chains run side by side. That alone would
    count twice that there is no cycle, which posteriors know: a certain edge, its direction open,
    would be missing from a third of the graphs. So each edge has a field, by which the
    log-probability of a set that holds it is raised. Of all distributions over acyclic graphs with
    the posteriors' edges that is the nearest to their product (Csiszar, Annals of Probability 3,
    1975). Fields follow the chains' shares in ever smaller steps (Robbins and Monro 1951), so few
    that a certain edge of open direction is still missing from one graph in ten.

    Args:
        posteriors: one for each variable.
        variables: their order.
        n: number of graphs.
        key: JAX key.
        instead: sets of parents, bool ``[n_sets, n_vars]``, and their probabilities for variables
            whose posterior shall not be used; where these and another's posterior contradict each
            other, these count.

    Returns:
        bool ``[n, n_vars, n_vars]``, [m, i, j]: i causes j in graph m.
    """
    given = instead or {}
    tables = [
        _likeliest(*(given[name] if name in given else listed_sets(posteriors, name, variables)))
        for name in variables
    ]
    wanted = _edges(tables, [variables.index(name) for name in given])
    steady = np.maximum(wanted * (1.0 - wanted), _LEAST_SPREAD)
    rng = keys.generator(key)
    d, chains = len(variables), max(n, _CHAINS)
    # Floats: products of matrices of truth values are slow.
    graphs, fields = np.zeros((chains, d, d), dtype=np.float32), np.zeros((d, d))
    for sweep in range(_SETTLED + _FITTED + _AFTER):
        _sweep(graphs, tables, fields, rng.random((d, chains)))
        number = sweep - _SETTLED
        if 0 <= number < _FITTED:
            moves = np.clip((wanted - graphs.mean(axis=0)) / steady, -2.0, 2.0)
            fields += moves / (1.0 + number) ** _SLOWER
    return graphs[:n] > 0


def _sweep(
    graphs: np.ndarray,
    tables: Sequence[tuple[np.ndarray, np.ndarray]],
    fields: np.ndarray,
    draws: np.ndarray,
) -> None:
    """Let each variable draw its parents anew, in place; uniform draws ``[n_vars, n]``."""
    for node, (members, probs) in enumerate(tables):
        weights = probs * np.exp(members @ fields[:, node])
        graphs[:, :, node] = 0.0
        legal = _descendants(graphs, node) @ members.T == 0
        cumulative = np.cumsum(legal * weights, axis=1)
        level = draws[node] * cumulative[:, -1]
        chosen = np.minimum((cumulative <= level[:, None]).sum(axis=1), len(weights) - 1)
        graphs[:, :, node] = members[chosen]


def _edges(tables: Sequence[tuple[np.ndarray, np.ndarray]], given: Sequence[int]) -> np.ndarray:
    """How probable each edge shall be ``[n_vars, n_vars]``; both directions sum to 1 at most."""
    edges = np.stack([probs @ members / probs.sum() for members, probs in tables], axis=1)
    for node in given:
        edges[node] = np.minimum(edges[node], 1.0 - edges[:, node])
    return np.asarray(edges / np.maximum(edges + edges.T, 1.0))


def listed_sets(
    posteriors: Mapping[str, ParentSetPosterior], name: str, variables: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The most probable sets of parents, bool ``[n_sets, n_vars]``, and their probabilities."""
    if isinstance(posteriors, SystemPosterior) and posteriors.list_sets is not None:
        return posteriors.list_sets(name, _MAX_SETS)
    listed = posteriors[name].top_sets(_MAX_SETS)
    members = np.array([[other in parents for other in variables] for parents, _ in listed])
    return members, np.array([p for _, p in listed])


def _likeliest(members: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sets that hold nearly all probability, as 0 and 1, and theirs.

    The empty set is among them, so that an acyclic choice always exists.
    """
    order = np.argsort(-probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    kept = order[before < (1.0 - _REST) * probs.sum()]
    members, probs = members[kept].astype(np.float32), probs[kept]
    if members.any(axis=1).all():
        members = np.vstack([members, np.zeros((1, members.shape[1]), dtype=np.float32)])
        probs = np.append(probs, 0.0)
    return members, np.maximum(probs, np.where(members.any(axis=1), 0.0, _LEAST))


def _descendants(graphs: np.ndarray, node: int) -> np.ndarray:
    """The node and all that it causes, directly or not, as 1 ``[n, n_vars]``."""
    reached = graphs[:, node].copy()
    reached[:, node] = 1.0
    while True:
        before = reached.sum()
        reached = np.minimum(reached + (reached[:, None] @ graphs)[:, 0], 1.0)
        if reached.sum() == before:
            return np.asarray(reached)
