"""Data to network input: the only place where rows become numbers for a network.

Rows are reduced to statistics of ordered pairs of variables. For linear Gaussian systems with
perfect interventions one scatter matrix a node, over the rows in which that node was not set, is
sufficient (Cooper and Yoo 1999), so cost grows with the number of variables and not of rows.
For other systems the same is done with nonlinear functions of the variables (`nonlinear`).
Everything is computed from rows standardised by the observational ones.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_bayes_opt.core.precision import full_precision
from causal_bayes_opt.surrogate import nonlinear as beyond
from causal_bayes_opt.surrogate.local_scores import inverse, log_odds, ridged, set_scores
from causal_bayes_opt.surrogate.posterior import all_subsets

ENCODING_VERSION = 1
MAX_CANDIDATES = 11
SCALES = (0.5, 2.0)  # the prior's t: broad weights (BGe's default), and narrow ones
_KEPT = 1e-6  # of the diagonal: less is left over of a variable only by rounding


class Rows(NamedTuple):
    """Padded rows of one system. Leading axes may be systems.

    Units do not matter: rows are standardised by the observational ones first.
    """

    obs_data: jax.Array  # [n_obs, n_vars]
    int_data: jax.Array  # [n_int, n_vars, 2]: value, indicator (1 where set)
    obs_rows: jax.Array  # bool [n_obs], False where padded
    int_rows: jax.Array  # bool [n_int]
    present: jax.Array  # bool [n_vars]


class Encoding(NamedTuple):
    """What the network sees of one system."""

    pairs: jax.Array  # [n_vars, n_vars, n_features], of i -> j at [i, j]
    candidates: jax.Array  # int [n_vars, n_candidates], the possible parents that are enumerated
    allowed: jax.Array  # bool [n_vars, n_candidates], False where a slot is padding
    scores: jax.Array  # [n_vars, n_sets, n_scores], local log-scores relative to the empty set
    reverse: jax.Array  # [n_vars, n_candidates, n_scores], log-odds that node -> candidate locally
    log_prior_odds: jax.Array  # [], of one edge
    present: jax.Array  # bool [n_vars]
    free: jax.Array  # [n_rows, n_vars], 1 where a row is there and its variable was not set
    cells: (
        jax.Array
    )  # [n_rows, n_vars, 3] of `nonlinear.Nonlinear`; without that [n_rows, n_vars, 0]


def n_scores(nonlinear: bool) -> int:
    """How many local scores a set has."""
    return len(SCALES) + int(nonlinear)


@full_precision
def encode(rows: Rows, nonlinear: bool = False) -> Encoding:
    """Turn the rows of one system (no leading axes) into what the network sees.

    Args:
        rows: data of one system.
        nonlinear: also look beyond second moments.
    """
    values, was_set, weight = standardised(rows)
    n_obs, present = rows.obs_data.shape[0], rows.present
    tried = was_set * weight[:, None]
    free = (1.0 - was_set) * weight[:, None]
    scatter, total = _sums(values, free, n_obs)
    count = free.sum(axis=0)
    moments = _moments(values, weight * (1.0 - was_set.max(axis=1, initial=0.0)))
    regression = _regression(scatter, total, count)

    choice = _choose_candidates(regression.t_stat, moments.correlation, present)
    scores = _local_scores(scatter, total, count, choice, SCALES)
    if nonlinear:
        functions = beyond.expand(values)
        curved_sums = _sums(functions.reshape(len(values), -1), free, n_obs)
        curved = _local_scores(*curved_sums, count, choice, (beyond.SCALE,), beyond.N_FUNCTIONS)
        scores = jnp.concatenate([scores, curved], axis=-1)
    local = _local_log_odds(scores, choice)
    local_pairs = _to_pairs(local, choice.candidates, choice.allowed, len(present))
    reverse = jax.vmap(lambda own, j: local_pairs[j, own])(
        choice.candidates, jnp.arange(len(present))
    )

    pairs = [_pair_features(moments, regression, local_pairs), _effects(values, tried)]
    nodes = [_node_features(values, tried, rows, moments, regression)]
    cells = jnp.zeros((*values.shape, 0))
    if nonlinear:
        more = beyond.nonlinear_features(functions, free, *curved_sums)
        pairs, nodes, cells = [*pairs, more.pairs], [*nodes, more.nodes], more.cells
    grid = _grid(jnp.concatenate(pairs, axis=-1), jnp.concatenate(nodes, axis=-1), present)
    return Encoding(
        grid,
        choice.candidates,
        choice.allowed,
        scores,
        reverse,
        choice.log_prior_odds,
        present,
        free,
        cells,
    )


def _pair_features(moments: _Moments, regression: _Regression, local: jax.Array) -> jax.Array:
    """Features ``[n_vars, n_vars, .]`` of i -> j at [i, j] from second and higher moments."""
    alone = [
        moments.correlation,
        moments.partial,
        regression.coefficients,
        jnp.arcsinh(regression.t_stat),
        jnp.arcsinh(moments.square),
        jnp.arcsinh(moments.cube),
        jnp.arcsinh(moments.squares),
    ]
    return jnp.concatenate(
        [jnp.stack(alone, axis=-1), jnp.arcsinh(local), jax.nn.sigmoid(local)], axis=-1
    )


def _node_features(
    values: jax.Array, tried: jax.Array, rows: Rows, moments: _Moments, regression: _Regression
) -> jax.Array:
    """Features ``[n_vars, .]`` of single variables, and how much data there are."""
    n_vars = len(rows.present)
    features = [
        regression.log_residual,
        jnp.log1p(regression.n_free),
        jnp.log1p(tried.sum(axis=0)),
        jnp.broadcast_to(jnp.log1p(rows.obs_rows.sum()), (n_vars,)),
        jnp.arcsinh(moments.skew),
        jnp.arcsinh(moments.kurtosis),
        jnp.broadcast_to(jnp.log1p(rows.present.sum()), (n_vars,)),
        jnp.log1p(jnp.abs(values).max(axis=0, initial=0.0)),
    ]
    return jnp.stack(features, axis=-1)


def _grid(pairs: jax.Array, nodes: jax.Array, present: jax.Array) -> jax.Array:
    """All that is told of i -> j: the pair both ways round, and both variables."""
    n_vars = len(present)
    wide = (n_vars, n_vars, nodes.shape[-1])
    features = jnp.concatenate(
        [
            pairs,
            jnp.swapaxes(pairs, 0, 1),
            jnp.broadcast_to(nodes[:, None], wide),
            jnp.broadcast_to(nodes[None, :], wide),
            jnp.eye(n_vars)[..., None],
        ],
        axis=-1,
    )
    both = present[:, None] & present[None, :]
    return jnp.where(both[..., None], jnp.clip(features, -30.0, 30.0), 0.0)


class _Moments(NamedTuple):
    correlation: jax.Array  # [n_vars, n_vars]
    partial: jax.Array
    square: jax.Array  # E[x_i² x_j]
    cube: jax.Array  # E[x_i³ x_j] - 3 E[x_i x_j]
    squares: jax.Array  # E[x_i² x_j²] - 1 - 2 E[x_i x_j]²
    skew: jax.Array  # [n_vars]
    kurtosis: jax.Array


@full_precision
def standardised(rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values and indicators ``[n_rows, n_vars]`` of all rows, and row weights ``[n_rows]``."""
    obs_weight = rows.obs_rows.astype(jnp.float32)
    n_obs = jnp.maximum(obs_weight.sum(), 1.0)
    obs = rows.obs_data.astype(jnp.float32)
    tried = rows.int_data[..., 0].astype(jnp.float32)
    mean = obs_weight @ obs / n_obs
    deviation = jnp.sqrt(obs_weight @ (obs - mean) ** 2 / n_obs)
    scale = jnp.where(deviation > 0, deviation, 1.0)
    weight = jnp.concatenate([obs_weight, rows.int_rows.astype(jnp.float32)])
    values = (jnp.concatenate([obs, tried]) - mean) / scale
    values = jnp.where((weight[:, None] > 0) & rows.present, values, 0.0)
    indicator = rows.int_data[..., 1].astype(jnp.float32) * rows.present
    was_set = jnp.concatenate([jnp.zeros_like(obs), indicator])
    return values, was_set * weight[:, None], weight


