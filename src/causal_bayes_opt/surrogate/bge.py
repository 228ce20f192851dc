"""BGe scores: how well each set of parents explains a variable of a linear Gaussian system.

The marginal likelihood of Geiger and Heckerman (2002) in the form of Kuipers, Moffa and Heckerman
(2014), with alpha_mu = 1, alpha_w = n_vars + 2 and nu = 0 on standardised data, over the rows in
which the variable was not set (Cooper and Yoo, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import gammaln

ALPHA_MU = 1.0
ALPHA_W_EXCESS = 2  # alpha_w - n_vars
T = ALPHA_MU * (ALPHA_W_EXCESS - 1) / (ALPHA_MU + 1)


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
        """
        d = values.shape[1]
        regimes, which = np.unique(mask, axis=0, return_inverse=True)
        scatter, total, count = np.zeros((d, d, d)), np.zeros((d, d)), np.zeros(d)
        for index, was_set in enumerate(regimes):
            rows = values[which.ravel() == index]
            free = ~was_set
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

    def posterior_scale(self) -> np.ndarray:
        """The matrix R of the score, for every variable ``[..., n_vars, n_vars, n_vars]``."""
        outer = self.total[..., :, None] * self.total[..., None, :]
        centred = self.scatter - outer / (self.count + ALPHA_MU)[..., None, None]
        return np.asarray(centred + T * np.eye(self.scatter.shape[-1]))


def scores_of_all_sets(statistics: Statistics) -> np.ndarray:
    """Scores of all parent sets of all variables.

    One sweep does it: candidates are taken one after the other, and each doubles a stack of
    matrices into those in which it is left out and those in which it is eliminated. What remains in
    the end is the conditional scale of the variable given each set, and the pivots' product the
    set's determinant.

    Returns:
        ``[..., n_vars, 2^(n_vars - 1)]``; row r of variable j is the set of those other variables,
        counted in order without j, whose bits are set in r.
    """
    d = statistics.scatter.shape[-1]
    own_last = np.array([[i for i in range(d) if i != j] + [j] for j in range(d)])
    matrix = statistics.posterior_scale()
    lead = matrix.shape[:-3]
    nodes = np.arange(d)[:, None, None]
    stack = matrix[..., nodes, own_last[:, :, None], own_last[:, None, :]][..., None, :, :]
    log_det = np.zeros((*lead, d, 1))
    for _ in range(d - 1):
        pivot, column, rest = stack[..., 0, 0], stack[..., 1:, 0], stack[..., 1:, 1:]
        product = column[..., :, None] * column[..., None, :]
        reduced = rest - product / pivot[..., None, None]
        stack = np.concatenate([rest, reduced], axis=-3)
        log_det = np.concatenate([log_det, log_det + np.log(pivot)], axis=-1)
    sizes = set_sizes(d - 1)
    return _score(log_det, np.log(stack[..., 0, 0]), sizes, statistics.count[..., None])


def scores_up_to(statistics: Statistics, max_parents: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all parent sets with at most `max_parents` members, of one system.

    Returns:
        the sets as rows of `scores_of_all_sets`, int ``[n_sets]``, and scores ``[n_vars, n_sets]``.
    """
    d = statistics.scatter.shape[-1]
    matrix = statistics.posterior_scale()
    own_last = np.array([[i for i in range(d) if i != j] + [j] for j in range(d)])
    rows, scores = [], []
    for size in range(min(max_parents, d - 1) + 1):
        chosen = list(combinations(range(d - 1), size))
        slots = np.array(chosen, dtype=int).reshape(len(chosen), size)
        rows.append((1 << slots).sum(axis=1))
        block = np.concatenate([slots, np.full((len(slots), 1), d - 1)], axis=1)
        members = own_last[:, block]  # [n_vars, n_sets, size + 1]
        nodes = np.arange(d)[:, None, None, None]
        whole = matrix[nodes, members[..., :, None], members[..., None, :]]
        log_det = np.linalg.slogdet(whole[..., :size, :size])[1] if size else np.zeros(1)
        log_cond = np.linalg.slogdet(whole)[1] - log_det
        scores.append(_score(log_det, log_cond, np.array(size), statistics.count[:, None]))
    return np.concatenate(rows), np.concatenate(scores, axis=1)


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
