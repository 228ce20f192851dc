"""Graph families: how many edges, of which shape, and reachability against networkx."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_bayes_opt.core import graphs
from causal_bayes_opt.errors import ConfigError, UnknownNameError


def digraph(adjacency):
    return nx.from_numpy_array(adjacency, create_using=nx.DiGraph)


def draws(family, n_vars, mean_parents=1.5, count=20):
    rng = np.random.default_rng(7)
    return [graphs.random_graph(family, rng, n_vars, mean_parents) for _ in range(count)]


@settings(max_examples=40)
@given(
    family=st.sampled_from(sorted(graphs.FAMILIES)),
    seed=st.integers(0, 2**31),
    n_vars=st.integers(1, 12),
    mean_parents=st.floats(0.0, 20.0),
)
def test_every_family_gives_a_dag_at_any_density(family, seed, n_vars, mean_parents):
    graph = graphs.random_graph(family, np.random.default_rng(seed), n_vars, mean_parents)
    assert graph.dtype == bool
    assert graph.shape == (n_vars, n_vars)
    assert graphs.is_acyclic(graph)
    assert nx.is_directed_acyclic_graph(digraph(graph))
    again = graphs.random_graph(family, np.random.default_rng(seed), n_vars, mean_parents)
    np.testing.assert_array_equal(graph, again)


@pytest.mark.parametrize(("asked", "given"), [(0.0, 1), (1.5, 2), (3.0, 3)])
def test_small_worlds_have_a_whole_number_of_edges_a_node(asked, given):
    for graph in draws("small_world", 12, asked):
        assert graph.sum() == 12 * given


@pytest.mark.parametrize("family", ["erdos_renyi", "scale_free", "stochastic_block"])
def test_density_reaches_from_none_to_all(family):
    for graph in draws(family, 6, 0.0):
        assert graph.sum() == 0
    for graph in draws(family, 6, 1e3):
        assert graph.sum() == 15


def test_stochastic_blocks_are_denser_inside():
    # Two or three groups, five times as likely inside: more triangles than at random.
    def triangles(family):
        return np.mean(
            [sum(nx.triangles(digraph(g).to_undirected()).values()) for g in draws(family, 15)]
        )

    assert triangles("stochastic_block") > 1.2 * triangles("erdos_renyi")


def test_scale_free_graphs_have_hubs():
    def most_children(family):
        return np.mean([graph.sum(axis=1).max() for graph in draws(family, 30, count=60)])

    assert most_children("scale_free") > 1.5 * most_children("erdos_renyi")


@pytest.mark.parametrize("n_vars", [1, 2, 6])
def test_named_shapes(n_vars):
    for graph in draws("chain", n_vars):
        assert graph.sum() == n_vars - 1
        assert max(graph.sum(axis=0).max(), graph.sum(axis=1).max()) <= 1
    for family, axis in (("fork", 1), ("collider", 0)):
        for graph in draws(family, n_vars):
            assert graph.sum() == graph.sum(axis=axis).max() == n_vars - 1
    for graph in draws("star", n_vars):
        assert graph.sum() == n_vars - 1
        hub = (graph | graph.T).sum(axis=0).argmax()
        assert graph[hub].sum() + graph[:, hub].sum() == n_vars - 1


@pytest.mark.parametrize("family", ["chain", "fork", "collider"])
def test_place_says_nothing_about_causal_order(family):
    forward = [np.triu(graph).sum() for graph in draws(family, 5, count=400)]
    # 4 edges, each forward in half of all graphs.
    error = np.std(forward) / np.sqrt(len(forward))
    assert np.mean(forward) == pytest.approx(2.0, abs=4 * error)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), n_vars=st.integers(1, 9))
def test_reachability_is_that_of_networkx(seed, n_vars):
    # Any directed graph, cycles too.
    adjacency = np.random.default_rng(seed).random((n_vars, n_vars)) < 1.5 / n_vars
    reference = digraph(adjacency)
    paths = graphs.reachable(adjacency)
    for node in range(n_vars):
        expected = {j for i in reference.successors(node) for j in nx.descendants(reference, i)}
        expected |= set(reference.successors(node))
        assert set(np.flatnonzero(paths[node])) == expected
    assert graphs.is_acyclic(adjacency) == nx.is_directed_acyclic_graph(reference)


def test_order_takes_the_lowest_free_node_first():
    adjacency = np.zeros((5, 5), bool)
    adjacency[4, 0] = adjacency[3, 1] = True
    order = graphs.topological_order(adjacency)
    assert order.tolist() == list(nx.lexicographical_topological_sort(digraph(adjacency)))
    assert order.tolist() == [2, 3, 1, 4, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("Erdos-Renyi", 3), UnknownNameError, "unknown graph family 'Erdos-Renyi'; did you mean "),
        (("qqq", 3), UnknownNameError, "unknown graph family 'qqq' (known: 'erdos_renyi', "),
        (("chain", 0), ConfigError, "a graph needs at least 1 node, not 0"),
        (("chain", 3, -1.0), ConfigError, "mean_parents is -1; it must be finite and not negative"),
        (("chain", 3, np.nan), ConfigError, "mean_parents is nan; it must be finite and not"),
        (("scale_free", 3, np.inf), ConfigError, "mean_parents is inf; it must be finite and not"),
    ],
)
def test_impossible_graphs_are_refused(arguments, error, message):
    family, *rest = arguments
    with pytest.raises(error) as caught:
        graphs.random_graph(family, np.random.default_rng(0), *rest)
    assert str(caught.value).startswith(message)
