"""The regret benchmark measures what it says."""

import numpy as np
import pytest

from causal_bayes_opt.acquisition.baselines import oracle, random_choice
from causal_bayes_opt.benchmarks.families import FAMILIES, random_problem
from causal_bayes_opt.benchmarks.runner import by_parent_scale, by_policy, gap, run_study
from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.surrogate.exact import exact_posterior


def test_gap_is_that_of_the_paper():
    # y_start 0, optimum -1, best -0.5 at trial 2 of 4: (0.5 + 0.5) / (1 + 0.75).
    assert gap([0.0, -0.5, -0.2, 0.3], -1.0) == pytest.approx((0.5 + 0.5) / 1.75)
    assert gap([-1.0, 0.0], -1.0) == 1.0
    # Reached at the first trial after the start: (1 + 2 / 4) / 1.75.
    assert gap([0.0, -1.0, 0.0, 0.0], -1.0) == pytest.approx(1.5 / 1.75)
    # Chance beyond the optimum is no merit.
    assert gap([0.0, -9.0, 0.0, 0.0], -1.0) == pytest.approx(1.5 / 1.75)


def test_oracle_has_no_regret_and_chance_has():
    named = random_problem("linear", 3)
    rows = named.data(100, 2, 3)
    knows = oracle(named.scm, max_targets=8)
    best = run_study(named, rows, by_policy(knows, exact_posterior, knows), 2, seed=0)
    np.testing.assert_allclose(best.regret, 0.0, atol=1e-9)
    assert best.gap == 1.0
    chance = run_study(
        named, rows, by_policy(random_choice, exact_posterior, random_choice), 2, seed=0
    )
    assert (chance.regret > 0).all()
    assert (chance.seconds > 0).all()


def test_expert_is_told_the_mean_of_many_outcomes():
    named = random_problem("linear", 3)
    rows = named.data(60, 2, 3)
    entry = by_parent_scale(ParentScaleOptions(n_bootstraps=4))
    study = run_study(named, rows, entry, 2, seed=0, outcomes_a_trial=200)
    deviation = rows.rows()[0][:, named.problem.variables.index(named.problem.target)].std()
    assert np.abs(study.noisy - study.outcomes).max() < 6 * deviation / np.sqrt(200)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "linear-large"])
def test_random_problems_have_an_optimum_that_nothing_beats(family):
    named = random_problem(family, 1)
    assert 1 <= len(named.scm.parents(named.problem.target)) <= 3
    rng = np.random.default_rng(0)
    names = named.problem.may_set
    nothing = named.expected_outcome({}, n=4000)
    span = abs(named.optimum - nothing)
    assert span > 0
    for _ in range(40):
        chosen = rng.choice(names, size=min(3, len(names)), replace=False)
        tried = make_intervention({v: rng.uniform(*named.range_of(v)) for v in chosen})
        # The search of nonlinear systems is not exact; a hundredth of the span is room for it.
        assert named.expected_outcome(tried, n=4000) > named.optimum - 0.01 * span
