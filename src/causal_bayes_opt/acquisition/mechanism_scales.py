"""How much and how fast a mechanism varies: the scales of its kernel, learned from rows.

The prior of a mechanism over its standardised parents x is a Gaussian process with kernel

    1 + a^2 x . x' + sum_i b_i^2 exp(-(x_i - x'_i)^2 / 2 l_i^2)
      + c^2 exp(-sum_i (x_i - x'_i)^2 / 2 l_i^2)

(a linear part, a smooth function of each parent alone as in Duvenaud, Nickisch and Rasmussen 2011,
and one of all together) and Gaussian noise. Of mechanisms that saturate, as doses do, such a prior
says that they come back to the mean beyond the rows, where optima are looked for. So there are
kinds whose functions, of one parent or of all, are sums of error functions in place of waves, with
the same scales: a neural network without end (Williams, Advances in Neural Information Processing
Systems 9, 1996), whose units turn where the rows are. What follows from far-out values of other
variables is a guess, and guesses upon guesses grow: where a mechanism is evaluated, all parts take
parents beyond their usual values by logarithms (`bend`). A hundred rows leave much of the scales
open, and what a mechanism does far from all rows hangs on them: their posterior counts, not its top
alone.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from causal_bayes_opt.core.padding import double

LEARN_FROM = 96  # rows; more would be slower and hardly better
N_DRAWS = 4
_STEPS = 18  # and then one of Newton's
_RATE = optax.cosine_decay_schedule(0.3, _STEPS, 0.2)
_APART = 1e-4  # between slopes that give a curvature
_SHORTEST, _LEAST_NOISE = 0.15, 0.01
_ARCSINE = (
    *(1.5707963050, -0.2145988016, 0.0889789874, -0.0501743046),
    *(0.0308918810, -0.0170881256, 0.0066700901, -0.0012624911),
)
# What a mechanism may be like, as centres of the scales' priors: a, b, c, l, noise; the length from
# which to climb. Linear; mostly of each parent alone, of short or of long waves; mostly of all
# together; saturating, of each alone and of all together.
_KINDS = np.array(
    [
        [1.0, 1e-3, 1e-3, 1.0, 0.5, 1.0],
        [1.0, 0.5, 0.3, 1.0, 0.5, 0.3],
        [1.0, 0.5, 0.3, 1.0, 0.5, 1.5],
        [0.5, 0.2, 1.0, 1.5, 0.5, 1.5],
        [0.3, 1.0, 0.1, 0.5, 0.5, 0.5],
        [0.3, 0.1, 1.5, 0.7, 0.5, 0.7],
    ]
)
_SATURATES = np.array([False, False, False, False, True, True])
# Beforehand a linear mechanism is as likely as one of all other kinds, which are alike.
_CHANCES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])


class Scales(NamedTuple):
    """What the kernel needs, for one mechanism; slots without a parent are not looked at.

    While they are learned, all but the last are logarithms, and that is None.
    """

    linear: jax.Array  # a, []
    alone: jax.Array  # b [n_slots]
    together: jax.Array  # c, []
    lengths: jax.Array  # l [n_slots]
    noise: jax.Array  # standard deviation, []
    saturates: jax.Array | None  # bool []


class Rows(NamedTuple):
    """What was found of a variable, averaged where its parents had equal values."""

    x: np.ndarray  # standardised parents [n, n_parents]
    mean: np.ndarray  # of the variable, in its standardised units [n]
    worth: np.ndarray  # how many values there are behind a mean, or count as such [n]
    scatter: np.ndarray  # sum of squares around a mean [n]

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Rows:
        """Rows as they are."""
        return cls(x, y, np.ones(len(y)), np.zeros(len(y)))

    def at(self, chosen: np.ndarray) -> Rows:
        """Some of them."""
        return Rows(*(field[chosen] for field in self))

    def and_of(self, others: Rows) -> Rows:
        """These, then others."""
        return Rows(*(np.concatenate(pair) for pair in zip(self, others, strict=True)))


def averaged(x: np.ndarray, y: np.ndarray, worth: np.ndarray) -> Rows:
    """Average `y` over rows with equal parents.

    Args:
        x: standardised parents ``[n_rows, n_parents]``.
        y: the variable ``[n_rows]``.
        worth: what each row counts ``[n_rows]``.
    """
    _, first, kind = np.unique(x, axis=0, return_index=True, return_inverse=True)
    kind, n = kind.ravel(), len(first)
    total = np.bincount(kind, weights=worth, minlength=n)
    mean = np.bincount(kind, weights=worth * y, minlength=n) / total
    scatter = np.bincount(kind, weights=worth * (y - mean[kind]) ** 2, minlength=n)
    # What is worth less than one value says nothing of the noise beyond its mean.
    scatter = np.where(total > 1.0, scatter, 0.0)
    # In the order in which they first came.
    return Rows(x[first], mean, total, scatter).at(np.argsort(first))


def bend(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Values ``[..., n]``: as they are between `low` and `high` ``[n]``, logarithms beyond."""
    return np.asarray(bend_with(np, x, low, high))


