"""The networks: time of one posterior and of many at once, warm, beside exact inference."""

from __future__ import annotations

import time
from functools import partial

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.surrogate.joint import joint_of_many
from causal_bayes_opt.surrogate.network import NetworkSurrogate, load_pretrained, pad_rows
from causal_bayes_opt.surrogate.training import (
    DesignDistribution,
    TrainingDistribution,
    simulate,
)

REPEATS = 50
MODELS = ("linear-gaussian-v1", "mixed-v1")
SIZES = ((5, 100, "2 ms"), (8, 120, "2 ms"), (12, 200, ""), (50, 1000, "100 ms"))
BATCH = 256
FEW = 5  # repeats of what takes long


def rows() -> list[dict[str, object]]:
    return [row for name in MODELS for row in (*_one_by_one(name), _many_at_once(name))]


def _one_by_one(name: str) -> list[dict[str, object]]:
    trained = load_pretrained(name)
    surrogate = NetworkSurrogate(trained)
    forward = jax.jit(trained.model.joint)
    result: list[dict[str, object]] = []
    for n_vars, n_rows, bar in SIZES:
        scm = random_scm(0, n_vars, SystemDistribution())
        buffer = ExperienceBuffer.from_dataframe(sample(scm, n_rows))
        repeats = REPEATS if n_vars <= 12 else FEW
        padded = jax.device_put(pad_rows(buffer))
        times = {
            "network alone": _milliseconds(
                lambda p=padded: forward(trained.params, p).log_probs.block_until_ready(),
                repeats,
            ),
            "buffer to posterior": _milliseconds(lambda b=buffer: surrogate(b, "X1"), repeats),
        }
        for what, (median, low, high) in times.items():
            result.append(
                {
                    "what": f"{name}: {what}, d={n_vars}, n={n_rows}",
                    "measured": f"{median:.2f} ms",
                    "bar": bar,
                    "note": f"{low:.2f} to {high:.2f} over {repeats}",
                }
            )
    return result


def _many_at_once(name: str) -> dict[str, object]:
    trained = load_pretrained(name)
    distribution = TrainingDistribution(
        (SystemDistribution(n_vars=(8, 8)),), DesignDistribution((120, 120), max_experiments=32)
    )
    batch = jax.device_put(simulate(jax.random.key(0), BATCH, distribution).rows)
    forward = jax.jit(partial(joint_of_many, trained.model))

    def answer() -> object:
        return jax.block_until_ready(forward(trained.params, batch))

    median, low, high = _milliseconds(answer, FEW)
    return {
        "what": f"{name}: network alone, batch of {BATCH}, d=8, n=120",
        "measured": f"{median / BATCH:.2f} ms each",
        "bar": "1 ms",
        "note": f"{low / BATCH:.2f} to {high / BATCH:.2f} over {FEW}",
    }


def _milliseconds(call: object, repeats: int = REPEATS) -> tuple[float, float, float]:
    assert callable(call)
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return (
        1e3 * float(np.median(seconds)),
        1e3 * float(np.min(seconds)),
        1e3 * float(np.max(seconds)),
    )
