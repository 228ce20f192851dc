"""ParentSetPredictor: the network from rows to a joint posterior over parent sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from causal_bayes_opt.errors import ConfigError, check_sizes
from causal_bayes_opt.surrogate.encoding import (
    ENCODING_VERSION,
    Encoding,
    Rows,
    encode,
    n_scores,
)
from causal_bayes_opt.surrogate.joint import Applied, JointPosteriors, pad_masks
from causal_bayes_opt.surrogate.posterior import all_subsets

_IMPOSSIBLE = -1e9
_EVIDENCE_CAP = 30.0
_STREAM_WIDTH = 16


@dataclass(frozen=True)
class PredictorConfig:
    """Size of the network.

    Attributes:
        hidden_dim: width of the pair tokens.
        num_layers: blocks of attention along rows and columns.
        num_heads: attention heads; must divide `hidden_dim`.
        rank: rank of the pairwise energies.
        nonlinear: whether the encoding looks beyond second moments.
        stream: learned moments of rows that are looked at beside the encoding's; needs
            `nonlinear`; 0: none.
    """

    hidden_dim: int = 128
    num_layers: int = 4
    num_heads: int = 4
    rank: int = 8
    nonlinear: bool = False
    stream: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.hidden_dim, self.num_layers, self.num_heads)
        if self.rank < 1:
            raise ConfigError(f"rank is {self.rank}; it must be at least 1")
        if self.stream < 0:
            raise ConfigError(f"stream is {self.stream}; it cannot be negative")
        if self.stream and not self.nonlinear:
            raise ConfigError("stream needs nonlinear: it looks at what that leaves over")


class ParentSetPredictor(hk.Module):
    """Predicts parent sets from observational and interventional rows.

    Tokens are ordered pairs of variables. Attention runs along the rows and the columns of the
    ``n_vars x n_vars`` grid, so that results follow any reordering of the variables. One pass gives
    the posteriors of all variables, which multiplies the labels of a simulated system by `n_vars`.

    The head's energy of a set P of parents of t is

        cap(sum_s a_s [score_s(P) - sum_{i in P} softplus(reverse_s(i))]) + sum_{i in P} u_i
            + sum_{i < k in P} J_ik + c_|P|

    where score_s are the local scores of `encoding` and reverse_s(i) the log-odds that t is a
    parent of i when i is looked at alone: the first term is what a set gains, less what its members
    lose because they can no longer have t as their parent. a, u, J and c come from the tokens.

    With a stream, small functions f_a and g_a of the cells of a row (value, what a regression on
    all others leaves over, was it set) are learned too, and the pair i -> j is told
    ``sum_r f_a(cell_ri) g_a(cell_rj) / sqrt(n)`` over the n rows in which j was not set.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        rank: int = 8,
        nonlinear: bool = False,
        stream: int = 0,
        precision: DTypeLike = jnp.float32,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.precision = precision
        self.config = PredictorConfig(hidden_dim, num_layers, num_heads, rank, nonlinear, stream)

    def __call__(
        self,
        obs_data: jax.Array,
        int_data: jax.Array,
        target_idx: jax.Array | int,
        obs_rows: jax.Array | None = None,
        int_rows: jax.Array | None = None,
        present: jax.Array | None = None,
    ) -> jax.Array:
        """Return the marginals ``[n_vars]`` of one system, 0 at the target.

        Args:
            obs_data: ``[n_obs, n_vars]``.
            int_data: ``[n_int, n_vars, 2]``, values and indicators.
            target_idx: position of the target.
            obs_rows: bool ``[n_obs]``, False where padded; None: all are rows.
            int_rows: bool ``[n_int]``, likewise.
            present: bool ``[n_vars]``, likewise for variables.
        """
        rows = pad_masks(obs_data, int_data, obs_rows, int_rows, present)
        return self.joint(rows).marginals[target_idx]

    def joint(self, rows: Rows) -> JointPosteriors:
        """Return the joint posteriors of all variables of one system."""
        return self.answer(encode(rows, self.config.nonlinear))

    def answer(self, encoding: Encoding) -> JointPosteriors:
        """Return what `joint` does, of rows that are encoded."""
        tokens = self._trunk(encoding).astype(jnp.float32)
        return self._head(tokens, encoding)

    def _trunk(self, encoding: Encoding) -> jax.Array:
        width = self.config.hidden_dim
        tokens = hk.Linear(width, name="embed")(encoding.pairs.astype(self.precision))
        if self.config.stream:
            moments = self._stream(encoding).astype(self.precision)
            told = hk.Linear(width, with_bias=False, w_init=jnp.zeros, name="embed_stream")
            tokens = tokens + told(moments)
        tokens = tokens + hk.Linear(width, name="embed_out")(jax.nn.gelu(tokens))
        for layer in range(self.config.num_layers):
            for axis in (0, 1):
                normed = _norm(f"norm_{layer}_{axis}")(tokens)
                moved = jnp.swapaxes(normed, 0, 1) if axis == 0 else normed
                mixed = self._attend(moved, encoding.present, f"attend_{layer}_{axis}")
                tokens = tokens + (jnp.swapaxes(mixed, 0, 1) if axis == 0 else mixed)
            inner = hk.Linear(2 * width, name=f"up_{layer}")(_norm(f"norm_{layer}_mlp")(tokens))
            down = hk.Linear(width, w_init=_small(), name=f"down_{layer}")
            tokens = tokens + down(jax.nn.gelu(inner))
        return _norm("norm_out")(tokens)

    def _stream(self, encoding: Encoding) -> jax.Array:
        """Learned moments ``[n_vars, n_vars, stream]``, of i -> j at [i, j]."""
        n_rows, n_vars, _ = encoding.cells.shape
        flat = encoding.cells.reshape(n_rows * n_vars, -1)
        inner = jax.nn.gelu(hk.Linear(_STREAM_WIDTH, name="stream_in")(flat))
        made = hk.Linear(2 * self.config.stream, name="stream_out")(inner)
        # Rows innermost: what follows is a product of matrices for each moment.
        cause, effect = jnp.split(made.T.reshape(-1, n_rows, n_vars), 2)
        count = encoding.free.sum(axis=0) + 1.0
        weighted = effect * (encoding.free / jnp.sqrt(count))
        return jnp.arcsinh(jnp.moveaxis(jnp.swapaxes(cause, 1, 2) @ weighted, 0, -1))

    def _attend(self, tokens: jax.Array, present: jax.Array, name: str) -> jax.Array:
        """Attention along axis 1 of ``[n_vars, n_vars, width]``, absent variables left out."""
        heads, width = self.config.num_heads, self.config.hidden_dim
        qkv = hk.Linear(3 * width, with_bias=False, name=f"{name}_qkv")(tokens)
        q, k, v = jnp.split(qkv.reshape(*tokens.shape[:2], heads, -1), 3, axis=-1)
        logits = jnp.einsum("bqhc,bkhc->bhqk", q, k) / jnp.sqrt(width / heads)
        logits = jnp.where(present[None, None, None, :], logits, _IMPOSSIBLE)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits, axis=-1), v)
        out = hk.Linear(width, w_init=_small(), name=f"{name}_out")
        return out(mixed.reshape(*tokens.shape[:2], width))

    def _head(self, tokens: jax.Array, encoding: Encoding) -> JointPosteriors:
        n_vars, n_candidates = encoding.candidates.shape
        rank, n_scales = self.config.rank, n_scores(self.config.nonlinear)
        targets = jnp.arange(n_vars)
        both_ways = jnp.concatenate([tokens, jnp.swapaxes(tokens, 0, 1)], axis=-1)
        own = tokens[targets, targets]

        unary = self._mlp("unary", 1)(both_ways)[..., 0] + encoding.log_prior_odds  # [i, t]
        factors = self._mlp("pairwise", 2 * rank)(both_ways)
        sizes_bias = self._mlp("sizes", 4)(own)  # [t, .] for sets of 0, 1, 2 and 3 or more
        # One broad score at full weight to begin with: softplus(0.54) = 1, softplus(-3) = 0.05.
        start = jnp.asarray([0.54] + [-3.0] * (n_scales - 1))
        weights = jax.nn.softplus(self._mlp("evidence", n_scales)(own) + start)  # [t, scale]

        slots = encoding.candidates
        u = unary[slots, targets[:, None]]
        left, right = jnp.split(factors[slots, targets[:, None]], 2, axis=-1)
        coupling = jnp.einsum("tkr,tlr->tkl", left, right)
        coupling = jnp.triu(coupling + jnp.swapaxes(coupling, 1, 2), 1)

        members = jnp.asarray(all_subsets(n_candidates), tokens.dtype)
        sizes = members.sum(axis=1).astype(jnp.int32)
        evidence = self._evidence(encoding, weights, members)
        energy = (
            evidence
            + jnp.einsum("sk,tk->ts", members, u)
            + jnp.einsum("sk,tkl,sl->ts", members, coupling, members)
            + sizes_bias[:, jnp.minimum(sizes, 3)]
        )
        impossible = jnp.einsum("sk,tk->ts", members, 1.0 - encoding.allowed) > 0
        energy = jnp.where(impossible, _IMPOSSIBLE, energy)
        log_probs = jax.nn.log_softmax(energy.astype(jnp.float32), axis=-1)

        inside = jnp.exp(log_probs) @ members.astype(jnp.float32)  # [t, slot]
        place = jax.nn.one_hot(slots, n_vars) * encoding.allowed[..., None]
        outside = jax.nn.sigmoid(unary.T.astype(jnp.float32))
        listed = place.sum(axis=1) > 0
        marginals = jnp.where(listed, jnp.einsum("tk,tkj->tj", inside, place), outside)
        possible = (
            encoding.present[:, None] & encoding.present[None, :] & ~jnp.eye(n_vars, dtype=bool)
        )
        marginals = jnp.where(possible, jnp.clip(marginals, 0.0, 1.0), 0.0)
        return JointPosteriors(slots, log_probs, marginals)

    def _evidence(self, encoding: Encoding, weights: jax.Array, members: jax.Array) -> jax.Array:
        """What the local scores say of each set, ``[n_vars, n_sets]``, the best at 0.

        Capped softly at -30 nats, so that the tokens can overrule scores that do not hold (a
        mechanism that is not linear, say).
        """
        lost = jnp.einsum("sk,tkz->tsz", members, jax.nn.softplus(encoding.reverse))
        gained = jnp.einsum("tsz,tz->ts", encoding.scores - lost, weights)
        allowed = jnp.einsum("sk,tk->ts", members, 1.0 - encoding.allowed) == 0
        best = jnp.max(jnp.where(allowed, gained, -jnp.inf), axis=1, keepdims=True)
        return _EVIDENCE_CAP * jnp.tanh(jnp.minimum(gained - best, 0.0) / _EVIDENCE_CAP)

    def _mlp(self, name: str, outputs: int) -> Callable[[jax.Array], jax.Array]:
        first = hk.Linear(self.config.hidden_dim, name=f"{name}_in")
        last = hk.Linear(outputs, w_init=_small(), name=f"{name}_out")
        return lambda x: last(jax.nn.gelu(first(x)))


