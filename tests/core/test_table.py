"""The boundary: what counts as a number, as a name and as an experiment, in files and in memory."""

from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.table import Table
from causal_bayes_opt.errors import DataError, UnknownNameError

NAMES = ["X10", "größe (cm)", 'a "b", c', "温度\n2", "X2"]


def message_of(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_text(text, encoding=encoding)
    return path


@settings(max_examples=30)
@given(
    cells=st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=40),
    names=st.permutations(NAMES),
    bits=st.lists(st.integers(0, 31), min_size=8, max_size=8),
)
def test_a_file_gives_back_every_bit_of_any_number(cells, names, bits, tmp_path_factory):
    values = np.array(cells, np.uint64).view(np.float64)
    values = np.where(np.isfinite(values), values, -0.0)  # also numbers of any size, and a minus
    values = values[: len(values) // 5 * 5].reshape(-1, 5)
    mask = (np.array(bits)[: len(values), None] >> np.arange(5) & 1).astype(bool)
    buffer = ExperienceBuffer.from_arrays(values, mask, names)
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    buffer.to_csv(path)
    for back in (
        ExperienceBuffer.from_csv(path),
        ExperienceBuffer.from_dataframe(buffer.to_dataframe()),
    ):
        assert back.get_variable_names() == list(names)
        np.testing.assert_array_equal(back.all_rows()[0].view(np.uint64), values.view(np.uint64))
        np.testing.assert_array_equal(back.all_rows()[1], mask)


def test_a_file_is_as_short_as_its_numbers(tmp_path):
    path = tmp_path / "data.csv"
    ExperienceBuffer.from_arrays(np.array([[0.1, 2.0]]), np.array([[0, 1]])).to_csv(path)
    assert path.read_text() == "X1,X2,do\n0.1,2.0,X2\n"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffA,B,do\n1,2,\n3,4,B\n",  # Excel's mark of UTF-8
        "A,B,do\r\n1,2,\r\n3,4,B\r\n",
        "A , B,do\n 1,2 ,\n3,4, B \n\n",
        "do,A,B\n,1,2\nB;,3,4\n",
        'A,B,do\n"1","2",""\n3e0,+4.,"B;B"\n',
    ],
)
def test_many_ways_to_write_the_same_rows(tmp_path, text):
    buffer = ExperienceBuffer.from_csv(written(tmp_path, text))
    values, mask = buffer.rows()
    assert buffer.get_variable_names() == ["A", "B"]
    np.testing.assert_array_equal(values, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(mask, [[False, False], [False, True]])


def test_columns_that_are_left_out_are_not_looked_at(tmp_path):
    path = written(tmp_path, "A,note;x,B\n1,high,2\n3,,4\n")
    buffer = ExperienceBuffer.from_csv(path, ignore=["note;x"])
    assert buffer.get_variable_names() == ["A", "B"]
    message = message_of(UnknownNameError, ExperienceBuffer.from_csv, path, ["nota;x"])
    assert message == "unknown column to ignore: 'nota;x'; did you mean 'note;x'?"
    message = message_of(DataError, ExperienceBuffer.from_csv, path, ["A", "B", "note;x"])
    assert message == "the table has no variables: every column is ignored or named 'do'"


def test_a_set_column_cannot_be_left_out(tmp_path):
    path = written(tmp_path, "A,B,do\n1,2,\n3,4,B\n")
    assert message_of(DataError, ExperienceBuffer.from_csv, path, ["B"]) == (
        "column 'do', row 2: 'B' was set there but its column is ignored; leave those rows out, "
        "or keep the column"
    )


def test_columns_separated_by_semicolons_are_recognised(tmp_path):
    path = written(tmp_path, "A;B\n1;2\n3;4\n")
    assert message_of(DataError, ExperienceBuffer.from_csv, path) == (
        "column 'A;B' has ';' in its name, which stands between the names in the column 'do'; "
        "rename it, or, where it is several columns, put commas between"
    )


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pd.array([1, None, 2], dtype="Int64"), "row 2: the value is missing"),
        (pd.array([True, None, None], dtype="boolean"), "row 2: the value is missing (1 more such"),
        ([1.0, None, 2.0], "row 2: the value is missing"),
        ([1.0, "NA", 2.0], "row 2: the value is missing"),
        ([1.0, 2.0, -np.inf], "row 3: the value is '-inf', which is no finite number"),
        (["1", "2", "0x10"], "row 3: the value is '0x10', which is no finite number"),
        (["1", "2", "1,5"], "row 3: the value is '1,5', which is no finite number"),
        ([1, 2, [3]], "row 3: the value is '[3]', which is no finite number"),
        ([1, 2, 3j], "row 1: the value is '(1+0j)', which is no finite number"),
        (pd.Categorical(["1", "low", "2"]), "row 2: the value is 'low', which is no finite number"),
        (
            pd.to_datetime(["2020-01-01", "2020-01-02", None]),
            "row 1: the value is '2020-01-01 00:00:00', which is no finite number",
        ),
        (pd.to_timedelta([1, 2, 3], unit="s"), "row 1: the value is '0 days 00:00:01', which is"),
        (pd.period_range("2020", periods=3), "row 1: the value is '2020-01-01', which is no"),
    ],
)
def test_cells_that_are_no_numbers_are_named(column, problem):
    frame = pd.DataFrame({"fine": [1, 2, 3], "ü 2": column})
    message = message_of(DataError, ExperienceBuffer.from_dataframe, frame)
    assert message.startswith(f"column 'ü 2', {problem}")


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, 2, 3], dtype="Int64"),
        pd.array(["1", "2", "3"], dtype="string"),
        pd.Categorical([1, 2, 3]),
        [1, "2", Decimal("3")],
        np.array([1, 2, 3], np.uint8),
        np.array([1, 2, 3], np.float16),
    ],
)
def test_every_kind_of_number_is_one(column):
    frame = pd.DataFrame({"A": column}, index=[7, 7, 9])
    values, _ = ExperienceBuffer.from_dataframe(frame).rows()
    np.testing.assert_array_equal(values, [[1.0], [2.0], [3.0]])
    assert values.dtype == np.float64


