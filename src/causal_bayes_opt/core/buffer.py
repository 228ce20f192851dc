"""ExperienceBuffer: everything that was observed and tried, in the order in which it happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from causal_bayes_opt.core import table
from causal_bayes_opt.core.intervention import Intervention, make_intervention
from causal_bayes_opt.errors import DataError, check_name

_Found = TypeVar("_Found")


@dataclass
class _Log:
    """Grown by doubling; shared between copies, each of which sees only its own length."""

    values: np.ndarray
    mask: np.ndarray
    used: int = 0


class ExperienceBuffer:
    """Append-only log of observations and experiments on named variables.

    Rows are in the user's units and order. A row is an experiment when at least one of its values
    was set. An outcome may be the whole row or the target alone; what was not measured is NaN, and
    such rows are left out of `rows` and of the arrays (see `all_rows`). Experiments without any
    outcome are no rows: they are kept apart, as `failed`.

    Args:
        variables: the names, in the user's order; None takes those of the first row.
    """

    def __init__(self, variables: Sequence[str] | None = None) -> None:
        self._variables: tuple[str, ...] | None = None
        self._length = 0
        self._log = _Log(np.empty((0, 0)), np.empty((0, 0), dtype=bool))
        self._failed: tuple[Intervention, ...] = ()
        self._found: dict[Any, Any] | None = None  # kept where rows can no longer change
        if variables is not None:
            self._name(variables)

    # -- in ------------------------------------------------------------------------------------

    def add_observation(self, row: Mapping[str, float]) -> None:
        """Append one row in which nothing was set; every variable must be there.

        Raises:
            DataError: a value is missing or not finite.
            UnknownNameError: a name is not among the variables.
        """
        self.add_observations([row])

    def add_observations(
        self, rows: pd.DataFrame | np.ndarray | Iterable[Mapping[str, float]]
    ) -> None:
        """Append observed rows: a DataFrame, an array ``[n, n_vars]`` or mappings.

        Either all rows are appended or, where one is refused, none. Raises what `add_observation`
        raises, and `DataError` for arrays and columns that do not fit.
        """
        if isinstance(rows, pd.DataFrame):
            self._extend(table.from_frame(rows))
        elif hasattr(rows, "__array__"):
            self._extend(table.from_arrays(np.asarray(rows), None, self._variables))
        elif given := list(rows):
            names = self._variables or _names_of(given[0])
            values = np.array([_row_values(row, names) for row in given])
            _require_complete(values, names)
            self._append(names, values, np.zeros(values.shape, dtype=bool))

    def add_intervention(
        self, intervention: Mapping[str, float], outcome: Mapping[str, float]
    ) -> None:
        """Append one experiment.

        Args:
            intervention: the names set and their values.
            outcome: the values measured, of every variable or of the target alone. What was set
                need not be repeated; if it is, it must agree.

        Raises:
            DataError: nothing was set, an empty outcome, a value that is not finite or disagrees.
            UnknownNameError: a name is not among the variables.
        """
        if len(intervention) == 0:
            raise DataError("an experiment must set at least one variable; else add an observation")
        names = self._variables or tuple(
            dict.fromkeys((*_names_of(outcome), *_names_of(intervention)))
        )
        levels, measured = _row_values(intervention, names), _row_values(outcome, names)
        mask = ~np.isnan(levels)
        for i in np.flatnonzero(mask & ~np.isnan(measured)):
            # Room for an outcome in float32, and for a zero that was measured; in any unit.
            same = math.isclose(measured[i], levels[i], rel_tol=1e-5)
            if not same and abs(measured[i] - levels[i]) > 1e-6 * self._width(int(i)):
                raise DataError(
                    f"{names[i]!r} was set to {levels[i]:g} but its outcome is {measured[i]:g}"
                )
        if np.isnan(measured[~mask]).all():
            raise DataError(
                "the outcome measures nothing but what was set; give at least the target"
            )
        self._append(names, np.where(mask, levels, measured)[None, :], mask[None, :])

    def add_failure(self, intervention: Mapping[str, float]) -> None:
        """Take note of an experiment that gave no outcome.

        Raises:
            DataError: nothing was set, or a value is not finite.
            UnknownNameError: a name is not among the variables.
        """
        self._require_growing()
        if self._variables is None:
            raise DataError("the variables have no names yet; add an observation first")
        for name in _names_of(intervention):
            check_name(name, self._variables, "variable")
        done = {str(name): value for name, value in intervention.items()}
        if not 0 < len(done) < len(self._variables):
            raise DataError("an experiment sets at least one variable, and never all of them")
        self._failed = (*self._failed, make_intervention(done))

    def _width(self, column: int) -> float:
        """Over how much a variable has varied so far."""
        values = self._log.values[: self._length, column] if self._length else np.zeros(1)
        known = values[np.isfinite(values)]
        return float(np.ptp(known)) if len(known) else 0.0

    @classmethod
    def from_dataframe(cls, frame: pd.DataFrame, ignore: Iterable[str] = ()) -> ExperienceBuffer:
        """Read rows in the data-file layout (a column a variable, optional column ``do``)."""
        return cls.from_table(table.from_frame(frame, ignore))

    @classmethod
    def from_csv(cls, path: str | Path, ignore: Iterable[str] = ()) -> ExperienceBuffer:
        """Read a data file; see `core.table.read_csv` for the layout and what is raised."""
        return cls.from_table(table.read_csv(path, ignore))

    @classmethod
    def from_arrays(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None = None,
        names: Sequence[str] | None = None,
    ) -> ExperienceBuffer:
        """Take an array ``[n, n_vars]`` and a boolean mask of its shape, True where set.

        NaN stands for what an experiment did not measure.
        """
        return cls.from_table(table.from_arrays(values, mask, names))

    @classmethod
    def from_table(cls, rows: table.Table) -> ExperienceBuffer:
        """Take rows that were checked at the boundary."""
        buffer = cls(rows.variables)
        buffer._extend(rows)
        return buffer

    # -- out -----------------------------------------------------------------------------------

    def all_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Values ``[n, n_vars]`` float64 (NaN where not measured) and mask, in order of time."""
        return self._log.values[: self._length].copy(), self._log.mask[: self._length].copy()

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Complete rows: values ``[n, n_vars]`` float64, mask ``[n, n_vars]`` True where set.

        Those of a frozen buffer are found once, and cannot be written to.
        """
        return self.once(_complete)

    def get_observations_as_array(self) -> np.ndarray:
        """Observational rows ``[n_obs, n_vars]``, float64, user's units."""
        values, mask = self.rows()
        return values[~mask.any(axis=1)]

    def get_interventions_as_array(self) -> np.ndarray:
        """Experimental rows ``[n_int, n_vars, 2]``, float64: value and indicator (1 where set)."""
        values, mask = self.rows()
        tried = mask.any(axis=1)
        return np.stack([values[tried], mask[tried].astype(np.float64)], axis=-1)

    @property
    def failed(self) -> tuple[Intervention, ...]:
        """The experiments that gave no outcome."""
        return self._failed

    def get_variable_names(self) -> list[str]:
        """The names, in the user's order (empty while nothing is known)."""
        return list(self._variables or ())

    def to_dataframe(self) -> pd.DataFrame:
        """All rows in the data-file layout; experiments that failed come last, without outcome."""
        names, (values, mask) = self.get_variable_names(), self.all_rows()
        levels = np.array([[done.get(name, np.nan) for name in names] for done in self._failed])
        levels = levels.reshape(len(self._failed), len(names))
        values, mask = np.vstack([values, levels]), np.vstack([mask, ~np.isnan(levels)])
        return table.to_frame(names, values, mask)

    def to_csv(self, path: str | Path) -> None:
        """Write a data file that `from_csv` reads back bit by bit.

        A value that was not measured is an empty cell; experiments that failed come last.
        """
        # The shortest digits that give the same number back.
        self.to_dataframe().to_csv(path, index=False, float_format=float.__repr__)

    def copy(self) -> ExperienceBuffer:
        """Return a buffer with the same rows; either may grow without the other seeing it.

        Rows are shared, not duplicated: the cost does not depend on their number.
        """
        other = ExperienceBuffer()
        other._variables, other._length, other._log = self._variables, self._length, self._log
        other._failed = self._failed
        return other

    def frozen(self) -> ExperienceBuffer:
        """Return the same rows as a buffer that refuses to grow; a copy of that may."""
        if self._found is not None:
            return self
        other = self.copy()
        other._found = {}
        return other

    @property
    def is_frozen(self) -> bool:
        """Whether it refuses to grow."""
        return self._found is not None

    def once(self, find: Callable[[ExperienceBuffer], _Found]) -> _Found:
        """What a pure function finds in the rows; a frozen buffer asks it once."""
        if self._found is None:
            return find(self)
        if find not in self._found:
            self._found[find] = find(self)
        found: _Found = self._found[find]
        return found

    @property
    def n_observations(self) -> int:
        """Number of rows in which nothing was set."""
        return self._length - self.n_interventions

    @property
    def n_interventions(self) -> int:
        """Number of rows in which something was set."""
        return int(self._log.mask[: self._length].any(axis=1).sum())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the rows: how many are not complete."""
        left_out = self._length - len(self.rows()[0])
        if not left_out:
            return ()
        return (
            f"{left_out} of {self._length} rows lack a value: of these, outcomes of the target "
            "alone count, and for its causes only where mechanisms are linear",
        )

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExperienceBuffer):
            return NotImplemented
        mine, theirs = self.all_rows(), other.all_rows()
        return (
            self._variables == other._variables
            and np.array_equal(mine[0], theirs[0], equal_nan=True)
            and np.array_equal(mine[1], theirs[1])
            and self._failed == other._failed
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"ExperienceBuffer({self.n_observations} observations, "
            f"{self.n_interventions} experiments on {len(self._variables or ())} variables)"
        )

    # -- inside --------------------------------------------------------------------------------

    def _name(self, variables: Sequence[str]) -> None:
        names = tuple(map(str, variables))
        # The same checks as for a file: duplicates and nameless columns are refused.
        table.from_arrays(np.zeros((0, len(names))), None, names)
        self._variables = names
        self._log = _Log(np.empty((0, len(names))), np.empty((0, len(names)), dtype=bool))

    def _extend(self, rows: table.Table) -> None:
        names = self._variables or rows.variables
        if set(rows.variables) != set(names):
            raise DataError(
                f"rows have the variables {list(rows.variables)}; the buffer has {list(names)}"
            )
        order = [rows.variables.index(name) for name in names]
        values, mask = rows.values[:, order], rows.mask[:, order]
        failed = rows.failed
        self._append(names, values[~failed], mask[~failed])
        for level, was_set in zip(values[failed], mask[failed], strict=True):
            self.add_failure({names[i]: level[i] for i in np.flatnonzero(was_set)})

    def _require_growing(self) -> None:
        if self._found is not None:
            raise DataError("these rows belong to a state and stay as they are; add to a copy")

    def _append(self, names: tuple[str, ...], values: np.ndarray, mask: np.ndarray) -> None:
        """Append rows that were checked; `names` become the buffer's where it has none yet."""
        self._require_growing()
        if self._variables is None:
            self._name(names)
        log, end = self._log, self._length + len(values)
        if log.used != self._length or end > len(log.values):
            log = _grown(log, self._length, end)
            self._log = log
        log.values[self._length : end] = values
        log.mask[self._length : end] = mask
        log.used = self._length = end


