"""What the policy network sees of a state: numbers of variables and pairs, in any order and unit.

Everything is in standardised units, with the target's sign turned so that small is good, and
follows from linear mechanisms under the graphs of the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_bayes_opt.acquisition.linear_mechanisms import (
    LinearMechanisms,
    expected,
    total_effects,
)

POLICY_ENCODING_VERSION = 2
N_FEATURES, N_PAIRED = 18, 4
_FAR = 10.0  # ranges and effects beyond are told as this


class Question(NamedTuple):
    """What is asked, as arrays of one system (leading axes under `vmap`)."""

    present: jax.Array  # bool [n_vars]
    settable: jax.Array  # bool [n_vars]
    target: jax.Array  # int []
    sign: jax.Array  # [], 1 to minimise, -1 to maximise
    low: jax.Array  # [n_vars], standardised ends of the ranges; 0 where not settable
    high: jax.Array  # [n_vars]
    cost: jax.Array  # [n_vars], of setting it once, the mean over settable variables being 1


class History(NamedTuple):
    """What was tried in the trials so far."""

    times_set: jax.Array  # [n_vars]
    best_outcome: jax.Array  # [], signed and standardised; 0, the observed mean, before any trial
    best_was_set: jax.Array  # bool [n_vars]
    best_values: jax.Array  # [n_vars], standardised
    step: jax.Array  # [], trials done


class Seen(NamedTuple):
    """What the network is shown."""

    own: jax.Array  # [n_vars, N_FEATURES]
    pairs: jax.Array  # [n_vars, n_vars, N_PAIRED], [i, j]: what i does while j is held, and to j


def no_history(n_vars: int) -> History:
    """Before the first trial."""
    zeros = jnp.zeros(n_vars)
    return History(zeros, jnp.zeros(()), zeros > 0, zeros, jnp.zeros(()))


def features(mechanisms: LinearMechanisms, asked: Question, history: History) -> Seen:
    """Describe a state.

    For each variable: whether it may be set, whether it is the target, the probability that it is a
    parent and that it is an ancestor of the target, the mean and the deviation over graphs of its
    total and of its direct effect over half of its range, the ends of its range, how often it was
    set, whether and where in the best trial, its cost; and for all alike the best outcome so far,
    the trials done, the target's noise, and how many graphs still matter. For each pair: mean and
    deviation of what the first does to the target while the second is held, the mean of what it
    does to the second, and the probability that it is a parent of it.
    """
    n_vars = asked.low.shape[0]
    systems = expected(mechanisms)
    weight = jax.nn.softmax(mechanisms.log_weights)
    total = total_effects(systems.weights)
    half = 0.5 * (asked.high - asked.low)
    is_target = jnp.arange(n_vars) == asked.target
    direct = asked.sign * systems.weights[:, :, asked.target] * half
    whole = jnp.where(is_target, 0.0, asked.sign * total[:, :, asked.target] * half)
    parent = weight @ (systems.weights[:, :, asked.target] != 0)
    ancestor = weight @ ((total[:, :, asked.target] != 0) & ~is_target)
    noise = weight @ systems.noise[:, asked.target]
    centre = 0.5 * (asked.high + asked.low)
    place = (history.best_values - centre) / jnp.maximum(half, 1e-6)
    for_all = jnp.stack(
        [
            history.best_outcome,
            jnp.log1p(history.step),
            jnp.sqrt(noise),
            1.0 / (weight**2).sum() / weight.shape[0],
        ]
    )
    own = jnp.stack(
        [
            asked.settable,
            is_target,
            parent,
            ancestor,
            *_moments(whole, weight),
            *_moments(direct, weight),
            asked.low,
            asked.high,
            jnp.log1p(history.times_set),
            history.best_was_set,
            jnp.where(history.best_was_set, place, 0.0),
            asked.cost,
        ],
        axis=-1,
    )
    joined = jnp.concatenate([own, jnp.broadcast_to(for_all, (n_vars, len(for_all)))], axis=-1)
    through = total * half[:, None]  # what i does to j
    past = whole[:, :, None] - asked.sign * through * total[:, None, :, asked.target]
    paired = jnp.stack(
        [
            *_moments(past, weight),
            _mean(through, weight),
            _mean(systems.weights != 0, weight),
        ],
        axis=-1,
    )
    both = asked.present[:, None] & asked.present
    both = both & ~jnp.eye(n_vars, dtype=bool)
    return Seen(_bounded(joined, asked.present), _bounded(paired, both))


def _bounded(values: jax.Array, there: jax.Array) -> jax.Array:
    near = _FAR * jnp.tanh(values / _FAR)
    return jnp.where(there[..., None], near, 0.0).astype(jnp.float32)


def _moments(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation over members, the first axis."""
    mean = _mean(values, weight)
    return mean, jnp.sqrt(jnp.maximum(_mean((values - mean) ** 2, weight), 0.0))


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    found: jax.Array = jnp.tensordot(weight, values, 1)
    return found