def bend_with(xp: Any, x: Any, low: Any, high: Any) -> Any:
    """The same with `xp`, NumPy or its JAX counterpart."""
    inside = xp.clip(x, low, high)
    return inside + xp.sign(x - inside) * xp.log1p(xp.abs(x - inside))


class Learned(NamedTuple):
    """What rows say of a mechanism's scales."""

    scales: Scales  # the likeliest, then draws from their posterior, leading axis [1 + N_DRAWS]
    for_linear: jax.Array  # log-odds of a linear mechanism against all other kinds []


def learn_scales(rows: Rows, n_slots: int, low: np.ndarray, high: np.ndarray) -> Learned:
    """Learn the scales of one mechanism.

    The posterior is a mixture of normals in the logarithms, one for each kind that a mechanism may
    be of, by its evidence (Laplace's approximation). Answers are kept by the rows: as long as these
    do not change, asking again costs nothing.

    Args:
        rows: at most `LEARN_FROM`.
        n_slots: pad to so many parents.
        low: see `bend`, ``[n_parents]``.
        high: likewise.
    """
    both = np.stack([rows.x, bend(rows.x, low, high)])
    outcomes = np.stack([rows.mean, rows.worth, rows.scatter])
    return _remembered(
        np.ascontiguousarray(both, np.float64).tobytes(),
        np.ascontiguousarray(outcomes, np.float64).tobytes(),
        rows.x.shape[1],
        n_slots,
    )


def forget() -> None:
    """Forget all answers, so that what is timed next is not read from memory."""
    _remembered.cache_clear()


@lru_cache(maxsize=4096)
def _remembered(x_bytes: bytes, y_bytes: bytes, n_parents: int, n_slots: int) -> Learned:
    mean, worth, scatter = np.frombuffer(y_bytes).reshape(3, -1)
    n = len(mean)
    x = np.zeros((2, LEARN_FROM, n_slots))
    x[:, :n, :n_parents] = np.frombuffer(x_bytes).reshape(2, n, n_parents)
    padded = np.zeros((3, LEARN_FROM))
    padded[:, :n] = mean, worth, scatter
    # Always the same: which scales are drawn depends on the rows alone.
    normals = np.random.default_rng(0).normal(size=(N_DRAWS, 3 + 2 * n_slots))
    with double():
        found = _learn(*x, *padded, np.arange(n_slots) < n_parents, normals)
    kept: Learned = jax.tree.map(np.asarray, found)
    return kept


class _Pairs(NamedTuple):
    """What a kernel of all pairs of rows, each once, is made of; see `FIRST` and `SECOND`."""

    squares: jax.Array  # of distances between bent parents [n_slots, n_pairs]
    products: jax.Array  # of bent parents, likewise
    linear: jax.Array  # of parents, summed [n_pairs]


class _Found(NamedTuple):
    pairs: _Pairs
    mean: jax.Array  # [n_rows]
    worth: jax.Array  # likewise, 0 where padded
    scatter: jax.Array  # of all rows []


# The pairs of rows on and below a matrix's diagonal, and where in their list each entry is.
FIRST, SECOND = np.tril_indices(LEARN_FROM)
_PLACE = np.zeros((LEARN_FROM, LEARN_FROM), dtype=int)
_PLACE[FIRST, SECOND] = _PLACE[SECOND, FIRST] = np.arange(len(FIRST))
_COUNTED = np.where(FIRST == SECOND, 1.0, 2.0)  # how often a pair is in the matrix


