"""Shapes and precision of jitted code: padded sizes that are compiled once, float64 on request."""

from __future__ import annotations

from contextlib import AbstractContextManager
from zlib import crc32

import jax
import numpy as np

# The smallest sizes that are compiled; larger ones are these times a power of two (four for sets).
VARIABLES, ROWS, EXPERIMENTS, SETS = 8, 64, 16, 4


def double() -> AbstractContextManager[None]:
    """Return a context in which JAX computes in float64, in this thread alone."""
    context: AbstractContextManager[None] = jax.enable_x64(True)
    return context


def bucket(n: int, smallest: int, factor: int = 2) -> int:
    """Return the smallest of ``smallest * factor**k`` that holds `n`."""
    size = smallest
    while size < n:
        size *= factor
    return size


def pad(array: np.ndarray, *sizes: int, fill: float = 0.0) -> np.ndarray:
    """Return a copy whose leading axes have the given sizes; what is new holds `fill`."""
    shape = (*sizes, *array.shape[len(sizes) :])
    out = np.full(shape, fill, dtype=array.dtype)
    out[tuple(slice(n) for n in array.shape)] = array
    return out


def name_codes(names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Return a number for each name ``[n_names]``, so that draws follow names and not places."""
    return np.array([crc32(name.encode()) for name in names], dtype=np.uint32)
