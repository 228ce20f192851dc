"""Sums over subsets of variables, in logarithms, as the programme of `exact` needs them.

A set is the integer that has a bit for each of its members. A set that lacks a variable may be
counted without it: the bits above are then a place lower. `exact` says what A, L and R are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from causal_bayes_opt.surrogate.bge import set_sizes


def sum_over_subsets(log_values: np.ndarray) -> np.ndarray:
    """Zeta transform along the last axis, in logarithms and in place."""
    return _transform(log_values, source=0, sink=1)


def sum_over_supersets(log_values: np.ndarray) -> np.ndarray:
    """The same over the sets that hold each."""
    return _transform(log_values, source=1, sink=0)


def _transform(log_values: np.ndarray, source: int, sink: int) -> np.ndarray:
    for bit in range(log_values.shape[-1].bit_length() - 1):
        sum_over_bit(log_values, bit, source, sink)
    return log_values


def sum_over_bit(log_values: np.ndarray, bit: int, source: int, sink: int) -> np.ndarray:
    """One step of these, in place: sets without an item (0) or with it (1) added to the others."""
    view = log_values.reshape(*log_values.shape[:-1], -1, 2, 1 << bit)
    np.logaddexp(view[..., source, :], view[..., sink, :], out=view[..., sink, :])
    return log_values


def over_prefixes(below: np.ndarray) -> np.ndarray:
    """Log L of all subsets of the variables ``[..., 2^n_vars]``.

    Args:
        below: log A_j(U) ``[..., n_vars, 2^(n_vars - 1)]``, U counted without j.
    """
    left = np.full((*below.shape[:-2], 2 ** below.shape[-2]), -np.inf)
    left[..., 0] = 0.0
    for level in _levels(below.shape[-2])[1:]:
        terms = below[..., level.inside, level.rest_own] + left[..., level.rest]
        left[..., level.sets] = np.logaddexp.reduce(terms, axis=-1)
    return left


def over_suffixes(below: np.ndarray) -> np.ndarray:
    """Log R, likewise."""
    right = np.full((*below.shape[:-2], 2 ** below.shape[-2]), -np.inf)
    right[..., -1] = 0.0
    for level in reversed(_levels(below.shape[-2])[:-1]):
        terms = below[..., level.outside, level.sets_own] + right[..., level.larger]
        right[..., level.sets] = np.logaddexp.reduce(terms, axis=-1)
    return right


class _Level(NamedTuple):
    """All subsets with k members, and their neighbours with one member less or more."""

    sets: np.ndarray  # [n_sets]
    inside: np.ndarray  # [n_sets, k], the members i of each set U
    rest: np.ndarray  # [n_sets, k], U - i
    rest_own: np.ndarray  # [n_sets, k], U - i counted without i
    outside: np.ndarray  # [n_sets, n_vars - k], the others i
    larger: np.ndarray  # [n_sets, n_vars - k], U + i
    sets_own: np.ndarray  # [n_sets, n_vars - k], U counted without i


def _levels(d: int) -> list[_Level]:
    return _cached_levels(d) if d <= 12 else _make_levels(d)


@lru_cache(maxsize=12)
def _cached_levels(d: int) -> list[_Level]:
    return _make_levels(d)


def _make_levels(d: int) -> list[_Level]:
    sizes = set_sizes(d)
    order = np.argsort(sizes, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(sizes, minlength=d + 1))
    levels = []
    for k in range(d + 1):
        sets = order[ends[k] - np.count_nonzero(sizes == k) : ends[k]]
        member = (sets[:, None] >> np.arange(d, dtype=np.int32) & 1).astype(bool)
        inside = np.nonzero(member)[1].reshape(len(sets), k).astype(np.int32)
        outside = np.nonzero(~member)[1].reshape(len(sets), d - k).astype(np.int32)
        rest = sets[:, None] ^ (1 << inside)
        larger = sets[:, None] | (1 << outside)
        levels.append(
            _Level(
                sets,
                inside,
                rest,
                drop_bit(rest, inside),
                outside,
                larger,
                drop_bit(np.broadcast_to(sets[:, None], outside.shape), outside),
            )
        )
    return levels


def drop_bit(sets: np.ndarray, bit: np.ndarray) -> np.ndarray:
    """Sets (which do not hold `bit`) counted without that variable."""
    low = sets & ((1 << bit) - 1)
    return np.asarray(low | (sets >> (bit + 1) << bit))


def without(d: int, t: int) -> np.ndarray:
    """All subsets that do not hold t, in the order in which they count without it."""
    own = np.arange(2 ** (d - 1))
    return np.asarray((own & ((1 << t) - 1)) | (own >> t << (t + 1)))
