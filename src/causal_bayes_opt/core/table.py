"""The boundary where a user's table becomes rows: files and DataFrames are checked here, once."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from causal_bayes_opt.errors import DataError, UnknownNameError, nearest

DO_COLUMN = "do"
SEPARATOR = ";"
_MISSING = ("", "None", "nan", "NaN", "NaT", "NA", "<NA>")


@dataclass(frozen=True)
class Table:
    """Checked rows: `values` ``[n, n_vars]`` float64, `mask` ``[n, n_vars]`` True where set.

    A value that was not measured in an experiment is NaN: all but what was set where it failed.
    """

    variables: tuple[str, ...]
    values: np.ndarray
    mask: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """The experiments of which nothing was measured, bool ``[n]``."""
        tried = self.mask.any(axis=1) & ~self.mask.all(axis=1)
        return np.asarray(tried & (self.mask | np.isnan(self.values)).all(axis=1))

    def without(self, some: np.ndarray) -> Table:
        """The other rows; bool ``[n]``."""
        return Table(self.variables, self.values[~some], self.mask[~some])


def read_csv(path: str | Path, ignore: Iterable[str] = ()) -> Table:
    """Read a data file: one column a variable, and optionally ``do`` with the names set in a row.

    Of an experiment some values may be missing, as where the target alone was measured, or all but
    what was set, where it failed.

    Raises:
        DataError: the file is missing, empty, has duplicate columns or cells that are no numbers.
        UnknownNameError: ``do`` or `ignore` names a column that does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such file: {str(path)!r}")
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder; a CSV file is needed")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not a text file in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{str(path)!r} cannot be read as CSV: {error}") from error
    if not lines:
        raise DataError(f"{str(path)!r} is empty; its first line must name the columns")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    _check_names(header)
    for number, row in enumerate(rows, start=1):
        row.extend([""] * (len(header) - len(row)))  # what is cut off is missing, named as such
        if len(row) > len(header):
            raise DataError(
                f"row {number} has {len(row)} cells; the first line names {len(header)} columns"
            )
    return from_frame(pd.DataFrame(rows, columns=header, dtype=str), ignore)


def from_frame(frame: pd.DataFrame, ignore: Iterable[str] = ()) -> Table:
    """Check a DataFrame in the layout of a data file; see `read_csv` for what is raised."""
    names = [str(name) for name in frame.columns]
    _check_names(names)
    frame = frame.set_axis(names, axis=1)
    ignored = set()
    for name in ignore:
        if name not in names:
            raise UnknownNameError(f"unknown column to ignore: {name!r}{nearest(name, names)}")
        ignored.add(name)
    variables = tuple(name for name in names if name not in ignored and name != DO_COLUMN)
    if not variables:
        raise DataError("the table has no variables: every column is ignored or named 'do'")
    _refuse_separator(variables)
    if len(frame) == 0:
        raise DataError("the table has column names but no rows; at least 2 rows are needed")
    if DO_COLUMN in names and DO_COLUMN not in ignored:
        mask = _mask(frame[DO_COLUMN], variables, ignored)
    else:
        mask = np.zeros((len(frame), len(variables)), dtype=bool)
    values = _values([frame[name] for name in variables], variables, mask)
    measured = np.zeros(len(frame), dtype=bool)
    for name in ignored - {DO_COLUMN}:
        measured |= ~_lacks(frame[name])
    # What measured ignored columns alone did not fail, and says nothing.
    table = Table(variables, values, mask)
    return table.without(table.failed & measured)


