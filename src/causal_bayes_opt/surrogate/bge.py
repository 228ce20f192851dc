"""BGe scores: how well each set of parents explains a variable of a linear Gaussian system.

The marginal likelihood of Geiger and Heckerman (2002) in the form of Kuipers, Moffa and Heckerman
(2014), with alpha_mu = 1, alpha_w = n_vars + 2 and nu = 0 on standardised data, over the rows in
which the variable was not set (Cooper and Yoo, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from causal_bayes_opt.errors import DataError

ALPHA_MU = 1.0
ALPHA_W_EXCESS = 2  # alpha_w - n_vars
T = ALPHA_MU * (ALPHA_W_EXCESS - 1) / (ALPHA_MU + 1)
# No pivot is below T: R - T I has no negative eigenvalue. Where rows lie 10^6 standard deviations
# out, rounding hides that, and what is below the rounding error of its own diagonal says nothing.
_ROUNDING = 4 * float(np.finfo(np.float64).eps)
_LARGEST = 1e100


@dataclass(frozen=True)
class Statistics:
    """What the scores of all variables need of the rows; leading axes ``[...]`` may be systems.

    Attributes:
        scatter: sums of products ``[..., n_vars, n_vars, n_vars]``; [j] over the rows in which
            j was not set.
        total: sums ``[..., n_vars, n_vars]``, likewise.
        count: number of such rows ``[..., n_vars]``.
    """

    scatter: np.ndarray
    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, mask: np.ndarray) -> Statistics:
        """Gather the statistics of rows ``[n_rows, n_vars]``, mask True where a value was set.

        One product a regime (rows in which the same variables were set), then sums of regimes.

        Raises:
            DataError: a value is not finite, or too large to be squared.
        """
        d, largest = values.shape[1], np.abs(values).max(initial=0.0)
        if not largest < _LARGEST:
            raise DataError(
                f"a value lies {largest:g} standard deviations from the observed mean; less than "
                f"{_LARGEST:g} is needed; check the units of the rows in which it was set"
            )
        scatter, total, count = np.zeros((d, d, d)), np.zeros((d, d)), np.zeros(d)
        for members in _regimes(mask):
            rows, free = values[members], ~mask[members[0]]
            scatter[free] += rows.T @ rows
            total[free] += rows.sum(axis=0)
            count[free] += len(rows)
        return cls(scatter, total, count)

    @classmethod
    def stack(cls, parts: Sequence[Statistics]) -> Statistics:
        """Statistics of several systems of as many variables, with a leading axis."""
        return cls(
            np.stack([part.scatter for part in parts]),
            np.stack([part.total for part in parts]),
            np.stack([part.count for part in parts]),
        )

    def loses_digits(self) -> bool:
        """Whether rows lie so far out that rounding hides what the others say."""
        d = self.count.shape[-1]
        largest = np.diagonal(self.scatter, axis1=-2, axis2=-1).max(initial=0.0)
        return bool(_ROUNDING * d * largest > T)

    def posterior_scale(self) -> np.ndarray:
        """The matrix R of the score, for every variable ``[..., n_vars, n_vars, n_vars]``."""
        outer = self.total[..., :, None] * self.total[..., None, :]
        centred = self.scatter - outer / (self.count + ALPHA_MU)[..., None, None]
        return np.asarray(centred + T * np.eye(self.scatter.shape[-1]))


def scores_of_all_sets(statistics: Statistics) -> np.ndarray:
    """Scores of all parent sets of all variables.

    Returns:
        ``[..., n_vars, 2^(n_vars - 1)]``; row r of variable j is the set of those other variables,
        counted in order without j, whose bits are set in r.
    """
    return scores_up_to(statistics, statistics.count.shape[-1] - 1)[1]


def scores_up_to(statistics: Statistics, max_parents: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all parent sets with at most `max_parents` members.

    One sweep does it: candidates are taken one after the other, and each doubles a stack of
    matrices into those in which it is left out and those in which it is eliminated (the latter only
    where there is room for one more). What remains in the end is the conditional scale of the
    variable given each set, and the pivots' product the set's determinant.

    Returns:
        the sets as rows of `scores_of_all_sets`, int ``[n_sets]`` in ascending order, and scores
        ``[..., n_vars, n_sets]``.
    """
    d = statistics.count.shape[-1]
    own_last = np.array([[i for i in range(d) if i != j] + [j] for j in range(d)])
    matrix, nodes = statistics.posterior_scale(), np.arange(d)[:, None, None]
    stack = matrix[..., nodes, own_last[:, :, None], own_last[:, None, :]]
    floor = np.maximum(T, _ROUNDING * d * np.diagonal(stack, axis1=-2, axis2=-1))[..., None]
    stack, log_det = stack[..., None, :, :], np.zeros((*matrix.shape[:-2], 1))
    rows, sizes = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    for bit in range(d - 1):
        pivot = np.maximum(stack[..., 0, 0], floor[..., bit, :])
        column, rest = stack[..., 1:, 0], stack[..., 1:, 1:]
        room = slice(None) if bit < max_parents else sizes < max_parents
        pivot, column = pivot[..., room], column[..., room, :]
        share = column / pivot[..., None]
        reduced = rest[..., room, :, :] - share[..., :, None] * column[..., None, :]
        stack = np.concatenate([rest, reduced], axis=-3)
        log_det = np.concatenate([log_det, log_det[..., room] + np.log(pivot)], axis=-1)
        rows = np.concatenate([rows, rows[room] | 1 << bit])
        sizes = np.concatenate([sizes, sizes[room] + 1])
    log_cond = np.log(np.maximum(stack[..., 0, 0], floor[..., d - 1, :]))
    return rows, _score(log_det, log_cond, sizes, statistics.count[..., None])


def _regimes(mask: np.ndarray) -> list[np.ndarray]:
    """Positions of the rows of each regime."""
    packed = np.packbits(mask, axis=1)
    order = np.lexsort(packed.T)
    changes = (packed[order][1:] != packed[order][:-1]).any(axis=1)
    starts = np.flatnonzero(np.append(True, changes)[: len(order)])
    return np.split(order, starts)[1:]


@lru_cache(maxsize=32)
def set_sizes(n: int) -> np.ndarray:
    """Number of members of each subset of `n` items ``[2^n]``."""
    sizes = np.zeros(1, dtype=np.int64)
    for _ in range(n):
        sizes = np.concatenate([sizes, sizes + 1])
    sizes.flags.writeable = False
    return sizes


def _score(
    log_det: np.ndarray, log_cond: np.ndarray, size: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """The score from log |R_PP| and log (|R_Pj| / |R_PP|).

    log p(D_j | P) = 1/2 log(a/(N+a)) + lnG((N+e+k+1)/2) - lnG((e+k+1)/2) - N/2 ln pi
        + (e+2k+1)/2 ln t + (N+e+k)/2 ln|R_PP| - (N+e+k+1)/2 ln|R_Pj|,
    with k = |P|, a = alpha_mu and e = alpha_w - n_vars.
    """
    shape = (ALPHA_W_EXCESS + size + 1) / 2
    return np.asarray(
        0.5 * np.log(ALPHA_MU / (count + ALPHA_MU))
        + gammaln(count / 2 + shape)
        - gammaln(shape)
        - 0.5 * count * np.log(np.pi)
        + (ALPHA_W_EXCESS + 2 * size + 1) / 2 * np.log(T)
        - 0.5 * log_det
        - (count / 2 + shape) * log_cond
    )
