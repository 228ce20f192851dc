"""Posterior over candidate parent sets, updated by one experiment after the other.

For each candidate set S the target is regressed on features of x_S by Bayesian linear regression;
the weight of S is multiplied by the density with which its regression predicts each new row.
Source: Durand, Annadani, Bauer and Parbhoo, arXiv 2503.19554 (2025), section 4.

Rows that were observed condition the regressions and are not scored: the prior over sets has
already seen them. All functions below `replay` work on padded float64 arrays, under
`padding.double`, and may be mapped over systems by `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core import padding
from causal_bayes_opt.errors import ConfigError

Predictive: TypeAlias = Literal["exact", "public"]
Noise: TypeAlias = Literal["unit", "learned"]

N_FEATURES = 100
# Shape and rate of the inverse-gamma prior of the noise variance of a standardised target: worth
# two rows, and centred where the target is all noise.
NOISE_SHAPE, NOISE_RATE = 1.0, 1.0


class SetPosterior(NamedTuple):
    """Candidate sets, their weights and their regressions. A leading axis may be systems."""

    log_weights: jax.Array  # [n_sets], normalised; -inf where dropped or padded
    columns: jax.Array  # int [n_sets, n_slots], the variables of each set, 0 where there are fewer
    used: jax.Array  # [n_sets, n_slots], 1.0 where a slot holds a variable
    constant: jax.Array  # scalar, the value of the last term: 1 with an intercept, else 0
    # Frequencies [n_sets, n_slots, n_features] and phases [n_sets, n_features]; None if linear.
    fourier: tuple[jax.Array, jax.Array] | None
    mean: jax.Array  # [n_sets, n_terms], of the weights
    covariance: jax.Array  # [n_sets, n_terms, n_terms], of the weights, in noise variances
    precision: jax.Array  # its inverse; kept up to date for `predictive="public"` alone
    shape: jax.Array  # [n_sets], of the noise variance's inverse-gamma posterior
    rate: jax.Array  # [n_sets]


def replay(
    record: Mapping[str, Any], predictive: Predictive = "public"
) -> list[dict[frozenset[str], float]]:
    """Repeat the posterior of one recorded run of the public implementation.

    Args:
        record: the parsed JSON: ``variables``, ``target``, ``T``, ``observational``, ``means``,
            ``stds``, ``prior`` (sets with their weights) and ``updates`` (rows with standardised
            ``x`` and the target ``y`` in its own units).
        predictive: ``"public"`` repeats the variance of the public code, ``"exact"`` corrects it.

    Returns:
        For each row of ``updates`` the probability of each set that is still a candidate.
    """
    target = record["variables"][record["target"]]
    names = [name for name in record["variables"] if name != target]
    sets = [frozenset(members) for members, _ in record["prior"]]
    members = np.array([[name in parents for name in names] for parents in sets])
    means, stds = (np.array([record[key][name] for name in names]) for key in ("means", "stds"))
    observed = np.stack([record["observational"][name] for name in names], axis=-1)
    x = np.array([[update["x"][name] for name in names] for update in record["updates"]])
    y = np.array([update["y"] for update in record["updates"]])
    # A trial begins by dropping what the one before left below the floor; the first drops nothing.
    floors = np.where(np.arange(len(y)) > len(y) - record["T"], 1e-4, 0.0)
    with padding.double():
        state = start(members, np.array([p for _, p in record["prior"]]))
        state = condition(
            state,
            *padded_rows((observed - means) / stds, np.array(record["observational"][target])),
        )
        rows, outcomes, present = padded_rows(x, y)
        floors = padding.pad(floors, len(outcomes))
        _, log_weights = absorb(state, rows, outcomes, present, floors, predictive=predictive)
    steps = np.asarray(log_weights)[: len(y), : len(sets)]
    return [
        {s: float(np.exp(w)) for s, w in zip(sets, step, strict=True) if w > -np.inf}
        for step in steps
    ]


def start(
    members: np.ndarray,
    weights: np.ndarray,
    *,
    noise: Noise = "unit",
    names: Sequence[str] | None = None,
    seed: Sequence[int] = (0,),
    nonlinear: bool = False,
) -> SetPosterior:
    """Return the regressions before any row, padded in sets and variables.

    Args:
        members: bool ``[n_sets, n_vars]``, one row a candidate set, without the target.
        weights: prior probability of each set ``[n_sets]``; need not be normalised.
        noise: ``"unit"`` is noise of variance 1 and no intercept; ``"learned"`` is a
            normal-inverse-gamma prior with an intercept, for a standardised target.
        names: of the variables ``[n_vars]``; the draws of features follow them.
        seed: of the draws of features.
        nonlinear: regress on 100 random Fourier features of each set instead of its variables.
    """
    n_sets, n_vars = members.shape
    sets = padding.bucket(n_sets, padding.SETS, 4)
    slots = padding.bucket(int(members.sum(axis=1).max(initial=0)), padding.VARIABLES)
    # Members first, in order; what is left of the slots is not used.
    columns = np.argsort(~members, axis=1, kind="stable")[:, :slots]
    used = np.take_along_axis(members, columns, axis=1)
    n_terms, fourier = slots + 1, None
    if nonlinear:
        chosen = list(names or map(str, range(n_vars)))
        frequencies, phases = fourier_features(members, chosen, seed)
        frequencies = np.take_along_axis(frequencies, columns[:, :, None], axis=1)
        fourier = (
            jnp.asarray(padding.pad(frequencies, sets, slots)),
            jnp.asarray(padding.pad(phases, sets)),
        )
        n_terms = N_FEATURES + 1
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights / weights.sum())
    eye = jnp.broadcast_to(jnp.eye(n_terms), (sets, n_terms, n_terms))
    return SetPosterior(
        log_weights=jnp.asarray(padding.pad(log_weights, sets, fill=-np.inf)),
        columns=jnp.asarray(padding.pad(np.where(used, columns, 0), sets, slots)),
        used=jnp.asarray(padding.pad(used.astype(np.float64), sets, slots)),
        constant=jnp.asarray(1.0 if noise == "learned" else 0.0),
        fourier=fourier,
        mean=jnp.zeros((sets, n_terms)),
        covariance=eye,
        precision=eye,
        shape=jnp.full(sets, NOISE_SHAPE),
        rate=jnp.full(sets, NOISE_RATE),
    )


def padded_rows(
    x: np.ndarray, y: np.ndarray, smallest: int = padding.EXPERIMENTS, factor: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad rows ``[n, n_vars]`` and outcomes ``[n]``; the third array is True where real."""
    rows = padding.bucket(len(y), smallest, factor)
    width = padding.bucket(x.shape[1], padding.VARIABLES)
    return (
        padding.pad(x, rows, width),
        padding.pad(y, rows),
        padding.pad(np.ones(len(y), dtype=bool), rows),
    )


