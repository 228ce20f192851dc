"""Local scores of many parent sets at once, in JAX: what the network is told about each set.

The score of a set is the BGe marginal likelihood of a node given those parents (Geiger and
Heckerman 2002; Kuipers, Moffa and Heckerman 2014), over the rows in which the node was not set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln


def pivots(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-determinants of all principal blocks that one sweep over the candidates reaches.

    Args:
        matrix: symmetric positive definite ``[n_candidates + 1, n_candidates + 1]``, the node last.

    Returns:
        ``log |M_PP|`` and the log of the node's conditional scale given P, each
        ``[2^n_candidates]``; row r holds the set with candidate s where bit s of r is set.
    """
    stack = matrix[None]
    log_det = jnp.zeros(1, matrix.dtype)
    for _ in range(matrix.shape[-1] - 1):
        pivot = jnp.maximum(stack[:, 0, 0], 1e-9)
        column, rest = stack[:, 1:, 0], stack[:, 1:, 1:]
        reduced = rest - column[:, :, None] * column[:, None, :] / pivot[:, None, None]
        stack = jnp.concatenate([rest, reduced])
        log_det = jnp.concatenate([log_det, log_det + jnp.log(pivot)])
    return log_det, jnp.log(jnp.maximum(stack[:, 0, 0], 1e-9))


def set_scores(
    scatter: jax.Array, total: jax.Array, count: jax.Array, scale: float, sizes: jax.Array
) -> jax.Array:
    """BGe scores ``[n_sets]`` relative to the empty set.

    Args:
        scatter: uncentred second moments, summed over rows ``[n_cand + 1, n_cand + 1]``, node last.
        total: sums over rows ``[n_cand + 1]``.
        count: number of rows in which the node was not set.
        scale: the prior's t; ``(alpha_mu, alpha_w) = (1, n_vars + 2)`` gives 0.5.
        sizes: number of members of each set ``[n_sets]``.
    """
    n = count
    centred = scatter - jnp.outer(total, total) / (n + 1.0)
    posterior = scale * jnp.eye(scatter.shape[-1], dtype=scatter.dtype) + centred
    log_det, log_cond = pivots(posterior)
    k = sizes
    score = (
        gammaln((n + 3.0 + k) / 2)
        - gammaln((3.0 + k) / 2)
        + (3.0 + 2 * k) / 2 * jnp.log(scale)
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
