"""Gaussian-process mechanisms: how one variable follows from its parents, learned from rows.

The prior of a mechanism over its standardised parents x is a Gaussian process with kernel

    1 + a^2 x . x' + sum_i b_i^2 exp(-(x_i - x'_i)^2 / 2 l_i^2)
      + c^2 exp(-sum_i (x_i - x'_i)^2 / 2 l_i^2)

(a linear part, a smooth function of each parent alone as in Duvenaud, Nickisch and Rasmussen 2011,
and one of all together) and Gaussian noise. Scales are learned by marginal likelihood. Functions
are drawn in a basis: sines on an interval for each parent (Solin and Särkkä 2020), random Fourier
features for all together (Rahimi and Recht 2007), so that a row is a rank-one step and the cost of
a prediction does not depend on the number of rows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_bayes_opt.core.padding import double

N_SINES, N_FEATURES = 32, 32
LEARN_FROM = 72  # rows; more would be slower and hardly better
_STEPS, _RATE = 30, 0.2
_STARTS = (0.3, 1.5)  # length scales
_SHORTEST, _LEAST_NOISE = 0.15, 0.01
# Of sin(pi r) / r in powers of r^2, for r from -1/2 to 1/2.
_SERIES = [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(8)]


class Scales(NamedTuple):
    """What the kernel needs, for one mechanism; slots without a parent are not looked at."""

    linear: jax.Array  # a, []
    alone: jax.Array  # b [n_slots]
    together: jax.Array  # c, []
    lengths: jax.Array  # l [n_slots]
    noise: jax.Array  # standard deviation, []


class Domain(NamedTuple):
    """Where the sines of each parent live, and from where on values are bent."""

    centre: jax.Array  # [n_slots]
    half: jax.Array  # [n_slots]
    low: jax.Array  # [n_slots]
    high: jax.Array  # [n_slots]


class Weights(NamedTuple):
    """Posterior of a function's weights in its basis, whose prior is standard normal."""

    mean: jax.Array  # [n_basis]
    root: jax.Array  # [n_basis, n_basis], upper; mean + root z is a draw
    scale: jax.Array  # [n_basis, n_basis], root root'


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


def n_basis(n_slots: int) -> int:
    """Number of basis functions for so many slots."""
    return 1 + n_slots + n_slots * N_SINES + N_FEATURES


