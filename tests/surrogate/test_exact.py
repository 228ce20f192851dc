"""Exact inference against brute force over all graphs, and what must not change its answers."""

from itertools import permutations, product

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import is_acyclic
from causal_bayes_opt.errors import ConfigError, DataError, GraphError, MethodLimitError
from causal_bayes_opt.surrogate.bge import Statistics, scores_of_all_sets
from causal_bayes_opt.surrogate.exact import (
    ExactSurrogate,
    exact_posterior,
    parent_set_log_posterior,
    sample_graphs,
    set_posteriors,
)
from causal_bayes_opt.surrogate.posterior import all_subsets
from causal_bayes_opt.surrogate.protocol import EdgePrior, all_posteriors


def data(d, n=40, seed=0, share=0.2):
    """Correlated rows, a share of whose values was set (several in a row at times)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d)))
    return values, rng.random((n, d)) < share


def dags(d):
    pairs = [(i, j) for i in range(d) for j in range(d) if i != j]
    for chosen in product([False, True], repeat=len(pairs)):
        graph = np.zeros((d, d), dtype=bool)
        for (i, j), there in zip(pairs, chosen, strict=True):
            graph[i, j] = there
        if is_acyclic(graph):
            yield graph


def number_of_orders(graph):
    d = len(graph)
    return sum(
        all(order.index(i) < order.index(j) for i, j in zip(*np.nonzero(graph), strict=True))
        for order in permutations(range(d))
    )


def graph_probabilities(values, mask, p, max_parents=None, known=None, forbidden=None):
    """All DAGs by orders x p^edges (1-p)^(pairs - edges) x scores, normalised."""
    d = values.shape[1]
    scores = scores_of_all_sets(Statistics.of(values, mask))
    graphs, log_probs = [], []
    for graph in dags(d):
        if max_parents is not None and graph.sum(axis=0).max() > max_parents:
            continue
        if known is not None and (known & ~graph).any():
            continue
        if forbidden is not None and (forbidden & graph).any():
            continue
        edges = graph.sum()
        log_p = np.log(number_of_orders(graph)) + edges * np.log(p)
        log_p += (d * (d - 1) / 2 - edges) * np.log1p(-p)
        for j in range(d):
            own = np.delete(graph[:, j], j)
            log_p += scores[j, int((own << np.arange(d - 1)).sum())]
        graphs.append(graph)
        log_probs.append(log_p)
    return np.array(graphs), np.exp(log_probs - np.logaddexp.reduce(log_probs))


def brute_force(values, mask, target, p, **limits):
    """Sum the graphs set by set."""
    total = {}
    for graph, probability in zip(*graph_probabilities(values, mask, p, **limits), strict=True):
        parents = tuple(graph[:, target])
        total[parents] = total.get(parents, 0.0) + probability
    return total


def assert_equal(posterior, expected):
    found = dict(
        zip(map(tuple, posterior.members), np.exp(posterior.log_probs).tolist(), strict=True)
    )
    assert set(expected) <= set(found)
    for key, p in found.items():
        assert p == pytest.approx(expected.get(key, 0.0), abs=1e-10)


@pytest.mark.parametrize(("d", "seed"), [(2, 0), (3, 1), (3, 2), (4, 3)])
@pytest.mark.parametrize("p", [None, 0.2])
def test_equals_brute_force_over_all_graphs(d, seed, p):
    values, mask = data(d, seed=seed)
    for target in range(d):
        found = parent_set_log_posterior(values, mask, target, edge_probability=p)
        assert_equal(found, brute_force(values, mask, target, p or min(0.5, 2 / (d - 1))))


@pytest.mark.parametrize("max_parents", [0, 1, 2, 3, 7])
def test_limit_on_parents_equals_brute_force(max_parents):
    values, mask = data(4, seed=5)
    found = parent_set_log_posterior(values, mask, 2, edge_probability=0.4, max_parents=max_parents)
    assert_equal(found, brute_force(values, mask, 2, 0.4, max_parents=max_parents))


@pytest.mark.parametrize("kind", ["known", "forbidden"])
def test_knowledge_of_one_kind_alone_counts(kind):
    values, mask = data(3, seed=9)
    edges = {kind: np.eye(3, k=1, dtype=bool)}
    for target in range(3):
        found = parent_set_log_posterior(values, mask, target, edge_probability=0.3, **edges)
        assert_equal(found, brute_force(values, mask, target, 0.3, **edges))


def test_known_and_forbidden_edges_equal_brute_force():
    values, mask = data(4, seed=6)
    known, forbidden = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    known[0, 1] = forbidden[2, 3] = forbidden[1, 2] = True
    for target in range(4):
        found = parent_set_log_posterior(
            values, mask, target, edge_probability=0.3, known=known, forbidden=forbidden
        )
        expected = brute_force(values, mask, target, 0.3, known=known, forbidden=forbidden)
        assert_equal(found, expected)


@pytest.mark.parametrize("max_parents", [None, 2])
def test_batch_of_systems_equals_one_by_one(max_parents):
    parts = [data(5, seed=seed) for seed in range(3)]
    statistics = Statistics.stack([Statistics.of(*part) for part in parts])
    batch = set_posteriors(statistics, [1, 4], max_parents=max_parents)
    for index, part in enumerate(parts):
        for target, posterior in zip([1, 4], batch, strict=True):
            alone = parent_set_log_posterior(*part, target, max_parents=max_parents)
            np.testing.assert_allclose(posterior.log_probs[index], alone.log_probs, atol=1e-10)


@pytest.mark.parametrize(
    ("d", "seed", "limits"),
    [
        (3, 1, {}),
        (3, 2, {"max_parents": 1}),
        (4, 4, {"known": np.eye(4, k=1, dtype=bool), "forbidden": np.eye(4, k=2, dtype=bool)}),
    ],
)
def test_graphs_are_drawn_with_their_probabilities(d, seed, limits):
    values, mask = data(d, n=8, seed=seed)
    n = 20_000
    drawn = sample_graphs(
        jax.random.key(seed), Statistics.of(values, mask), n, edge_probability=0.4, **limits
    )
    graphs, probabilities = graph_probabilities(values, mask, 0.4, **limits)
    counts = [int((drawn == graph).all(axis=(1, 2)).sum()) for graph in graphs]
    assert sum(counts) == n
    rare = probabilities * n < 5
    cells = np.array([*np.array(counts)[~rare], np.array(counts)[rare].sum()])
    expected = n * np.array([*probabilities[~rare], probabilities[rare].sum()])
    kept = expected > 0
    assert chisquare(cells[kept], expected[kept]).pvalue > 1e-3


def test_drawn_graphs_agree_with_the_marginals():
    values, mask = data(9, n=30, seed=3)
    n = 4000
    drawn = sample_graphs(jax.random.key(0), Statistics.of(values, mask), n)
    assert all(is_acyclic(graph) for graph in drawn[:200])
    found = set_posteriors(Statistics.of(values, mask), range(9))
    marginals = np.array([np.exp(each.log_probs) @ each.members for each in found]).T
    error = np.sqrt(np.maximum(marginals * (1 - marginals), 1 / n) / n)
    assert (np.abs(drawn.mean(axis=0) - marginals) < 5 * error).all()


def test_surrogate_draws_the_same_graphs_for_the_same_key():
    values, mask = data(4, seed=2)
    buffer = ExperienceBuffer.from_arrays(values, mask, ["A", "B", "C", "D"])
    prior = EdgePrior(known=(("A", "B"),), forbidden=(("C", "D"),))
    first, again = (
        ExactSurrogate(max_parents=2)
        .posteriors(buffer, prior=prior)
        .draw_graphs(jax.random.key(1), 50)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first[:, 0, 1].all()
    assert not first[:, 2, 3].any()
    assert first.sum(axis=1).max() <= 2


def test_observations_alone_cannot_orient_two_variables():
    values, mask = data(2, share=0.0)
    marginals = [
        np.exp(p.log_probs) @ p.members
        for p in (parent_set_log_posterior(values, mask, t) for t in (0, 1))
    ]
    assert marginals[0][1] == pytest.approx(marginals[1][0], abs=1e-12)


@settings(max_examples=15)
@given(
    order=st.permutations(range(5)),
    factors=st.lists(st.sampled_from([1e-9, -1e-3, 1.0, 1e6]), min_size=5, max_size=5),
    seed=st.integers(0, 100),
)
def test_order_and_units_change_nothing(order, factors, seed):
    values, mask = data(5, seed=seed)
    mask[:20] = False
    names = [f"X{i}" for i in range(5)]
    plain = exact_posterior(ExperienceBuffer.from_arrays(values, mask, names), "X2")
    changed = ExperienceBuffer.from_arrays(
        (values * factors + 3.0 * np.array(factors))[:, order],
        mask[:, order],
        [names[i] for i in order],
    )
    other = exact_posterior(changed, "X2")
    for parents, p in plain.posterior_probs.items():
        assert other.probability(parents) == pytest.approx(p, abs=1e-7)


def test_all_targets_at_once_equal_one_at_a_time():
    values, mask = data(4)
    buffer = ExperienceBuffer.from_arrays(values, mask)
    for name, posterior in all_posteriors(exact_posterior, buffer).items():
        assert posterior.posterior_probs == exact_posterior(buffer, name).posterior_probs


def test_experiments_orient_an_edge():
    rng = np.random.default_rng(0)
    cause = np.concatenate([rng.normal(size=50), np.linspace(-3, 3, 20)])
    effect = cause + 0.5 * rng.normal(size=70)
    mask = np.zeros((70, 2), dtype=bool)
    mask[50:, 0] = True
    buffer = ExperienceBuffer.from_arrays(np.column_stack([cause, effect]), mask, ["A", "B"])
    assert exact_posterior(buffer, "B").marginals["A"] > 0.99
    # Setting B moves nothing, which is how A is known not to follow it.
    set_effect = np.column_stack([rng.normal(size=20), np.linspace(-3, 3, 20)])
    both = buffer.copy()
    for a, b in set_effect:
        both.add_intervention({"B": b}, {"A": a})
    assert exact_posterior(both, "A").marginals["B"] < 0.01


def test_well_specified_answers_are_as_sure_as_they_are_right():
    """On data from the score's own prior the mean loss is the mean entropy."""
    rng, losses, entropies = np.random.default_rng(1), [], []
    d, n = 3, 30
    for _ in range(400):
        order = rng.permutation(d)
        graph = np.zeros((d, d), bool)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            graph[order[a], order[b]] = rng.random() < 0.5
        values = np.zeros((n, d))
        for j in order:
            k = int(graph[:, j].sum())
            v = 1 / rng.gamma((3 + k) / 2, 1 / 0.25)
            weights = rng.normal(size=k) * np.sqrt(2 * v)
            values[:, j] = values[:, graph[:, j]] @ weights + rng.normal() * np.sqrt(v)
            values[:, j] += rng.normal(size=n) * np.sqrt(v)
        found = parent_set_log_posterior(values, np.zeros((n, d), bool), 0, edge_probability=0.5)
        row = int((found.members == graph[:, 0]).all(axis=1).argmax())
        losses.append(-found.log_probs[row])
        entropies.append(-(np.exp(found.log_probs) * found.log_probs).sum())
    gap = np.array(losses) - np.array(entropies)
    assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(len(gap))


