"""What the Gaussian processes of the expert share: likelihood, hyperparameters, skipping loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from causal_bayes_opt.expert.bfgs import ValueAndSlope, minimise

# Bounds of length scales and of variances.
SHORTEST, LONGEST = 1e-2, 20.0
LEAST, MOST = 1e-5, 2.0
# The published code searches without bounds, and puts right afterwards what lies beyond them.
UNBOUNDED = 1e6

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def fit(function: ValueAndSlope, n_variances: int, published: jax.Array) -> jax.Array:
    """Logarithms of a length scale and of variances that make the data most probable.

    The search starts from 1 and keeps to the bounds. As published it does not, and afterwards a
    length scale above the longest goes back to 1 and the variances are moved into their bounds.
    """
    low = jnp.log(jnp.array([SHORTEST] + n_variances * [LEAST]))
    high = jnp.log(jnp.array([LONGEST] + n_variances * [MOST]))
    wide = jnp.log(UNBOUNDED)
    logs, _ = minimise(
        function,
        jnp.zeros(1 + n_variances),
        jnp.where(published, -wide, low),
        jnp.where(published, wide, high),
    )
    length = jnp.where(logs[0] > high[0], 0.0, logs[0])
    return jnp.concatenate([length[None], jnp.clip(logs, low, high)[1:]])


def likelihood(kernel: jax.Array, slopes: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-density of N(y; 0, K), less its constant, and its slope.

    The slope in a parameter t is tr((K^-1 - a a') dK/dt) / 2 with a = K^-1 y (Rasmussen and
    Williams 2006, equation 5.9).
    """
    factor = jnp.linalg.cholesky(kernel)
    inverted = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(kernel.shape[0]))
    solved = inverted @ y
    value = 0.5 * y @ solved + jnp.log(jnp.diag(factor)).sum()
    return value, 0.5 * jnp.einsum("ij,pij->p", inverted - jnp.outer(solved, solved), slopes)


def inverse(kernel: jax.Array) -> jax.Array:
    """Inverse of a positive definite matrix ``[n, n]``."""
    factor = jnp.linalg.cholesky(kernel)
    return jax.scipy.linalg.cho_solve((factor, True), jnp.eye(kernel.shape[0]))


def distances(points: jax.Array) -> jax.Array:
    """Squared distances ``[n, n]`` between rows ``[n, n_vars]``."""
    squares = (points**2).sum(-1)
    return jnp.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0)


def map_wanted(function: Callable[[_In], _Out], wanted: jax.Array, over: _In) -> _Out:
    """Map over a leading axis, one after the other; zeros, not computed, where not wanted."""

    def zeros(own: _In) -> _Out:
        empty: _Out = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, own)
        )
        return empty

    def one(own: tuple[jax.Array, _In]) -> _Out:
        result: _Out = jax.lax.cond(own[0], function, zeros, own[1])
        return result

    mapped: _Out = jax.lax.map(one, (wanted, over))
    return mapped
