"""Bayesian linear mechanisms of all variables under many graphs at once, in JAX.

Every variable of every graph is regressed on its parents with a normal-inverse-gamma prior: a
coefficient has variance `SLAB` times the residual variance, which is inverse gamma (`SHAPE`,
`RATE`); see Gelman et al., Bayesian Data Analysis (2013), 14.2. Data are standardised. A row
informs every variable that was not set in it, whoever set the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from causal_bayes_opt.surrogate.local_scores import inverse

SLAB = 4.0
SHAPE, RATE = 1.0, 0.25
_LEAST = 1e-9
_UNROLLED = 5  # columns that are fused: of few a third of the time, of more twice the compilation


_Series: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


class Moments(NamedTuple):
    """What rows say about every variable's mechanism, whatever its parents."""

    gram: jax.Array  # [n_vars, 1 + n_vars, 1 + n_vars], of (1, x) over rows where j was not set
    n_rows: jax.Array  # [n_vars], number of those rows


class ParentColumns(NamedTuple):
    """Parents of every variable in every graph, as padded lists of columns."""

    columns: jax.Array  # int [n_members, n_vars, n_slots]
    there: jax.Array  # bool, the same shape


class LinearMechanisms(NamedTuple):
    """Posteriors of the coefficients (bias first) and residual variances, for each graph."""

    parents: ParentColumns
    mean: jax.Array  # [n_members, n_vars, 1 + n_slots]
    scale: jax.Array  # [n_members, n_vars, 1 + n_slots, 1 + n_slots], in residual variances
    shape: jax.Array  # [n_vars], of the inverse gamma
    rate: jax.Array  # [n_members, n_vars], likewise
    log_weights: jax.Array  # [n_members], of the graphs by the rows added with `condition`


class LinearSystems(NamedTuple):
    """Linear systems, one for each member, in standardised units."""

    weights: jax.Array  # [n_members, n_vars, n_vars], of i in j at [i, j]
    bias: jax.Array  # [n_members, n_vars]
    noise: jax.Array  # [n_members, n_vars], residual variances


def parent_columns(graphs: np.ndarray, n_slots: int) -> ParentColumns:
    """List the parents of bool ``[n_members, n_vars, n_vars]`` graphs, [m, i, j]: i causes j.

    `n_slots` must hold the largest parent set.
    """
    by_child = np.swapaxes(graphs, 1, 2)
    columns = np.argsort(~by_child, axis=2, kind="stable")[..., :n_slots]
    short = n_slots - columns.shape[-1]
    columns = np.pad(columns, ((0, 0), (0, 0), (0, max(short, 0))))
    there = np.arange(n_slots) < by_child.sum(axis=2)[..., None]
    # NumPy arrays: a jitted call moves them to the device faster than one by one.
    arrays: tuple[Any, ...] = np.where(there, columns, 0), there
    return ParentColumns(*arrays)


def moments(values: jax.Array, mask: jax.Array, is_row: jax.Array) -> Moments:
    """Sum up rows.

    Args:
        values: standardised ``[n_rows, n_vars]``.
        mask: bool, the same shape, True where set.
        is_row: bool ``[n_rows]``, False where padded.
    """
    design = jnp.concatenate([jnp.ones_like(values[:, :1]), values], axis=1)
    free = (~mask & is_row[:, None]).astype(values.dtype)
    gram = jnp.swapaxes(design[None] * free.T[:, :, None], 1, 2) @ design
    return Moments(gram, free.sum(axis=0))


def fit(data: Moments, parents: ParentColumns) -> LinearMechanisms:
    """Condition every mechanism of every graph on rows; all graphs have the same weight."""
    n_members, n_vars, n_slots = parents.columns.shape
    node = jnp.arange(n_vars)
    # Position 0 of `gram` is the bias; a slot without a parent gets a column of its own below.
    columns = jnp.concatenate(
        [jnp.zeros((n_members, n_vars, 1), parents.columns.dtype), 1 + parents.columns], axis=2
    )
    there = _with_bias(parents.there)
    both = there[..., :, None] & there[..., None, :]
    own = data.gram[node[None, :, None, None], columns[..., :, None], columns[..., None, :]]
    identity = jnp.eye(n_slots + 1, dtype=own.dtype)
    precision = jnp.where(both, own, 0.0) + identity / SLAB
    moment = jnp.where(there, data.gram[node[None, :, None], columns, 1 + node[None, :, None]], 0.0)
    scale = inverse(precision.reshape(-1, n_slots + 1, n_slots + 1)).reshape(precision.shape)
    mean = jnp.einsum("mjab,mjb->mja", scale, moment)
    square = data.gram[node, 1 + node, 1 + node]
    left = square[None] - jnp.einsum("mja,mja->mj", mean, moment)
    rate = RATE + 0.5 * jnp.maximum(left, _LEAST)
    weights = jnp.zeros(n_members, own.dtype)
    return LinearMechanisms(parents, mean, scale, SHAPE + 0.5 * data.n_rows, rate, weights)