@pytest.mark.parametrize(
    ("values", "mask"),
    [
        (np.tile(np.random.default_rng(0).normal(size=(30, 1)), (1, 3)), None),  # duplicates
        (np.random.default_rng(0).normal(size=(2, 6)), None),  # fewer rows than variables
        (np.random.default_rng(0).normal(size=(30, 3)) * 1e12, None),
        (np.random.default_rng(0).normal(size=(30, 3)), np.ones((30, 3), bool)),  # all set
    ],
)
def test_hard_data_give_finite_normalised_answers(values, mask):
    mask = np.zeros(values.shape, bool) if mask is None else mask
    if values.max() > 1e6:
        values = values / values.std(axis=0)
    for target in range(values.shape[1]):
        found = parent_set_log_posterior(values, mask, target)
        assert np.exp(found.log_probs).sum() == pytest.approx(1.0)
        assert not np.isnan(found.log_probs).any()


def test_one_variable_has_no_parents():
    buffer = ExperienceBuffer.from_arrays(np.arange(5.0)[:, None], names=["Y"])
    assert dict(exact_posterior(buffer, "Y").posterior_probs) == {frozenset(): 1.0}


def test_limits_are_named_with_the_way_out():
    values, mask = data(21)
    with pytest.raises(
        MethodLimitError,
        match="21 variables; exact inference takes at most 20; use method='network'",
    ):
        exact_posterior(ExperienceBuffer.from_arrays(values), "X1")
    with pytest.raises(MethodLimitError, match="16 variables need a limit on parents"):
        parent_set_log_posterior(values[:, :16], mask[:, :16], 0)
    with pytest.raises(ConfigError, match="cannot be negative"):
        parent_set_log_posterior(values[:, :3], mask[:, :3], 0, max_parents=-1)