@dataclass(frozen=True)
class AmortizedModel(Applied):
    """A network as pure functions; parameters are passed in.

    Attributes:
        config: its size.
        encoding_version: the encoding that it was built for.
        mixed_precision: run the trunk in bfloat16; encoding, head and weights stay float32. How a
            run computes, not what the model is: it is not saved.
        remat: compute activations again for the gradient instead of keeping them; likewise.
    """

    config: PredictorConfig = PredictorConfig()
    encoding_version: int = ENCODING_VERSION
    mixed_precision: bool = False
    remat: bool = False

    def init(self, key: jax.Array) -> hk.Params:
        """Draw parameters."""
        return _initialiser(self.config)(key)

    def joint(self, params: hk.Params, rows: Rows) -> JointPosteriors:
        """Joint posteriors of all variables of one system (`vmap` over systems)."""
        apply = self._transformed().apply
        if self.mixed_precision:
            params = _with_trunk(params, jnp.bfloat16)
        joint: JointPosteriors = (jax.checkpoint(apply) if self.remat else apply)(params, rows)
        return joint

    def describe(self) -> dict[str, Any]:
        """The header from which the model is built again."""
        return {
            "architecture": "pairs",
            "config": asdict(self.config),
            "encoding_version": self.encoding_version,
        }

    def _transformed(self) -> hk.Transformed:
        config = self.config
        precision = jnp.bfloat16 if self.mixed_precision else jnp.float32

        def forward(rows: Rows) -> JointPosteriors:
            return ParentSetPredictor(**asdict(config), precision=precision).joint(rows)

        return hk.without_apply_rng(hk.transform(forward))


