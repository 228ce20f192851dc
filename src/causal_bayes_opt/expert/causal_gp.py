"""Causal Gaussian processes: what setting variables does to the target, and what to try next.

For each candidate parent set S a GP of the target on x_S over the observational rows gives the
effect of setting variables: the mean over those rows of its prediction with the columns replaced.
For each element (one or several variables that may be set together) a causal GP starts from these
effects, averaged over the posterior of S, and is conditioned on the element's experiments.
Source: Aglietti, Lu, Paleyes and Gonzalez, "Causal Bayesian optimization", AISTATS 2020; averaged
over parent sets as in arXiv 2503.19554 (2025), section 4.3.

Everything is float64, padded, and small; the target is always to be made small. Loops over sets and
elements skip what is padded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr

from causal_bayes_opt.expert import gp

JITTER = 1e-8


class Rows(NamedTuple):
    """Observational rows in the units that the GPs work in."""

    x: jax.Array  # [n_rows, n_vars]
    y: jax.Array  # [n_rows], 0 where padded
    present: jax.Array  # bool [n_rows]


class Regressions(NamedTuple):
    """One GP of the target for each candidate set."""

    members: jax.Array  # [n_sets, n_vars], 1.0 in the set
    length: jax.Array  # [n_sets]
    variance: jax.Array  # [n_sets]
    noise: jax.Array  # [n_sets], variance
    weights: jax.Array  # [n_sets, n_rows], inverse kernel times outcomes
    inverse: jax.Array  # [n_sets, n_rows, n_rows], inverse kernel


class Effects(NamedTuple):
    """The regressions averaged over what is not set, for one element.

    With k the kernel in the element's columns, the effect of setting them to v has mean k(v)'linear
    and variance prior - k(v)'quadratic k(v); the second moment of the predictions over the rows is
    k(v)'second k(v).
    """

    scaled: jax.Array  # [n_sets, n_rows, n_vars], the element's columns over the length scale
    scale: jax.Array  # [n_sets, n_vars], 1 / length in the element and the set, else 0
    prior: jax.Array  # [n_sets]
    noise: jax.Array  # [n_sets]
    linear: jax.Array  # [n_sets, n_rows]
    quadratic: jax.Array  # [n_sets, n_rows, n_rows]
    second: jax.Array  # [n_sets, n_rows, n_rows]


class Experiments(NamedTuple):
    """What was tried with one element, padded."""

    values: jax.Array  # [n_tried, n_vars], 0 outside the element
    outcomes: jax.Array  # [n_tried]
    n_samples: jax.Array  # [n_tried], each outcome is the mean of so many
    present: jax.Array  # bool [n_tried]


class Element(NamedTuple):
    """One or several variables that may be set together, and where to look for values."""

    exists: jax.Array  # bool
    columns: jax.Array  # [n_vars], 1.0 in the element
    starts: jax.Array  # [n_starts, n_vars], 0 outside the element
    low: jax.Array  # [n_vars], 0 outside
    high: jax.Array  # [n_vars]
    offsets: jax.Array  # [n_rounds, n_near, n_vars], around the best so far, round by round


class Choice(NamedTuple):
    """The best trial of one element."""

    values: jax.Array  # [n_vars]
    score: jax.Array  # log expected improvement, less the log-cost
    mean: jax.Array
    deviation: jax.Array  # of the mean
    scatter: jax.Array  # variance of one outcome about the mean
    uncertainty: jax.Array  # mean standard deviation over the starts


class _Surrogate(NamedTuple):
    length: jax.Array
    variance: jax.Array
    weights: jax.Array  # [n_tried]
    factor: jax.Array  # [n_tried, n_tried]
    spread: jax.Array  # [n_tried], prior standard deviation at what was tried
    means: jax.Array  # [n_tried], posterior mean there


@jax.jit
def regress(rows: Rows, members: jax.Array, wanted: jax.Array, published: jax.Array) -> Regressions:
    """Fit one GP (RBF, zero mean) for each wanted set by its marginal likelihood.

    Args:
        rows: what was observed.
        members: ``[n_sets, n_vars]``, 1.0 in the set.
        wanted: bool ``[n_sets]``; the others are left all zero.
        published: bool, see `gp.fit`.
    """

    def fit(member: jax.Array) -> Regressions:
        distance = gp.distances(rows.x * member)
        both = (rows.present[:, None] & rows.present[None, :]).astype(rows.x.dtype)

        def parts(logs: jax.Array) -> tuple[jax.Array, jax.Array]:
            length, variance, noise = jnp.exp(logs)
            smooth = variance * both * jnp.exp(-0.5 * distance / length**2)
            scatter = jnp.where(rows.present, noise, 1.0)
            alone = jnp.diag(noise * rows.present)
            slopes = jnp.stack([smooth * distance / length**2, smooth, alone])
            return smooth + jnp.diag(scatter), slopes

        logs = gp.fit(lambda logs: gp.likelihood(*parts(logs), rows.y), 2, published)
        inverse = gp.inverse(parts(logs)[0])
        length, variance, noise = jnp.exp(logs)
        return Regressions(member, length, variance, noise, inverse @ rows.y, inverse)

    return gp.map_wanted(fit, wanted, members)


@jax.jit
def effects(rows: Rows, fitted: Regressions, columns: jax.Array, exists: jax.Array) -> Effects:
    """Average the regressions over the rows, for each element.

    The RBF kernel is the product of one in the element's columns and one in the others, so that
    one average of the latter serves all values that the element may be set to.

    Args:
        rows: what was observed.
        fitted: from `regress`.
        columns: ``[n_elements, n_vars]``, 1.0 in the element.
        exists: bool ``[n_elements]``.

    Returns:
        A leading axis ``[n_elements]`` on every array.
    """
    share = rows.present.astype(rows.x.dtype) / rows.present.sum()

    def one_set(columns: jax.Array, own: Regressions) -> Effects:
        scale = columns * own.members / own.length
        others = gp.distances(rows.x * (own.members / own.length - scale))
        rest = own.variance * jnp.exp(-0.5 * others) * rows.present
        pairs = rest.T @ (share[:, None] * rest)
        return Effects(
            rows.x * scale,
            scale,
            own.variance,
            own.noise,
            (share @ rest) * own.weights,
            own.inverse * pairs,
            jnp.outer(own.weights, own.weights) * pairs,
        )

    def one_element(columns: jax.Array) -> Effects:
        return gp.map_wanted(partial(one_set, columns), fitted.variance > 0, fitted)

    return gp.map_wanted(one_element, exists, columns)


@jax.jit
def choose(
    effects: Effects,
    elements: Element,
    tried: Experiments,
    weights: jax.Array,
    untouched: jax.Array,
    costs: tuple[jax.Array, jax.Array],
    published: jax.Array,
) -> tuple[Choice, jax.Array]:
    """Find for each element the values with the largest expected improvement.

    Args:
        effects: from `effects`; leading axis ``[n_elements]``, as on the next two.
        elements: where to look.
        tried: experiments so far.
        weights: posterior of the sets ``[n_sets]``, summing to 1.
        untouched: mean of the target when nothing is set; the best so far if nothing was tried.
        costs: values ``[n_vars, n_knots]`` and the cost of each ``[n_vars, n_knots]``; all 0 where
            cost does not count.
        published: bool; whether outcomes are taken for exact, and see `gp.fit`.

    Returns:
        The best trial of each element, and the best mean so far.
    """

    def fit(own: tuple[Effects, Experiments]) -> _Surrogate:
        return _condition(*own, weights, published)

    surrogates = gp.map_wanted(fit, elements.exists, (effects, tried))
    lowest = jnp.where(tried.present, surrogates.means, jnp.inf).min()
    best = jnp.where(jnp.isfinite(lowest), lowest, untouched)

    def search(own: tuple[Effects, Element, Experiments, _Surrogate]) -> Choice:
        return _search(*own, weights, best, costs)

    choices = gp.map_wanted(search, elements.exists, (effects, elements, tried, surrogates))
    return choices._replace(score=jnp.where(elements.exists, choices.score, -jnp.inf)), best


def causal_prior(
    effects: Effects, weights: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean m = sum_S p_S m_S and variance sum_S p_S (v_S + m_S²) - m² of an element's effect.

    Args:
        effects: of one element.
        weights: p ``[n_sets]``.
        values: ``[n_points, n_vars]``.

    Returns:
        Mean and variance ``[n_points]``.
    """

    def one_set(own: tuple[Effects, jax.Array]) -> tuple[jax.Array, jax.Array]:
        effect, weight = own
        near = _near(effect, values)
        mean = near @ effect.linear
        known = ((near @ effect.quadratic) * near).sum(-1)
        return weight * mean, weight * (jnp.maximum(effect.prior - known, 0.0) + mean**2)

    first, second = _over_sets(one_set, effects, weights)
    return first, jnp.maximum(second - first**2, 0.0)


