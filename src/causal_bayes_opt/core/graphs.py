"""Directed acyclic graphs as boolean adjacency matrices: families, order, reachability.

``adjacency[i, j]`` is True where i causes j directly. A family takes a NumPy generator and a number
of nodes, and draws its nodes' order at random, so that position says nothing about causal order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import networkx as nx
import numpy as np

from causal_bayes_opt.errors import ConfigError, GraphError, check_name

GraphFamily = Callable[[np.random.Generator, int, float], np.ndarray]


def random_graph(
    family: str, rng: np.random.Generator, n_vars: int, mean_parents: float = 1.5
) -> np.ndarray:
    """Draw a DAG ``[n_vars, n_vars]`` of a named family (see `FAMILIES`).

    Args:
        family: a key of `FAMILIES`.
        rng: NumPy generator.
        n_vars: number of nodes, at least 1.
        mean_parents: expected edges per node, for the families that have a density, as far as a
            graph of that size can hold them; ``small_world`` takes the nearest whole number, at
            least 1.

    Raises:
        UnknownNameError: no such family.
        ConfigError: a number of nodes or a density that is impossible.
    """
    check_name(family, FAMILIES, "graph family")
    if n_vars < 1:
        raise ConfigError(f"a graph needs at least 1 node, not {n_vars}")
    if not (math.isfinite(mean_parents) and mean_parents >= 0):
        raise ConfigError(f"mean_parents is {mean_parents:g}; it must be finite and not negative")
    ordered = FAMILIES[family](rng, n_vars, mean_parents)
    place = rng.permutation(n_vars)
    adjacency = np.zeros((n_vars, n_vars), dtype=bool)
    adjacency[np.ix_(place, place)] = np.triu(ordered, 1)
    return adjacency


def topological_order(adjacency: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Return the nodes ``[n_vars]``, causes before effects, lowest index first among equals.

    Args:
        adjacency: bool ``[n_vars, n_vars]``.
        names: what an error calls the nodes; None numbers them from 0.

    Raises:
        GraphError: the graph has a cycle; the message names one.
    """
    adjacency = np.asarray(adjacency, dtype=bool)
    waiting = adjacency.sum(axis=0).astype(int)
    order: list[int] = []
    left = list(range(len(adjacency)))
    while left:
        free = [node for node in left if waiting[node] == 0]
        if not free:
            cycle = _cycle_among(adjacency, left)
            listed = " -> ".join(repr(names[i]) if names else str(i) for i in cycle)
            raise GraphError(f"the graph has a cycle: {listed}; leave out one of these edges")
        order.append(free[0])
        left.remove(free[0])
        waiting -= adjacency[free[0]]
    return np.array(order, dtype=int)


def reachable(adjacency: np.ndarray) -> np.ndarray:
    """Return ``[n_vars, n_vars]``: True where a directed path of one or more edges leads i to j."""
    paths = np.asarray(adjacency, dtype=bool).copy()
    for via in range(len(paths)):
        paths |= np.outer(paths[:, via], paths[via])
    return paths


def ancestors(adjacency: np.ndarray, node: int) -> np.ndarray:
    """Return ``[n_vars]``: True for the causes, direct or not, of a node."""
    return np.asarray(reachable(adjacency)[:, node])


def is_acyclic(adjacency: np.ndarray) -> bool:
    """True where no directed path leads back to its start."""
    return not bool(np.diag(reachable(adjacency)).any())


def _cycle_among(adjacency: np.ndarray, nodes: list[int]) -> list[int]:
    """A cycle, its first node repeated at the end, among nodes of which each has a cause."""
    path = [nodes[0]]
    while path[-1] not in path[:-1]:
        path.append(next(node for node in nodes if adjacency[node, path[-1]]))
    return path[path.index(path[-1]) :][::-1]


def _erdos_renyi(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    probability = min(1.0, 2 * mean_parents / max(n - 1, 1))
    return np.asarray(rng.random((n, n)) < probability)


def _scale_free(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    """Preferential attachment: each node takes parents with odds by their children (+1)."""
    graph = np.zeros((n, n), dtype=bool)
    for node in range(1, n):
        count = min(node, math.floor(mean_parents) + (rng.random() < mean_parents % 1))
        odds = 1.0 + graph[:node].sum(axis=1)
        chosen = rng.choice(node, size=count, replace=False, p=odds / odds.sum())
        graph[chosen, node] = True
    return graph


def _small_world(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    neighbours = min(max(2, 2 * round(mean_parents)), max(n - 1, 0))
    if n < 3:
        return _chain(rng, n, mean_parents)
    graph = nx.watts_strogatz_graph(n, neighbours, 0.3, seed=int(rng.integers(2**31)))
    matrix = nx.to_numpy_array(graph, dtype=np.dtype(bool))
    place = rng.permutation(n)
    return np.asarray(matrix[np.ix_(place, place)])


def _stochastic_block(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    """Two to three groups, edges five times as likely within a group as between groups."""
    group = rng.integers(0, max(2, min(3, n // 3)), size=n)
    weight = np.where(group[:, None] == group[None, :], 5.0, 1.0)
    pairs = max(np.triu(weight, 1).sum(), 1.0)
    return np.asarray(rng.random((n, n)) < np.minimum(1.0, weight * mean_parents * n / pairs))


def _chain(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    return np.eye(n, k=1, dtype=bool)


def _fork(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    """One root causes all others."""
    graph = np.zeros((n, n), dtype=bool)
    graph[0] = True
    return graph


def _collider(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    """All others cause the last node."""
    graph = np.zeros((n, n), dtype=bool)
    graph[:, -1] = True
    return graph


def _star(rng: np.random.Generator, n: int, mean_parents: float) -> np.ndarray:
    """A hub with some causes before it and some effects behind it."""
    graph = np.zeros((n, n), dtype=bool)
    hub = int(rng.integers(n))
    graph[:hub, hub] = True
    graph[hub, hub + 1 :] = True
    return graph


FAMILIES: dict[str, GraphFamily] = {
    "erdos_renyi": _erdos_renyi,
    "scale_free": _scale_free,
    "small_world": _small_world,
    "stochastic_block": _stochastic_block,
    "chain": _chain,
    "fork": _fork,
    "collider": _collider,
    "star": _star,
}