def _complete(buffer: ExperienceBuffer) -> tuple[np.ndarray, np.ndarray]:
    values, mask = buffer.all_rows()
    complete = np.isfinite(values).all(axis=1)
    values, mask = values[complete], mask[complete]
    if buffer.is_frozen:
        values.flags.writeable = mask.flags.writeable = False
    return values, mask


def _names_of(row: Mapping[str, float]) -> tuple[str, ...]:
    if not hasattr(row, "items"):
        raise DataError(f"a row is {row!r}; expected a mapping from names to values")
    return tuple(str(name) for name, _ in row.items())


def _row_values(row: Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    """The values ``[n_vars]`` of one row, NaN where a name is not in it."""
    _names_of(row)
    values = dict.fromkeys(names, math.nan)
    for name, value in row.items():
        check_name(str(name), names, "variable")
        try:
            values[str(name)] = float(value)
        except (TypeError, ValueError):
            values[str(name)] = math.nan
        if not math.isfinite(values[str(name)]):
            raise DataError(f"variable {name!r} is {value!s}; a finite number is needed")
    return np.array(list(values.values()))


def _require_complete(values: np.ndarray, names: tuple[str, ...]) -> None:
    missing = np.flatnonzero(np.isnan(values).any(axis=0))
    if missing.size:
        raise DataError(
            f"an observation lacks a value of {names[missing[0]]!r}; all variables are needed"
        )


def _grown(log: _Log, length: int, needed: int) -> _Log:
    """A log of its own with the first `length` rows and room for at least `needed`."""
    room = max(16, 2 * needed)
    values = np.empty((room, log.values.shape[1]))
    mask = np.zeros((room, log.mask.shape[1]), dtype=bool)
    values[:length], mask[:length] = log.values[:length], log.mask[:length]
    return _Log(values, mask, length)
