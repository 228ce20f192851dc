"""What a step of the training loop does: the gradient, the optimizer, the running mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from causal_bayes_opt.training.checkpoints import LoopState
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.parallel import using
from causal_bayes_opt.training.sources import Source

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
Advance: TypeAlias = Callable[[LoopState, Any, jax.Array], tuple[LoopState, dict[str, jax.Array]]]


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
    if config.accumulation > 1:
        optimizer = optax.MultiSteps(optimizer, config.accumulation).gradient_transformation()
    if not config.max_consecutive_errors:
        return optimizer
    # Outside: what is not finite would stay among the gradients that are averaged.
    return optax.apply_if_finite(optimizer, config.max_consecutive_errors)


def make_advance(
    model: Trainable, source: Source, config: LoopConfig, mesh: Mesh | None
) -> Advance:
    """The compiled step of the loop's state, kept for another run of the same kind."""
    return _compiled(model, source, _what_matters(config), mesh)


def _what_matters(config: LoopConfig) -> LoopConfig:
    """The configuration with all that a step does not depend on at its default."""
    kept = ("steps", "learning_rate", "warmup_steps", "weight_decay", "clip_norm")
    more = ("accumulation", "ema_decay", "max_consecutive_errors")
    return LoopConfig(**{name: getattr(config, name) for name in (*kept, *more)})


@lru_cache(maxsize=8)
def _compiled(model: Trainable, source: Source, config: LoopConfig, mesh: Mesh | None) -> Advance:
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
