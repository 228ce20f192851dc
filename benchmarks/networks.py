"""Networks beside each other on the same fresh systems.

``python -m benchmarks.networks MODEL MODEL ... [--systems N]``: names of shipped models or paths of
headers. Prints a Markdown table of nats on the true parent sets, mean over all variables of a
system, and what every further model has less the first, with 95 % intervals of paired differences;
then the time of one posterior, the models in turn. The seeds are those of no training step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from benchmarks.intervals import mean_told
from benchmarks.peers import MECHANISMS, SIZES
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.surrogate.joint import Network, joint_of_many
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel, load_pretrained
from causal_bayes_opt.surrogate.training import (
    DesignDistribution,
    SimulatedBatch,
    TrainingDistribution,
    simulate,
)

CHUNK = 80  # a multiple of those that are asked at once
DESIGN = DesignDistribution(n_obs=(20, 512), max_experiments=120)
SEED = 2**31 - 11
REPEATS = 200


@lru_cache(maxsize=8)
def asked(model: Network) -> Any:
    """A network's answers to many systems, compiled once a number of variables."""
    return jax.jit(partial(joint_of_many, model))


def losses(trained: TrainedModel, batch: SimulatedBatch) -> np.ndarray:
    """Nats on the true sets, mean over the variables of each system ``[n]``."""
    joint = asked(trained.model)(trained.params, batch.rows)
    candidates, log_probs = np.asarray(joint.candidates), np.asarray(joint.log_probs)
    parents = np.asarray(batch.parents)
    members = np.take_along_axis(parents, candidates, axis=2)
    row = (members << np.arange(members.shape[2])).sum(axis=2)
    own = -np.take_along_axis(log_probs.astype(np.float64), row[..., None], axis=2)[..., 0]
    return np.asarray(own.mean(axis=1))


def batches(mechanism: str, n_vars: int, systems: int) -> Iterator[SimulatedBatch]:
    """Fresh systems of one family and size, all noises that the mixed models are trained on."""
    distribution = SystemDistribution(
        n_vars=(n_vars, n_vars),
        mechanisms=(mechanism,),
        noises=("gaussian", "laplace", "uniform"),
    )
    for number in range(systems // CHUNK):
        key = jax.random.fold_in(jax.random.key(SEED), number)
        yield simulate(key, CHUNK, TrainingDistribution((distribution,), DESIGN))


def milliseconds(models: Sequence[TrainedModel]) -> np.ndarray:
    """Of one posterior, warm, for 8 variables and 120 rows ``[n_models, repeats]``."""
    buffer = ExperienceBuffer.from_dataframe(sample(random_scm(0, 8, SystemDistribution()), 120))
    asked_of = [NetworkSurrogate(model) for model in models]
    found = np.zeros((len(models), REPEATS + 1))
    for turn in range(REPEATS + 1):
        for i, surrogate in enumerate(asked_of):
            began = time.perf_counter()
            surrogate(buffer, "X1")
            found[i, turn] = 1e3 * (time.perf_counter() - began)
    return found[:, 1:]  # the first compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="names, or paths of headers")
    parser.add_argument("--systems", type=int, default=960, help="systems a cell")
    options = parser.parse_args()
    models = [load_pretrained(name) for name in options.models]
    heads = [models[0].name, *(f"{other.name} - {models[0].name}" for other in models[1:])]
    print(f"| mechanisms | d | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}", flush=True)
    everything = []
    for mechanism in ("linear", *MECHANISMS):
        for n_vars in SIZES:
            parts = [
                np.stack([losses(model, batch) for model in models])
                for batch in batches(mechanism, n_vars, options.systems)
            ]
            found = np.concatenate(parts, axis=1)
            everything.append(found)
            print(f"| {mechanism} | {n_vars} | {_row(found)} |", flush=True)
    print(f"| all | | {_row(np.concatenate(everything, axis=1))} |\n")
    for model, ms in zip(models, milliseconds(models), strict=True):
        low, middle, high = np.quantile(ms, (0.2, 0.5, 0.8))
        print(f"{model.name}: one posterior, d=8, n=120: {middle:.2f} ms ({low:.2f} to {high:.2f})")


def _row(found: np.ndarray) -> str:
    return " | ".join(
        [mean_told(found[0], ".4f"), *(mean_told(other - found[0], "+.4f") for other in found[1:])]
    )


if __name__ == "__main__":
    main()
