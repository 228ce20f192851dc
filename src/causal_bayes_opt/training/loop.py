"""The one training loop: resumable, watched, and the same result however often it is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.training import TrainingDistribution
from causal_bayes_opt.training.checkpoints import (
    CHECKPOINT_FORMAT,
    LoopState,
    fingerprint,
    log_step,
    resume,
    save_checkpoint,
)
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.parallel import everywhere
from causal_bayes_opt.training.sources import Place, Simulated, Source
from causal_bayes_opt.training.steps import OwnSteps, Trainable, make_advance, make_optimizer


class Progress(NamedTuple):
    """What the loop reports after a step; the speed is that of this process."""

    step: int
    steps: int
    loss: float
    steps_per_second: float
    validation: float | None = None  # after a step with a validation


def train(
    model: Trainable,
    source: TrainingDistribution | Source,
    config: LoopConfig,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    start: hk.Params | None = None,
    validate: Callable[[hk.Params], float] | None = None,
    mesh: Mesh | None = None,
) -> hk.Params:
    """Train; return the averaged weights, those of the best validation where there were any.

    Args:
        model: the network.
        source: where batches come from; a distribution simulates them afresh at every step.
        config: see the class.
        folder: where checkpoints and metrics go; a run that was stopped goes on from the last
            checkpoint to the same weights. None keeps nothing.
        report: called after every step.
        start: weights to begin with; None draws them by the seed.
        validate: gives a loss to averaged weights, every ``config.validate_every`` steps.
        mesh: devices along which batches are split; None: one device.

    Raises:
        ModelError: the folder holds a run with another configuration.
        ConfigError: loss or gradients are not finite, more often in a row than the configuration
            passes over, or the loss diverges; the message names the step and its seed.
    """
    if isinstance(source, TrainingDistribution):
        source = Simulated(source, config.batch_size)
    optimizer = make_optimizer(config, source.updates if isinstance(source, OwnSteps) else 1)
    state = _initial(model, optimizer, config, start)
    described = describe_run(model, source, config, start)
    writes = folder is not None and jax.process_index() == 0
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state = resume(folder, state, described)
    state = everywhere(state, mesh)
    advance = make_advance(model, source, config, mesh)
    base = jax.random.key(config.seed + 1)
    watch = _Watch(config, folder)
    started, first = time.monotonic(), int(state.step)
    batches = source.batches(Place(*np.asarray(state.place).tolist()))
    for done in range(first, _last_step(config)):
        if _is_over(state, config):
            break
        place, batch = next(batches)
        state, metrics = advance(state, batch, jax.random.fold_in(base, done))
        state = state._replace(place=everywhere(jnp.asarray(place, jnp.int32), mesh))
        loss = float(metrics["loss"])
        watch.check(done, loss, float(metrics["grad_norm"]))
        found = None
        if (
            validate is not None
            and config.validate_every
            and not (done + 1) % config.validate_every
        ):
            found = validate(state.average)
            state = everywhere(_judged(state, found), mesh)
        seconds = time.monotonic() - started
        if folder is not None and writes:
            log_step(folder, done, metrics, seconds, found)
            at_end = done + 1 == _last_step(config) or _is_over(state, config)
            if (done + 1) % config.checkpoint_every == 0 or at_end:
                save_checkpoint(folder, state, described)
        if report is not None:
            speed = (done + 1 - first) / seconds
            report(Progress(done + 1, _last_step(config), loss, speed, found))
    return state.best if np.isfinite(state.best_loss) else state.average


def describe_run(
    model: Trainable,
    source: Source,
    config: LoopConfig,
    start: hk.Params | None = None,
) -> dict[str, Any]:
    """The run's configuration as JSON values."""
    described: dict[str, Any] = json.loads(
        json.dumps(
            {
                "format": CHECKPOINT_FORMAT,
                "model": model.describe(),
                "source": source.describe(),
                "loop": asdict(config),
                "start": None if start is None else fingerprint(start),
            }
        )
    )
    return described


class _Watch:
    """Ends a run whose loss is lost."""

    def __init__(self, config: LoopConfig, folder: Path | None) -> None:
        self._config, self._folder = config, folder
        self._smooth: float | None = None
        self._best = np.inf
        self._errors = 0  # in a row

    def check(self, step: int, loss: float, grad_norm: float) -> None:
        """Take note of a step; raise `ConfigError` where it is not finite or far above the best."""
        if not np.isfinite([loss, grad_norm]).all():
            self._errors += 1
            if self._errors > self._config.max_consecutive_errors:
                told = f"loss is {loss}" if not np.isfinite(loss) else f"gradient is {grad_norm}"
                raise ConfigError(f"the {told} {self._where(step)}")
            return
        self._errors = 0
        self._smooth = loss if self._smooth is None else 0.95 * self._smooth + 0.05 * loss
        self._best = min(self._best, self._smooth)
        if self._smooth > self._best + self._config.divergence:
            raise ConfigError(
                f"the loss diverges: {self._smooth:.3g} after {self._best:.3g} {self._where(step)}"
            )

    def _where(self, step: int) -> str:
        kept = "nothing is kept"
        if self._folder is not None and (self._folder / "checkpoint.safetensors").exists():
            kept = f"the last good checkpoint is {str(self._folder / 'checkpoint.safetensors')!r}"
        return (
            f"at step {step} (batch seed {self._config.seed + 1}/{step}); {kept}; lower the "
            "learning rate and start again in another folder"
        )


def _initial(
    model: Trainable,
    optimizer: optax.GradientTransformation,
    config: LoopConfig,
    start: hk.Params | None = None,
) -> LoopState:
    params = model.init(jax.random.key(config.seed)) if start is None else start
    return LoopState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        average=params,
        best=params,
        best_loss=jnp.asarray(jnp.inf),
        misses=jnp.zeros((), jnp.int32),
        place=jnp.zeros(3, jnp.int32),
    )


def _judged(state: LoopState, loss: float) -> LoopState:
    if loss < float(state.best_loss):
        return state._replace(
            best=state.average, best_loss=jnp.asarray(loss, jnp.float32), misses=state.misses * 0
        )
    return state._replace(misses=state.misses + 1)


def _is_over(state: LoopState, config: LoopConfig) -> bool:
    if config.enough is not None and float(state.best_loss) <= config.enough:
        return True
    return config.patience is not None and int(state.misses) >= config.patience


def _last_step(config: LoopConfig) -> int:
    return config.steps if config.stop_after is None else min(config.stop_after, config.steps)
