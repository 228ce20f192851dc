"""Systems whose variables have mean 0 and deviation 1: as they are generated, or afterwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_bayes_opt.core.sample import SystemArrays, sample_system

_PILOT_ROWS = 256
_BOUND = 5.0  # where means saturate


def standardise(key: jax.Array, system: SystemArrays) -> SystemArrays:
    """Bring every variable to mean 0 and deviation 1 as it is generated, by a pilot sample.

    The result is a system of the same form; its parents' values enter standardised (iSCM).
    """
    d = system.bias.shape[0]
    zeros = jnp.zeros((_PILOT_ROWS, d))
    nothing = jnp.zeros((_PILOT_ROWS, d), dtype=bool)

    def step(current: SystemArrays, node: jax.Array) -> tuple[SystemArrays, None]:
        column = sample_system(key, current, zeros, nothing)[:, node]
        factor = 1.0 / jnp.maximum(column.std(), 1e-6)
        factor = jnp.where(current.present[node], factor, 1.0)
        shift = -column.mean() * factor
        own = jnp.arange(d) == node
        return (
            current._replace(
                weights=jnp.where(own[None, :], current.weights * factor, current.weights),
                bias=jnp.where(own, current.bias * factor + shift, current.bias),
                readout=jnp.where(own[:, None], current.readout * factor, current.readout),
                bound=jnp.where(own, _BOUND, current.bound),
                noise_scale=jnp.where(own, current.noise_scale * factor, current.noise_scale),
            ),
            None,
        )

    result, _ = jax.lax.scan(step, system, system.order)
    return result


def change_units(key: jax.Array, system: SystemArrays) -> SystemArrays:
    """Bring every variable of a finished system to mean 0 and deviation 1, by a pilot sample.

    The joint distribution changes by an affine map of each variable and by nothing else, as long
    as no mean comes near its bound.
    """
    d = system.bias.shape[0]
    zeros = jnp.zeros((_PILOT_ROWS, d))
    rows = sample_system(key, system, zeros, zeros > 0)
    mean = jnp.where(system.present, rows.mean(axis=0), 0.0)
    deviation = jnp.where(system.present, jnp.maximum(rows.std(axis=0), 1e-6), 1.0)
    return system._replace(
        weights=system.weights * deviation[:, None] / deviation[None, :],
        bias=(system.bias + mean @ system.weights - mean) / deviation,
        hidden=system.hidden * deviation,
        offsets=system.offsets + system.hidden @ mean,
        readout=system.readout / deviation[:, None],
        bound=(system.bound + jnp.abs(mean)) / deviation,
        noise_scale=system.noise_scale / deviation,
    )
