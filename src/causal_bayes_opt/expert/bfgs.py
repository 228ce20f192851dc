"""BFGS in a box, for functions of a few numbers: fixed shapes, so that many run under one `vmap`.

Every turn of the loop is one evaluation, of the function and its slope together; a step that does
not go down is shortened in the next turn. Without a nested line search, problems mapped over in
parallel wait for each other only at the end.
Source: Nocedal and Wright (2006), chapters 3 and 6; bounds by projection as in Bertsekas (1982).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

ValueAndSlope: TypeAlias = Callable[[jax.Array], tuple[jax.Array, jax.Array]]

ARMIJO = 1e-4  # least share of the predicted descent that a step must bring
SHORTEN = 0.25
SHORTEST = 1e-6


class _Search(NamedTuple):
    x: jax.Array  # [n]
    value: jax.Array
    slope: jax.Array  # [n]
    hessian: jax.Array  # [n, n], estimated
    direction: jax.Array  # [n]
    length: jax.Array  # of the step to be tried
    evaluations: jax.Array
    done: jax.Array


def minimise(
    function: ValueAndSlope,
    start: jax.Array,
    low: jax.Array,
    high: jax.Array,
    *,
    evaluations: int = 80,
    tolerance: float = 1e-3,
) -> tuple[jax.Array, jax.Array]:
    """Find a local minimum of a smooth function in a box.

    Args:
        function: value and slope ``[n]`` at a point; what is not finite is stepped back from.
        start: ``[n]``, inside the box and with a finite value.
        low: ``[n]``.
        high: ``[n]``.
        evaluations: at most so many.
        tolerance: the largest component of the projected slope at which the search ends.

    Returns:
        The point ``[n]`` and its value.
    """
    value, slope = function(start)
    eye = jnp.eye(start.shape[0], dtype=start.dtype)
    first = _steepest(start, slope, low, high)
    search = _Search(
        start,
        value,
        slope,
        eye,
        first,
        length=jnp.ones_like(value),
        evaluations=jnp.ones((), jnp.int32),
        done=jnp.abs(first).max() < tolerance,
    )

    def one_evaluation(search: _Search) -> _Search:
        x = jnp.clip(search.x + search.length * search.direction, low, high)
        value, slope = function(x)
        predicted = search.slope @ (x - search.x)
        accepted = (value <= search.value + ARMIJO * predicted) & jnp.isfinite(slope).all()
        after = _accept(search, x, value, slope, low, high, tolerance)
        shorter = _shorten(search, low, high)
        chosen = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), after, shorter)
        result: _Search = chosen._replace(evaluations=search.evaluations + 1)
        return result

    def unfinished(search: _Search) -> jax.Array:
        return (search.evaluations < evaluations) & ~search.done

    search = jax.lax.while_loop(unfinished, one_evaluation, search)
    return search.x, search.value


def _accept(
    search: _Search,
    x: jax.Array,
    value: jax.Array,
    slope: jax.Array,
    low: jax.Array,
    high: jax.Array,
    tolerance: float,
) -> _Search:
    """Move to `x`, learn the curvature on the way and choose the next direction."""
    moved, turned = x - search.x, slope - search.slope
    curvature = moved @ turned
    usable = curvature > 1e-12 * (turned @ turned)
    divisor = jnp.where(usable, curvature, 1.0)
    eye = jnp.eye(x.shape[0], dtype=x.dtype)
    # Before anything is known of the curvature, its scale is that along the first step.
    old = jnp.where(
        (search.hessian == eye).all(), eye * (turned @ turned) / divisor, search.hessian
    )
    pushed = old @ moved
    strength = jnp.where(usable, moved @ pushed, 1.0)
    updated = old + jnp.outer(turned, turned) / divisor - jnp.outer(pushed, pushed) / strength
    hessian = jnp.where(usable, updated, search.hessian)
    free = ~_held(x, slope, low, high)
    block = jnp.where(free[:, None] & free[None, :], hessian, eye)
    direction = -jnp.linalg.solve(block, jnp.where(free, slope, 0.0))
    steepest = _steepest(x, slope, low, high)
    downhill = (direction @ slope < 0) & jnp.isfinite(direction).all()
    return _Search(
        x,
        value,
        slope,
        jnp.where(downhill, hessian, eye),
        jnp.where(downhill, direction, steepest),
        length=jnp.ones_like(value),
        evaluations=search.evaluations,
        done=jnp.abs(jnp.where(free, slope, 0.0)).max() < tolerance,
    )


def _shorten(search: _Search, low: jax.Array, high: jax.Array) -> _Search:
    """Try a shorter step; when it is too short, forget the curvature, and then give up."""
    length = search.length * SHORTEN
    eye = jnp.eye(search.x.shape[0], dtype=search.x.dtype)
    known = (search.hessian != eye).any()
    restart = (length < SHORTEST) & known
    steepest = _steepest(search.x, search.slope, low, high)
    return search._replace(
        hessian=jnp.where(restart, eye, search.hessian),
        direction=jnp.where(restart, steepest, search.direction),
        length=jnp.where(restart, 1.0, length),
        done=(length < SHORTEST) & ~known,
    )


def _steepest(x: jax.Array, slope: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Down the slope in the coordinates that the box does not hold, by 1 at most."""
    down = jnp.where(_held(x, slope, low, high), 0.0, -slope)
    return down / jnp.maximum(1.0, jnp.abs(down).max())


def _held(x: jax.Array, slope: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    return ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