def from_arrays(values: np.ndarray, mask: np.ndarray | None, names: Sequence[str] | None) -> Table:
    """Check an array ``[n, n_vars]`` with a boolean mask of its shape, True where a value was set.

    NaN stands for a value that was not measured in an experiment.

    Raises:
        DataError: shapes that do not fit, cells that are not finite numbers, names that cannot be.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"data have shape {array.shape}; expected two axes [n_rows, n_vars]")
    if names is None:
        names = [f"X{i + 1}" for i in range(array.shape[1])]
    names = list(map(str, names))
    if len(names) != array.shape[1]:
        raise DataError(f"{len(names)} names were given for {array.shape[1]} columns")
    _check_names(names)
    _refuse_separator(names)
    if DO_COLUMN in names:
        raise DataError(
            f"{DO_COLUMN!r} cannot name a variable: a table's column of that name says what was set"
        )
    if mask is None:
        mask = np.zeros(array.shape, dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != array.shape:
        raise DataError(
            f"the mask of interventions has shape {mask.shape}; expected that of the data, "
            f"{array.shape}"
        )
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise DataError("the mask of interventions may hold only True and False (or 1 and 0)")
    columns = [pd.Series(array[:, i]) for i in range(len(names))]
    mask = mask.astype(bool)
    return Table(tuple(names), _values(columns, names, mask), mask)


def to_frame(variables: Sequence[str], values: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    """Return rows as a DataFrame; the column ``do`` is there when any value was set."""
    frame = pd.DataFrame(values, columns=list(variables))
    if mask.any():
        names = np.asarray(variables, dtype=object)
        frame[DO_COLUMN] = [SEPARATOR.join(names[row]) for row in mask]
    return frame


def _check_names(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"column {repeated[0]!r} occurs more than once; give every column one name")
    if any(not name.strip() for name in names):
        raise DataError("a column has no name; name every column in the first line")


def _refuse_separator(variables: Sequence[str]) -> None:
    for name in variables:
        if SEPARATOR in name:
            raise DataError(
                f"column {name!r} has {SEPARATOR!r} in its name, which stands between the names in "
                "the column 'do'; rename it, or, where it is several columns, put commas between"
            )


def _lacks(column: pd.Series) -> np.ndarray:
    """Which cells hold nothing, bool ``[n]``."""
    return np.array([str(cell).strip() in _MISSING for cell in column], dtype=bool)


def _values(columns: Sequence[pd.Series], names: Sequence[str], mask: np.ndarray) -> np.ndarray:
    """The columns as float64 ``[n, n_vars]``; NaN where an experiment did not measure a value."""
    tried = mask.any(axis=1)
    return np.column_stack(
        [
            _numbers(column, name, may_lack=tried & ~mask[:, i])
            for i, (column, name) in enumerate(zip(columns, names, strict=True))
        ]
    )


def _numbers(column: pd.Series, name: str, may_lack: np.ndarray) -> np.ndarray:
    """Return a column as float64, or say which cell is no finite number (rows count from 1)."""
    parsed = pd.to_numeric(column, errors="coerce")
    types = pd.api.types
    plain = types.is_numeric_dtype, types.is_object_dtype, types.is_string_dtype
    if not any(is_kind(column) for is_kind in plain) or parsed.dtype.kind not in "biuf":
        # Dates and complex numbers are numbers to pandas.
        parsed = pd.to_numeric(column.astype(str), errors="coerce")
    numbers = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(numbers))
    missing = _lacks(column.iloc[bad])
    allowed = missing & may_lack[bad]
    bad, missing = bad[~allowed], missing[~allowed]
    if bad.size:
        row = int(bad[0])
        cell = str(column.iloc[row])
        problem = "is missing" if missing[0] else f"is {cell!r}, which is no finite number"
        more = f" ({bad.size - 1} more such cells in this column)" if bad.size > 1 else ""
        raise DataError(f"column {name!r}, row {row + 1}: the value {problem}{more}")
    return numbers


def names_set(cell: str) -> list[str]:
    """The names in a cell of the column ``do``, spaces around them included."""
    return [part for part in cell.split(SEPARATOR) if part.strip()]


def _mask(column: pd.Series, variables: tuple[str, ...], ignored: set[str]) -> np.ndarray:
    mask = np.zeros((len(column), len(variables)), dtype=bool)
    # Spaces around a name do not count, unless two names differ in nothing else.
    index = {name.strip(): i for i, name in enumerate(variables)}
    index |= {name: i for i, name in enumerate(variables)}
    cells = column.astype(object).where(column.notna(), "").astype(str)
    for cell in cells.unique():
        parts = names_set(cell)
        rows = np.flatnonzero(cells.to_numpy() == cell)
        for part in parts:
            name = part if part in index else part.strip()
            if name in ignored:
                raise DataError(
                    f"column 'do', row {int(rows[0]) + 1}: {name!r} was set there but its column "
                    "is ignored; leave those rows out, or keep the column"
                )
            if name not in index:
                raise UnknownNameError(
                    f"column 'do', row {int(rows[0]) + 1}: unknown variable {name!r}"
                    f"{nearest(name, variables)}"
                )
            mask[rows, index[name]] = True
    return mask