@jax.jit
def condition(state: SetPosterior, x: jax.Array, y: jax.Array, present: jax.Array) -> SetPosterior:
    """Update the regressions of a fresh state by rows that are not scored, all at once.

    Args:
        state: from `start`.
        x: ``[n_rows, n_vars]``, standardised.
        y: ``[n_rows]``.
        present: bool ``[n_rows]``, False where padded.
    """
    weight = present.astype(x.dtype)
    y = y * weight
    if state.fourier is None:
        # One Gram matrix serves every set: a set keeps its own rows and columns of it.
        terms = jnp.concatenate([x, jnp.ones_like(x[:, :1]) * state.constant], axis=1)
        terms = terms * weight[:, None]
        gram, moment = terms.T @ terms, terms.T @ y
        last = jnp.full_like(state.columns[:, :1], x.shape[1])
        own = jnp.concatenate([state.columns, last], axis=1)
        keep = jnp.concatenate([state.used, jnp.ones_like(state.used[:, :1])], axis=1)
        gram = keep[:, :, None] * gram[own[:, :, None], own[:, None, :]] * keep[:, None, :]
        moment = keep * moment[own]
    else:
        features = jax.vmap(lambda row: _features(state, row), out_axes=1)(x)
        features = features * weight[:, None]
        gram = jnp.einsum("snf,sng->sfg", features, features)
        moment = jnp.einsum("snf,n->sf", features, y)
    precision = state.precision + gram
    factor = jnp.linalg.cholesky(precision)
    eye = jnp.broadcast_to(jnp.eye(precision.shape[-1]), precision.shape)
    half = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    covariance = jnp.einsum("sfg,sfh->sgh", half, half)
    mean = jnp.einsum("sfg,sg->sf", covariance, moment)
    explained = (mean * moment).sum(-1)
    return state._replace(
        mean=mean,
        covariance=covariance,
        precision=precision,
        shape=state.shape + 0.5 * weight.sum(),
        rate=state.rate + 0.5 * jnp.maximum((y * y).sum() - explained, 0.0),
    )


