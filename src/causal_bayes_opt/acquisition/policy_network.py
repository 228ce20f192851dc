"""The policy network: from features of each variable to what is set, and where."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.acquisition.features import (
    N_FEATURES,
    N_PAIRED,
    POLICY_ENCODING_VERSION,
    Seen,
)
from causal_bayes_opt.errors import check_sizes

_PAIR_DIM = 16
_LOG_2PI = 1.8378770664093453


class Action(NamedTuple):
    """What a policy does in one state."""

    chosen: jax.Array  # bool [n_vars], what is to be set
    place: jax.Array  # [n_vars], where: -1 is the lower end of the range, 1 the upper; beyond: held


class ActionDistribution(NamedTuple):
    """Independent choices and places, one of each a variable."""

    logits: jax.Array  # [n_vars], of being set
    mean: jax.Array  # [n_vars], of the place
    log_std: jax.Array  # [n_vars]


@dataclass(frozen=True)
class PolicyConfig:
    """Size of the network.

    Attributes:
        hidden_dim: width of a variable's token.
        num_layers: blocks of attention among the variables.
        num_heads: attention heads; must divide `hidden_dim`.
    """

    hidden_dim: int = 48
    num_layers: int = 2
    num_heads: int = 4

    def __post_init__(self) -> None:
        check_sizes(self.hidden_dim, self.num_layers, self.num_heads)


@dataclass(frozen=True)
class PolicyNetwork:
    """The network as pure functions; the order of variables does not matter, nor their number."""

    config: PolicyConfig = PolicyConfig()

    def init(self, key: jax.Array) -> hk.Params:
        """Draw parameters."""
        seen = Seen(jnp.zeros((3, N_FEATURES)), jnp.zeros((3, 3, N_PAIRED)))
        present = jnp.ones(3, dtype=bool)
        params: hk.Params = jax.jit(self._transformed().init)(key, seen, present)
        return params

    def apply(self, params: hk.Params, seen: Seen, present: jax.Array) -> ActionDistribution:
        """The distribution of the action in one state.

        Args:
            params: the weights.
            seen: what `features` gives.
            present: bool ``[n_vars]``.
        """
        return self._apply(params, seen, present)[0]

    def embed(self, params: hk.Params, seen: Seen, present: jax.Array) -> jax.Array:
        """The tokens ``[n_vars, hidden_dim]`` from which the heads read."""
        return self._apply(params, seen, present)[1]

    def describe(self) -> dict[str, Any]:
        """The header from which the network is built again."""
        return {"config": asdict(self.config), "encoding_version": POLICY_ENCODING_VERSION}

    def _apply(
        self, params: hk.Params, seen: Seen, present: jax.Array
    ) -> tuple[ActionDistribution, jax.Array]:
        found: tuple[ActionDistribution, jax.Array] = self._transformed().apply(
            params, seen, present
        )
        return found

    def _transformed(self) -> hk.Transformed:
        config = self.config

        def forward(seen: Seen, present: jax.Array) -> tuple[ActionDistribution, jax.Array]:
            tokens = hk.Linear(config.hidden_dim, name="embed")(seen.own)
            tokens = tokens + hk.Linear(config.hidden_dim, name="embed_out")(jax.nn.gelu(tokens))
            both = jnp.concatenate([seen.pairs, jnp.swapaxes(seen.pairs, 0, 1)], axis=-1)
            pairs = jax.nn.gelu(hk.Linear(_PAIR_DIM, name="embed_pairs")(both))
            for layer in range(config.num_layers):
                normed = _norm(f"norm_{layer}")(tokens)
                tokens = tokens + _attend(normed, pairs, present, config, layer)
                inner = hk.Linear(2 * config.hidden_dim, name=f"up_{layer}")
                down = hk.Linear(config.hidden_dim, name=f"down_{layer}")
                tokens = tokens + down(jax.nn.gelu(inner(_norm(f"norm_{layer}_mlp")(tokens))))
            tokens = _norm("norm_out")(tokens)
            # Small at first: every variable as likely as not to be set, anywhere in its range.
            small = hk.initializers.VarianceScaling(0.01)
            logits, mean, log_std = jnp.moveaxis(
                hk.Linear(3, w_init=small, name="heads")(tokens), -1, 0
            )
            return ActionDistribution(logits, mean, jnp.clip(log_std - 0.5, -3.0, 1.0)), tokens

        return hk.without_apply_rng(hk.transform(forward))


def draw_action(key: jax.Array, distribution: ActionDistribution, settable: jax.Array) -> Action:
    """Draw an action; nothing is held back, so that it may be an invalid one (see `legal`)."""
    k_choice, k_place = jax.random.split(key)
    uniform = jax.random.uniform(k_choice, distribution.logits.shape)
    chosen = (uniform < jax.nn.sigmoid(distribution.logits)) & settable
    normal = jax.random.normal(k_place, distribution.mean.shape)
    return Action(chosen, distribution.mean + jnp.exp(distribution.log_std) * normal)


def legal(
    action: Action, distribution: ActionDistribution, settable: jax.Array, max_targets: int
) -> Action:
    """The nearest action that may be done: at least one variable, at most `max_targets`."""
    logits = jnp.where(settable, distribution.logits, -jnp.inf)
    likeliest = jnp.arange(len(logits)) == jnp.argmax(logits)
    chosen = jnp.where(action.chosen.any(), action.chosen, likeliest)
    rank = jnp.argsort(jnp.argsort(jnp.where(chosen, -logits, jnp.inf)))
    return Action(chosen & (rank < max_targets), jnp.clip(action.place, -1.0, 1.0))


def log_prob(action: Action, distribution: ActionDistribution, settable: jax.Array) -> jax.Array:
    """Log-probability ``[]`` of an action as it was drawn; places count where they are used."""
    signed = jnp.where(action.chosen, distribution.logits, -distribution.logits)
    choice = jax.nn.log_sigmoid(signed)
    z = (action.place - distribution.mean) / jnp.exp(distribution.log_std)
    place = -0.5 * (z**2 + _LOG_2PI) - distribution.log_std
    return jnp.where(settable, choice + jnp.where(action.chosen, place, 0.0), 0.0).sum()


def entropy(distribution: ActionDistribution, settable: jax.Array) -> jax.Array:
    """Entropy ``[]`` in nats, places weighted by how likely they are used."""
    p = jax.nn.sigmoid(distribution.logits)
    choice = p * jax.nn.softplus(-distribution.logits) + (1 - p) * jax.nn.softplus(
        distribution.logits
    )
    place = 0.5 * (1.0 + _LOG_2PI) + distribution.log_std
    return jnp.where(settable, choice + p * place, 0.0).sum()


def _attend(
    tokens: jax.Array, pairs: jax.Array, present: jax.Array, config: PolicyConfig, layer: int
) -> jax.Array:
    """Attention that sees what two variables are to each other, ``[n_vars, n_vars, _PAIR_DIM]``.

    Each pair moves the weight of its second variable, and is itself a part of what is gathered.
    """
    heads, width = config.num_heads, config.hidden_dim
    qkv = hk.Linear(3 * width, with_bias=False, name=f"qkv_{layer}")(tokens)
    q, k, v = jnp.split(qkv.reshape(len(tokens), heads, -1), 3, axis=-1)
    logits = jnp.einsum("qhc,khc->hqk", q, k) / jnp.sqrt(width / heads)
    logits = logits + jnp.moveaxis(hk.Linear(heads, name=f"pairs_{layer}")(pairs), -1, 0)
    logits = jnp.where(present[None, None, :], logits, -1e9)
    weights = jax.nn.softmax(logits, axis=-1)
    mixed = jnp.einsum("hqk,khc->qhc", weights, v).reshape(len(tokens), width)
    related = jnp.einsum("hqk,qkc->qhc", weights, pairs).reshape(len(tokens), -1)
    return hk.Linear(width, name=f"out_{layer}")(jnp.concatenate([mixed, related], axis=-1))


def _norm(name: str) -> hk.LayerNorm:
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=name)
