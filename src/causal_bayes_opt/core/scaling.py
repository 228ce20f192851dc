"""Scaling by the observational rows: what makes every answer independent of units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import DataError


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations (ddof 0) ``[n_vars]`` of the observational rows."""

    means: np.ndarray
    stds: np.ndarray

    def __post_init__(self) -> None:
        for name in ("means", "stds"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, buffer: ExperienceBuffer) -> Scaling:
        """Measure the scaling of a buffer's observational rows.

        Raises:
            DataError: fewer than 2 observational rows, or a column that is constant in them.
        """
        return cls.of_rows(buffer.get_observations_as_array(), buffer.get_variable_names())

    @classmethod
    def of_rows(cls, observations: np.ndarray, names: list[str]) -> Scaling:
        """Measure the scaling of rows ``[n_obs, n_vars]``; raises what `of` raises."""
        if len(observations) < 2:
            raise DataError(
                f"observational rows: {len(observations)}; at least 2 rows in which nothing was "
                "set are needed to know the scale of the variables"
            )
        # In units of a power of two, which costs no digit, so that no square over- or underflows.
        unit = np.ldexp(1.0, np.frexp(np.abs(observations).max(axis=0))[1] - 1)
        values = observations / unit
        means = values.mean(axis=0)
        stds = (values - means).std(axis=0)
        # A spread within rounding error of the values themselves is no spread.
        flat = stds <= 1e-13 * np.abs(values).max(axis=0)
        if flat.any():
            index = int(np.flatnonzero(flat)[0])
            raise DataError(
                f"column {names[index]!r} is constant ({means[index] * unit[index]:g}) in the "
                "observational rows, so nothing can be learned about it; leave it out"
            )
        return cls(means * unit, stds * unit)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Turn values ``[..., n_vars]`` in the user's units into standardised ones."""
        return np.asarray((values - self.means) / self.stds)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Turn standardised values ``[..., n_vars]`` into the user's units."""
        return np.asarray(values * self.stds + self.means)
