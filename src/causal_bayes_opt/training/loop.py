"""The one training loop: resumable, watched, and the same result however often it is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

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
from causal_bayes_opt.training.parallel import everywhere, using
from causal_bayes_opt.training.sources import Place, Simulated, Source

StepFunction: TypeAlias = Callable[
    [hk.Params, optax.OptState, Any, jax.Array],
    tuple[hk.Params, optax.OptState, dict[str, jax.Array]],
]
LossFunction: TypeAlias = Callable[
    [hk.Params, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]
GradientFunction: TypeAlias = Callable[
    [hk.Params, Any, jax.Array], tuple[hk.Params, dict[str, jax.Array]]
]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: number of steps of the schedule.
        stop_after: end after this many of them, for a run that another run goes on from.
        batch_size: simulated systems a step; sources of demonstrations have their own.
        learning_rate: peak rate of AdamW; warm-up, then a cosine to zero.
        warmup_steps: steps of the linear warm-up.
        weight_decay: of AdamW.
        clip_norm: gradients are scaled down to this norm.
        accumulation: batches whose gradients are averaged before the weights change.
        ema_decay: of the running mean of the weights, which is the result.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations, where the caller gives one; 0: none.
        patience: validations without a better one after which training ends; None: never.
        enough: training ends at a validation that is not above this, in nats; None: never.
        divergence: training ends when the smoothed loss is so many nats above its best.
        max_consecutive_errors: batches in a row whose gradients are not finite that leave the
            weights as they are (`optax.apply_if_finite`); at one more, training ends.
        seed: of the weights and of every batch.
    """

    steps: int = 2000
    stop_after: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    accumulation: int = 1
    ema_decay: float = 0.995
    checkpoint_every: int = 500
    validate_every: int = 0
    patience: int | None = None
    enough: float | None = None
    divergence: float = 20.0
    max_consecutive_errors: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checkpoint_every, self.accumulation) < 1:
            raise ConfigError(
                "steps, batch_size, checkpoint_every and accumulation must be at least 1"
            )
        if not self.learning_rate > 0 or not 0 <= self.ema_decay < 1:
            raise ConfigError("learning_rate must be positive and ema_decay in 0 to 1")
        if self.validate_every < 0 or (self.patience is not None and self.patience < 1):
            raise ConfigError("validate_every cannot be negative, and patience must be at least 1")
        if self.max_consecutive_errors < 0:
            raise ConfigError("max_consecutive_errors cannot be negative")


@runtime_checkable
class OwnSteps(Protocol):
    """A source that knows better than one gradient step a batch."""

    @property
    def updates(self) -> int:
        """Changes of the weights in each step of the loop."""
        ...

    def step(self, model: Any, optimizer: optax.GradientTransformation) -> StepFunction:
        """What takes the place of `make_step`; traced."""
        ...


class Trainable(Protocol):
    """What the loop must know of a network; the rest is between it and its source."""

    def init(self, key: jax.Array) -> hk.Params:
        """Draw parameters."""
        ...

    def describe(self) -> dict[str, Any]:
        """Its configuration as JSON values."""
        ...

    def __hash__(self) -> int:
        """Compiled steps are kept by network."""
        ...


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
    advance = _advance(model, source, _what_is_compiled(config), mesh)
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


def make_gradient(loss_function: LossFunction, mesh: Mesh | None = None) -> GradientFunction:
    """The jitted gradient of a loss on a batch, and `loss`, its parts, and `grad_norm`."""

    @jax.jit
    def gradient(
        params: hk.Params, batch: Any, key: jax.Array
    ) -> tuple[hk.Params, dict[str, jax.Array]]:
        def loss_of(weights: hk.Params) -> tuple[jax.Array, dict[str, jax.Array]]:
            with using(mesh):
                return loss_function(weights, batch, key)

        (loss, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        return grads, {"loss": loss, **parts, "grad_norm": optax.tree.norm(grads)}

    return gradient


def make_step(
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None = None,
) -> StepFunction:
    """The jitted step: follow the gradient of a loss on a batch; metrics as of `make_gradient`."""
    gradient = make_gradient(loss_function, mesh)

    @jax.jit
    def step(
        params: hk.Params, opt_state: optax.OptState, batch: Any, key: jax.Array
    ) -> tuple[hk.Params, optax.OptState, dict[str, jax.Array]]:
        grads, metrics = gradient(params, batch, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, metrics

    return step


def make_optimizer(config: LoopConfig, updates: int = 1) -> optax.GradientTransformation:
    """AdamW with clipping, warm-up and a cosine to zero; gradients averaged over batches.

    `updates` is how often a step of the loop changes the weights.
    """
    steps = max(config.steps * updates // config.accumulation, 1)
    warmup = min(config.warmup_steps, max(steps // 5, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(steps, warmup + 1), 0.0
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, weight_decay=config.weight_decay),
    )
    if config.max_consecutive_errors:
        optimizer = optax.apply_if_finite(optimizer, config.max_consecutive_errors)
    if config.accumulation == 1:
        return optimizer
    return optax.MultiSteps(optimizer, config.accumulation).gradient_transformation()


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


def _what_is_compiled(config: LoopConfig) -> LoopConfig:
    """The configuration with all that a step does not depend on at its default."""
    kept = ("steps", "learning_rate", "warmup_steps", "weight_decay", "clip_norm")
    more = ("accumulation", "ema_decay", "max_consecutive_errors")
    return LoopConfig(**{name: getattr(config, name) for name in (*kept, *more)})


@lru_cache(maxsize=8)
def _advance(
    model: Trainable, source: Source, config: LoopConfig, mesh: Mesh | None
) -> Callable[[LoopState, Any, jax.Array], tuple[LoopState, dict[str, jax.Array]]]:
    """The compiled step, kept for another run of the same kind."""
    if isinstance(source, OwnSteps):
        step = source.step(model, make_optimizer(config, source.updates))

        @jax.jit
        def advance_by_own(
            state: LoopState, batch: Any, key: jax.Array
        ) -> tuple[LoopState, dict[str, jax.Array]]:
            params, opt_state, metrics = step(state.params, state.opt_state, batch, key)
            return _stepped(state, params, opt_state, config.ema_decay), metrics

        return advance_by_own

    # Two programs: another schedule does not compile the gradient again, which takes longest.
    gradient, optimizer = _gradient(model, source, mesh), make_optimizer(config)

    @jax.jit
    def follow(state: LoopState, grads: hk.Params) -> LoopState:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return _stepped(state, params, opt_state, config.ema_decay)

    def advance(
        state: LoopState, batch: Any, key: jax.Array
    ) -> tuple[LoopState, dict[str, jax.Array]]:
        grads, metrics = gradient(state.params, batch, key)
        return follow(state, grads), metrics

    return advance


@lru_cache(maxsize=8)
def _gradient(model: Trainable, source: Source, mesh: Mesh | None) -> GradientFunction:
    """The compiled gradient, kept for another run on the same data."""
    return make_gradient(partial(source.loss, model), mesh)


def _stepped(
    state: LoopState, params: hk.Params, opt_state: optax.OptState, ema_decay: float
) -> LoopState:
    """The state after a step to these weights."""
    # Early on the mean follows the weights; later it forgets at the configured rate.
    rate = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    average = jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, state.average, params)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state, average=average)


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