def _sums(columns: jax.Array, free: jax.Array, n_obs: int) -> tuple[jax.Array, jax.Array]:
    """Second moments ``[n_vars, n, n]`` and sums ``[n_vars, n]`` of columns ``[n_rows, n]``.

    Node by node over the rows in which it was not set; in the first `n_obs` no node was, so that
    these are summed once for all.
    """
    observed, tried = columns[:n_obs], columns[n_obs:]
    weighted = free[n_obs:].T[:, :, None] * tried
    scatter = jnp.swapaxes(weighted, 1, 2) @ tried + (observed * free[:n_obs, :1]).T @ observed
    return scatter, free.T @ columns


def _moments(values: jax.Array, weight: jax.Array) -> _Moments:
    """Moments over the observational rows; partial correlations with a ridge of one row."""
    n = jnp.maximum(weight.sum(), 1.0)
    x = values * (weight > 0)[:, None]
    second = x.T @ x / n
    n_vars = values.shape[-1]
    ridge = second * n / (n + 1.0) + jnp.eye(n_vars) * (1.0 / (n + 1.0) + 1e-4)
    precision = inverse(ridge)
    root = jnp.sqrt(jnp.maximum(jnp.diag(precision), 1e-9))
    partial = jnp.clip(-precision / jnp.outer(root, root), -1.0, 1.0)
    off = 1.0 - jnp.eye(n_vars)
    squared = x**2
    return _Moments(
        correlation=second * off,
        partial=partial * off,
        square=squared.T @ x / n * off,
        cube=((x**3).T @ x / n - 3 * second) * off,
        squares=(squared.T @ squared / n - 1.0 - 2 * second**2) * off,
        skew=(x**3).sum(axis=0) / n,
        kurtosis=(x**4).sum(axis=0) / n - 3.0,
    )


