"""Bad input: each kind gets one sentence that says what came, what was expected and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from causal_bayes_opt.api import infer_parents, suggest
from causal_bayes_opt.cli import main
from causal_bayes_opt.errors import (
    CausalBayesOptError,
    DataError,
    MethodLimitError,
    ProblemError,
    UnknownNameError,
)

GOOD = "A,B,Y\n1,2,3\n2,1,5\n4,4,4\n0,3,2\n"


class Case(NamedTuple):
    """A file, the error that it causes, and its message; FILE stands for the file's path."""

    text: str | bytes | None
    error: type[CausalBayesOptError]
    message: str
    target: str = "Y"
    method: str = "auto"


CASES = {
    "missing file": Case(None, DataError, "no such file: FILE"),
    "empty file": Case("", DataError, "FILE is empty; its first line must name the columns"),
    "only line ends": Case(
        "\n\n", DataError, "FILE is empty; its first line must name the columns"
    ),
    "no rows": Case(
        "A,B,Y\n",
        DataError,
        "the table has column names but no rows; at least 2 rows are needed",
    ),
    "not a text file": Case(
        b"A,B,Y\n1,2,\xff\xfe\n", DataError, "FILE is not a text file in UTF-8"
    ),
    "unknown target": Case(
        GOOD.replace("Y", "yield"),
        UnknownNameError,
        "unknown target 'yeild'; did you mean 'yield'?",
        target="yeild",
    ),
    "unknown target that resembles nothing": Case(
        GOOD, UnknownNameError, "unknown target 'pressure' (known: 'A', 'B', 'Y')", "pressure"
    ),
    "non-numeric cell": Case(
        "A,B,Y\n1,2,3\n2,high,5\n4,4,4\n",
        DataError,
        "column 'B', row 2: the value is 'high', which is no finite number",
    ),
    "several non-numeric cells": Case(
        "A,B,Y\n1,2,3\n2,?,5\n4,?,4\n",
        DataError,
        "column 'B', row 2: the value is '?', which is no finite number "
        "(1 more such cells in this column)",
    ),
    "infinite cell": Case(
        "A,B,Y\n1,2,3\n2,inf,5\n4,4,4\n",
        DataError,
        "column 'B', row 2: the value is 'inf', which is no finite number",
    ),
    "missing cell": Case(
        "A,B,Y\n1,2,3\n2,4,5\n4,,4\n", DataError, "column 'B', row 3: the value is missing"
    ),
    "short row": Case(
        "A,B,Y\n1,2,3\n2,4\n4,1,4\n", DataError, "column 'Y', row 2: the value is missing"
    ),
    "long row": Case(
        "A,B,Y\n1,2,3\n2,4,5,6\n4,1,4\n",
        DataError,
        "row 2 has 4 cells; the first line names 3 columns",
    ),
    "unknown name in do": Case(
        "dose,B,Y,do\n1,2,3,\n2,4,5,\n4,1,4,B;doze\n",
        UnknownNameError,
        "column 'do', row 3: unknown variable 'doze'; did you mean 'dose'?",
    ),
    "constant column": Case(
        "A,B,Y\n1,7,3\n2,7,5\n4,7,4\n",
        DataError,
        "column 'B' is constant (7) in the observational rows, so nothing can be learned about "
        "it; leave it out",
    ),
    "target constant but for experiments": Case(
        "A,B,Y,do\n1,3,0,\n2,7,0,\n4,1,0,\n3,2,6,Y\n",
        DataError,
        "the target 'Y' is constant where nothing was set, so nothing shows its causes",
    ),
    "constant also where it was set": Case(
        "A,B,Y,do\n1,7,3,\n2,7,5,\n4,7,4,\n3,7,6,B\n",
        DataError,
        "column 'B' is constant (7) in the observational rows, so nothing can be learned about "
        "it; leave it out",
    ),
    "duplicate column": Case(
        "A,B,A,Y\n1,2,3,4\n2,3,4,1\n3,4,1,2\n",
        DataError,
        "column 'A' occurs more than once; give every column one name",
    ),
    "nameless column": Case(
        "A,,Y\n1,2,3\n2,3,4\n",
        DataError,
        "a column has no name; name every column in the first line",
    ),
    "one variable": Case(
        "Y\n1\n2\n3\n",
        DataError,
        "'Y' is the only variable; at least one other is needed to look for its causes",
    ),
    "one row": Case("A,B,Y\n1,2,3\n", DataError, "the data have 1 row; at least 2 rows are needed"),
    "target set in every row": Case(
        "A,B,Y,do\n1,2,3,Y\n2,1,5,A;Y\n4,4,4,Y\n",
        DataError,
        "the target 'Y' was set in every row, so no row shows what causes it; add rows in which "
        "it was left alone",
    ),
    "unknown method": Case(
        GOOD, UnknownNameError, "unknown method 'exakt'; did you mean 'exact'?", method="exakt"
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Case]:
    found = CASES[request.param]
    path = tmp_path / "data.csv"
    if isinstance(found.text, bytes):
        path.write_bytes(found.text)
    elif found.text is not None:
        path.write_text(found.text, encoding="utf-8")
    return path, found._replace(message=found.message.replace("FILE", repr(str(path))))


def test_python_raises_an_error_of_its_own(case: tuple[Path, Case]) -> None:
    path, expected = case
    for ask in (infer_parents, suggest):
        with pytest.raises(CausalBayesOptError) as caught:
            ask(path, expected.target, method=expected.method)
        assert (type(caught.value), str(caught.value)) == (expected.error, expected.message)


def test_the_command_line_prints_one_line(
    case: tuple[Path, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    path, expected = case
    options = [str(path), "--target", expected.target, "--method", expected.method, "--json"]
    for command in (["parents"], ["suggest", "--minimize"]):
        assert main(command + options) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f"acbo: error: {expected.message}\n"


def wide(n_vars: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = [f"X{i + 1}" for i in range(n_vars)]
    return pd.DataFrame(rng.normal(size=(2 * n_vars, n_vars)), columns=names)


LIMITS = {
    "exact": (
        21,
        "21 variables; exact inference takes at most 20; use method='network', or leave variables "
        "out",
    ),
    "auto": (101, "101 variables; the network takes at most 100; leave some out"),
    "network": (101, "101 variables; the network takes at most 100; leave some out"),
}


@pytest.mark.parametrize("method", LIMITS)
def test_more_variables_than_a_method_can_take(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_vars, message = LIMITS[method]
    data = wide(n_vars)
    with pytest.raises(MethodLimitError) as caught:
        infer_parents(data, "X1", method=method)
    assert str(caught.value) == message
    data.to_csv(tmp_path / "wide.csv", index=False)
    file = str(tmp_path / "wide.csv")
    assert main(["parents", file, "--target", "X1", "--method", method]) == 2
    assert capsys.readouterr().err == f"acbo: error: {message}\n"


BAD_RANGES = {
    "A=3:1": "range of 'A' is reversed: 3 is above 1; write the lower end first",
    "A=-1:-2e1": "range of 'A' is reversed: -1 is above -20; write the lower end first",
    "A=1:1": "range of 'A' has zero width at 1",
    "A=0:inf": "range of 'A' is 0 to inf; both ends must be finite",
    "A=nan:1": "range of 'A' is nan to 1; both ends must be finite",
    "a=0:1": "unknown variable in ranges 'a'; did you mean 'A'?",
    "Y=0:1": "the target 'Y' is never set and takes no range",
}


@pytest.mark.parametrize("text", BAD_RANGES)
def test_a_range_that_is_none(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)
    name, ends = text.split("=")
    low, high = map(float, ends.split(":"))
    with pytest.raises((ProblemError, UnknownNameError)) as caught:
        suggest(path, "Y", ranges={name: (low, high)})
    assert str(caught.value) == BAD_RANGES[text]
    assert main(["suggest", str(path), "--target", "Y", "--minimize", "--range", text]) == 2
    assert capsys.readouterr().err == f"acbo: error: {BAD_RANGES[text]}\n"


@pytest.mark.parametrize("text", ["A", "A=1", "A=1:2:3", "A=one:2", "=1:2", "A:1=2", "A=0,5:1"])
def test_a_range_in_another_form(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)
    assert main(["suggest", str(path), "--target", "Y", "--minimize", "--range", text]) == 2
    assert capsys.readouterr().err == (
        f"acbo: error: --range {text!r} is not of the form NAME=LO:HI with two numbers, "
        "such as dose=-2:3.5\n"
    )


def test_too_few_observations_beside_experiments(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("A,B,Y,do\n1,2,3,A\n2,1,5,\n4,4,4,B\n")
    with pytest.raises(DataError, match="at least 2 rows in which nothing was set are needed"):
        infer_parents(path, "Y")


def test_a_name_given_to_be_set_that_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD.replace("A", "dose"))
    options = ["suggest", str(path), "--target", "Y", "--minimize", "--settable", "B", "doze"]
    assert main(options) == 2
    message = "unknown settable variable 'doze'; did you mean 'dose'?"
    assert capsys.readouterr().err == f"acbo: error: {message}\n"
    with pytest.raises(UnknownNameError) as caught:
        suggest(path, "Y", settable=["B", "doze"])
    assert str(caught.value) == message


def test_a_folder_in_place_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parents", str(tmp_path), "--target", "Y"]) == 2
    expected = f"acbo: error: {str(tmp_path)!r} is a folder; a CSV file is needed\n"
    assert capsys.readouterr().err == expected


def test_a_file_that_may_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    for opener in ("pathlib.Path.open", "pathlib.Path.read_text", "pathlib.Path.read_bytes"):
        monkeypatch.setattr(opener, refuse)
    assert main(["parents", str(path), "--target", "Y"]) == 2
    assert capsys.readouterr().err == f"acbo: error: {str(path)!r}: Permission denied\n"


def test_names_with_spaces_and_letters_of_any_language_are_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "größe ~ 温度.csv"
    rng = np.random.default_rng(0)
    dose, heat = rng.normal(size=(2, 40))
    names = ["Dosis in µg", "温度=T:x", "Ø λ"]
    columns = [dose, heat, 2 * dose - heat + 0.1 * rng.normal(size=40)]
    frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
    frame.to_csv(path, index=False)
    assert infer_parents(path, "Ø λ") == infer_parents(frame, "Ø λ")
    assert main(["parents", str(path), "--target", "Ø λ", "--json"]) == 0
    printed = capsys.readouterr()
    assert '"Dosis in µg": ' in printed.out
    options = ["--minimize", "--range", "温度=T:x=-1e0:+2.5", "Dosis in µg=-3:3"]
    assert main(["suggest", str(path), "--target", "Ø λ", *options]) == 0
    assert "set 温度=T:x = 2.5\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: infer_parents(np.array([[1.0, 2.0], [np.nan, 3.0], [1.0, 4.0]]), "X2"),
            "column 'X1', row 2: the value is missing",
        ),
        (
            lambda: infer_parents(np.ones((3, 2)), "X2", np.zeros((3, 3), bool)),
            "the mask of interventions has shape (3, 3); expected that of the data, (3, 2)",
        ),
        (
            lambda: infer_parents(np.ones((3, 2)), "b", names=["a", "b", "c"]),
            "3 names were given for 2 columns",
        ),
        (
            lambda: infer_parents(np.ones(3), "X1"),
            "data have shape (3,); expected two axes [n_rows, n_vars]",
        ),
        (
            lambda: infer_parents(pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "a"),
            "column 'a' occurs more than once; give every column one name",
        ),
        (
            lambda: infer_parents(pd.DataFrame({"a": [1, 2], "b": [None, 4]}), "a"),
            "column 'b', row 1: the value is missing",
        ),
    ],
)
def test_arrays_and_tables_in_memory_are_checked_too(
    ask: Callable[[], object], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        ask()
    assert str(caught.value) == message
