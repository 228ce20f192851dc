"""Local scores of many parent sets at once, in JAX: what the network is told about each set.

The score of a set is the BGe marginal likelihood of a node given those parents (Geiger and
Heckerman 2002; Kuipers, Moffa and Heckerman 2014), over the rows in which the node was not set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

_SWEPT = 12  # rows of a block that is inverted without halving it


def pivots(matrix: jax.Array, n_functions: int = 1) -> tuple[jax.Array, jax.Array]:
    """Log-determinants of all principal blocks that one sweep over the candidates reaches.

    Args:
        matrix: symmetric positive definite, ``n_candidates * n_functions + 1`` rows and columns,
            the node last.
        n_functions: columns of a candidate, side by side.

    Returns:
        ``log |M_PP|`` and the log of the node's conditional scale given P, each
        ``[2^n_candidates]``; row r holds the set with candidate s where bit s of r is set.
    """
    stack = matrix[None]
    log_det = jnp.zeros(1, matrix.dtype)
    for _ in range((matrix.shape[-1] - 1) // n_functions):
        reduced, gained = stack[:, n_functions:, n_functions:], log_det
        done: list[tuple[jax.Array, jax.Array]] = []
        for f in range(n_functions):
            column = stack[:, :, f]
            for earlier, pivot in done:
                column = column - earlier * (earlier[:, f] / pivot)[:, None]
            pivot = jnp.maximum(column[:, f], 1e-9)
            done.append((column, pivot))
            below = column[:, n_functions:]
            reduced = reduced - below[:, :, None] * (below / pivot[:, None])[:, None, :]
            gained = gained + jnp.log(pivot)
        stack = jnp.concatenate([stack[:, n_functions:, n_functions:], reduced])
        log_det = jnp.concatenate([log_det, gained])
    return log_det, jnp.log(jnp.maximum(stack[:, 0, 0], 1e-9))


def ridged(matrix: jax.Array, ridge: jax.Array | float, share: float) -> jax.Array:
    """Matrices ``[..., n, n]`` with a ridge ``[..., n]``, and a share of their own diagonal.

    The share is what lets single precision invert them where columns follow from each other.
    """
    diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    with_ridge: jax.Array = matrix + (ridge + share * diagonal)[..., None] * jnp.eye(
        matrix.shape[-1]
    )
    return with_ridge


def inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of symmetric positive definite matrices ``[..., n, n]``.

    By halves down to blocks that are swept: a batch of small matrices then takes few vector
    operations and products. The library's batched factorisations hand each matrix to a pool of
    threads, which costs more and, two at a time, can block it. Where columns all but follow from
    each other, slopes that are refined once keep digits that single precision would lose.
    """
    n = matrix.shape[-1]
    if n <= _SWEPT:
        return _swept(matrix)
    k = n // 2
    corner, cross = matrix[..., :k, :k], matrix[..., :k, k:]
    first = inverse(corner)
    slope = first @ cross
    slope = slope + first @ (cross - corner @ slope)
    rest = inverse(matrix[..., k:, k:] - jnp.swapaxes(cross, -1, -2) @ slope)
    off = -slope @ rest
    upper = jnp.concatenate([first - off @ jnp.swapaxes(slope, -1, -2), off], axis=-1)
    return jnp.concatenate(
        [upper, jnp.concatenate([jnp.swapaxes(off, -1, -2), rest], axis=-1)], axis=-2
    )


def _swept(matrix: jax.Array) -> jax.Array:
    """Inverse by sweeps, one row and column after the other."""
    n = matrix.shape[-1]

    def sweep(k: int, m: jax.Array) -> jax.Array:
        unit = jnp.arange(n) == k
        row = jax.lax.dynamic_index_in_dim(m, k, axis=-2, keepdims=False)
        pivot = jnp.maximum(jax.lax.dynamic_index_in_dim(row, k, axis=-1), 1e-9)
        scaled = row / pivot
        rest = m - scaled[..., :, None] * row[..., None, :]
        edge = unit[:, None] | unit
        value = jnp.where(unit, scaled[..., :, None], scaled[..., None, :])
        corner = unit[:, None] & unit
        swept = jnp.where(edge, value, rest)
        return jnp.where(corner, -1.0 / pivot[..., None], swept)

    swept: jax.Array = jax.lax.fori_loop(0, n, sweep, matrix)
    return -swept


def set_scores(
    scatter: jax.Array,
    total: jax.Array,
    count: jax.Array,
    scale: jax.Array | float,
    sizes: jax.Array,
    n_functions: int = 1,
) -> jax.Array:
    """BGe scores ``[n_sets]`` relative to the empty set.

    With several functions of each candidate this is the evidence of the regression on all of them
    under the same prior of weights and noise; one function, the value itself, gives BGe.

    Args:
        scatter: uncentred second moments, summed over rows
            ``[n_candidates * n_functions + 1, ...]``, the node last.
        total: sums over rows, likewise.
        count: number of rows in which the node was not set.
        scale: the prior's t; ``(alpha_mu, alpha_w) = (1, n_vars + 2)`` gives 0.5.
        sizes: number of members of each set, int ``[n_sets]``.
        n_functions: columns of a candidate, side by side.
    """
    n = count
    centred = scatter - jnp.outer(total, total) / (n + 1.0)
    posterior = scale * jnp.eye(scatter.shape[-1], dtype=scatter.dtype) + centred
    log_det, log_cond = pivots(posterior, n_functions)
    most = (scatter.shape[-1] - 1) // n_functions
    k = jnp.arange(most + 1, dtype=scatter.dtype)
    of_size = (
        gammaln((n + 3.0 + k) / 2)
        - gammaln((3.0 + k) / 2)
        + (3.0 + k * (1 + n_functions)) / 2 * jnp.log(scale)
    )
    score = of_size[sizes] - 0.5 * log_det - (n + 3.0 + sizes) / 2 * log_cond
    return score - score[0]


def log_odds(log_weights: jax.Array) -> jax.Array:
    """Log-odds ``[n_candidates]`` of each candidate under a distribution over sets.

    Args:
        log_weights: ``[2^n_candidates]``, row r that of the set with candidate s where bit s of r
            is set; not necessarily normalised; -inf is allowed.
    """
    found = []
    # The last candidate is in the second half of the rows; without it, half as many are left.
    while log_weights.shape[0] > 1:
        halves = log_weights.reshape(2, -1)
        without, having = jax.nn.logsumexp(halves, axis=1)
        found.append(having - without)
        log_weights = jnp.logaddexp(*halves)
    return jnp.stack(found[::-1])