@jax.jit
def _learn(
    x: jax.Array,
    bent: jax.Array,
    mean: jax.Array,
    worth: jax.Array,
    scatter: jax.Array,
    there: jax.Array,
    normals: jax.Array,
) -> Learned:
    """Climb to the top of each kind, and draw around it; padded rows are worth 0."""
    # Slots come first: the inner axis of what takes time is long then.
    one, other = (jnp.where(there, bent, 0.0)[rows].T for rows in (FIRST, SECOND))
    linear = (x[FIRST] * x[SECOND]).sum(axis=1)
    found = _Found(_Pairs((one - other) ** 2, one * other, linear), mean, worth, scatter.sum())
    optimizer = optax.adam(_RATE)

    def climb(saturates: bool, kind: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        each = jnp.ones_like(there, x.dtype)
        centres = jax.tree.map(jnp.log, _of_slots(kind, each))
        start, natural = ravel_pytree(centres._replace(lengths=each * jnp.log(kind[5])))

        def loss(free: jax.Array) -> jax.Array:
            return _negative_log_posterior(natural(free), centres, saturates, found, there)

        gradient = jax.grad(loss)

        def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            free, state = carry
            updates, state = optimizer.update(gradient(free), state)
            return (optax.apply_updates(free, updates), state), None

        (free, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=_STEPS)
        # By differences: second derivatives take twice as long. In loops, so that each function is
        # compiled once.
        away = jnp.concatenate([jnp.zeros((1, len(free))), _APART * jnp.eye(len(free))])
        slopes = jax.lax.map(lambda off: gradient(free + off), away)
        slope, curvature = slopes[0], (slopes[1:] - slopes[0]) / _APART
        bends, axes = jnp.linalg.eigh(0.5 * (curvature + curvature.T))
        # The prior alone bends by 1, so that rows can only add to it at a top.
        bends = jnp.maximum(bends, 1.0)
        last = free - jnp.clip(axes @ (axes.T @ slope / bends), -1.0, 1.0)
        before, after = jax.lax.map(loss, jnp.stack([free, last]))
        free = jnp.where(after < before, last, free)
        drawn = free + (normals / jnp.sqrt(bends)) @ axes.T
        return jnp.fmin(before, after) + 0.5 * jnp.log(bends).sum(), free, drawn

    # Apart, as each has a program of its own then.
    apart = (False, _KINDS[~_SATURATES]), (True, _KINDS[_SATURATES])
    climbed = [jax.lax.map(partial(climb, kind), jnp.asarray(own)) for kind, own in apart]
    losses, tops, drawn = (jnp.concatenate(pair) for pair in zip(*climbed, strict=True))
    losses = jnp.where(jnp.isfinite(losses), losses - jnp.log(_CHANCES), jnp.inf)
    shares = jnp.cumsum(jax.nn.softmax(-losses))
    levels = (jnp.arange(N_DRAWS) + 0.5) / N_DRAWS
    kind = jnp.minimum(jnp.searchsorted(shares, levels), len(_KINDS) - 1)
    best = jnp.argmin(losses)
    flat = jnp.concatenate([tops[best][None], drawn[kind, jnp.arange(N_DRAWS)]])
    k = there.shape[0]
    _, natural = ravel_pytree(_of_slots(jnp.ones(5), jnp.ones(k)))
    scales = jax.vmap(lambda free: _natural(natural(free)))(flat)
    saturates = jnp.asarray(_SATURATES)[jnp.concatenate([best[None], kind])]
    for_linear = -losses[0] - jax.nn.logsumexp(-losses[1:])
    return Learned(scales._replace(saturates=saturates), for_linear)


def turns_at(steep: Any, there: Any) -> Any:
    """Variance of the units' offsets: as that of their slopes ``[n_slots]``, at a usual value."""
    return steep.sum() / there.sum().clip(1)


def of_pairs(inner: jax.Array) -> jax.Array:
    """Covariance of sums of error functions ``[..., n_pairs]``, from products of what enters."""
    size = jax.lax.rsqrt(1.0 + 2.0 * inner[..., FIRST == SECOND])
    return (2.0 / jnp.pi) * arcsine(2.0 * inner * size[..., FIRST] * size[..., SECOND])


def arcsine(x: jax.Array) -> jax.Array:
    """Arcsine to 3e-8 (Abramowitz and Stegun 4.4.46): the library's takes most of the learning."""
    size, total = jnp.abs(x), jnp.zeros_like(x)
    for coefficient in reversed(_ARCSINE):
        total = coefficient + size * total
    return jnp.sign(x) * (0.5 * jnp.pi - jnp.sqrt(1.0 - size) * total)


def _of_slots(kind: jax.Array, each: jax.Array) -> Scales:
    return Scales(kind[0], kind[1] * each, kind[2], kind[3] * each, kind[4], None)


def _natural(free: Scales) -> Scales:
    scales: Scales = jax.tree.map(jnp.exp, free)
    return scales._replace(lengths=_SHORTEST + scales.lengths, noise=_LEAST_NOISE + scales.noise)


def _negative_log_posterior(
    free: Scales, centres: Scales, saturates: bool, found: _Found, there: jax.Array
) -> jax.Array:
    """Of the logarithms of scales, up to a constant."""
    scales, pairs = _natural(free), found.pairs
    amplitudes = jnp.where(there, scales.alone**2, 0.0)[:, None]
    if saturates:
        steep = jnp.where(there, scales.lengths**-2, 0.0)
        weighed = steep[:, None] * pairs.products
        alone = of_pairs(steep[:, None] + weighed)
        together = of_pairs(turns_at(steep, there) + weighed.sum(axis=0))
    else:
        away = pairs.squares / scales.lengths[:, None] ** 2
        alone, together = jnp.exp(-0.5 * away), jnp.exp(-0.5 * away.sum(axis=0))
    bends = (amplitudes * alone).sum(axis=0) + scales.together**2 * together
    is_row = found.worth > 0
    both = is_row[FIRST] & is_row[SECOND]
    kernel = jnp.where(both, 1.0 + scales.linear**2 * pairs.linear + bends, 0.0)
    noise = jnp.where(is_row, scales.noise**2 / jnp.maximum(found.worth, 1.0), 1.0)
    evidence = log_density(kernel, noise, found.mean)
    # What single values say of the noise beyond their means.
    more = jnp.maximum(found.worth - 1.0, 0.0).sum()
    evidence -= more * jnp.log(scales.noise) + 0.5 * found.scatter / scales.noise**2
    far = jax.tree.map(lambda a, b: (a - b) ** 2, free, centres)
    slots = jnp.where(there, far.alone + far.lengths, 0.0).sum()
    loss: jax.Array = 0.5 * (far.linear + far.together + far.noise + slots) - evidence
    return loss


@jax.custom_vjp
def log_density(kernel: jax.Array, noise: jax.Array, values: jax.Array) -> jax.Array:
    """Normal log-density ``[]`` of values, up to a constant.

    Its slope is 0.5 (a a' - K^-1) with a = K^-1 y (Rasmussen and Williams 2006, 5.9), for which
    the factor is needed once: to differentiate the factor takes twice as long.

    Args:
        kernel: of all pairs ``[n_pairs]``.
        noise: variances ``[n_rows]``.
        values: ``[n_rows]``; what does not depend on the scales.
    """
    return _factored(kernel, noise, values)[0]


def _factored(
    kernel: jax.Array, noise: jax.Array, values: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    root = jnp.linalg.cholesky(kernel[_PLACE] + jnp.diag(noise))
    half = jax.scipy.linalg.solve_triangular(root, values, lower=True)
    return -0.5 * half @ half - jnp.log(jnp.diag(root)).sum(), (root, half)


def _slope(
    kept: tuple[jax.Array, jax.Array], times: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    root, half = kept
    inverse = jax.scipy.linalg.solve_triangular(root, jnp.eye(len(root)), lower=True)
    solved = inverse.T @ half
    whole = 0.5 * times * (jnp.outer(solved, solved) - inverse.T @ inverse)
    return whole[FIRST, SECOND] * _COUNTED, jnp.diag(whole), -times * solved


log_density.defvjp(_factored, _slope)
