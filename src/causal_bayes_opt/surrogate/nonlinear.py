"""Statistics beyond second moments: what tells mechanisms and noise that are not linear Gaussian.

Every variable is expanded into a few bounded functions of itself. A node is regressed on these, one
cause at a time and on all others at once; what is left over says which direction fits, because only
in the causal one is the residual independent of the cause (Hoyer et al. 2008; Hyvärinen and
Smith 2013 for linear systems with noise that is not Gaussian).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causal_bayes_opt.surrogate.local_scores import inverse, ridged

N_FUNCTIONS = 3
SCALE = 1.0  # the prior's t of the weights of these functions
_KNEE = 3.0
_FARTHEST = 1e3  # standard deviations; float32 squares of sums stay finite
_RIDGE = 1.0
_KEPT = 3e-5  # of the diagonal: what is left over is told from rounding only above this
# Entropies of a standard normal's log cosh(x) and of x exp(-x²/2) (Hyvärinen 1998).
_LOG_COSH, _ODD_WEIGHT, _EVEN_WEIGHT = 0.37457, 7.4129, 79.047


class Nonlinear(NamedTuple):
    """Features of pairs and nodes."""

    pairs: jax.Array  # [n_vars, n_vars, n_features], of i -> j at [i, j]
    nodes: jax.Array  # [n_vars, n_features]
    cells: jax.Array  # [n_rows, n_vars, 3]: value, full residual (both saturated), was it set


def expand(values: Any, xp: Any = jnp) -> Any:
    """Functions ``[n_rows, n_vars, N_FUNCTIONS]`` of standardised values: x, and two that saturate.

    The second and third are the Hermite polynomials of ``3 tanh(x / 3)``, about uncorrelated for
    Gaussian data. `xp` is NumPy or its JAX counterpart, as `values` are.
    """
    s = _KNEE * xp.tanh(values / _KNEE)
    return xp.stack(
        [
            xp.clip(values, -_FARTHEST, _FARTHEST),
            (s**2 - 1.0) / 2.0**0.5,
            (s**3 - 3.0 * s) / 6.0**0.5,
        ],
        axis=-1,
    )


def nonlinear_features(
    functions: jax.Array, free: jax.Array, scatter: jax.Array, total: jax.Array
) -> Nonlinear:
    """Features of all pairs and nodes of one system.

    Args:
        functions: of `expand` ``[n_rows, n_vars, N_FUNCTIONS]``, of 0 where padded.
        free: ``[n_rows, n_vars]``, 1 where a row is there and its variable was not set.
        scatter: second moments ``[n_vars, n_vars * N_FUNCTIONS, n_vars * N_FUNCTIONS]`` of the
            functions, summed over the rows in which each node was free.
        total: sums ``[n_vars, n_vars * N_FUNCTIONS]`` of the functions over the same rows.
    """
    values = functions[..., 0]
    alone = _pairwise(functions, free, scatter, total)
    residual = _full_residual(functions, free, scatter)
    saturated = [_KNEE * jnp.tanh(x / _KNEE) for x in (values, residual)]
    return Nonlinear(
        cells=jnp.stack([*saturated, 1.0 - free], axis=-1),
        pairs=jnp.concatenate([alone, _dependence(residual, values, free)], axis=-1),
        nodes=_entropies(residual, values, free),
    )


def _pairwise(
    functions: jax.Array, free: jax.Array, scatter: jax.Array, total: jax.Array
) -> jax.Array:
    """Regression of j on i alone ``[n_vars, n_vars, 8]``, linear and with all functions.

    One node after the other: what is as long as the rows then stays in the processor's cache.
    """
    _, n_vars, n_functions = functions.shape
    gram, moment = _alone(free.sum(axis=0), scatter, total, n_functions)

    def fit(n: int) -> jax.Array:
        inverted = inverse(ridged(gram[..., :n, :n], _RIDGE, _KEPT))
        return jnp.einsum("jifg,jig->jif", inverted, moment[..., :n])

    causes = [functions[..., f] for f in range(n_functions)]

    def node(x: tuple[jax.Array, ...]) -> jax.Array:
        own, own_free, linear, curved = x
        count = own_free.sum() + 1.0
        weight, root = own_free / count, jnp.sqrt(count)
        left = own[:, None] - linear[:, 0] - causes[0] * linear[:, 1]
        rest = own[:, None] - curved[:, 0]
        for f, cause in enumerate(causes, 1):
            rest = rest - cause * curved[:, f]
        variances = [weight @ r**2 + 1e-4 for r in (left, rest)]
        scaled = rest / jnp.sqrt(variances[1])
        energy = _KNEE * jnp.tanh((scaled**2 - 1.0) / _KNEE) * weight[:, None]
        found = [
            jnp.log(variances[0] / variances[1]) * root,
            *(part * root for part in _negentropy(left / jnp.sqrt(variances[0]), weight)),
            *(part * root for part in _negentropy(scaled, weight)),
            (energy * causes[0]).sum(axis=0) * root,
            (energy * causes[1]).sum(axis=0) * root,
            jnp.log(variances[1]),
        ]
        return jnp.stack(found, axis=-1)

    each = (functions[..., 0].T, free.T, fit(2), fit(1 + n_functions))
    found = jnp.swapaxes(jax.lax.map(node, each), 0, 1)
    return jnp.arcsinh(found) * (1.0 - jnp.eye(n_vars))[..., None]


def _alone(
    count: jax.Array, scatter: jax.Array, total: jax.Array, n_functions: int
) -> tuple[jax.Array, jax.Array]:
    """Normal equations of node j on 1 and the functions of i alone.

    Returns the Gram matrices ``[j, i, 1 + n_functions, 1 + n_functions]`` and the right-hand
    sides ``[j, i, 1 + n_functions]``.
    """
    n_vars = len(count)
    shape = (n_vars, n_vars, n_functions, n_vars, n_functions)
    inner = jnp.moveaxis(jnp.diagonal(scatter.reshape(shape), axis1=1, axis2=3), -1, 1)
    sums = total.reshape(n_vars, n_vars, n_functions)
    counts = jnp.broadcast_to(count[:, None, None], (n_vars, n_vars, 1))
    first = jnp.concatenate([counts, sums], axis=-1)[..., None, :]
    others = jnp.concatenate([sums[..., None], inner], axis=-1)
    nodes = jnp.arange(n_vars)
    own = scatter[nodes, :, nodes * n_functions].reshape(n_vars, n_vars, n_functions)
    own_sum = jnp.broadcast_to(sums[nodes, nodes, 0][:, None, None], (n_vars, n_vars, 1))
    return jnp.concatenate([first, others], axis=-2), jnp.concatenate([own_sum, own], axis=-1)


def _full_residual(functions: jax.Array, free: jax.Array, scatter: jax.Array) -> jax.Array:
    """Standardised residuals ``[n_rows, n_vars]`` of every node on functions of all others."""
    n_rows, n_vars, n_functions = functions.shape
    nodes = jnp.arange(n_vars)
    own = jnp.repeat(jnp.eye(n_vars), n_functions, axis=1)  # [node, column]
    kept = (1.0 - own)[:, :, None] * (1.0 - own)[:, None, :]
    inverted = inverse(ridged(scatter * kept, 2.0 * _RIDGE + own, _KEPT))
    moment = scatter[nodes, :, nodes * n_functions]
    weights = jnp.einsum("jab,jb->ja", inverted, moment * (1.0 - own))
    flat = functions.reshape(n_rows, n_vars * n_functions)
    residual = (functions[..., 0] - flat @ weights.T) * free
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


def _entropies(residual: jax.Array, values: jax.Array, free: jax.Array) -> jax.Array:
    """Negentropies ``[n_vars, 4]`` of full residuals and of values, two parts each."""
    count = free.sum(axis=0) + 1.0
    weight = free / count

    def parts(sample: jax.Array) -> jax.Array:
        away = sample - (weight * sample).sum(axis=0)
        deviation = jnp.sqrt((weight * away**2).sum(axis=0) + 1e-4)
        return jnp.stack(_negentropy(away / deviation, weight))

    found = jax.vmap(parts)(jnp.stack([residual, values])) * jnp.sqrt(count)
    return jnp.arcsinh(found).reshape(4, -1).T


def _negentropy(unit: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two parts of Hyvärinen's approximation of a standardised sample's negentropy.

    Args:
        unit: ``[n_rows, n]``.
        weight: of the rows, ``[n_rows]``, or of each number.
    """
    weight = weight.reshape(len(unit), -1)
    size = jnp.abs(unit)
    log_cosh = size + jnp.log(1.0 + jnp.exp(-2.0 * size)) - jnp.log(2.0)
    even = (weight * log_cosh).sum(axis=0) - _LOG_COSH * weight.sum(axis=0)
    odd = (weight * unit * jnp.exp(-0.5 * size**2)).sum(axis=0)
    return _ODD_WEIGHT * odd, jnp.sqrt(_EVEN_WEIGHT) * even
