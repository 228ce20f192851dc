"""Gaussian-process mechanisms: how one variable follows from its parents, learned from rows.

Its prior is that of `mechanism_scales`. Functions are drawn in a basis: sines on an interval for
each parent (Solin and Särkkä 2020), random Fourier features for all together (Rahimi and Recht
2007), and error functions in place of both where a mechanism saturates, so that the cost of a
prediction does not depend on the number of rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from causal_bayes_opt.acquisition.mechanism_scales import Scales, bend_with, turns_at

N_SINES, N_FEATURES = 32, 128
# Slopes and offsets of the units of one parent: a lattice with low discrepancy, made normal.
_LATTICE = np.array([[0.7548776662466927], [0.5698402909980532]]) * np.arange(1, N_SINES + 1)
_SLOPES, _OFFSETS = ndtri(_LATTICE % 1.0)
# Of sin(pi r) / r in powers of r^2, for r from -1/2 to 1/2.
_SERIES = [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(8)]


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


def n_basis(n_slots: int) -> int:
    """Number of basis functions for so many slots."""
    return 1 + n_slots + n_slots * N_SINES + N_FEATURES


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
    bent = bend_with(jnp, x, domain.low, domain.high)

    def of_waves(_: None) -> jax.Array:
        order = jnp.arange(1, N_SINES + 1, dtype=x.dtype)
        sines = _sine(_angle(bent, domain)[..., None] * order) * _amplitudes(there, scales, domain)
        together = _together(bent, scales, waves)
        return jnp.concatenate([sines.reshape(*x.shape[:-1], -1), together], axis=-1)

    bends = jax.lax.cond(
        jnp.asarray(scales.saturates), lambda _: _units(bent, there, scales, waves), of_waves, None
    )
    return jnp.concatenate([jnp.ones_like(x[..., :1]), scales.linear * bent, bends], axis=-1)


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
    bent, slots = bend_with(jnp, x, domain.low, domain.high), x.shape[-1]
    own = weights[1 + slots :]

    def of_units(_: None) -> jax.Array:
        return _units(bent, there, scales, waves) @ own

    def of_waves(_: None) -> jax.Array:
        coefficients = own[:-N_FEATURES].reshape(slots, N_SINES)
        coefficients = coefficients * _amplitudes(there, scales, domain)

        def add_alone(slot: jax.Array, total: jax.Array) -> jax.Array:
            angle = _angle(bent[..., slot], Domain(*(leaf[slot] for leaf in domain)))
            twice = 2.0 * _sine(angle + 0.5 * jnp.pi)

            def recur(k: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                last, before = carry
                return coefficients[slot, N_SINES - 1 - k] + twice * last - before, last

            nothing = jnp.zeros_like(angle)
            last, _ = jax.lax.fori_loop(0, N_SINES, recur, (nothing, nothing))
            grown: jax.Array = total + last * _sine(angle)
            return grown

        together = _together(bent, scales, waves) @ own[-N_FEATURES:]
        total: jax.Array = jax.lax.fori_loop(0, there.sum(), add_alone, together)
        return total

    bends = jax.lax.cond(jnp.asarray(scales.saturates), of_units, of_waves, None)
    value: jax.Array = weights[0] + scales.linear * (bent @ weights[1 : 1 + slots]) + bends
    return value


def _units(bent: jax.Array, there: jax.Array, scales: Scales, waves: jax.Array) -> jax.Array:
    """Error functions ``[..., n_slots * N_SINES + N_FEATURES]``: of each parent, of all."""
    steep = jnp.where(there, 1.0 / scales.lengths, 0.0)
    slopes, offsets = (jnp.asarray(part, bent.dtype) for part in (_SLOPES, _OFFSETS))
    enters = (bent[..., None] * slopes + offsets) * steep[:, None]
    amplitude = jnp.where(there, scales.alone, 0.0)[:, None] / math.sqrt(N_SINES)
    alone = amplitude * jax.lax.erf(enters)
    # A slope and an offset for each; those of the waves are uniform.
    offset = jax.scipy.special.ndtri(waves[:, -1]) * jnp.sqrt(turns_at(steep**2, there))
    joint = jax.lax.erf((bent * steep) @ waves[:, :-1].T + offset)
    together = scales.together / math.sqrt(N_FEATURES) * joint
    return jnp.concatenate([alone.reshape(*bent.shape[:-1], -1), together], axis=-1)


def _angle(bent: jax.Array, domain: Domain) -> jax.Array:
    """The argument of the first sine: 0 to pi over the interval, held at its ends."""
    inside = jnp.clip(bent - domain.centre, -domain.half, domain.half) + domain.half
    return jnp.pi * inside / (2.0 * domain.half)


def _amplitudes(there: jax.Array, scales: Scales, domain: Domain) -> jax.Array:
    """Prior deviations of the sines ``[n_slots, n_sines]``: roots of the kernel's spectrum."""
    order = jnp.arange(1, N_SINES + 1, dtype=domain.half.dtype)
    frequency = jnp.pi * order / (2.0 * domain.half[:, None])
    bell = jnp.exp(-0.25 * (frequency * scales.lengths[:, None]) ** 2)
    power = jnp.sqrt(jnp.sqrt(2.0 * jnp.pi) * scales.lengths / domain.half)[:, None] * bell
    return jnp.where(there, scales.alone, 0.0)[:, None] * power


def _together(bent: jax.Array, scales: Scales, waves: jax.Array) -> jax.Array:
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
    return Weights(mean, root)


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
