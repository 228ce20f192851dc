"""How long and how fast a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from causal_bayes_opt.errors import ConfigError


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
        for name in ("max_consecutive_errors", "warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be negative")
        if not self.clip_norm > 0 or (self.stop_after is not None and self.stop_after < 1):
            raise ConfigError("clip_norm must be positive, and stop_after at least 1")
