"""A posterior made from log-probabilities is the one that its own checks would let through."""

import numpy as np
import pytest

from causal_bayes_opt.errors import DataError, UnknownNameError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior, all_subsets, entropy

NAMES = ("B", "A", "Y", "C")


def members_of(sets):
    return np.array([[name in chosen for name in NAMES] for chosen in sets])


@pytest.mark.parametrize("n_others", [3, 13])  # sets of few names are kept, of many are not
def test_made_from_log_probabilities_equals_the_checked_one(n_others):
    names = (*(f"X{i}" for i in range(n_others)), "Y")
    rng = np.random.default_rng(n_others)
    members = np.zeros((2**n_others, n_others + 1), dtype=bool)
    members[:, :n_others] = all_subsets(n_others)
    members = members[rng.permutation(len(members))[:200]]
    log_probs = rng.normal(scale=3.0, size=len(members))
    made = ParentSetPosterior.from_log_probs(names, "Y", members, log_probs, {"method": "m"})
    probs = np.exp(log_probs) / np.exp(log_probs).sum()
    sets = [frozenset(np.array(names)[row].tolist()) for row in members]
    checked = ParentSetPosterior(
        "Y", dict(zip(sets, probs, strict=True)), entropy(probs), {}, names
    )
    assert made.total_variation(checked) < 1e-12
    np.testing.assert_allclose(made.marginal_vector(), checked.marginal_vector(), atol=1e-12)
    assert made.uncertainty == pytest.approx(checked.uncertainty)
    assert ParentSetPosterior.from_json(made.to_json()).total_variation(made) < 1e-12
    assert made.method == "m"


@pytest.mark.parametrize(
    ("target", "sets", "error", "message"),
    [
        ("Y", [{"A"}, {"A"}], DataError, "listed more than once"),
        ("Y", [{"A"}, {"Y", "A"}], DataError, "no possible parent"),
        ("Z", [{"A"}, {"B"}], UnknownNameError, "'Z'"),
    ],
)
def test_sets_that_cannot_be_are_refused(target, sets, error, message):
    with pytest.raises(error, match=message):
        ParentSetPosterior.from_log_probs(NAMES, target, members_of(sets), np.zeros(len(sets)))


def test_independent_others_thin_out_the_sets():
    sets = [set(), {"A"}]
    posterior = ParentSetPosterior.from_log_probs(
        NAMES, "Y", members_of(sets), np.log([0.25, 0.75])
    )
    wider = posterior.with_others({"B": 0.5, "C": 0.2}, entropy(np.array([0.5, 0.5])))
    assert wider.probability({"A"}) == pytest.approx(0.75 * 0.5 * 0.8)
    assert wider.mass_left_out == pytest.approx(1 - 0.5 * 0.8)
    assert dict(wider.marginals) == pytest.approx({"A": 0.75, "B": 0.5, "C": 0.2})
    assert wider.uncertainty == pytest.approx(posterior.uncertainty + np.log(2))
