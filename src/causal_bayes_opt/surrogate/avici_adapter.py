"""The axial model on raw rows: the other way to amortize, kept as the comparison.

Attention runs in turns along the rows and along the variables, as in AVICI (Lorch et al. 2022,
section 4), so that its cost grows with the number of rows. It answers in the types of `predictor`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.errors import check_sizes
from causal_bayes_opt.surrogate.encoding import (
    ENCODING_VERSION,
    MAX_CANDIDATES,
    Rows,
    standardised,
)
from causal_bayes_opt.surrogate.joint import Applied, JointPosteriors, pad_masks
from causal_bayes_opt.surrogate.posterior import all_subsets

_IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class AxialConfig:
    """Size of the network.

    Attributes:
        hidden_dim: width of a cell's token.
        num_layers: blocks, each along the variables and then along the rows.
        num_heads: attention heads; must divide `hidden_dim`.
    """

    hidden_dim: int = 64
    num_layers: int = 4
    num_heads: int = 4

    def __post_init__(self) -> None:
        check_sizes(self.hidden_dim, self.num_layers, self.num_heads)


class AxialPredictor(hk.Module):
    """Edges from rows: independent probabilities, hence posteriors that factorise.

    A token is one cell of the table: its standardised value and whether it was set. After the
    blocks the maximum over the rows leaves one vector a variable, and the log-odds that j is a
    parent of t are ``scale <u_j, v_t> + bias`` with u and v of length one.
    """

    def __init__(
        self, hidden_dim: int = 64, num_layers: int = 4, num_heads: int = 4, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.config = AxialConfig(hidden_dim, num_layers, num_heads)

    def __call__(self, rows: Rows) -> JointPosteriors:
        """The posteriors of all variables of one system."""
        values, was_set, weight = standardised(rows)
        tokens = hk.Linear(self.config.hidden_dim, name="embed")(
            jnp.stack([values, was_set], axis=-1)
        )
        there = weight > 0  # [n_rows]
        for layer in range(self.config.num_layers):
            tokens = self._block(tokens, rows.present, f"variables_{layer}")
            turned = self._block(jnp.swapaxes(tokens, 0, 1), there, f"rows_{layer}")
            tokens = jnp.swapaxes(turned, 0, 1)
        tokens = _norm("norm_out")(tokens)
        pooled = jnp.where(there[:, None, None], tokens, -jnp.inf).max(axis=0)  # [n_vars, width]
        log_odds = self._edges(pooled)
        possible = rows.present[:, None] & rows.present[None, :] & ~jnp.eye(len(pooled), dtype=bool)
        return _independent(log_odds, possible)

    def _edges(self, pooled: jax.Array) -> jax.Array:
        """Log-odds ``[n_vars, n_vars]``, of j as a parent of t at [t, j]."""
        width = self.config.hidden_dim
        cause, effect = (_unit(hk.Linear(width, name=name)(pooled)) for name in ("cause", "effect"))
        scale = hk.get_parameter("log_scale", (), init=hk.initializers.Constant(2.0))
        bias = hk.get_parameter("bias", (), init=hk.initializers.Constant(-2.0))
        return jnp.exp(scale) * effect @ cause.T + bias

    def _block(self, tokens: jax.Array, there: jax.Array, name: str) -> jax.Array:
        """Attention along axis 1 of ``[a, b, width]``, `there` [b] alone, then a perceptron."""
        heads, width = self.config.num_heads, self.config.hidden_dim
        qkv = hk.Linear(3 * width, with_bias=False, name=f"{name}_qkv")(
            _norm(f"{name}_norm")(tokens)
        )
        q, k, v = jnp.split(qkv.reshape(*tokens.shape[:2], heads, -1), 3, axis=-1)
        logits = jnp.einsum("aqhc,akhc->ahqk", q, k) / jnp.sqrt(width / heads)
        logits = jnp.where(there[None, None, None, :], logits, _IMPOSSIBLE)
        mixed = jnp.einsum("ahqk,akhc->aqhc", jax.nn.softmax(logits, axis=-1), v)
        tokens = tokens + hk.Linear(width, w_init=_small(), name=f"{name}_out")(
            mixed.reshape(tokens.shape)
        )
        inner = hk.Linear(2 * width, name=f"{name}_up")(_norm(f"{name}_norm_mlp")(tokens))
        return tokens + hk.Linear(width, w_init=_small(), name=f"{name}_down")(jax.nn.gelu(inner))


@dataclass(frozen=True)
class AxialModel(Applied):
    """The axial network as pure functions; parameters are passed in."""

    config: AxialConfig = AxialConfig()
    encoding_version: int = ENCODING_VERSION

    def init(self, key: jax.Array) -> hk.Params:
        """Draw parameters."""
        rows = pad_masks(jnp.zeros((4, 3)), jnp.zeros((1, 3, 2)), None, None, None)
        params: hk.Params = jax.jit(self._transformed().init)(key, rows)
        return params

    def joint(self, params: hk.Params, rows: Rows) -> JointPosteriors:
        """Joint posteriors of all variables of one system (`vmap` over systems)."""
        joint: JointPosteriors = self._transformed().apply(params, rows)
        return joint

    def describe(self) -> dict[str, Any]:
        """The header from which the model is built again."""
        return {
            "architecture": "rows",
            "config": asdict(self.config),
            "encoding_version": self.encoding_version,
        }

    def _transformed(self) -> hk.Transformed:
        config = self.config

        def forward(rows: Rows) -> JointPosteriors:
            joint: JointPosteriors = AxialPredictor(**asdict(config))(rows)
            return joint

        return hk.without_apply_rng(hk.transform(forward))


def _independent(log_odds: jax.Array, possible: jax.Array) -> JointPosteriors:
    """All sets of the likeliest candidates, members independent."""
    n_vars = log_odds.shape[0]
    n_candidates = min(n_vars - 1, MAX_CANDIDATES)
    ranked = jnp.where(possible, log_odds, -jnp.inf)
    best, slots = jax.lax.top_k(ranked, n_candidates)
    allowed = jnp.isfinite(best)
    members = jnp.asarray(all_subsets(n_candidates), log_odds.dtype)
    energy = members @ jnp.where(allowed, best, _IMPOSSIBLE).T  # [n_sets, n_vars]
    log_probs = jax.nn.log_softmax(energy.T, axis=-1)
    marginals = jnp.where(possible, jax.nn.sigmoid(log_odds), 0.0)
    return JointPosteriors(slots, log_probs, marginals)


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.sqrt((vectors**2).sum(axis=-1, keepdims=True) + 1e-6)


def _norm(name: str) -> hk.LayerNorm:
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=name)


def _small() -> hk.initializers.VarianceScaling:
    return hk.initializers.VarianceScaling(0.1)
