"""The one training loop: resumable, watched, and the same result however often it is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.errors import ConfigError, ModelError
from causal_bayes_opt.surrogate.predictor import AmortizedModel
from causal_bayes_opt.surrogate.training import TrainingDistribution, simulation_step

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: number of steps of the schedule.
        stop_after: end after this many of them, for a run that another run goes on from.
        batch_size: simulated systems a step.
        learning_rate: peak rate of AdamW; warm-up, then a cosine to zero.
        warmup_steps: steps of the linear warm-up.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        ema_decay: of the running mean of the weights, which is the result.
        checkpoint_every: steps between checkpoints.
        seed: of the weights and of every batch.
    """

    steps: int = 2000
    stop_after: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checkpoint_every) < 1:
            raise ConfigError("steps, batch_size and checkpoint_every must be at least 1")
        if not self.learning_rate > 0 or not 0 <= self.ema_decay < 1:
            raise ConfigError("learning_rate must be positive and ema_decay in 0 to 1")


class LoopState(NamedTuple):
    """Everything that a step changes."""

    step: jax.Array  # int [], steps done
    params: hk.Params
    opt_state: optax.OptState
    average: hk.Params  # running mean of the weights


class Progress(NamedTuple):
    """What the loop reports after a step; the speed is that of this process."""

    step: int
    steps: int
    loss: float
    steps_per_second: float


def train(
    model: AmortizedModel,
    distribution: TrainingDistribution,
    config: LoopConfig,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    start: hk.Params | None = None,
) -> hk.Params:
    """Train on systems simulated at every step; return the averaged weights.

    Args:
        model: the network.
        distribution: of systems and designs.
        config: see the class.
        folder: where checkpoints and metrics go; a run that was stopped goes on from the last
            checkpoint to the same weights. None keeps nothing.
        report: called after every step.
        start: weights to begin with; None draws them by the seed.

    Raises:
        ModelError: the folder holds a run with another configuration.
        ConfigError: the loss is not finite; the message names the step and its seed.
    """
    optimizer = make_optimizer(config)
    state = _initial(model, optimizer, config, start)
    described = describe_run(model, distribution, config, start)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state = _resume(folder, state, described)
    advance = _advance(model, optimizer, distribution, config)
    base = jax.random.key(config.seed + 1)
    started, first = time.monotonic(), int(state.step)
    for done in _remaining(state, config):
        state, metrics = advance(state, jax.random.fold_in(base, done))
        loss = float(metrics["loss"])
        if not np.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {done} (batch seed {config.seed + 1}/{done}); the "
                "last checkpoint is kept; lower the learning rate and start again"
            )
        seconds = time.monotonic() - started
        if folder is not None:
            _log(folder, done, metrics, seconds)
            if (done + 1) % config.checkpoint_every == 0 or done + 1 == _last_step(config):
                save_checkpoint(folder, state, described)
        if report is not None:
            report(Progress(done + 1, _last_step(config), loss, (done + 1 - first) / seconds))
    return state.average


def make_optimizer(config: LoopConfig) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and a cosine to zero."""
    warmup = min(config.warmup_steps, max(config.steps // 5, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(config.steps, warmup + 1), 0.0
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, weight_decay=config.weight_decay),
    )


def describe_run(
    model: AmortizedModel,
    distribution: TrainingDistribution,
    config: LoopConfig,
    start: hk.Params | None = None,
) -> dict[str, Any]:
    """The run's configuration as JSON values."""
    described: dict[str, Any] = json.loads(
        json.dumps(
            {
                "format": CHECKPOINT_FORMAT,
                "model": model.describe(),
                "distribution": asdict(distribution),
                "loop": asdict(config),
                "start": None if start is None else _fingerprint(start),
            }
        )
    )
    return described


def digest(described: dict[str, Any]) -> str:
    """A hash of a configuration."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(folder: Path, state: LoopState, described: dict[str, Any]) -> None:
    """Write the state so that a reader sees the old one or the new one, never a part."""
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(state)}
    temporary = folder / "checkpoint.partial"
    save_file(arrays, temporary, metadata={"digest": digest(described)})
    os.replace(temporary, folder / "checkpoint.safetensors")
    (folder / "run.json").write_text(json.dumps(described, indent=1, sort_keys=True))


def _resume(folder: Path, state: LoopState, described: dict[str, Any]) -> LoopState:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return state
    recorded = json.loads((folder / "run.json").read_text())
    if digest(recorded) != digest(described):
        changed = [key for key in described if recorded.get(key) != described[key]]
        raise ModelError(
            f"{str(folder)!r} holds a run with another configuration ({', '.join(changed)} "
            "differ); choose another folder, or repeat that configuration to go on"
        )
    arrays = load_file(path)
    leaves = [jnp.asarray(arrays[name]) for name, _ in _named_leaves(state)]
    restored: LoopState = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return restored


def _named_leaves(state: LoopState) -> list[tuple[str, jax.Array]]:
    leaves, _ = jax.tree.flatten_with_path(state)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _initial(
    model: AmortizedModel,
    optimizer: optax.GradientTransformation,
    config: LoopConfig,
    start: hk.Params | None = None,
) -> LoopState:
    params = model.init(jax.random.key(config.seed)) if start is None else start
    return LoopState(jnp.zeros((), jnp.int32), params, optimizer.init(params), params)


def _advance(
    model: AmortizedModel,
    optimizer: optax.GradientTransformation,
    distribution: TrainingDistribution,
    config: LoopConfig,
) -> Callable[[LoopState, jax.Array], tuple[LoopState, dict[str, jax.Array]]]:
    step = simulation_step(model, optimizer, distribution, config.batch_size)

    @jax.jit
    def advance(state: LoopState, key: jax.Array) -> tuple[LoopState, dict[str, jax.Array]]:
        params, opt_state, metrics = step(state.params, state.opt_state, key)
        # Early on the mean follows the weights; later it forgets at the configured rate.
        rate = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(
            lambda old, new: rate * old + (1 - rate) * new, state.average, params
        )
        return LoopState(state.step + 1, params, opt_state, average), metrics

    return advance


def _remaining(state: LoopState, config: LoopConfig) -> Iterator[int]:
    return iter(range(int(state.step), _last_step(config)))


def _last_step(config: LoopConfig) -> int:
    return config.steps if config.stop_after is None else min(config.stop_after, config.steps)


def _fingerprint(params: hk.Params) -> str:
    """A hash of weights, whatever the order in which they are held."""
    leaves, _ = jax.tree.flatten_with_path(params)
    named = sorted((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves)
    data = b"".join(name.encode() + array.tobytes() for name, array in named)
    return hashlib.sha256(data).hexdigest()[:16]


def _log(folder: Path, step: int, metrics: dict[str, jax.Array], seconds: float) -> None:
    record = {"step": step, "seconds": round(seconds, 3)}
    record |= {name: float(value) for name, value in metrics.items()}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
