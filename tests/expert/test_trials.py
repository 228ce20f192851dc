import numpy as np
import pytest

from causal_bayes_opt.core import padding
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ProblemError
from causal_bayes_opt.expert import causal_gp, init, parent_update, suggest, trials
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import Beliefs

NAMES = ("A", "B", "C", "Y")
SYSTEM = SCM.linear(NAMES, {("A", "B"): 1.0, ("B", "Y"): 1.2, ("C", "Y"): -0.8}, target="Y")


def rows(n_observed=100, n_tried=3, system=SYSTEM):
    buffer = ExperienceBuffer.from_dataframe(sample(system, n_observed, seed=1))
    values = np.random.default_rng(0).uniform(-2, 2, size=(len(system.variables) - 1, n_tried))
    for name, own in zip(system.variables, values, strict=False):
        for value in own:
            done = {name: float(value)}
            row = sample(system, 1, intervention=done, seed=len(buffer))
            buffer.add_intervention(done, {n: float(row[n].iloc[0]) for n in system.variables})
    return buffer


def replayed(record):
    """Each recorded trial beside the one that we would have tried on the same rows."""
    names, t = tuple(record["variables"]), record["target"]
    target, options = names[t], ParentScaleOptions.published()
    observed = np.stack([record["observational"][name] for name in names], axis=-1)
    scaling = Scaling.of_rows(observed, list(names))
    members = np.array([[name in parents for name in names] for parents, _ in record["prior"]])
    with padding.double():
        state = parent_update.start(
            np.delete(members, t, axis=1), np.array([p for _, p in record["prior"]])
        )
        x = np.delete(scaling.apply(observed), t, axis=1)
        state = parent_update.condition(
            state, *parent_update.padded_rows(x, observed[:, t], padding.ROWS, 2)
        )
    beliefs = Beliefs(names, target, scaling, options, members, state, ())
    scored = np.array(
        [
            [update["y"] if n == target else update["x"][n] for n in names]
            for update in record["updates"]
        ]
    )
    others = np.arange(len(names)) != t
    scored[:, others] = scaling.undo(scored)[:, others]
    nothing = np.zeros_like(scored, dtype=bool)
    first = len(scored) - record["T"]
    beliefs = beliefs.after(scored[:first], nothing[:first])
    bench = trials.start(Problem(names, target), beliefs, observed, (0,))
    tried = [
        trials.Tried(make_intervention({done["do"][0]: value}), outcome)
        for done in record["interventional"]
        for value, outcome in zip(done["data"][done["do"][0]], done["data"][target], strict=True)
    ]
    for k in range(record["T"]):
        ours = trials.best_trial(bench, beliefs, tried)[0].intervention
        theirs = {record["intervention_set"][k][0]: record["intervention_values"][k][0]}
        yield dict(ours), theirs
        tried.append(trials.Tried(make_intervention(theirs), record["current_y"][k]))
        row = slice(first + k, first + k + 1)
        beliefs = beliefs.after(scored[row], nothing[row], drop=k > 0)
        bench = trials.update(bench, beliefs)


def test_trials_are_mostly_those_of_the_recorded_runs(records):
    same_variable, same_end, chance = [], [], []
    for record in records:
        for ours, theirs in replayed(record):
            (name, value), (other, recorded) = next(iter(ours.items())), next(iter(theirs.items()))
            same_variable.append(name == other)
            chance.append(1 / (len(record["variables"]) - 1))
            if name == other:
                middle = np.mean(record["ranges"][name])
                same_end.append((value > middle) == (recorded > middle))
    assert np.mean(same_variable) > 0.5
    assert np.mean(same_variable) > np.mean(chance) + 3 * np.sqrt(0.25 / len(chance))
    assert np.mean(same_end) > 0.5 + 3 * np.sqrt(0.25 / len(same_end))


def test_a_cheap_variable_wins_over_a_slightly_better_one():
    system = SCM.linear(NAMES, {("B", "Y"): 1.1, ("C", "Y"): 1.0}, target="Y")
    buffer = rows(system=system, n_tried=10)
    (best,) = suggest(init(buffer, Problem(NAMES, "Y"))).intervention
    costs = {name: 10.0 if name == best else 1.0 for name in NAMES[:3]}
    (cheap,) = suggest(init(buffer, Problem(NAMES, "Y", costs=costs))).intervention
    assert {best, cheap} == {"B", "C"}


@pytest.mark.parametrize(
    "costs",
    [
        dict.fromkeys("ABC", 1.0),
        {"A": 1.0, "B": 10.0, "C": 5.0},
        {name: lambda x: 1.0 + abs(x) for name in "ABC"},
        {"A": lambda x: 1 + abs(x), "B": lambda x: 10 + abs(x), "C": lambda x: 5 + abs(x)},
    ],
    ids=["equal", "different", "equal and by value", "different and by value"],
)
def test_the_cost_structures_of_the_literature_can_be_said(costs):
    problem = Problem(NAMES, "Y", costs=costs)
    suggestion = suggest(init(rows(), problem))
    assert suggestion.cost == pytest.approx(problem.cost(suggestion.intervention))


def test_a_cost_by_value_draws_values_in():
    buffer, value = rows(), {}
    for slope in (0.0, 100.0):
        costs = {"B": lambda x, slope=slope: 1.0 + slope * x**8}
        problem = Problem(NAMES, "Y", settable=("B",), costs=costs)
        value[slope] = abs(suggest(init(buffer, problem)).intervention["B"])
    assert value[100.0] < value[0.0]


def test_costs_must_be_positive():
    with pytest.raises(ProblemError, match=r"setting 'B' to .* costs 0"):
        init(rows(), Problem(NAMES, "Y", costs={"B": 0.0}))


def test_joint_interventions_reach_what_single_ones_cannot():
    buffer = rows(n_tried=5)
    single = suggest(init(buffer, Problem(NAMES, "Y"), ParentScaleOptions()))
    joint = suggest(init(buffer, Problem(NAMES, "Y"), ParentScaleOptions(max_targets=2)))
    assert len(single.intervention) == 1
    assert set(joint.intervention) == {"B", "C"}
    assert joint.predicted_mean < single.predicted_mean


def test_suggestions_stay_in_the_ranges():
    problem = Problem(NAMES, "Y", ranges={"B": (-0.1, 0.3)}, settable=("B",))
    value = suggest(init(rows(), problem)).intervention["B"]
    assert -0.1 <= value <= 0.3


def test_sizes_within_a_bucket_do_not_compile_again():
    def sizes():
        return [
            function._cache_size()
            for function in (causal_gp.regress, causal_gp.effects, causal_gp.choose)
        ]

    suggest(init(rows(), Problem(NAMES, "Y")))
    before = sizes()
    longer = SCM.linear(["X", *NAMES], {("X", "B"): 1.0, ("B", "Y"): 1.0}, target="Y")
    suggest(init(rows(80, 2, longer), Problem(longer.variables, "Y", direction="maximize")))
    assert sizes() == before