@partial(jax.jit, static_argnames=("predictive", "noise"))
def absorb(
    state: SetPosterior,
    x: jax.Array,
    y: jax.Array,
    present: jax.Array,
    floors: jax.Array,
    *,
    predictive: Predictive = "exact",
    noise: Noise = "unit",
) -> tuple[SetPosterior, jax.Array]:
    """Score rows one after the other, each before the regressions learn from it.

    Args:
        state: conditioned on what was observed.
        x: ``[n_rows, n_vars]``, standardised.
        y: ``[n_rows]``; standardised too where the noise is learned.
        present: bool ``[n_rows]``, False where padded.
        floors: ``[n_rows]``; sets whose weight is below it are dropped for good before the row.
        predictive: see `log_predictive`.
        noise: see `start`.

    Returns:
        The state after the last row, and the log-weights after each ``[n_rows, n_sets]``.

    Raises:
        ConfigError: a public predictive density where the public code has none to repeat.
    """
    if predictive == "public" and (noise != "unit" or state.fourier is not None):
        raise ConfigError(
            'predictive="public" repeats the linear code with noise of variance 1; '
            'use predictive="exact" for learned noise and for the nonlinear model'
        )

    def step(
        state: SetPosterior, row: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    ) -> tuple[SetPosterior, jax.Array]:
        x, y, present, floor = row
        features = _features(state, x)
        log_weights = jnp.where(state.log_weights < jnp.log(floor), -jnp.inf, state.log_weights)
        log_weights = log_weights + log_predictive(state, features, y, predictive, noise)
        total = jax.nn.logsumexp(log_weights)
        # A row that every set thinks impossible says nothing about which set is right.
        keep = present & jnp.isfinite(total)
        log_weights = jnp.where(keep, log_weights - total, state.log_weights)
        learned = _learn(state, features, y)._replace(log_weights=log_weights)
        after = jax.tree.map(lambda new, old: jnp.where(present, new, old), learned, state)
        return after, log_weights

    return jax.lax.scan(step, state, (x, y, present, floors))


def log_predictive(
    state: SetPosterior,
    features: jax.Array,
    y: jax.Array,
    predictive: Predictive = "exact",
    noise: Noise = "unit",
) -> jax.Array:
    """Log-density of one outcome under the regression of each set ``[n_sets]``.

    With f the features, m and V mean and covariance of the weights: N(y; m'f, 1 + f'Vf) for unit
    noise (``"public"`` has the inverse of V there, by mistake), and a Student density with 2a
    degrees of freedom, location m'f and squared scale (b/a)(1 + f'Vf) for learned noise with an
    inverse-gamma posterior of shape a and rate b (Bishop 2006, sections 2.3.6 and 3.3).
    """
    inner = state.precision if predictive == "public" else state.covariance
    variance = 1.0 + _quadratic(inner, features)
    error = y - (state.mean * features).sum(-1)
    if noise == "unit":
        return -0.5 * (jnp.log(2 * jnp.pi * variance) + error**2 / variance)
    df = 2 * state.shape
    scale = variance * state.rate / state.shape
    return (
        jax.scipy.special.gammaln((df + 1) / 2)
        - jax.scipy.special.gammaln(df / 2)
        - 0.5 * jnp.log(df * jnp.pi * scale)
        - 0.5 * (df + 1) * jnp.log1p(error**2 / (df * scale))
    )


def fourier_features(
    members: np.ndarray, names: Sequence[str], seed: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the random Fourier features of each set (Rahimi and Recht, 2007), unit length scale.

    The draws of a set depend on the names in it alone, not on the order of the variables.

    Returns:
        Frequencies ``[n_sets, n_vars, n_features]``, 0 outside the set, and phases
        ``[n_sets, n_features]``.
    """
    codes = padding.name_codes(list(names))
    frequencies = np.zeros((*members.shape, N_FEATURES))
    phases = np.zeros((len(members), N_FEATURES))
    for s, member in enumerate(members):
        chosen = sorted(np.flatnonzero(member), key=lambda i: int(codes[i]))
        rng = np.random.default_rng([*seed, *(int(codes[i]) for i in chosen)])
        frequencies[s, chosen] = rng.standard_normal((len(chosen), N_FEATURES))
        phases[s] = rng.uniform(0.0, 2 * np.pi, N_FEATURES)
    return frequencies, phases


def _features(state: SetPosterior, x: jax.Array) -> jax.Array:
    """Features of a row ``[n_vars]`` under each set ``[n_sets, n_terms]``; the last is constant."""
    if state.fourier is None:
        terms = state.used * x[state.columns]
    else:
        frequencies, phases = state.fourier
        inner = jnp.einsum("sv,svf->sf", x[state.columns], frequencies) + phases
        terms = jnp.sqrt(2.0 / N_FEATURES) * jnp.cos(inner)
    return jnp.concatenate([terms, jnp.full_like(terms[:, :1], state.constant)], axis=1)


def _learn(state: SetPosterior, features: jax.Array, y: jax.Array) -> SetPosterior:
    """Condition every regression on one row (rank-one update, as in a Kalman filter)."""
    gain = jnp.einsum("sfg,sg->sf", state.covariance, features)
    variance = 1.0 + _quadratic(state.covariance, features)
    error = y - (state.mean * features).sum(-1)
    outer = jnp.einsum("sf,sg->sfg", gain, gain) / variance[:, None, None]
    return state._replace(
        mean=state.mean + gain * (error / variance)[:, None],
        covariance=state.covariance - outer,
        precision=state.precision + jnp.einsum("sf,sg->sfg", features, features),
        shape=state.shape + 0.5,
        rate=state.rate + 0.5 * error**2 / variance,
    )


def _quadratic(matrices: jax.Array, features: jax.Array) -> jax.Array:
    """The form f'Mf of each set ``[n_sets]``; rounding must not make it negative."""
    return jnp.maximum(jnp.einsum("sf,sfg,sg->s", features, matrices, features), 0.0)