def outcome_variance(effects: Effects, weights: jax.Array, values: jax.Array) -> jax.Array:
    """Variance ``[n_points]`` of one outcome about its mean: noise, and the parents not set."""

    def one_set(own: tuple[Effects, jax.Array]) -> tuple[jax.Array, jax.Array]:
        effect, weight = own
        near = _near(effect, values)
        mean = near @ effect.linear
        second = ((near @ effect.second) * near).sum(-1)
        return weight * (jnp.maximum(second - mean**2, 0.0) + effect.noise), mean

    return _over_sets(one_set, effects, weights)[0]


def log_improvement(best: jax.Array, mean: jax.Array, deviation: jax.Array) -> jax.Array:
    """Logarithm of the expected improvement below `best` under N(mean, deviation²).

    log of s (phi(z) + z Phi(z)) with z = (best - mean) / s, accurate where the improvement itself
    underflows (Ament et al., "Unexpected improvements to expected improvement", NeurIPS 2023).
    """
    z = (best - mean) / deviation
    log_density = -0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi)
    body = jnp.maximum(z, -1.0)
    direct = jnp.log(jnp.exp(-0.5 * body**2) / jnp.sqrt(2 * jnp.pi) + body * ndtr(body))
    tail = jnp.clip(z, -1e3, -1.0)
    # phi(z) (1 + z Phi(z) / phi(z)), and 1 / z² for the bracket where that is all rounding.
    ratio = jnp.exp(log_ndtr(tail) + 0.5 * tail**2 + 0.5 * jnp.log(2 * jnp.pi))
    bracket = jnp.where(z < -1e3, -2 * jnp.log(jnp.maximum(-z, 1.0)), jnp.log1p(tail * ratio))
    return jnp.log(deviation) + jnp.where(z > -1.0, direct, log_density + bracket)


