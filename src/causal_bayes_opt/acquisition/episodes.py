"""Whole episodes on simulated linear systems, under `jit` and `vmap`.

A start is a system together with what is known of it before the first trial: graphs drawn from the
posterior given some rows, and the mechanisms' posteriors under each. In an episode a policy acts,
the system answers, and each row is a rank-one step for the mechanisms and reweights the graphs.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.features import History, Question, Seen, features, no_history
from causal_bayes_opt.acquisition.linear_mechanisms import (
    LinearMechanisms,
    condition,
    total_effects,
)
from causal_bayes_opt.acquisition.rewards import RewardTerms, improvement, surprise


class System(NamedTuple):
    """A linear Gaussian system in the standardised units of its observed rows."""

    weights: jax.Array  # [n_vars, n_vars], of i in j at [i, j]
    bias: jax.Array  # [n_vars]
    noise: jax.Array  # [n_vars], standard deviations
    best: jax.Array  # [], signed: the best expected outcome of the target
    observed: jax.Array  # [], signed: its mean when nothing is set


class Start(NamedTuple):
    """Where an episode begins; leading axes under `vmap`."""

    system: System
    mechanisms: LinearMechanisms
    asked: Question
    teacher: net.Action  # what a model-based policy would do first


class Steps(NamedTuple):
    """What happened in an episode, leading axis ``[n_steps]``."""

    seen: Seen
    action: net.Action  # as drawn
    log_prob: jax.Array  # [.]
    terms: RewardTerms  # [.]


def play(
    key: jax.Array,
    network: net.PolicyNetwork,
    params: hk.Params,
    start: Start,
    n_steps: int,
    max_targets: int,
    greedy: bool = False,
) -> Steps:
    """Play one episode.

    Args:
        key: of actions and outcomes.
        network: the policy.
        params: its weights.
        start: where it begins.
        n_steps: number of trials.
        max_targets: most variables set at once.
        greedy: take what is most probable instead of drawing.
    """
    asked = start.asked
    parents = start.system.weights[:, asked.target] != 0
    candidates = asked.present & (jnp.arange(len(parents)) != asked.target)

    def doubt(mechanisms: LinearMechanisms) -> jax.Array:
        weight = jax.nn.softmax(mechanisms.log_weights)
        own = mechanisms.parents.columns[:, asked.target], mechanisms.parents.there[:, asked.target]
        place = jax.nn.one_hot(own[0], len(parents)) * own[1][..., None]
        return surprise(weight @ place.sum(axis=1), parents, candidates)

    def step(
        carry: tuple[LinearMechanisms, History], key: jax.Array
    ) -> tuple[tuple[LinearMechanisms, History], Steps]:
        mechanisms, history = carry
        k_action, k_row = jax.random.split(key)
        seen = features(mechanisms, asked, history)
        distribution = network.apply(params, seen, asked.present)
        drawn = net.draw_action(k_action, distribution, asked.settable)
        if greedy:
            drawn = net.Action((distribution.logits > 0) & asked.settable, distribution.mean)
        done = net.legal(drawn, distribution, asked.settable, max_targets)
        values = to_values(done, asked)
        row, mean = respond(k_row, start.system, done.chosen, values, asked.target)
        after = condition(mechanisms, row, done.chosen | ~asked.present)
        n_set = drawn.chosen.sum()
        terms = RewardTerms(
            improvement(asked.sign * mean, start.system.observed, start.system.best),
            doubt(mechanisms) - doubt(after),
            -(asked.cost * done.chosen).sum(),
            -((n_set == 0) | (n_set > max_targets)).astype(jnp.float32),
        )
        log_prob = net.log_prob(drawn, distribution, asked.settable)
        told = remember(history, done.chosen, values, asked.sign * row[asked.target])
        return (after, told), Steps(seen, drawn, log_prob, terms)

    first = (start.mechanisms, no_history(len(parents)))
    steps: Steps = jax.lax.scan(step, first, jax.random.split(key, n_steps))[1]
    return steps


def respond(
    key: jax.Array, system: System, chosen: jax.Array, values: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One row ``[n_vars]`` under an intervention, and the expected outcome of the target ``[]``."""
    total = total_effects(jnp.where(chosen[None, :], 0.0, system.weights))
    noise = system.noise * jax.random.normal(key, system.noise.shape)
    held = jnp.where(chosen, values, system.bias)
    mean = held @ total
    row = (held + jnp.where(chosen, 0.0, noise)) @ total
    return row, mean[target]


def to_values(action: net.Action, asked: Question) -> jax.Array:
    """Standardised values ``[n_vars]`` of an action's places."""
    centre, half = 0.5 * (asked.high + asked.low), 0.5 * (asked.high - asked.low)
    return jnp.where(action.chosen, centre + half * action.place, 0.0)


def remember(history: History, chosen: jax.Array, values: jax.Array, outcome: jax.Array) -> History:
    """The history after a trial; a signed, standardised outcome."""
    better = outcome < history.best_outcome
    return History(
        history.times_set + chosen,
        jnp.where(better, outcome, history.best_outcome),
        jnp.where(better, chosen, history.best_was_set),
        jnp.where(better, values, history.best_values),
        history.step + 1.0,
    )


@partial(jax.jit, static_argnames=("network", "n_steps", "max_targets"))
def greedy_improvements(
    key: jax.Array,
    network: net.PolicyNetwork,
    params: hk.Params,
    starts: Start,
    n_steps: int,
    max_targets: int,
) -> jax.Array:
    """Improvements ``[n_starts, n_steps]`` of the likeliest actions; 1 is the optimum."""
    keys = jax.random.split(key, starts.asked.target.shape[0])
    run = partial(play, n_steps=n_steps, max_targets=max_targets, greedy=True)
    steps = jax.vmap(lambda k, start: run(k, network, params, start))(keys, starts)
    return steps.terms.improvement


@jax.jit
def first_improvements(starts: Start) -> jax.Array:
    """Improvements ``[n_starts]`` by what the teacher does first; 1 is the optimum."""

    def one(start: Start) -> jax.Array:
        values = to_values(start.teacher, start.asked)
        key = jax.random.key(0)  # of noise, which the expected outcome does not have
        mean = respond(key, start.system, start.teacher.chosen, values, start.asked.target)[1]
        return improvement(start.asked.sign * mean, start.system.observed, start.system.best)

    found: jax.Array = jax.vmap(one)(starts)
    return found