class _Regression(NamedTuple):
    coefficients: jax.Array  # [n_vars, n_vars], of i in j at [i, j]
    t_stat: jax.Array  # likewise
    log_residual: jax.Array  # [n_vars], of the residual variance
    n_free: jax.Array  # [n_vars], rows in which the node was not set


def _regression(scatter: jax.Array, total: jax.Array, count: jax.Array) -> _Regression:
    """Ridge regression of every node on all the rest, over the rows in which it was not set."""
    n_vars = scatter.shape[-1]
    eye = jnp.eye(n_vars)
    centred = scatter - total[:, :, None] * total[:, None, :] / (count + 1.0)[:, None, None]
    inverted = inverse(ridged(centred, 0.5, _KEPT))
    own = jnp.maximum(jnp.diagonal(jnp.diagonal(inverted, axis1=1, axis2=2)), 1e-9)
    row = inverted[jnp.arange(n_vars), jnp.arange(n_vars)]  # [j, i]
    coefficients = -row / own[:, None]
    residual = 1.0 / own / jnp.maximum(count, 1.0)
    # Var of a coefficient: residual variance times the inverse Gram matrix of the regressors.
    gram = jnp.diagonal(inverted, axis1=1, axis2=2) - row**2 / own[:, None]
    error = jnp.sqrt(jnp.maximum(residual[:, None] * gram, 1e-12))
    off = 1.0 - eye
    t_stat = jnp.clip(coefficients / error, -1e4, 1e4)
    return _Regression(coefficients.T * off, t_stat.T * off, jnp.log(residual + 1e-6), count)


def _effects(values: jax.Array, tried: jax.Array) -> jax.Array:
    """What setting i did to j ``[n_vars, n_vars, 6]``; zeros where i was never set."""
    free = 1.0 - tried
    n = jnp.einsum("ri,rj->ij", tried, free)
    safe = n + 1.0
    cross = jnp.einsum("ri,rj->ij", tried * values, free * values)
    own = jnp.einsum("ri,rj->ij", tried * values**2, free)
    other = jnp.einsum("ri,rj->ij", tried, free * values**2)
    mean = jnp.einsum("ri,rj->ij", tried, free * values) / safe
    slope = cross / (own + 1.0)
    residual = jnp.maximum(other - slope * cross, 0.0)
    t_stat = slope * jnp.sqrt(own + 1.0) / jnp.sqrt((residual + 1.0) / safe)
    off = 1.0 - jnp.eye(values.shape[-1])
    features = [
        slope,
        jnp.arcsinh(t_stat),
        mean,
        jnp.log((other + 1.0) / safe),
        jnp.log((residual + 1.0) / safe),
        jnp.log1p(n),
    ]
    return jnp.stack(features, axis=-1) * off[..., None]