def _search(
    effects: Effects,
    element: Element,
    tried: Experiments,
    surrogate: _Surrogate,
    weights: jax.Array,
    best: jax.Array,
    costs: tuple[jax.Array, jax.Array],
) -> Choice:
    def judge(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, deviation = _predict(effects, tried, surrogate, weights, values)
        each = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)(values, *costs)
        cost = (each * element.columns).sum(-1)
        score = log_improvement(best, mean, deviation) - jnp.log(jnp.where(cost > 0, cost, 1.0))
        return score, mean, deviation

    def pick(values: jax.Array, judged: tuple[jax.Array, jax.Array, jax.Array]) -> Choice:
        score, mean, deviation = judged
        i = score.argmax()
        nothing = jnp.zeros(())
        return Choice(values[i], score[i], mean[i], deviation[i], nothing, deviation.mean())

    def closer(choice: Choice, offsets: jax.Array) -> tuple[Choice, None]:
        values = jnp.clip(choice.values + offsets, element.low, element.high)
        near = pick(values, judge(values))._replace(uncertainty=choice.uncertainty)
        better = near.score > choice.score
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), near, choice), None

    first = pick(element.starts, judge(element.starts))
    last = jax.lax.scan(closer, first, element.offsets)[0]
    scatter = outcome_variance(effects, weights, last.values[None])[0]
    return last._replace(scatter=scatter)


def _condition(
    effects: Effects, tried: Experiments, weights: jax.Array, published: jax.Array
) -> _Surrogate:
    """Fit the causal GP of one element to its experiments."""
    mean, variance = causal_prior(effects, weights, tried.values)
    scatter = outcome_variance(effects, weights, tried.values) / tried.n_samples
    noise = jnp.where(published, 0.0, scatter) + JITTER
    spread = jnp.where(tried.present, jnp.sqrt(variance), 0.0)
    residual = jnp.where(tried.present, tried.outcomes - mean, 0.0)
    distance = gp.distances(tried.values)
    both = (tried.present[:, None] & tried.present[None, :]).astype(distance.dtype)
    fixed = jnp.outer(spread, spread) + jnp.diag(jnp.where(tried.present, noise, 1.0))

    def parts(logs: jax.Array) -> tuple[jax.Array, jax.Array]:
        length, variance = jnp.exp(logs)
        smooth = variance * both * jnp.exp(-0.5 * distance / length**2)
        return smooth + fixed, jnp.stack([smooth * distance / length**2, smooth])

    logs = gp.fit(lambda logs: gp.likelihood(*parts(logs), residual), 1, published)
    length, variance = jnp.exp(logs)
    factor = jnp.linalg.cholesky(parts(logs)[0])
    solved = jax.scipy.linalg.cho_solve((factor, True), residual)
    surrogate = _Surrogate(length, variance, solved, factor, spread, means=mean)
    means, _ = _predict(effects, tried, surrogate, weights, tried.values)
    return surrogate._replace(means=means)


def _predict(
    effects: Effects,
    tried: Experiments,
    surrogate: _Surrogate,
    weights: jax.Array,
    values: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation ``[n_points]`` of the target's mean when values are set."""
    mean, variance = causal_prior(effects, weights, values)
    gaps = ((values[:, None, :] - tried.values[None, :, :]) ** 2).sum(-1)
    cross = surrogate.variance * jnp.exp(-0.5 * gaps / surrogate.length**2) * tried.present
    cross = cross + jnp.sqrt(variance)[:, None] * surrogate.spread
    half = jax.scipy.linalg.solve_triangular(surrogate.factor, cross.T, lower=True)
    left = surrogate.variance + variance - (half**2).sum(0)
    return mean + cross @ surrogate.weights, jnp.sqrt(jnp.maximum(left, JITTER))


def _near(effect: Effects, values: jax.Array) -> jax.Array:
    """Kernel of one set in the element's columns, values ``[n_points, n_vars]`` against rows."""
    points = values * effect.scale
    squares = (points**2).sum(-1)[:, None] + (effect.scaled**2).sum(-1)[None, :]
    return jnp.exp(-0.5 * jnp.maximum(squares - 2 * points @ effect.scaled.T, 0.0))


def _over_sets(
    function: Callable[[tuple[Effects, jax.Array]], tuple[jax.Array, jax.Array]],
    effects: Effects,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Sum over the sets that have weight."""
    each = gp.map_wanted(function, weights > 0, (effects, weights))
    return each[0].sum(0), each[1].sum(0)