@pytest.mark.parametrize(
    "column",
    [
        ["", "A", "A;B"],
        [None, "A", "A;B"],
        [np.nan, " A ", "A ; B;"],
        pd.array([None, "A", "A;B"], dtype="string"),
        pd.Categorical([None, "A", "B;A"]),
    ],
)
def test_every_way_to_leave_do_empty(column):
    frame = pd.DataFrame({"A": [1.0, 2.0, 3.0], "B": [4.0, 5.0, 6.0], "do": column})
    _, mask = ExperienceBuffer.from_dataframe(frame).rows()
    np.testing.assert_array_equal(mask, [[0, 0], [1, 0], [1, 1]])


@pytest.mark.parametrize("empty", [[np.nan, np.nan], [None, None], ["", " "]])
def test_a_do_that_is_empty_everywhere_says_that_all_was_observed(empty):
    frame = pd.DataFrame({"A": [1.0, 2.0], "do": empty})
    assert ExperienceBuffer.from_dataframe(frame).n_interventions == 0


def test_names_with_spaces_at_their_ends_can_be_set():
    frame = pd.DataFrame({" A": [1.0, 2.0], "A": [3.0, 4.0], "B ": [5.0, 6.0], "do": [" A", "A;B"]})
    buffer = ExperienceBuffer.from_dataframe(frame)
    np.testing.assert_array_equal(buffer.rows()[1], [[1, 0, 0], [0, 1, 1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.zeros(3),),
            "data have shape (3,); expected two axes [n_rows, n_vars]",
        ),
        ((np.zeros((3, 0)),), "data have shape (3, 0); expected two axes [n_rows, n_vars]"),
        ((np.zeros((2, 2)), None, ["a"]), "1 names were given for 2 columns"),
        ((np.zeros((2, 2)), None, ["a", ""]), "a column has no name; name every column in the "),
        ((np.zeros((2, 2)), None, ["a", "do"]), "'do' cannot name a variable: a table's column"),
        ((np.zeros((2, 2)), None, ["a", "b;c"]), "column 'b;c' has ';' in its name"),
        (
            (np.zeros((2, 2)), np.zeros((2, 1))),
            "the mask of interventions has shape (2, 1); expected that of the data, (2, 2)",
        ),
        (
            (np.ones((2, 2)), np.full((2, 2), 0.5)),
            "the mask of interventions may hold only True and False (or 1 and 0)",
        ),
        ((np.array([[1.0, np.nan]]),), "column 'X2', row 1: the value is missing"),
        ((np.array([["1", "a"]]),), "column 'X2', row 1: the value is 'a', which is no finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, message):
    assert message_of(DataError, ExperienceBuffer.from_arrays, *arguments).startswith(message)


def test_names_that_are_numbers_become_text():
    assert ExperienceBuffer.from_arrays(np.ones((2, 2)), names=[1, 2]).get_variable_names() == [
        "1",
        "2",
    ]
    frame = pd.DataFrame(np.ones((2, 2)))
    assert ExperienceBuffer.from_dataframe(frame).get_variable_names() == ["0", "1"]
    frame = pd.DataFrame(np.ones((2, 2)), columns=[1, "1"])
    message = message_of(DataError, ExperienceBuffer.from_dataframe, frame)
    assert message == "column '1' occurs more than once; give every column one name"


@pytest.mark.parametrize("name", ["do", "a;b", "", "a"])
def test_a_buffer_refuses_the_names_that_a_file_could_not_hold(name):
    with pytest.raises(DataError):
        ExperienceBuffer(["a", name])


@pytest.mark.parametrize(
    "row", [{"a": np.nan}, {"a": "high"}, {"a": None}, {"a": [1.0, 2.0]}, {"do": 1.0}]
)
def test_a_first_row_that_is_refused_names_nothing(row):
    buffer = ExperienceBuffer()
    with pytest.raises(DataError):
        buffer.add_observation(row)
    with pytest.raises(DataError):
        buffer.add_intervention({"a": 1.0}, row)
    assert buffer.get_variable_names() == []
    buffer.add_intervention({"b": 1.0}, {"c": 2.0})
    assert buffer.get_variable_names() == ["c", "b"]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"a": 1.0}, DataError, "an observation lacks a value of 'b'; all variables are needed"),
        ({"a": 1.0, "b": "x"}, DataError, "variable 'b' is x; a finite number is needed"),
        ({"a": 1.0, "bb": 2.0}, UnknownNameError, "unknown variable 'bb'; did you mean 'b'?"),
        ([1.0, 2.0], DataError, "a row is [1.0, 2.0]; expected a mapping from names to values"),
    ],
)
def test_observations_come_all_or_none(bad, error, message):
    buffer = ExperienceBuffer(["a", "b"])
    rows = [{"a": 1.0, "b": 2.0}, bad, {"a": 1.0, "b": 2.0}]
    assert message_of(error, buffer.add_observations, rows) == message
    assert len(buffer) == 0
    buffer.add_observations(rows[:1])
    buffer.add_observations(row for row in rows[:1])
    buffer.add_observations([])
    assert len(buffer) == 2


