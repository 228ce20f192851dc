import numpy as np
import pytest

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, UnknownNameError
from causal_bayes_opt.expert import ParentScaleOptions, parent_scale_surrogate
from causal_bayes_opt.expert.candidates import MAX_SETS, candidate_sets
from causal_bayes_opt.surrogate.protocol import EdgePrior

NAMES = ("A", "B", "C", "Y")
VOTES = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)


def sets(prior=None, votes=VOTES, names=NAMES, **options):
    found = candidate_sets(votes, names, "Y", ParentScaleOptions(**options), prior)
    assert found.weights.sum() == pytest.approx(1.0)
    assert (found.weights > 0).all()
    table = {
        frozenset(np.array(names)[members]): weight
        for members, weight in zip(found.members, found.weights, strict=True)
    }
    assert len(table) == len(found.members)
    return table, found.warnings


def test_votes_alone_are_the_published_prior():
    assert sets(support="votes")[0] == pytest.approx({frozenset("AB"): 0.5, frozenset("A"): 0.5})


def test_every_set_is_kept_up_to_the_largest():
    assert len(sets()[0]) == 8
    assert {len(s) for s in sets(max_parents=1)[0]} == {0, 1}
    assert set(sets(max_parents=0)[0]) == {frozenset()}


@pytest.mark.parametrize("support", ["votes", "all"])
def test_known_and_forbidden_edges_hold(support):
    prior = EdgePrior(known=(("C", "Y"),), forbidden=(("B", "Y"),))
    table, _ = sets(prior, support=support)
    assert all("C" in s and "B" not in s for s in table)


@pytest.mark.parametrize("support", ["votes", "all"])
def test_what_the_target_is_known_to_cause_is_no_parent(support):
    prior = EdgePrior(known=(("Y", "B"), ("B", "A")))
    table, _ = sets(prior, support=support)
    assert all(not {"A", "B"} & s for s in table)


def test_without_any_vote_single_variables_are_as_probable():
    nothing = np.zeros((10, 4), dtype=bool)
    assert sets(votes=nothing, support="votes")[0] == pytest.approx(
        {frozenset(name): 1 / 3 for name in "ABC"}
    )
    forbidden = EdgePrior(forbidden=tuple((name, "Y") for name in "ABC"))
    assert sets(forbidden, votes=nothing, support="votes")[0] == {frozenset(): 1.0}


def test_voted_sets_keep_their_most_voted_members():
    assert sets(support="votes", max_parents=1)[0] == {frozenset("A"): 1.0}


def test_the_edge_probability_moves_the_prior():
    dense, sparse = (
        sum(len(s) * w for s, w in sets(EdgePrior(edge_probability=p))[0].items())
        for p in (0.9, 0.1)
    )
    assert dense > sparse


def test_a_hundred_variables_keep_the_most_voted_ones():
    names = (*(f"X{i}" for i in range(99)), "Y")
    votes = np.zeros((10, 100), dtype=bool)
    votes[:, [5, 50, 98]] = True
    table, warnings = sets(votes=votes, names=names)
    assert len(table) <= MAX_SETS["linear"]
    assert max(table, key=table.get) == {"X5", "X50", "X98"}
    assert "only the 12 variables" in warnings[0]
    assert len(sets(votes=votes, names=names, max_parents=2)[0]) == 1 + 90 + 90 * 89 // 2


def test_contradictions_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean"):
        sets(EdgePrior(known=(("AA", "Y"),)))
    with pytest.raises(ConfigError, match="max_parents=1"):
        sets(EdgePrior(known=(("A", "Y"), ("B", "Y"))), max_parents=1)


def test_edges_reach_the_posterior():
    system = SCM.linear(NAMES, {("A", "Y"): 2.0, ("B", "Y"): 1.0})
    buffer = ExperienceBuffer.from_dataframe(sample(system, 60))
    prior = EdgePrior(known=(("C", "Y"),), forbidden=(("A", "Y"),))
    for support in ("votes", "all"):
        marginals = parent_scale_surrogate(support=support)(buffer, "Y", prior=prior).marginals
        assert marginals["C"] == pytest.approx(1.0)
        assert marginals["A"] == 0.0
