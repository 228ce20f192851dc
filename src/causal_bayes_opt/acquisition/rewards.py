"""Rewards of one trial in a simulated episode, as named terms with weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_bayes_opt.errors import ConfigError


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the terms of a trial's reward.

    Attributes:
        improvement: of the share of the way from the target's observed mean to the best that the
            system can give, that the trial's expected outcome has come; negative when it is worse
            than observing.
        information: of the nats by which the beliefs about the target's parents came nearer to the
            truth through the trial's outcome.
        cost: of minus the trial's cost, a variable costing 1 on average.
        validity: of -1 for an action that sets nothing or too many variables.
    """

    improvement: float = 1.0
    information: float = 0.02
    cost: float = 0.01
    validity: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0:
                raise ConfigError(f"the weight of {field.name} is {value}; it cannot be negative")


class RewardTerms(NamedTuple):
    """The terms of one trial ``[...]``, before their weights; named as in `RewardWeights`."""

    improvement: jax.Array
    information: jax.Array
    cost: jax.Array
    validity: jax.Array


def reward(terms: RewardTerms, weights: RewardWeights) -> jax.Array:
    """The weighted sum of the terms."""
    return sum(
        (weight * getattr(terms, name) for name, weight in asdict(weights).items()),
        start=jnp.zeros(()),
    )


def improvement(outcome: jax.Array, observed: jax.Array, best: jax.Array) -> jax.Array:
    """Share of the way from observing to the best, signed outcomes; bounded below by -2."""
    return jnp.maximum((observed - outcome) / jnp.maximum(observed - best, 1e-6), -2.0)


def surprise(marginals: jax.Array, parents: jax.Array, candidates: jax.Array) -> jax.Array:
    """Cross-entropy ``[]`` in nats of parent probabilities with the truth, over candidates."""
    p = jnp.clip(marginals, 1e-3, 1.0 - 1e-3)
    each = jnp.where(parents, -jnp.log(p), -jnp.log1p(-p))
    return jnp.where(candidates, each, 0.0).sum()
