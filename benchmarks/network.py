"""The network: time of one posterior, warm."""

from __future__ import annotations

import time

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.surrogate.network import NetworkSurrogate, load_pretrained, pad_rows

REPEATS = 50


def rows() -> list[dict[str, object]]:
    trained = load_pretrained()
    surrogate = NetworkSurrogate(trained)
    forward = jax.jit(trained.model.joint)
    result: list[dict[str, object]] = []
    for n_vars, n_rows, bar in ((5, 100, "5 ms"), (8, 120, "5 ms"), (12, 200, "")):
        scm = random_scm(0, n_vars, SystemDistribution())
        buffer = ExperienceBuffer.from_dataframe(sample(scm, n_rows))
        padded = jax.device_put(pad_rows(buffer))
        times = {
            "network alone": _milliseconds(
                lambda p=padded: forward(trained.params, p).log_probs.block_until_ready()
            ),
            "buffer to posterior": _milliseconds(lambda b=buffer: surrogate(b, "X1")),
        }
        for what, (median, low, high) in times.items():
            result.append(
                {
                    "what": f"{what}, d={n_vars}, n={n_rows}",
                    "measured": f"{median:.2f} ms",
                    "bar": bar,
                    "note": f"{low:.2f} to {high:.2f} over {REPEATS}",
                }
            )
    return result


def _milliseconds(call: object) -> tuple[float, float, float]:
    assert callable(call)
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return (
        1e3 * float(np.median(seconds)),
        1e3 * float(np.min(seconds)),
        1e3 * float(np.max(seconds)),
    )