@lru_cache(maxsize=8)
def _initialiser(config: PredictorConfig) -> Callable[[jax.Array], hk.Params]:
    """The compiled draw of a network's parameters, kept for the next draw."""
    answer = hk.transform(lambda encoding: ParentSetPredictor(**asdict(config)).answer(encoding))

    def draw(key: jax.Array) -> hk.Params:
        shapes = _shapes_of_encoding(config.nonlinear)
        return answer.init(
            key, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        )

    return jax.jit(draw)


@lru_cache(maxsize=2)
def _shapes_of_encoding(nonlinear: bool) -> Encoding:
    """Shapes of what a network sees of a small system: to trace the encoding takes a second."""
    rows = pad_masks(jnp.zeros((4, 3)), jnp.zeros((1, 3, 2)), None, None, None)
    shapes: Encoding = jax.eval_shape(partial(encode, nonlinear=nonlinear), rows)
    return shapes


def _with_trunk(params: hk.Params, dtype: Any) -> hk.Params:
    """Weights with those of the trunk in another precision."""
    trunk = ("embed", "norm", "attend", "up_", "down_")
    return {
        module: {
            name: value.astype(dtype) if module.split("/")[-1].startswith(trunk) else value
            for name, value in own.items()
        }
        for module, own in params.items()
    }


def _norm(name: str) -> hk.LayerNorm:
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True, name=name)


def _small() -> hk.initializers.VarianceScaling:
    return hk.initializers.VarianceScaling(0.1)