@jax.jit
def fit_rows(
    values: jax.Array, mask: jax.Array, is_row: jax.Array, parents: ParentColumns
) -> LinearMechanisms:
    """`fit` on rows; arguments as in `moments`."""
    return fit(moments(values, mask, is_row), parents)


def condition(mechanisms: LinearMechanisms, row: jax.Array, was_set: jax.Array) -> LinearMechanisms:
    """Add one row by a rank-one step; graphs gain weight by how well they foretold it.

    The result is that of `fit` on all rows together, and `log_weights` grows by the logarithm of
    the row's Student density under each graph.

    Args:
        mechanisms: before the row.
        row: standardised ``[n_vars]``.
        was_set: bool ``[n_vars]``.
    """
    parents, mean, scale, shape, rate, log_weights = mechanisms
    inputs = jnp.where(parents.there, row[parents.columns], 0.0)
    design = jnp.concatenate([jnp.ones_like(inputs[..., :1]), inputs], axis=-1)
    free = (~was_set).astype(row.dtype)
    towards = jnp.einsum("mjab,mjb->mja", scale, design)
    spread = 1.0 + jnp.einsum("mja,mja->mj", design, towards)
    error = row[None] - jnp.einsum("mja,mja->mj", design, mean)
    gain = towards / spread[..., None] * free[None, :, None]
    surprise = 0.5 * error**2 / spread
    log_density = (
        gammaln(shape + 0.5)
        - gammaln(shape)
        - 0.5 * jnp.log(2 * jnp.pi * rate * spread)
        - (shape + 0.5) * jnp.log1p(surprise / rate)
    )
    return LinearMechanisms(
        parents,
        mean + gain * error[..., None],
        scale - gain[..., :, None] * towards[..., None, :],
        shape + 0.5 * free,
        rate + free * surprise,
        log_weights + (log_density * free).sum(axis=1),
    )


def draw(mechanisms: LinearMechanisms, normals: jax.Array, gammas: jax.Array) -> LinearSystems:
    """Draw one system for each graph.

    Args:
        mechanisms: the posteriors.
        normals: standard normal ``[n_members, n_vars, 1 + n_slots]``.
        gammas: gamma ``[n_members, n_vars]`` of the posteriors' `shape`, with rate 1.
    """
    noise = mechanisms.rate / gammas
    root = _cholesky(mechanisms.scale)
    step = jnp.einsum("mjab,mjb->mja", root, normals)
    return _systems(mechanisms.parents, mechanisms.mean + jnp.sqrt(noise)[..., None] * step, noise)


def expected(mechanisms: LinearMechanisms) -> LinearSystems:
    """The system of each graph with the mean coefficients and residual variances."""
    noise = mechanisms.rate / jnp.maximum(mechanisms.shape - 1.0, 0.5)
    return _systems(mechanisms.parents, mechanisms.mean, noise)


def total_effects(weights: jax.Array) -> jax.Array:
    """Total effects ``[..., n_vars, n_vars]`` of acyclic weights: ``(I - W)^-1 = I + W + W^2 + …``.

    The series is summed by doubling and ends where a power of W is zero, as one must be.
    """
    d = weights.shape[-1]
    identity = jnp.eye(d, dtype=weights.dtype)

    def step(carry: _Series) -> _Series:
        total, power, done = carry
        return total + power @ total, power @ power, 2 * done

    def goes_on(carry: _Series) -> jax.Array:
        return (carry[2] < d) & (carry[1] != 0).any()

    start = (identity + jnp.zeros_like(weights), weights, jnp.asarray(1))
    total: jax.Array = jax.lax.while_loop(goes_on, step, start)[0]
    return total


def _systems(parents: ParentColumns, coefficients: jax.Array, noise: jax.Array) -> LinearSystems:
    n_vars = parents.columns.shape[1]
    slopes = jnp.where(parents.there, coefficients[..., 1:], 0.0)
    place = jax.nn.one_hot(parents.columns, n_vars, dtype=slopes.dtype)
    return LinearSystems(jnp.einsum("mjk,mjki->mij", slopes, place), coefficients[..., 0], noise)


def _with_bias(there: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.ones_like(there[..., :1]), there], axis=-1)


def _cholesky(matrix: jax.Array) -> jax.Array:
    """Lower root of small positive matrices ``[..., k, k]``, column by column."""
    k = matrix.shape[-1]
    below = jnp.arange(k)

    def column(j: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, root = carry
        own = jnp.take(left, j, axis=-1)
        pivot = jnp.sqrt(jnp.maximum(jnp.take(own, j, axis=-1), _LEAST**2))
        new = jnp.where(below >= j, own / pivot[..., None], 0.0)
        left = left - new[..., :, None] * new[..., None, :]
        return left, jnp.where((below == j)[None, :], new[..., :, None], root)

    start = (matrix, jnp.zeros_like(matrix))
    fused = k if k <= _UNROLLED else 1
    root: jax.Array = jax.lax.fori_loop(0, k, column, start, unroll=fused)[1]
    return root