class _Choice(NamedTuple):
    candidates: jax.Array  # int [n_vars, n_candidates]
    allowed: jax.Array  # bool [n_vars, n_candidates]
    log_prior_odds: jax.Array  # []


def _choose_candidates(t_stat: jax.Array, correlation: jax.Array, present: jax.Array) -> _Choice:
    """The most relevant possible parents of every node, and the prior odds of one edge."""
    n_vars = len(present)
    relevance = jnp.log1p(jnp.abs(t_stat)) + jnp.abs(correlation)
    possible = present[:, None] & ~jnp.eye(n_vars, dtype=bool)
    n_candidates = min(n_vars - 1, MAX_CANDIDATES)
    ranked, candidates = jax.lax.top_k(jnp.where(possible, relevance, -1.0).T, n_candidates)
    odds = jnp.minimum(0.5, 2.0 / jnp.maximum(present.sum() - 1.0, 1.0))
    log_prior_odds = jnp.log(odds) - jnp.log1p(-odds)
    return _Choice(candidates, (ranked >= 0.0) & present[:, None], log_prior_odds)


def _local_scores(
    scatter: jax.Array,
    total: jax.Array,
    count: jax.Array,
    choice: _Choice,
    scales: tuple[float, ...],
    n_functions: int = 1,
) -> jax.Array:
    """Scores ``[n_vars, n_sets, n_scales]`` of all sets of candidates, node by node.

    Moments are of the functions of all variables, those of a variable side by side, its value
    first.
    """
    n_vars, n_candidates = choice.candidates.shape
    sizes = jnp.asarray(all_subsets(n_candidates).sum(axis=1))

    def node(own: jax.Array, s: jax.Array, m: jax.Array, n: jax.Array, c: jax.Array) -> jax.Array:
        columns = c[:, None] * n_functions + jnp.arange(n_functions)
        index = jnp.concatenate([columns.ravel(), (own * n_functions)[None]])
        block, part = s[index[:, None], index[None, :]], m[index]
        # One program for all scales: it is compiled once.
        of_scale = partial(set_scores, block, part, n, sizes=sizes, n_functions=n_functions)
        return jax.vmap(of_scale)(jnp.asarray(scales)).T

    return jax.vmap(node)(jnp.arange(n_vars), scatter, total, count, choice.candidates)


def _local_log_odds(scores: jax.Array, choice: _Choice) -> jax.Array:
    """Log-odds ``[n_vars, n_candidates, n_scores]`` of each candidate by each local score.

    A node is looked at alone here: that no cycle may close is left to the network.
    """
    members = jnp.asarray(all_subsets(choice.candidates.shape[1]))
    possible = ~(members & ~choice.allowed[:, None, :]).any(axis=-1)
    log_weights = scores + (members.sum(axis=1) * choice.log_prior_odds)[:, None]
    log_weights = jnp.where(possible[..., None], log_weights, -jnp.inf)
    odds = jax.vmap(jax.vmap(log_odds, in_axes=-1, out_axes=-1))(log_weights)
    return jnp.clip(jnp.where(choice.allowed[..., None], odds, -1e4), -1e4, 1e4)


def _to_pairs(
    local: jax.Array, candidates: jax.Array, allowed: jax.Array, n_vars: int
) -> jax.Array:
    """Log-odds at [candidate, node]; -10 for pairs that are not looked at."""
    slots = jnp.arange(candidates.shape[1])[:, None]
    place = (candidates[..., None] == jnp.arange(n_vars)) & allowed[..., None]  # [node, slot, v]
    slot = jnp.where(place, slots, 0).sum(axis=1)  # [node, variable]
    filled = jnp.take_along_axis(local, slot[..., None], axis=1)
    return jnp.swapaxes(jnp.where(place.any(axis=1)[..., None], filled, -10.0), 0, 1)
