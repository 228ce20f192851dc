"""The problem: costs, what may be set, and that nothing changes it; scaling in any unit."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.scaling import Scaling, only_set
from causal_bayes_opt.errors import DataError, ProblemError, UnknownNameError

NAMES = ("X10", "Y", "X2")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variables": ()}, ProblemError, "a problem needs at least one variable"),
        ({"variables": ("A", "Y", "A")}, ProblemError, "variable 'A' is named more than once"),
        ({"target": "y"}, UnknownNameError, "unknown target 'y'; did you mean 'Y'?"),
        (
            {"direction": "max"},
            ProblemError,
            "direction is 'max'; expected 'minimize' or 'maximize'; did you mean 'maximize'?",
        ),
        ({"direction": None}, ProblemError, "direction is None; expected 'minimize' or 'maximize'"),
        ({"settable": ("X1",)}, UnknownNameError, "unknown settable variable 'X1'; did you mean "),
        ({"settable": ("Y",)}, ProblemError, "the target 'Y' cannot be a settable variable"),
        (
            {"settable": ("X2", "X2")},
            ProblemError,
            "settable variable 'X2' is named more than once",
        ),
        ({"ranges": {"x2": (0, 1)}}, UnknownNameError, "unknown variable in ranges 'x2'; did you "),
        (
            {"ranges": {"X2": 3.0}},
            ProblemError,
            "range of 'X2' is 3.0; expected its lowest and highest value",
        ),
        ({"ranges": {"X2": (1.0, 2.0, 3.0)}}, ProblemError, "range of 'X2' is (1.0, 2.0, 3.0); "),
        ({"ranges": {"X2": ("low", 1)}}, ProblemError, "range of 'X2' is ('low', 1); expected its"),
        (
            {"ranges": {"X2": (2, 1)}},
            ProblemError,
            "range of 'X2' is reversed: 2 is above 1; write the lower end first",
        ),
        ({"ranges": {"X2": (1, 1)}}, ProblemError, "range of 'X2' has zero width at 1"),
        (
            {"ranges": {"X2": (-1e308, 1e308)}},
            ProblemError,
            "range of 'X2' is -1e+308 to 1e+308; its",
        ),
        (
            {"ranges": {"X2": (np.nan, 1)}},
            ProblemError,
            "range of 'X2' is nan to 1; both ends must be finite",
        ),
        (
            {"ranges": {"Y": (0, 1)}},
            ProblemError,
            "the target 'Y' is never set and takes no range",
        ),
        ({"costs": {"x2": 1}}, UnknownNameError, "unknown variable in costs 'x2'; did you mean "),
        ({"costs": {"X2": -1}}, ProblemError, "cost of 'X2' is -1; expected a number from 0 on, "),
        ({"costs": {"X2": np.nan}}, ProblemError, "cost of 'X2' is nan; expected a number from 0"),
        ({"costs": {"X2": "dear"}}, ProblemError, "cost of 'X2' is 'dear'; expected a number "),
    ],
)
def test_every_problem_that_is_none_is_refused_in_words(options, error, message):
    with pytest.raises(error) as caught:
        Problem(**{"variables": NAMES, "target": "Y", **options})
    assert str(caught.value).startswith(message)


def test_a_problem_keeps_what_it_was_given():
    names, settable = list(NAMES), ["X2", "X10"]
    ranges, costs = {"X2": [0, 1]}, {"X2": 3.0}
    problem = Problem(names, "Y", "maximize", ranges, settable, costs)
    ranges["X2"][1], ranges["X10"], costs["X2"] = 9, (0, 1), 7.0
    names.append("Z")
    settable.append("Z")
    assert problem.variables == NAMES
    assert problem.may_set == ("X10", "X2")
    assert problem.range_of("X2") == (0.0, 1.0)
    assert problem.range_of("X10") is None
    assert problem.cost({"X2": 5.0, "X10": 5.0}) == 4.0
    assert problem.sign == -1.0
    with pytest.raises(AttributeError):
        problem.target = "X2"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(problem)) == problem
    again = Problem(NAMES, "Y", "maximize", {"X2": (0.0, 1.0)}, ("X2", "X10"), {"X2": 3.0})
    assert (again, hash(again)) == (problem, hash(problem))


@pytest.mark.parametrize("found", [-1.0, np.nan, np.inf, None, "dear"])
def test_a_cost_that_is_no_cost_is_told_when_it_is_asked_for(found):
    problem = Problem(("X", "Y"), "Y", costs={"X": lambda _: found})
    with pytest.raises(ProblemError, match="cost of 'X' at 2 is "):
        problem.cost({"X": 2.0})


def test_a_cost_that_cannot_be_computed_is_told():
    problem = Problem(("X", "Y"), "Y", costs={"X": lambda value: 1.0 / (value - 2.0)})
    with pytest.raises(ProblemError, match="cost of 'X' at 2 raised ZeroDivisionError"):
        problem.cost({"X": 2.0})


@given(levels=st.dictionaries(st.sampled_from(["A", "B", "C"]), st.floats(-10, 10)))
def test_cost_is_the_sum_over_what_is_set(levels):
    costs = {"A": 2.5, "B": lambda value: value**2}
    problem = Problem(("A", "B", "C", "Y"), "Y", costs=costs)
    expected = 2.5 * ("A" in levels) + levels.get("B", 0.0) ** 2 + ("C" in levels)
    assert problem.cost(make_intervention(levels)) == pytest.approx(expected)


def test_interventions_are_mappings_of_finite_numbers():
    done = make_intervention({"b": 1, "a": np.float32(2.0)})
    assert dict(done) == {"b": 1.0, "a": 2.0}
    assert hash(done) == hash(make_intervention({"a": 2.0, "b": 1.0}))
    for value in (np.nan, np.inf, "high", None):
        with pytest.raises(DataError) as caught:
            make_intervention({"a": value})
        expected = f"an intervention sets 'a' to {value}; a finite number is needed"
        assert str(caught.value) == expected


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    exponent=st.integers(-300, 300),
    offset=st.floats(-100, 100),
)
def test_scaling_is_the_same_in_any_unit(seed, exponent, offset):
    values = np.random.default_rng(seed).normal(size=(20, 3)) + offset
    unit = 10.0**exponent
    plain = Scaling.of_rows(values, ["a", "b", "c"])
    other = Scaling.of_rows(values * unit, ["a", "b", "c"])
    np.testing.assert_allclose(plain.means, values.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plain.stds, values.std(axis=0), rtol=1e-9)
    # An offset of 100 deviations costs two digits of the sixteen.
    np.testing.assert_allclose(other.apply(values * unit), plain.apply(values), atol=1e-11)
    np.testing.assert_allclose(other.undo(other.apply(values * unit)), values * unit, rtol=1e-12)


def test_what_varies_only_where_it_was_set_is_scaled_by_that():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(12, 3)), np.zeros((12, 3), dtype=bool)
    mask[8:10, 1], mask[9:, 2] = True, True
    values[:, 1] = np.where(mask[:, 1], [*np.zeros(8), 3.0, -1.0, 9.0, 9.0], 0.5)
    for unit in (1.0, 1e-200, -1e150):
        buffer = ExperienceBuffer.from_arrays(values * [1.0, unit, 1.0], mask, ["a", "held", "b"])
        assert only_set(buffer) == ("held",)
        scaling = Scaling.of(buffer)
        assert scaling.means[1] == pytest.approx(0.5 * unit)
        assert scaling.stds[1] == pytest.approx(2.5 * abs(unit))
        np.testing.assert_allclose(scaling.means[[0, 2]], values[:8][:, [0, 2]].mean(axis=0))
    values[mask[:, 1], 1] = 0.5
    with pytest.raises(DataError, match="column 'held' is constant"):
        Scaling.of(ExperienceBuffer.from_arrays(values, mask, ["a", "held", "b"]))


def test_scaling_survives_the_largest_numbers():
    scaling = Scaling.of_rows(np.array([[1.7e308], [1.0e308], [1.2e308]]), ["a"])
    assert np.isfinite([scaling.means, scaling.stds]).all()


def test_scaling_is_frozen():
    means, stds = np.zeros(2), np.ones(2)
    scaling = Scaling(means, stds)
    means[0] = 9.0
    assert scaling.means[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        scaling.stds[0] = 2.0
    with pytest.raises(AttributeError):
        scaling.stds = stds  # type: ignore[misc]


def test_scaling_takes_leading_axes():
    scaling = Scaling(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    values = np.arange(12.0).reshape(2, 3, 2)
    assert scaling.apply(values).shape == (2, 3, 2)
    np.testing.assert_array_equal(scaling.undo(scaling.apply(values)), values)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e12, 1e-12, 1e200])
def test_a_constant_column_is_refused_in_any_unit(value):
    values = np.random.default_rng(0).normal(size=(33, 2))
    values[:, 1] = value
    with pytest.raises(DataError) as caught:
        Scaling.of(ExperienceBuffer.from_arrays(values, names=["fine", "ü 2"]))
    assert str(caught.value) == (
        f"column 'ü 2' is constant ({value:g}) in the observational rows, so nothing can be "
        "learned about it; leave it out"
    )


@pytest.mark.parametrize("n_rows", [0, 1])
def test_too_few_observations_are_refused(n_rows):
    buffer = ExperienceBuffer(["a", "b"])
    buffer.add_observations(np.ones((n_rows, 2)))
    buffer.add_intervention({"a": 1.0}, {"b": 2.0})
    buffer.add_intervention({"a": 2.0}, {"b": 1.0})
    with pytest.raises(DataError) as caught:
        Scaling.of(buffer)
    assert str(caught.value) == (
        f"observational rows: {n_rows}; at least 2 rows in which nothing was set are needed to "
        "know the scale of the variables"
    )
