"""How sure a network is: one temperature for all posteriors of a system, by its size and data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.joint import Applied, JointPosteriors, Network, log_prob_of_sets
from causal_bayes_opt.surrogate.posterior import all_subsets

N_COEFFICIENTS = 4
_LARGEST = math.log(2.0)  # of |log T|, for data far beyond those that the line was fitted on
_POSSIBLE = -1e8  # log-probabilities below are of sets that cannot be
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Tempered(Applied):
    """A network whose log-probabilities are divided by a temperature and normalised again.

    With n observational rows, m experiments and d variables

        log T = c0 + c1 log(n / 100) + c2 log(1 + m / d) + c3 log(d / 8),

    kept within -log 2 and log 2. Above 1 it makes posteriors less sure; their order stays.

    Attributes:
        network: what is tempered.
        coefficients: c0 to c3.
    """

    network: Network
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            finite = all(map(math.isfinite, self.coefficients))
        except TypeError:  # a header may hold anything
            finite = False
        if not finite or len(self.coefficients) != N_COEFFICIENTS:
            raise ModelError(
                f"a temperature has {N_COEFFICIENTS} finite coefficients, not {self.coefficients}"
            )

    @property
    def config(self) -> Any:
        """The network's size."""
        return self.network.config

    def init(self, key: jax.Array) -> hk.Params:
        """Draw the network's parameters."""
        return self.network.init(key)

    def joint(self, params: hk.Params, rows: Rows) -> JointPosteriors:
        """Joint posteriors of all variables of one system (`vmap` over systems)."""
        log_temperature = jnp.asarray(self.coefficients, jnp.float32) @ features(rows)
        kept = jnp.clip(log_temperature, -_LARGEST, _LARGEST)
        return at_temperature(self.network.joint(params, rows), kept)

    def describe(self) -> dict[str, Any]:
        """The header from which the model is built again."""
        return {**self.network.describe(), "temperature": list(self.coefficients)}


def features(rows: Rows) -> jax.Array:
    """What the temperature of a system depends on, float32 ``[4]``; 1 comes first."""
    n, m, d = (mask.sum() for mask in (rows.obs_rows, rows.int_rows, rows.present))
    n, d = jnp.maximum(n, 1), jnp.maximum(d, 1)
    return jnp.stack([jnp.ones(()), jnp.log(n / 100), jnp.log1p(m / d), jnp.log(d / 8)])


def at_temperature(joint: JointPosteriors, log_temperature: jax.Array) -> JointPosteriors:
    """Posteriors of one system at a temperature ``exp(log_temperature)``; 0 changes nothing."""
    sharpness = jnp.exp(-log_temperature)
    possible = joint.log_probs > _POSSIBLE
    scaled = jnp.where(possible, joint.log_probs * sharpness, joint.log_probs)
    log_probs = jax.nn.log_softmax(scaled, axis=-1)
    n_vars, n_candidates = joint.candidates.shape
    inside = jnp.exp(log_probs) @ jnp.asarray(all_subsets(n_candidates), jnp.float32)
    # Variables that no set lists are independent, each with its own odds.
    p = jnp.clip(joint.marginals, _SMALLEST, 1.0 - _SMALLEST)
    outside = jax.nn.sigmoid(sharpness * (jnp.log(p) - jnp.log1p(-p)))
    marginals = outside.at[jnp.arange(n_vars)[:, None], joint.candidates].set(inside)
    marginals = jnp.where(joint.marginals > 0, jnp.clip(marginals, 0.0, 1.0), 0.0)
    return JointPosteriors(joint.candidates, log_probs, marginals)


def tempered_loss(
    coefficients: jax.Array, joint: JointPosteriors, rows: Rows, parents: jax.Array
) -> jax.Array:
    """Sum over a system's variables of -log q(true parent set) in nats, for any coefficients.

    Args:
        coefficients: ``[4]``.
        joint: the network's own posteriors.
        rows: of the system.
        parents: bool ``[n_vars, n_vars]``, [t, j]: j is a parent of t.
    """
    tempered = at_temperature(joint, coefficients @ features(rows))
    return -(log_prob_of_sets(tempered, parents) * rows.present).sum()