def test_arrays_of_the_device_and_rows_of_a_frame_are_rows():
    buffer = ExperienceBuffer(["a", "b"])
    buffer.add_observations(jnp.array([[1.0, 2.0]]))
    buffer.add_observation(pd.Series({"b": 4.0, "a": 3.0}))
    buffer.add_intervention(pd.Series({"a": 5.0}), {"b": jnp.float32(6.0)})
    np.testing.assert_array_equal(buffer.rows()[0], [[1, 2], [3, 4], [5, 6]])
    assert message_of(DataError, buffer.add_observations, np.ones((2, 3))) == (
        "2 names were given for 3 columns"
    )


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_an_outcome_agrees_with_what_was_set_in_any_unit(unit):
    buffer = ExperienceBuffer(["a", "b"])
    buffer.add_intervention({"a": 0.1 * unit}, {"a": float(np.float32(0.1 * unit)), "b": 1.0})
    assert buffer.rows()[0][0, 0] == 0.1 * unit
    message = message_of(
        DataError, buffer.add_intervention, {"a": unit}, {"a": 1.01 * unit, "b": 1.0}
    )
    assert message == f"'a' was set to {unit:g} but its outcome is {1.01 * unit:g}"


def test_what_was_not_measured_is_an_empty_cell_and_no_complete_row(tmp_path):
    buffer = ExperienceBuffer(["a", "b", "y"])
    buffer.add_observation({"a": 1.0, "b": 2.0, "y": 3.0})
    buffer.add_intervention({"a": 1.0}, {"y": 2.0})
    assert (len(buffer), buffer.n_interventions) == (2, 1)
    assert buffer.get_interventions_as_array().shape == (0, 3, 2)
    assert buffer.to_dataframe().isna().to_numpy().sum() == 1
    path = tmp_path / "data.csv"
    buffer.to_csv(path)
    assert path.read_text().splitlines()[2] == "1.0,,2.0,a"
    assert ExperienceBuffer.from_csv(path) == buffer


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,,2,", "column 'b', row 1: the value is missing"),
        (",3,2,a", "column 'a', row 1: the value is missing"),
        ("1,?,2,a", "column 'b', row 1: the value is '?', which is no finite number"),
        ("1,inf,2,a", "column 'b', row 1: the value is 'inf', which is no finite number"),
    ],
)
def test_only_what_an_experiment_may_lack_may_be_missing(tmp_path, lines, message):
    path = written(tmp_path, f"a,b,y,do\n{lines}\n1,2,3,\n")
    assert message_of(DataError, ExperienceBuffer.from_csv, path) == message