def test_capped_search_says_so():
    values, _ = data(5)
    posterior = ExactSurrogate(max_parents=2)(ExperienceBuffer.from_arrays(values), "X1")
    assert posterior.warnings == ("exact inference looked at sets of at most 2 parents only",)
    assert max(map(len, posterior.posterior_probs)) == 2


def test_contradictory_knowledge_is_an_error():
    values, _ = data(3)
    buffer = ExperienceBuffer.from_arrays(values)
    two = EdgePrior(known=(("X1", "X3"), ("X2", "X3")))
    with pytest.raises(GraphError, match="forbidden edges given and at most 1 parents"):
        ExactSurrogate(max_parents=1)(buffer, "X1", prior=two)


def test_rows_beyond_precision_are_answered_with_a_warning():
    values = np.tile(np.random.default_rng(0).normal(size=(40, 1)), (1, 4))
    values[20:] *= 1e9
    mask = np.zeros((40, 4), dtype=bool)
    mask[20:, 0] = True
    buffer = ExperienceBuffer.from_arrays(values, mask)
    for surrogate in (exact_posterior, ExactSurrogate(max_parents=2)):
        posterior = surrogate(buffer, "X3")
        assert sum(posterior.posterior_probs.values()) == pytest.approx(1.0)
        assert any("rounding limits these" in warning for warning in posterior.warnings)


