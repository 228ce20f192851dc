"""Local scores of many parent sets at once, in JAX: what the network is told about each set.

The score of a set is the BGe marginal likelihood of a node given those parents (Geiger and
Heckerman 2002; Kuipers, Moffa and Heckerman 2014), over the rows in which the node was not set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln


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
        rest, reduced, gained = stack[:, n_functions:, n_functions:], stack, log_det
        for _ in range(n_functions):
            pivot = jnp.maximum(reduced[:, 0, 0], 1e-9)
            column = reduced[:, 1:, 0]
            outer = column[:, :, None] * column[:, None, :]
            reduced = reduced[:, 1:, 1:] - outer / pivot[:, None, None]
            gained = gained + jnp.log(pivot)
        stack = jnp.concatenate([rest, reduced])
        log_det = jnp.concatenate([log_det, gained])
    return log_det, jnp.log(jnp.maximum(stack[:, 0, 0], 1e-9))


def inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of symmetric positive definite matrices ``[..., n, n]`` by sweeps.

    A batch of small matrices takes n vector operations; the library's batched factorisations
    hand each matrix to a pool of threads, which costs more and, two at a time, can block it.
    """
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
    scale: float,
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
        sizes: number of members of each set ``[n_sets]``.
        n_functions: columns of a candidate, side by side.
    """
    n = count
    centred = scatter - jnp.outer(total, total) / (n + 1.0)
    posterior = scale * jnp.eye(scatter.shape[-1], dtype=scatter.dtype) + centred
    log_det, log_cond = pivots(posterior, n_functions)
    k = sizes
    score = (
        gammaln((n + 3.0 + k) / 2)
        - gammaln((3.0 + k) / 2)
        + (3.0 + k * (1 + n_functions)) / 2 * jnp.log(scale)
        - 0.5 * log_det
        - (n + 3.0 + k) / 2 * log_cond
    )
    return score - score[0]


def log_odds(log_weights: jax.Array, members: jax.Array) -> jax.Array:
    """Log-odds of each candidate under a distribution over sets.

    Args:
        log_weights: ``[n_sets]``, not necessarily normalised; -inf is allowed.
        members: bool ``[n_sets, n_candidates]``.

    Returns:
        ``[n_candidates]``.
    """
    weights = log_weights[:, None]
    inside = jax.nn.logsumexp(jnp.where(members, weights, -jnp.inf), axis=0)
    outside = jax.nn.logsumexp(jnp.where(members, -jnp.inf, weights), axis=0)
    return inside - outside