def bend(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Values ``[..., n]``: as they are between `low` and `high` ``[n]``, logarithms beyond."""
    return np.asarray(_bend(np, x, low, high))


def _bend(xp: Any, x: Any, low: Any, high: Any) -> Any:
    inside = xp.clip(x, low, high)
    return inside + xp.sign(x - inside) * xp.log1p(xp.abs(x - inside))


def learn_scales(rows: Rows, n_slots: int, low: np.ndarray, high: np.ndarray) -> Scales:
    """Learn the scales of one mechanism by marginal likelihood under weak priors.

    Answers are kept by the rows: as long as these do not change, asking again costs nothing.

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


@lru_cache(maxsize=4096)
def _remembered(x_bytes: bytes, y_bytes: bytes, n_parents: int, n_slots: int) -> Scales:
    mean, worth, scatter = np.frombuffer(y_bytes).reshape(3, -1)
    n = len(mean)
    x = np.zeros((2, LEARN_FROM, n_slots))
    x[:, :n, :n_parents] = np.frombuffer(x_bytes).reshape(2, n, n_parents)
    padded = np.zeros((3, LEARN_FROM))
    padded[:, :n] = mean, worth, scatter
    with double():
        found = _learn(*x, *padded, np.arange(n_slots) < n_parents)
    kept: Scales = jax.tree.map(np.asarray, found)
    return kept


@jax.jit
def _learn(
    x: jax.Array,
    bent: jax.Array,
    mean: jax.Array,
    worth: jax.Array,
    scatter: jax.Array,
    there: jax.Array,
) -> Scales:
    """Climb from each start; padded rows are worth 0."""
    # Slots come first: the inner axis of what takes time is long then.
    squares = jnp.where(there[:, None, None], (bent.T[:, :, None] - bent.T[:, None, :]) ** 2, 0.0)
    found_at = _Found(x, squares, mean, worth, scatter.sum())
    optimizer = optax.adam(_RATE)

    def loss(free: Scales) -> jax.Array:
        return _negative_log_posterior(free, found_at, there)

    def climb(length: jax.Array) -> tuple[jax.Array, Scales]:
        k = there.shape[0]
        centres = _prior(jnp.full(k, 0.5), jnp.full(k, 1.0))
        start = centres._replace(lengths=jnp.full(k, jnp.log(length)))

        def step(carry: tuple[Scales, optax.OptState], _: None) -> tuple[tuple, None]:  # type: ignore[type-arg]
            free, state = carry
            updates, state = optimizer.update(jax.grad(loss)(free), state)
            return (optax.apply_updates(free, updates), state), None

        (free, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=_STEPS)
        return loss(free), free

    losses, found = jax.lax.map(climb, jnp.asarray(_STARTS))
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    return _natural(jax.tree.map(lambda leaf: leaf[best], found))


def _prior(alone: jax.Array, lengths: jax.Array) -> Scales:
    """Centres of the scales' log-normal priors, as logarithms."""
    together, noise = jnp.asarray(0.3), jnp.asarray(0.5)
    return Scales(*map(jnp.log, (jnp.asarray(1.0), alone, together, lengths, noise)))


def _natural(free: Scales) -> Scales:
    scales = Scales(*map(jnp.exp, free))
    return scales._replace(lengths=_SHORTEST + scales.lengths, noise=_LEAST_NOISE + scales.noise)


class _Found(NamedTuple):
    x: jax.Array  # [n_rows, n_slots]
    squares: jax.Array  # of distances between bent parents [n_slots, n_rows, n_rows]
    mean: jax.Array  # [n_rows]
    worth: jax.Array  # likewise, 0 where padded
    scatter: jax.Array  # of all rows []


def _negative_log_posterior(free: Scales, found: _Found, there: jax.Array) -> jax.Array:
    scales = _natural(free)
    away = found.squares / scales.lengths[:, None, None] ** 2
    amplitudes = jnp.where(there, scales.alone**2, 0.0)[:, None, None]
    alone = (amplitudes * jnp.exp(-0.5 * away)).sum(axis=0)
    together = scales.together**2 * jnp.exp(-0.5 * away.sum(axis=0))
    kernel = 1.0 + scales.linear**2 * (found.x @ found.x.T) + alone + together
    is_row = found.worth > 0
    both = is_row[:, None] & is_row[None, :]
    noise = jnp.where(is_row, scales.noise**2 / jnp.maximum(found.worth, 1.0), 1.0)
    root = jnp.linalg.cholesky(jnp.where(both, kernel, 0.0) + jnp.diag(noise))
    half = jax.scipy.linalg.solve_triangular(root, found.mean, lower=True)
    evidence = -0.5 * half @ half - jnp.log(jnp.diag(root)).sum()
    # What single values say of the noise beyond their means.
    more = jnp.maximum(found.worth - 1.0, 0.0).sum()
    evidence -= more * jnp.log(scales.noise) + 0.5 * found.scatter / scales.noise**2
    centres = _prior(jnp.full_like(free.alone, 0.5), jnp.full_like(free.lengths, 1.0))
    far = jax.tree.map(lambda a, b: (a - b) ** 2, free, centres)
    slots = jnp.where(there, far.alone + far.lengths, 0.0).sum()
    loss: jax.Array = 0.5 * (far.linear + far.together + far.noise + slots) - evidence
    return loss


def basis(
    x: jax.Array, there: jax.Array, scales: Scales, domain: Domain, waves: jax.Array
) -> jax.Array:
    """Basis functions ``[..., n_basis]`` at parents ``[..., n_slots]``, scaled by the prior.

    Args:
        x: standardised parents.
        there: bool ``[n_slots]``, False where there is no parent.
        scales: of the kernel.
        domain: of the sines.
        waves: standard normal frequencies and uniform phases, ``[n_features, n_slots + 1]``.
    """
    x = jnp.where(there, x, 0.0)
    order = jnp.arange(1, N_SINES + 1, dtype=x.dtype)
    sines = _sine(_angle(x, domain)[..., None] * order) * _amplitudes(there, scales, domain)
    return jnp.concatenate(
        [
            jnp.ones_like(x[..., :1]),
            scales.linear * x,
            sines.reshape(*x.shape[:-1], -1),
            _together(x, scales, domain, waves),
        ],
        axis=-1,
    )


def evaluate(
    x: jax.Array,
    weights: jax.Array,
    there: jax.Array,
    scales: Scales,
    domain: Domain,
    waves: jax.Array,
) -> jax.Array:
    """Return ``basis(x) @ weights``, ``[...]``, without the basis: sines by Clenshaw's recurrence.

    Costs as much as there are parents, which must come first among the slots.

    Args:
        x: standardised parents ``[..., n_slots]``.
        weights: ``[n_basis]``.
        there: see `basis`.
        scales: see `basis`.
        domain: see `basis`.
        waves: see `basis`.
    """
    x = jnp.where(there, x, 0.0)
    slots = x.shape[-1]
    coefficients = weights[1 + slots : -N_FEATURES].reshape(slots, N_SINES)
    coefficients = coefficients * _amplitudes(there, scales, domain)

    def add_alone(slot: jax.Array, total: jax.Array) -> jax.Array:
        angle = _angle(x[..., slot], Domain(*(leaf[slot] for leaf in domain)))
        twice = 2.0 * _sine(angle + 0.5 * jnp.pi)

        def recur(k: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            last, before = carry
            return coefficients[slot, N_SINES - 1 - k] + twice * last - before, last

        nothing = jnp.zeros_like(angle)
        last, _ = jax.lax.fori_loop(0, N_SINES, recur, (nothing, nothing))
        grown: jax.Array = total + last * _sine(angle)
        return grown

    together = _together(x, scales, domain, waves) @ weights[-N_FEATURES:]
    rest = weights[0] + scales.linear * (x @ weights[1 : 1 + slots]) + together
    value: jax.Array = jax.lax.fori_loop(0, there.sum(), add_alone, rest)
    return value


def _angle(x: jax.Array, domain: Domain) -> jax.Array:
    """The argument of the first sine: 0 to pi over the interval, held at its ends."""
    bent = _bend(jnp, x, domain.low, domain.high)
    inside = jnp.clip(bent - domain.centre, -domain.half, domain.half) + domain.half
    return jnp.pi * inside / (2.0 * domain.half)


def _amplitudes(there: jax.Array, scales: Scales, domain: Domain) -> jax.Array:
    """Prior deviations of the sines ``[n_slots, n_sines]``: roots of the kernel's spectrum."""
    order = jnp.arange(1, N_SINES + 1, dtype=domain.half.dtype)
    frequency = jnp.pi * order / (2.0 * domain.half[:, None])
    bell = jnp.exp(-0.25 * (frequency * scales.lengths[:, None]) ** 2)
    power = jnp.sqrt(jnp.sqrt(2.0 * jnp.pi) * scales.lengths / domain.half)[:, None] * bell
    return jnp.where(there, scales.alone, 0.0)[:, None] * power


def _together(x: jax.Array, scales: Scales, domain: Domain, waves: jax.Array) -> jax.Array:
    bent = _bend(jnp, x, domain.low, domain.high)
    angles = (bent / scales.lengths) @ waves[:, :-1].T + 2 * jnp.pi * waves[:, -1]
    return scales.together * jnp.sqrt(2.0 / N_FEATURES) * _sine(angles + 0.5 * jnp.pi)


def _sine(x: jax.Array) -> jax.Array:
    """Sine to 1e-8, in float32 as exact as that: the library's takes thirty times as long on CPUs.

    With r what is left of x in turns, a quarter of a turn back, it is ``2 sin^2(pi r) - 1``.
    """
    turns = x / (2.0 * jnp.pi) + 0.25
    r = turns - jnp.round(turns)
    square, total = r * r, jnp.zeros_like(r)
    for coefficient in reversed(_SERIES):
        total = coefficient + square * total
    return 2.0 * (r * total) ** 2 - 1.0


@jax.jit
def fit_weights(
    x: jax.Array,
    y: jax.Array,
    worth: jax.Array,
    there: jax.Array,
    scales: Scales,
    domain: Domain,
    waves: jax.Array,
) -> Weights:
    """Condition a function on rows.

    Args:
        x: standardised parents ``[n_rows, n_slots]``.
        y: ``[n_rows]``.
        worth: what each row counts, likewise; 0 where padded or where the variable was set.
        there: bool ``[n_slots]``.
        scales: of the kernel.
        domain: of the sines.
        waves: see `basis`.
    """
    each = jnp.sqrt(worth) / scales.noise
    design = basis(x, there, scales, domain, waves) * each[:, None]
    precision = design.T @ design + jnp.eye(design.shape[1])
    lower = jnp.linalg.cholesky(precision)
    root = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(lower)), lower=True).T
    mean = root @ (root.T @ (design.T @ (y * each)))
    return Weights(mean, root, root @ root.T)