def test_experiments_that_failed_survive_a_file(tmp_path):
    buffer = ExperienceBuffer(["a", "b", "y"])
    buffer.add_observation({"a": 1.0, "b": 2.0, "y": 3.0})
    buffer.add_failure({"a": 0.1, "b": 4.0})
    buffer.add_intervention({"a": 1.0}, {"y": 2.0})
    path = tmp_path / "data.csv"
    buffer.to_csv(path)
    assert path.read_text().splitlines()[3] == "0.1,4.0,,a;b"
    again = ExperienceBuffer.from_csv(path)
    assert again == buffer
    assert again.failed == ({"a": 0.1, "b": 4.0},)
    # They are no rows.
    assert (len(again), again.n_interventions) == (2, 1)
    assert again != ExperienceBuffer.from_table(Table(("a", "b", "y"), *again.all_rows()))


@pytest.mark.parametrize(
    ("failed", "error", "message"),
    [
        ({}, DataError, "an experiment sets at least one variable, and never all of them"),
        ({"a": 1, "y": 1}, DataError, "an experiment sets at least one variable, and never all of"),
        ([1.0], DataError, "a row is [1.0]; expected a mapping from names to values"),
        ({"c": 1.0}, UnknownNameError, "unknown variable 'c' (known: 'a', 'y')"),
        ({"a": np.nan}, DataError, "an intervention sets 'a' to nan; a finite number is needed"),
    ],
)
def test_what_cannot_have_failed_is_refused(failed, error, message):
    buffer = ExperienceBuffer(["a", "y"])
    assert message_of(error, buffer.add_failure, failed).startswith(message)
    assert buffer.failed == ()
    with pytest.raises(DataError, match="belong to a state"):
        buffer.frozen().add_failure({"a": 1.0})
    with pytest.raises(DataError, match="no names yet"):
        ExperienceBuffer().add_failure({"a": 1.0})


def test_what_measured_ignored_columns_alone_did_not_fail(tmp_path):
    lines = "1,2,3,x,\n1,2,,,a\n1,,,y,a\n1,,,,a\n"
    path = written(tmp_path, f"a,b,y,note,do\n{lines}")
    buffer = ExperienceBuffer.from_csv(path, ignore=["b", "note"])
    assert (len(buffer), buffer.failed) == (1, ({"a": 1.0},))
    whole = ExperienceBuffer.from_csv(path, ignore=["note"])
    assert (len(whole), whole.failed) == (2, ({"a": 1.0},))


def test_arrays_may_lack_what_an_experiment_did_not_measure():
    values = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 2.0]])
    mask = np.array([[False, False, False], [True, False, False]])
    buffer = ExperienceBuffer.from_arrays(values, mask, ["a", "b", "y"])
    np.testing.assert_array_equal(buffer.all_rows()[0], values)
    assert len(buffer.rows()[0]) == 1


def test_an_empty_buffer_is_empty():
    for buffer in (ExperienceBuffer(), ExperienceBuffer(["a", "b"])):
        d = len(buffer.get_variable_names())
        assert buffer.get_observations_as_array().shape == (0, d)
        assert buffer.get_interventions_as_array().shape == (0, d, 2)
        assert (len(buffer), len(buffer.copy()), len(buffer.to_dataframe())) == (0, 0, 0)
