"""Statistics beyond second moments: what tells mechanisms and noise that are not linear Gaussian.

Every variable is expanded into a few bounded functions of itself. A node is regressed on these, one
cause at a time and on all others at once; what is left over says which direction fits, because only
in the causal one is the residual independent of the cause (Hoyer et al. 2008; Hyvärinen and
Smith 2013 for linear systems with noise that is not Gaussian).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_bayes_opt.surrogate.local_scores import inverse

N_FUNCTIONS = 3
SCALE = 1.0  # the prior's t of the weights of these functions
_KNEE = 3.0
_FARTHEST = 1e3  # standard deviations; float32 squares of sums stay finite
_RIDGE = 1.0
# Entropies of a standard normal's log cosh(x) and of x exp(-x²/2) (Hyvärinen 1998).
_LOG_COSH, _ODD_WEIGHT, _EVEN_WEIGHT = 0.37457, 7.4129, 79.047


class Nonlinear(NamedTuple):
    """Features of pairs and nodes."""

    pairs: jax.Array  # [n_vars, n_vars, n_features], of i -> j at [i, j]
    nodes: jax.Array  # [n_vars, n_features]


def expand(values: jax.Array) -> jax.Array:
    """Functions ``[n_rows, n_vars, N_FUNCTIONS]`` of standardised values: x, and two that saturate.

    The second and third are the Hermite polynomials of ``3 tanh(x / 3)``, about uncorrelated for
    Gaussian data.
    """
    s = _KNEE * jnp.tanh(values / _KNEE)
    return jnp.stack(
        [
            jnp.clip(values, -_FARTHEST, _FARTHEST),
            (s**2 - 1.0) / jnp.sqrt(2.0),
            (s**3 - 3.0 * s) / jnp.sqrt(6.0),
        ],
        axis=-1,
    )


def nonlinear_features(values: jax.Array, free: jax.Array) -> Nonlinear:
    """Features of all pairs and nodes of one system.

    Args:
        values: standardised rows ``[n_rows, n_vars]``, 0 where padded.
        free: ``[n_rows, n_vars]``, 1 where a row is there and its variable was not set.
    """
    functions = expand(values)
    values = functions[..., 0]
    alone = _pairwise(functions, values, free)
    residual = _full_residual(functions, values, free)
    return Nonlinear(
        pairs=jnp.concatenate([alone, _dependence(residual, values, free)], axis=-1),
        nodes=jnp.stack([*_entropies(residual, free), *_entropies(values, free)], axis=-1),
    )


def _pairwise(functions: jax.Array, values: jax.Array, free: jax.Array) -> jax.Array:
    """Regression of j on i alone ``[n_vars, n_vars, 8]``, linear and with all functions."""
    n_vars = values.shape[1]
    count = free.sum(axis=0) + 1.0
    design = jnp.concatenate([jnp.ones_like(values)[..., None], functions], axis=-1)
    gram = jnp.einsum("rj,rif,rig->ijfg", free, design, design, optimize="optimal")
    moment = jnp.einsum("rj,rif->ijf", free * values, design)

    def fit(n: int) -> jax.Array:
        ridge = gram[..., :n, :n] + _RIDGE * jnp.eye(n)
        weights = jnp.einsum("ijfg,ijg->ijf", inverse(ridge), moment[..., :n])
        return values[:, None, :] - jnp.einsum("rif,ijf->rij", design[..., :n], weights)

    linear, curved = fit(2), fit(1 + N_FUNCTIONS)
    weight = free[:, None, :] / count
    variances = [(weight * r**2).sum(axis=0) + 1e-4 for r in (linear, curved)]
    scaled = curved / jnp.sqrt(variances[1])
    odd_linear, even_linear = _negentropy(linear / jnp.sqrt(variances[0]), weight)
    odd, even = _negentropy(scaled, weight)
    s = functions[:, :, None, :]
    energy = scaled**2 - 1.0
    energy = _KNEE * jnp.tanh(energy / _KNEE)
    root = jnp.sqrt(count)
    found = jnp.stack(
        [
            jnp.log(variances[0] / variances[1]) * root,
            odd_linear * root,
            even_linear * root,
            odd * root,
            even * root,
            (weight * energy * s[..., 0]).sum(axis=0) * root,
            (weight * energy * s[..., 1]).sum(axis=0) * root,
            jnp.log(variances[1]),
        ],
        axis=-1,
    )
    return jnp.arcsinh(found) * (1.0 - jnp.eye(n_vars))[..., None]


def _full_residual(functions: jax.Array, values: jax.Array, free: jax.Array) -> jax.Array:
    """Standardised residuals ``[n_rows, n_vars]`` of every node on functions of all others."""
    n_rows, n_vars, n_functions = functions.shape
    flat = functions.reshape(n_rows, n_vars * n_functions)
    gram = jnp.einsum("rj,ra,rb->jab", free, flat, flat, optimize="optimal")
    moment = jnp.einsum("rj,ra->ja", free * values, flat)
    own = jnp.repeat(jnp.eye(n_vars), n_functions, axis=1)  # [node, column]
    kept = (1.0 - own)[:, :, None] * (1.0 - own)[:, None, :]
    ridge = gram * kept + jnp.eye(n_vars * n_functions) * (2.0 * _RIDGE + own[:, None, :])
    weights = jnp.einsum("jab,jb->ja", inverse(ridge), moment * (1.0 - own))
    residual = (values - flat @ weights.T) * free
    count = free.sum(axis=0) + 1.0
    residual = residual - residual.sum(axis=0) / count * free
    return residual / jnp.sqrt((residual**2).sum(axis=0) / count + 1e-4)


def _dependence(residual: jax.Array, values: jax.Array, free: jax.Array) -> jax.Array:
    """How the size of j's full residual follows i ``[n_vars, n_vars, 2]``."""
    energy = _KNEE * jnp.tanh((residual**2 - 1.0) / _KNEE) * free
    s = _KNEE * jnp.tanh(values / _KNEE)
    root = jnp.sqrt(free.sum(axis=0) + 1.0)
    found = [s.T @ energy / root, (s**2 - 1.0).T @ energy / root]
    return jnp.arcsinh(jnp.stack(found, axis=-1)) * (1.0 - jnp.eye(values.shape[1]))[..., None]


def _entropies(values: jax.Array, free: jax.Array) -> list[jax.Array]:
    weight = free / (free.sum(axis=0) + 1.0)
    mean = (weight * values).sum(axis=0)
    deviation = jnp.sqrt((weight * (values - mean) ** 2).sum(axis=0) + 1e-4)
    root = jnp.sqrt(free.sum(axis=0) + 1.0)
    return [jnp.arcsinh(part * root) for part in _negentropy((values - mean) / deviation, weight)]


def _negentropy(unit: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two parts of Hyvärinen's approximation of a standardised sample's negentropy."""
    size = jnp.abs(unit)
    log_cosh = size + jnp.log1p(jnp.exp(-2.0 * size)) - jnp.log(2.0)
    even = (weight * log_cosh).sum(axis=0) - _LOG_COSH * weight.sum(axis=0)
    odd = (weight * unit * jnp.exp(-0.5 * size**2)).sum(axis=0)
    return _ODD_WEIGHT * odd, jnp.sqrt(_EVEN_WEIGHT) * even
