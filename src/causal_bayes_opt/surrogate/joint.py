"""What every network gives: joint posteriors over the parent sets of all variables of a system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, NamedTuple, Protocol

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.surrogate.encoding import Rows


class JointPosteriors(NamedTuple):
    """Posteriors over the parent sets of every variable of one system.

    For each variable all sets of its candidates are enumerated; variables that are no candidates
    (only beyond 12 variables) are independent of them and of each other.
    """

    candidates: jax.Array  # int [n_vars, n_candidates]
    log_probs: jax.Array  # [n_vars, 2^n_candidates], normalised
    marginals: jax.Array  # [n_vars, n_vars], of j as a parent of t at [t, j]; 0 on the diagonal


class Network(Protocol):
    """What is trained, saved and asked: pure functions from rows to joint posteriors."""

    @property
    def config(self) -> Any:
        """Its size, a dataclass with `hidden_dim` and `num_layers` at least."""
        ...

    def init(self, key: jax.Array) -> hk.Params:
        """Draw parameters."""
        ...

    def joint(self, params: hk.Params, rows: Rows) -> JointPosteriors:
        """Joint posteriors of all variables of one system (`vmap` over systems)."""
        ...

    def describe(self) -> dict[str, Any]:
        """The header from which the network is built again."""
        ...

    def __hash__(self) -> int:
        """Compiled functions are kept by network."""
        ...


class Applied(ABC):
    """The marginals of one target, for every network that has joint posteriors."""

    @abstractmethod
    def joint(self, params: hk.Params, rows: Rows) -> JointPosteriors:
        """See `Network`."""

    def apply(
        self,
        params: hk.Params,
        obs_data: jax.Array,
        int_data: jax.Array,
        target_idx: jax.Array | int,
        obs_rows: jax.Array | None = None,
        int_rows: jax.Array | None = None,
        present: jax.Array | None = None,
    ) -> jax.Array:
        """Marginals ``[n_vars]`` of one target; arguments as in `ParentSetPredictor`."""
        rows = pad_masks(obs_data, int_data, obs_rows, int_rows, present)
        return self.joint(params, rows).marginals[target_idx]


def pad_masks(
    obs_data: jax.Array,
    int_data: jax.Array,
    obs_rows: jax.Array | None,
    int_rows: jax.Array | None,
    present: jax.Array | None,
) -> Rows:
    """Rows with every mask there; None stands for all True."""

    def mask(given: jax.Array | None, size: int) -> jax.Array:
        return jnp.ones(size, dtype=bool) if given is None else jnp.asarray(given, dtype=bool)

    obs_data, int_data = jnp.asarray(obs_data), jnp.asarray(int_data)
    return Rows(
        obs_data,
        int_data,
        mask(obs_rows, obs_data.shape[0]),
        mask(int_rows, int_data.shape[0]),
        mask(present, obs_data.shape[1]),
    )


def joint_of_many(
    model: Network, params: hk.Params, rows: Rows, at_once: int = 8
) -> JointPosteriors:
    """Joint posteriors of many systems, which lie along the first axis of `rows`.

    A few at a time: what these need stays in the processor's cache, which on CPUs takes two
    thirds of the time of `vmap`. On a GPU ask for more `at_once`.
    """
    joint: JointPosteriors = jax.lax.map(partial(model.joint, params), rows, batch_size=at_once)
    return joint


def log_prob_of_sets(joint: JointPosteriors, parents: jax.Array) -> jax.Array:
    """Log-probability ``[n_vars]`` of one set for each variable.

    Args:
        joint: the posteriors of one system.
        parents: bool ``[n_vars, n_vars]``, [t, j]: j is a parent of t.
    """
    targets = jnp.arange(parents.shape[0])
    listed = parents[targets[:, None], joint.candidates]
    row = (listed * (1 << jnp.arange(listed.shape[-1]))).sum(axis=-1)
    inside = joint.log_probs[targets, row]
    p = jnp.clip(joint.marginals, 1e-7, 1.0 - 1e-7)
    each = jnp.where(parents, jnp.log(p), jnp.log1p(-p))
    others = jax.vmap(lambda values, slots: values.at[slots].set(0.0))(each, joint.candidates)
    # Absent variables and the target itself have probability 0, cost nothing and carry no slope.
    others = jnp.where(joint.marginals > 0, others, 0.0)
    return inside + others.sum(axis=-1)


def log_prob_of_set(joint: JointPosteriors, target: jax.Array, parents: jax.Array) -> jax.Array:
    """Log-probability ``[]`` of one set of one target's parents, bool ``[n_vars]``."""
    n_vars = parents.shape[0]
    is_target = jnp.arange(n_vars) == target
    return log_prob_of_sets(joint, parents[None, :] & is_target[:, None])[target]
