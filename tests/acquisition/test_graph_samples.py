"""Graphs drawn from the variables' posteriors."""

import itertools

import jax
import numpy as np
import pytest

from causal_bayes_opt.acquisition.graph_samples import sample_graphs
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import is_acyclic
from causal_bayes_opt.core.random_systems import random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.surrogate.exact import exact_posterior
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


def two(probability_of_a, probability_of_b):
    """Posteriors of A with the parent B, and of B with the parent A."""
    names = ("A", "B")
    chances = (("A", "B", probability_of_a), ("B", "A", probability_of_b))
    return {
        name: ParentSetPosterior(
            name, {frozenset(other): p, frozenset(): 1.0 - p}, 0.0, variables=names
        )
        for name, other, p in chances
    }


@pytest.mark.parametrize(("b_to_a", "a_to_b"), [(0.6, 0.3), (0.4, 0.4), (0.05, 0.95)])
def test_edges_are_as_probable_as_the_posteriors_say(b_to_a, a_to_b):
    """Their product restricted to acyclic graphs would lack the edge twice and more as often."""
    graphs = sample_graphs(two(b_to_a, a_to_b), ("A", "B"), 2000, jax.random.key(1))
    shares = np.array([graphs[:, 1, 0].mean(), graphs[:, 0, 1].mean()])
    assert np.abs(shares - [b_to_a, a_to_b]).max() < 0.05


def test_edge_that_is_certain_is_there_whatever_its_direction():
    """The product alone has it in two thirds of the graphs."""
    graphs = sample_graphs(two(0.5, 0.5), ("A", "B"), 2000, jax.random.key(1))
    assert graphs.any(axis=(1, 2)).mean() > 0.8
    assert abs(graphs[:, 0, 1].mean() - graphs[:, 1, 0].mean()) < 0.1


def test_edges_follow_exact_posteriors_better_than_the_product_does():
    errors, by_product = [], []
    for seed in range(6):
        scm = random_scm(seed, 4)
        buffer = ExperienceBuffer.from_dataframe(sample(scm, 100, seed=seed))
        posteriors = exact_posterior.posteriors(buffer)
        edges = np.stack([posteriors[v].marginal_vector() for v in scm.variables], axis=1)
        graphs = sample_graphs(posteriors, scm.variables, 1000, jax.random.key(seed))
        errors.append(np.abs(graphs.mean(axis=0) - edges).mean())
        product = restricted_product(posteriors, scm.variables)
        by_product.append(np.abs(product - edges).mean())
    assert np.mean(errors) < 0.5 * np.mean(by_product)


def restricted_product(posteriors, names):
    """Edges' probabilities under the product of the posteriors restricted to acyclic graphs."""
    listed = [posteriors[name].top_sets(64) for name in names]
    total, edges = 0.0, np.zeros((len(names), len(names)))
    for choice in itertools.product(*([*own] for own in listed)):
        weight = np.prod([p for _, p in choice])
        if weight < 1e-6:
            continue
        graph = np.array([[other in parents for parents, _ in choice] for other in names])
        if is_acyclic(graph):
            total, edges = total + weight, edges + weight * graph
    return edges / total


def test_what_is_given_instead_counts_more_than_another_posterior():
    graphs = sample_graphs(
        two(0.9, 0.1),
        ("A", "B"),
        500,
        jax.random.key(0),
        {"B": (np.array([[True, False], [False, False]]), np.array([0.8, 0.2]))},
    )
    # Both alike would leave 0.29.
    assert abs(graphs[:, 0, 1].mean() - 0.8) < 0.1


def test_certain_posteriors_give_that_graph():
    posteriors = {
        "A": posterior("A", {(): 1.0}),
        "B": posterior("B", {("A",): 1.0}),
        "C": posterior("C", {("A", "B"): 1.0}),
    }
    graphs = sample_graphs(posteriors, NAMES, 20, jax.random.key(0))
    expected = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert (graphs == expected).all()
