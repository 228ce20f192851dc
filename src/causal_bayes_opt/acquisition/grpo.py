"""Group relative policy optimisation of a policy network on simulated episodes.

Shao et al., "DeepSeekMath" (2024): several rollouts start from the same state; a rollout's
advantage is its return within its group, normalised; the policy follows the clipped ratio of
Schulman et al. (2017), with a divergence to a reference policy and no value network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.episodes import Start, Steps, play
from causal_bayes_opt.acquisition.features import Seen
from causal_bayes_opt.acquisition.rewards import RewardWeights, reward
from causal_bayes_opt.errors import ConfigError

_LEAST = 1e-4


@dataclass(frozen=True)
class GRPOConfig:
    """How rollouts become a gradient.

    Attributes:
        group_size: rollouts from the same start.
        n_steps: trials of an episode.
        max_targets: most variables set at once.
        discount: of later rewards in a trial's return.
        updates: gradient steps on the same rollouts.
        clip: the ratio of new to old probability counts up to 1 plus or minus this.
        kl: weight of the divergence from the reference policy.
        entropy: weight of the entropy bonus, a variable.
        rewards: weights of the reward's terms.
    """

    group_size: int = 8
    n_steps: int = 5
    max_targets: int = 3
    discount: float = 0.9
    updates: int = 2
    clip: float = 0.2
    kl: float = 0.01
    entropy: float = 0.003
    rewards: RewardWeights = field(default_factory=RewardWeights)

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ConfigError("group_size must be at least 2: an advantage compares rollouts")
        if min(self.n_steps, self.max_targets, self.updates) < 1:
            raise ConfigError("n_steps, max_targets and updates must be at least 1")
        if not 0 <= self.discount <= 1 or not 0 < self.clip < 1:
            raise ConfigError("discount must lie in 0 to 1, and clip between 0 and 1")
        if min(self.kl, self.entropy) < 0:
            raise ConfigError("weights of divergence and entropy cannot be negative")


class Rollouts(NamedTuple):
    """Episodes of a group from each start, leading axes ``[n_starts, group_size, n_steps]``."""

    steps: Steps
    advantage: jax.Array
    present: jax.Array  # bool [n_starts, n_vars]
    settable: jax.Array  # bool [n_starts, n_vars]


def roll_out(
    key: jax.Array,
    network: net.PolicyNetwork,
    params: hk.Params,
    starts: Start,
    config: GRPOConfig,
) -> Rollouts:
    """Play a group of episodes from each start and compare them within their group."""
    n_starts = starts.asked.target.shape[0]
    keys = jax.random.split(key, (n_starts, config.group_size))
    run = partial(play, n_steps=config.n_steps, max_targets=config.max_targets)

    def one(k: jax.Array, start: Start) -> Steps:
        return run(k, network, params, start)

    steps = jax.vmap(jax.vmap(one, in_axes=(0, None)))(keys, starts)
    gained = returns(reward(steps.terms, config.rewards), config.discount)
    return Rollouts(steps, group_advantage(gained), starts.asked.present, starts.asked.settable)


def returns(rewards: jax.Array, discount: float) -> jax.Array:
    """Discounted sums ``[..., n_steps]`` of each reward and those that follow it."""

    def back(later: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = now + discount * later
        return total, total

    steps_first = jnp.moveaxis(rewards, -1, 0)
    _, found = jax.lax.scan(back, jnp.zeros_like(steps_first[0]), steps_first, reverse=True)
    return jnp.moveaxis(found, 0, -1)


def group_advantage(gained: jax.Array) -> jax.Array:
    """Returns ``[n_starts, group_size, n_steps]`` to mean 0 and deviation 1 in each group."""
    mean = gained.mean(axis=1, keepdims=True)
    return (gained - mean) / (gained.std(axis=1, keepdims=True) + _LEAST)


def grpo_loss(
    network: net.PolicyNetwork,
    params: hk.Params,
    reference: hk.Params,
    rollouts: Rollouts,
    config: GRPOConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss ``[]`` on rollouts of an earlier policy, and its parts."""

    def of_step(
        seen: Seen, action: net.Action, present: jax.Array, settable: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        now = network.apply(params, seen, present)
        then = network.apply(reference, seen, present)
        return (
            net.log_prob(action, now, settable),
            net.log_prob(action, then, settable),
            net.entropy(now, settable) / jnp.maximum(settable.sum(), 1),
        )

    over_steps = jax.vmap(of_step, in_axes=(0, 0, None, None))
    over_group = jax.vmap(over_steps, in_axes=(0, 0, None, None))
    now, then, disorder = jax.vmap(over_group)(
        rollouts.steps.seen, rollouts.steps.action, rollouts.present, rollouts.settable
    )
    policy = clipped(now - rollouts.steps.log_prob, rollouts.advantage, config.clip).mean()
    # Schulman's estimate of the divergence: never negative, and right on average.
    apart = jnp.clip(then - now, -10.0, 10.0)
    divergence = (jnp.exp(apart) - apart - 1.0).mean()
    loss = -policy + config.kl * divergence - config.entropy * disorder.mean()
    return loss, {"policy": policy, "divergence": divergence, "entropy": disorder.mean()}


def clipped(log_ratio: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """The smaller of the plain and the clipped gain, so that no step goes far."""
    ratio = jnp.exp(jnp.clip(log_ratio, -10.0, 10.0))
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def imitation_loss(
    network: net.PolicyNetwork, params: hk.Params, seen: Seen, starts: Start
) -> jax.Array:
    """Mean negative log-probability of the teacher's first actions."""

    def of_one(seen: Seen, start: Start) -> jax.Array:
        distribution = network.apply(params, seen, start.asked.present)
        return -net.log_prob(start.teacher, distribution, start.asked.settable)

    return jax.vmap(of_one)(seen, starts).mean()