def test_constant_column_is_refused_by_name():
    values, _ = data(3)
    values[:, 1] = 7.0
    with pytest.raises(DataError, match="column 'X2' is constant"):
        exact_posterior(ExperienceBuffer.from_arrays(values), "X1")


def test_rows_of_subsets_count_as_documented():
    assert all_subsets(3)[0b101].tolist() == [True, False, True]


def test_expected_number_of_parents_is_that_of_the_prior():
    """With no rows that inform a variable, its posterior is the prior's."""
    names = [f"X{i}" for i in range(5)]
    values = np.random.default_rng(0).normal(size=(4, 5))
    mask = np.ones((4, 5), dtype=bool)
    found = parent_set_log_posterior(
        values, mask, 0, edge_probability=EdgePrior(expected_parents=0.7).probability(5)
    )
    sizes = found.members.sum(axis=1)
    assert np.exp(found.log_probs) @ sizes == pytest.approx(0.7)
    with pytest.raises(ConfigError, match=r"too many for 5 variables: below 2\.0 is possible"):
        EdgePrior(expected_parents=2.0).probability(len(names))
    with pytest.raises(ConfigError, match="not both"):
        EdgePrior(edge_probability=0.5, expected_parents=1.0)


def test_edges_that_form_a_cycle_are_refused():
    with pytest.raises(GraphError, match="known edges form a cycle: 'X"):
        EdgePrior(known=(("X1", "X2"), ("X2", "X1")))
    with pytest.raises(GraphError, match="form a cycle"):
        EdgePrior(known=(("A", "B"), ("B", "C"), ("A", "C"), ("C", "D"), ("D", "B")))
    EdgePrior(known=(("A", "B"), ("B", "C"), ("A", "C")))


def test_edge_from_a_variable_to_itself_is_refused():
    with pytest.raises(GraphError, match="nothing causes itself"):
        EdgePrior(known=(("X1", "X1"),))
    for wrong in (("X1", "X2"), "X1", [["X1", "X2", "X3"]]):
        with pytest.raises(GraphError, match=r"known edges are pairs \(cause, effect\)"):
            EdgePrior(known=wrong)  # type: ignore[arg-type]
    assert EdgePrior(known=[["X1", "X2"]]).known == (("X1", "X2"),)  # type: ignore[arg-type]
