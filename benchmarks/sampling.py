"""Sampling: many systems at once, on the device."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.random_systems import SystemDistribution, draw_systems
from causal_bayes_opt.core.sample import sample_batch

N_SYSTEMS, N_ROWS, N_VARS, REPEATS = 10_000, 200, 8, 5


def rows() -> list[dict[str, object]]:
    systems = draw_systems(jax.random.key(0), N_SYSTEMS, SystemDistribution((N_VARS, N_VARS)))
    values = jnp.zeros((N_SYSTEMS, N_ROWS, N_VARS))
    mask = values > 0
    sample_batch(jax.random.key(1), systems, values, mask).block_until_ready()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        sample_batch(jax.random.key(1), systems, values, mask).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return [
        {
            "what": f"{N_SYSTEMS:,} systems of {N_VARS} variables x {N_ROWS} rows",
            "measured": f"{np.median(seconds):.2f} s",
            "bar": "5 s",
            "note": f"{min(seconds):.2f} to {max(seconds):.2f} of {REPEATS}",
        }
    ]
