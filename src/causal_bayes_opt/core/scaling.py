"""Scaling by the observational rows: what makes every answer independent of units.

A variable that was always left at the same value, and varies only where it was set (a treatment
that nobody gets by himself), is scaled by the largest distance at which it was set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import DataError

_ROUNDING = 1e-13  # of the largest value


def only_set(buffer: ExperienceBuffer) -> tuple[str, ...]:
    """The variables that vary where they were set and nowhere else."""
    return buffer.once(_only_set)


def _only_set(buffer: ExperienceBuffer) -> tuple[str, ...]:
    values, mask = buffer.all_rows()
    observed, names = values[~mask.any(axis=1)], buffer.get_variable_names()
    if len(observed) < 2:
        return ()
    found = np.flatnonzero(_moments(observed)[2] & mask.any(axis=0))
    return tuple(names[int(i)] for i in found)


def _moments(observed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, standard deviations, and whether a column is constant, each ``[n_vars]``."""
    largest = np.abs(observed).max(axis=0)
    # In units of a power of two, which costs no digit, so that no square over- or underflows.
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)
    scaled = observed / unit
    means = scaled.mean(axis=0)
    stds = (scaled - means).std(axis=0)
    # A spread within rounding error of the values themselves is no spread.
    flat = np.asarray(stds <= _ROUNDING * np.abs(scaled).max(axis=0))
    return means * unit, stds * unit, flat


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations (ddof 0) ``[n_vars]`` of the observational rows.

    In place of a deviation of 0 stands the largest distance from the mean at which the variable
    was set.
    """

    means: np.ndarray
    stds: np.ndarray

    def __post_init__(self) -> None:
        for name in ("means", "stds"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, buffer: ExperienceBuffer) -> Scaling:
        """Measure the scaling of a buffer.

        Raises:
            DataError: fewer than 2 observational rows, a column that is constant in them and was
                never set to another value, or all columns constant in them.
        """
        return buffer.once(_scaling)

    @classmethod
    def of_rows(
        cls, values: np.ndarray, names: Sequence[str], mask: np.ndarray | None = None
    ) -> Scaling:
        """Measure the scaling of rows ``[n_rows, n_vars]``, mask True where a value was set.

        Raises what `of` raises.
        """
        was_set = np.zeros(values.shape, dtype=bool) if mask is None else mask
        observations = values[~was_set.any(axis=1)]
        if len(observations) < 2:
            raise DataError(
                f"observational rows: {len(observations)}; at least 2 rows in which nothing was "
                "set are needed to know the scale of the variables"
            )
        means, stds, flat = _moments(observations)
        if flat.all() and was_set.any(axis=0).all():
            raise DataError("every column is constant where nothing was set: nothing shows causes")
        for i in np.flatnonzero(flat):
            stds[i] = np.abs(values[was_set[:, i], i] - means[i]).max(initial=0.0)
            if stds[i] <= _ROUNDING * abs(means[i]):
                raise DataError(
                    f"column {names[int(i)]!r} is constant ({means[i]:g}) in the observational "
                    "rows, so nothing can be learned about it; leave it out"
                )
        return cls(means, stds)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Turn values ``[..., n_vars]`` in the user's units into standardised ones."""
        return np.asarray((values - self.means) / self.stds)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Turn standardised values ``[..., n_vars]`` into the user's units."""
        return np.asarray(values * self.stds + self.means)


def _scaling(buffer: ExperienceBuffer) -> Scaling:
    values, mask = buffer.all_rows()  # what was set is known, whatever was measured
    return Scaling.of_rows(values, buffer.get_variable_names(), mask)
