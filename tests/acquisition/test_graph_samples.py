"""Graphs drawn from the variables' posteriors."""

import jax
import numpy as np

from causal_bayes_opt.acquisition.graph_samples import sample_graphs
from causal_bayes_opt.core.graphs import is_acyclic
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior

NAMES = ("A", "B", "C")


def posterior(target, probs):
    sets = {frozenset(parents): p for parents, p in probs.items()}
    return ParentSetPosterior(target, sets, 0.0, variables=NAMES)


def test_graphs_are_acyclic_even_where_the_posteriors_contradict_each_other():
    posteriors = {
        "A": posterior("A", {("C",): 0.9, (): 0.1}),
        "B": posterior("B", {("A",): 0.9, (): 0.1}),
        "C": posterior("C", {("B",): 0.9, (): 0.1}),
    }
    graphs = sample_graphs(posteriors, NAMES, 100, jax.random.key(0))
    assert all(is_acyclic(graph) for graph in graphs)
    # Each edge is as likely as the others: two of the three fit at once.
    assert 1.5 < graphs.sum(axis=(1, 2)).mean() <= 2


def test_two_variables_follow_the_product_restricted_to_acyclic_graphs():
    names = ("A", "B")
    p = ParentSetPosterior("A", {frozenset("B"): 0.6, frozenset(): 0.4}, 0.0, variables=names)
    q = ParentSetPosterior("B", {frozenset("A"): 0.3, frozenset(): 0.7}, 0.0, variables=names)
    graphs = sample_graphs({"A": p, "B": q}, names, 4000, jax.random.key(1))
    weights = np.array([0.4 * 0.7, 0.6 * 0.7, 0.4 * 0.3])  # none, B -> A, A -> B
    shares = [
        (~graphs.any(axis=(1, 2))).mean(),
        graphs[:, 1, 0].mean(),
        graphs[:, 0, 1].mean(),
    ]
    # Four standard errors of a share of 4,000 draws.
    assert np.abs(shares - weights / weights.sum()).max() < 4 * 0.5 / np.sqrt(4000)


def test_certain_posteriors_give_that_graph():
    posteriors = {
        "A": posterior("A", {(): 1.0}),
        "B": posterior("B", {("A",): 1.0}),
        "C": posterior("C", {("A", "B"): 1.0}),
    }
    graphs = sample_graphs(posteriors, NAMES, 20, jax.random.key(0))
    expected = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert (graphs == expected).all()
