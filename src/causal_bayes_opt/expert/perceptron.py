"""The small network behind the doubly robust prior: trained on one fold, float32.

Three hidden layers of 200 with ReLU, Adam at 0.01, batches of 32, at most 500 epochs; after 5
epochs without gain on the stopping rows the rate is halved, after 20 training ends, and the best
weights count.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

HIDDEN, N_HIDDEN, BATCH, EPOCHS = 200, 3, 32, 500
RATE, HALVE_AFTER, STOP_AFTER = 0.01, 5, 20
DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8

Weights: TypeAlias = list[tuple[jax.Array, jax.Array]]


class _Training(NamedTuple):
    weights: Weights
    best: Weights
    momentum: Weights
    squares: Weights
    step: jax.Array
    epoch: jax.Array
    lowest: jax.Array  # error on the stopping rows
    stale: jax.Array  # epochs since the lowest
    waited: jax.Array  # epochs since the lowest or the last halving
    rate: jax.Array


def predictions(
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    train: jax.Array,
    stop: jax.Array,
    held: jax.Array,
    codes: jax.Array,
) -> jax.Array:
    """Train one network and predict held-out rows, with all columns and without each.

    Args:
        key: of the start and of the order of the batches.
        x: ``[n_rows, n_vars]`` float32; a constant is added here.
        y: ``[n_rows]``.
        train: rows to learn from, -1 where padded; a multiple of the batch size.
        stop: rows to stop by, likewise; if there are none, those to learn from.
        held: rows to predict, -1 where padded.
        codes: a number for each variable ``[n_vars]``, by which its weights are drawn.

    Returns:
        ``[n_held, 1 + n_vars]``.
    """
    weights = _fit(key, x, y, train, stop, codes)
    rows = x[held]

    def without(column: jax.Array) -> jax.Array:
        return _apply(weights, jnp.where(jnp.arange(x.shape[1]) == column, 0.0, rows))

    return jax.vmap(without, out_axes=1)(jnp.arange(-1, x.shape[1]))


def _fit(
    key: jax.Array,
    x: jax.Array,
    y: jax.Array,
    train: jax.Array,
    stop: jax.Array,
    codes: jax.Array,
) -> Weights:
    start_key, order_key = jax.random.split(key)
    stop = jnp.where((stop >= 0).any(), stop, train)
    stop_rows, stop_y = x[stop], y[stop]

    def error(weights: Weights, rows: jax.Array, target: jax.Array, index: jax.Array) -> jax.Array:
        real = (index >= 0).astype(rows.dtype)
        squares = real * (_apply(weights, rows) - target) ** 2
        return squares.sum() / jnp.maximum(real.sum(), 1)

    def one_batch(state: _Training, index: jax.Array) -> tuple[_Training, None]:
        slope = jax.grad(error)(state.weights, x[index], y[index], index)
        return _adam(state, slope), None

    def one_epoch(state: _Training) -> _Training:
        order = jax.random.permutation(jax.random.fold_in(order_key, state.epoch), train)
        state, _ = jax.lax.scan(one_batch, state, order.reshape(-1, BATCH))
        return _judge(state, error(state.weights, stop_rows, stop_y, stop))

    def unfinished(state: _Training) -> jax.Array:
        return (state.epoch < EPOCHS) & (state.stale < STOP_AFTER)

    weights = _start(start_key, codes, x.dtype)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    count = jnp.zeros((), jnp.int32)
    state = _Training(
        weights,
        weights,
        zeros,
        zeros,
        step=count,
        epoch=count,
        lowest=jnp.asarray(jnp.inf, x.dtype),
        stale=count,
        waited=count,
        rate=jnp.asarray(RATE, x.dtype),
    )
    return jax.lax.while_loop(unfinished, one_epoch, state).best


def _judge(state: _Training, error: jax.Array) -> _Training:
    """Keep the best weights, count the epochs without gain, halve the rate when due."""
    better = error < state.lowest
    waited = jnp.where(better, 0, state.waited + 1)
    halve = waited >= HALVE_AFTER
    return state._replace(
        best=jax.tree.map(lambda new, old: jnp.where(better, new, old), state.weights, state.best),
        epoch=state.epoch + 1,
        lowest=jnp.where(better, error, state.lowest),
        stale=jnp.where(better, 0, state.stale + 1),
        waited=jnp.where(halve, 0, waited),
        rate=jnp.where(halve, state.rate / 2, state.rate),
    )


def _adam(state: _Training, slope: Weights) -> _Training:
    """One step of Adam (Kingma and Ba, 2015)."""
    step = state.step + 1
    count = step.astype(state.rate.dtype)
    rate = state.rate * jnp.sqrt(1 - SQUARE_DECAY**count) / (1 - DECAY**count)
    momentum = jax.tree.map(lambda m, g: DECAY * m + (1 - DECAY) * g, state.momentum, slope)
    squares = jax.tree.map(
        lambda v, g: SQUARE_DECAY * v + (1 - SQUARE_DECAY) * g * g, state.squares, slope
    )
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), state.weights, momentum, squares
    )
    return state._replace(weights=weights, momentum=momentum, squares=squares, step=step)


def _start(key: jax.Array, codes: jax.Array, dtype: jnp.dtype) -> Weights:
    """Draw weights as He et al. (2015) do; those of an input follow the variable's own code."""
    keys = jax.random.split(key, N_HIDDEN + 1)

    def by_name(code: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(keys[0], code), (HIDDEN,))

    first = jax.vmap(by_name)(jnp.concatenate([codes, jnp.zeros(1, codes.dtype)]))
    n_inputs = 1 + (codes > 0).sum()
    layers = [(first * jnp.sqrt(2.0 / n_inputs), HIDDEN)]
    for layer in range(1, N_HIDDEN + 1):
        width = HIDDEN if layer < N_HIDDEN else 1
        drawn = jax.random.normal(keys[layer], (HIDDEN, width))
        layers.append((drawn * jnp.sqrt(2.0 / HIDDEN), width))
    return [(drawn.astype(dtype), jnp.zeros(width, dtype)) for drawn, width in layers]


def _apply(weights: Weights, rows: jax.Array) -> jax.Array:
    """Predictions ``[n_rows]`` for rows ``[n_rows, n_vars]``; the last input is constant."""
    inner = jnp.concatenate([rows, jnp.ones_like(rows[:, :1])], axis=1)
    for matrix, offset in weights[:-1]:
        inner = jax.nn.relu(inner @ matrix + offset)
    return (inner @ weights[-1][0] + weights[-1][1])[:, 0]
