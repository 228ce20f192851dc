"""The buffer, its file, the problem and the scaling."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import DataError, ProblemError, UnknownNameError

NAMES = ["X10", "X2", "größe (cm)"]


def filled():
    buffer = ExperienceBuffer(NAMES)
    buffer.add_observation({"X10": 1.0, "X2": 2.0, "größe (cm)": 3.0})
    buffer.add_intervention({"X2": 5.0}, {"X10": 0.5, "größe (cm)": 4.0})
    buffer.add_observations(np.array([[7.0, 8.0, 9.0]]))
    buffer.add_intervention({"X2": 1.0, "X10": 2.0}, {"größe (cm)": -1.0})
    return buffer


def test_arrays_and_order_of_time():
    buffer = filled()
    np.testing.assert_array_equal(buffer.get_observations_as_array(), [[1, 2, 3], [7, 8, 9]])
    trials = buffer.get_interventions_as_array()
    assert trials.shape == (2, 3, 2)
    np.testing.assert_array_equal(trials[..., 0], [[0.5, 5, 4], [2, 1, -1]])
    np.testing.assert_array_equal(trials[..., 1], [[0, 1, 0], [1, 1, 0]])
    assert buffer.get_variable_names() == NAMES
    assert (len(buffer), buffer.n_observations, buffer.n_interventions) == (4, 2, 2)
    np.testing.assert_array_equal(buffer.rows()[0][:, 0], [1.0, 0.5, 7.0, 2.0])


def test_names_come_from_the_first_row():
    buffer = ExperienceBuffer()
    buffer.add_observation({"b": 1.0, "a": 2.0})
    assert buffer.get_variable_names() == ["b", "a"]


@settings(max_examples=25)
@given(appends=st.lists(st.booleans(), max_size=40))
def test_copies_never_see_each_other(appends):
    first = filled()
    second = first.copy()
    lengths = [4, 4]
    for to_second in appends:
        buffer = second if to_second else first
        buffer.add_observation(dict.fromkeys(NAMES, float(to_second)))
        lengths[to_second] += 1
    for buffer, length, value in ((first, lengths[0], 0.0), (second, lengths[1], 1.0)):
        assert len(buffer) == length
        assert (buffer.rows()[0][4:] == value).all()


def test_only_what_cannot_grow_remembers_what_was_found_in_it():
    asked = []

    def count(buffer):
        asked.append(len(buffer))
        return len(buffer)

    growing = filled()
    assert (growing.once(count), growing.once(count), asked) == (4, 4, [4, 4])
    frozen = growing.frozen()
    assert (frozen.once(count), frozen.once(count), asked) == (4, 4, [4, 4, 4])
    assert frozen.frozen() is frozen
    copy = frozen.copy()
    copy.add_observation(dict.fromkeys(NAMES, 0.0))
    assert (copy.once(count), frozen.once(count), asked) == (5, 4, [4, 4, 4, 5])


def test_copy_shares_rows_until_somebody_writes():
    buffer = ExperienceBuffer.from_arrays(np.zeros((1000, 3)))
    assert np.shares_memory(buffer.copy()._log.values, buffer._log.values)


def test_what_comes_out_cannot_change_what_is_inside():
    buffer = filled()
    buffer.rows()[0][:] = 99.0
    buffer.get_observations_as_array()[:] = 99.0
    assert buffer == filled()


@settings(max_examples=25)
@given(
    values=st.lists(
        st.tuples(*[st.floats(-1e300, 1e300, allow_subnormal=False)] * 3), min_size=1, max_size=8
    ),
    bits=st.lists(st.integers(0, 6), min_size=8, max_size=8),
)
def test_file_and_frame_give_back_every_bit(values, bits, tmp_path_factory):
    rows = np.array(values)
    mask = (np.array(bits[: len(rows)])[:, None] >> np.arange(3) & 1).astype(bool)
    buffer = ExperienceBuffer.from_arrays(rows, mask, NAMES)
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    buffer.to_csv(path)
    assert ExperienceBuffer.from_csv(path) == buffer
    assert ExperienceBuffer.from_dataframe(buffer.to_dataframe()) == buffer


def test_outcome_of_the_target_alone_is_kept_apart():
    buffer = filled()
    buffer.add_intervention({"X2": 3.0}, {"X10": 1.0})
    assert len(buffer) == 5
    assert len(buffer.rows()[0]) == 4
    assert np.isnan(buffer.all_rows()[0][4, 2])


@pytest.mark.parametrize(
    ("intervention", "outcome", "error", "message"),
    [
        ({}, {"X10": 1.0}, DataError, "must set at least one variable"),
        ({"X2": 1.0}, {}, DataError, "measures nothing but what was set"),
        ({"X2": 1.0}, {"X2": 2.0, "X10": 0.0}, DataError, "was set to 1 but its outcome is 2"),
        ({"X2": np.nan}, {"X10": 0.0}, DataError, "'X2' is nan; a finite number is needed"),
        ({"X3": 1.0}, {"X10": 0.0}, UnknownNameError, "unknown variable 'X3'; did you mean 'X2'"),
    ],
)
def test_impossible_experiments_leave_the_buffer_alone(intervention, outcome, error, message):
    buffer = filled()
    with pytest.raises(error, match=message):
        buffer.add_intervention(intervention, outcome)
    assert buffer == filled()


def test_incomplete_observation_is_refused():
    with pytest.raises(DataError, match="lacks a value of 'X2'"):
        filled().add_observation({"X10": 1.0, "größe (cm)": 1.0})


def test_other_columns_are_refused_and_other_order_is_not():
    buffer = filled()
    buffer.add_observations(pd.DataFrame([[3.0, 2.0, 1.0]], columns=NAMES[::-1]))
    np.testing.assert_array_equal(buffer.rows()[0][-1], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="rows have the variables"):
        buffer.add_observations(pd.DataFrame({"a": [1.0]}))


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_scaling_undoes_itself_in_any_unit(unit):
    values = np.random.default_rng(0).normal(size=(30, 3)) * unit + 5 * unit
    scaling = Scaling.of(ExperienceBuffer.from_arrays(values))
    scaled = scaling.apply(values)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(scaling.undo(scaled), values, rtol=1e-12)


def test_scaling_looks_at_observations_only():
    buffer = ExperienceBuffer.from_arrays(np.random.default_rng(0).normal(size=(30, 2)))
    before = Scaling.of(buffer)
    buffer.add_intervention({"X1": 1e6}, {"X2": -1e6})
    after = Scaling.of(buffer)
    np.testing.assert_array_equal(before.means, after.means)
    np.testing.assert_array_equal(before.stds, after.stds)


def test_constant_columns_and_too_few_rows_are_refused():
    values = np.random.default_rng(0).normal(size=(30, 2))
    values[:, 1] = 0.1 + 0.2
    with pytest.raises(DataError, match=r"column 'X2' is constant \(0.3\)"):
        Scaling.of(ExperienceBuffer.from_arrays(values))
    with pytest.raises(DataError, match="observational rows: 1; at least 2"):
        Scaling.of(ExperienceBuffer.from_arrays(values[:1]))


def test_a_zero_may_be_measured_in_any_unit():
    for unit in (1e-6, 1.0, 1e6):
        values = np.random.default_rng(0).normal(size=(5, 2)) * unit
        buffer = ExperienceBuffer.from_arrays(values)
        buffer.add_intervention({"X1": 0.0}, {"X1": 1e-9 * unit, "X2": unit})
        assert buffer.all_rows()[0][-1, 0] == 0.0
        with pytest.raises(DataError, match="'X1' was set to 0"):
            buffer.add_intervention({"X1": 0.0}, {"X1": 1e-3 * unit, "X2": unit})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "Z"}, UnknownNameError, "unknown target 'Z'"),
        ({"direction": "minimise"}, ProblemError, "did you mean 'minimize'"),
        ({"ranges": {"A": (2.0, 1.0)}}, ProblemError, "range of 'A' is reversed: 2 is above 1"),
        ({"ranges": {"A": (1.0, 1.0)}}, ProblemError, "zero width"),
        ({"ranges": {"A": (0.0, np.inf)}}, ProblemError, "must be finite"),
        ({"ranges": {"Y": (0.0, 1.0)}}, ProblemError, "never set"),
        ({"settable": ("Y",)}, ProblemError, "cannot be a settable variable"),
        ({"settable": ("A", "A")}, ProblemError, "more than once"),
        ({"costs": {"C": 1.0}}, UnknownNameError, "unknown variable in costs 'C'"),
        ({"max_targets": 0}, ProblemError, "max_targets is 0; an experiment sets at least one"),
        ({"max_targets": 1.5}, ProblemError, "max_targets is 1.5"),
    ],
)
def test_problems_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Problem(("A", "B", "Y"), **{"target": "Y", **options})


def test_problem_defaults_and_costs():
    problem = Problem(("A", "Y", "B"), "Y", costs={"A": 2.0, "B": abs})
    assert problem.may_set == ("A", "B")
    assert problem.sign == 1.0
    assert problem.cost(make_intervention({"A": 9.0, "B": -3.0})) == 5.0
    with pytest.raises(ProblemError, match="no variable may be set"):
        _ = Problem(("Y",), "Y").may_set


def test_interventions_are_immutable_and_finite():
    done = make_intervention({"A": 1})
    with pytest.raises(TypeError):
        done["A"] = 2.0  # type: ignore[index]
    with pytest.raises(DataError, match="sets 'A' to inf"):
        make_intervention({"A": np.inf})