@jax.jit
def log_predictive(
    x: jax.Array,
    y: jax.Array,
    worth: jax.Array,
    is_new: jax.Array,
    there: jax.Array,
    scales: Scales,
    domain: Domain,
    waves: jax.Array,
) -> jax.Array:
    """Log-density of new rows under a function that was conditioned on the other rows ``[]``.

    It is the difference of two evidences, ``log p(all rows) - log p(other rows)``.

    Args:
        x: standardised parents ``[n_rows, n_slots]``.
        y: ``[n_rows]``.
        worth: what each row counts, likewise; 0 where padded or where the variable was set.
        is_new: bool, likewise.
        there: see `fit_weights`, as all that follows.
        scales: likewise.
        domain: likewise.
        waves: likewise.
    """

    def evidence(used: jax.Array) -> jax.Array:
        design = basis(x, there, scales, domain, waves) * jnp.sqrt(used)[:, None] / scales.noise
        level = y * jnp.sqrt(used) / scales.noise
        lower = jnp.linalg.cholesky(design.T @ design + jnp.eye(design.shape[1]))
        half = jax.scipy.linalg.solve_triangular(lower, design.T @ level, lower=True)
        each = jnp.log(scales.noise) + 0.5 * jnp.log(2.0 * jnp.pi)
        spread = jnp.log(jnp.diag(lower)).sum() + used.sum() * each
        found: jax.Array = 0.5 * (half @ half - level @ level) - spread
        return found

    return evidence(worth) - evidence(jnp.where(is_new, 0.0, worth))


def add_row(weights: Weights, features: jax.Array, y: jax.Array, noise: jax.Array) -> Weights:
    """Add one row to a function's posterior by a rank-one step; the result is that of all rows.

    Args:
        weights: before the row.
        features: `basis` at its parents ``[n_basis]``.
        y: its value.
        noise: standard deviation.
    """
    towards = weights.scale @ features
    spread = noise**2 + features @ towards
    mean = weights.mean + towards * (y - features @ weights.mean) / spread
    # root' root'^T = root (I - u u' / spread) root^T with u = root^T features (Potter 1963).
    u = weights.root.T @ features
    shrink = 1.0 / (spread + noise * jnp.sqrt(spread))
    root = weights.root - shrink * jnp.outer(towards, u)
    return Weights(mean, root, weights.scale - jnp.outer(towards, towards) / spread)
