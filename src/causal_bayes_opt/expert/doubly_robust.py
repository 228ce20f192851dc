"""Prior over parent sets: bootstrap votes of doubly robust feature selection.

On each bootstrap of the observational rows the target is predicted by cross-fitted regressors with
all columns and with each column set to zero; a column whose absence matters (paired t-test,
corrected for many columns) is selected, and the selected columns are one vote.
Source: Quinzan, Soleymani, Jaillet, Rojas and Bauer, "DRCFS", ICML 2023, as used in
arXiv 2503.19554 (2025), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from causal_bayes_opt.core import padding
from causal_bayes_opt.expert.perceptron import BATCH, predictions

Regressor: TypeAlias = Literal["least_squares", "mlp"]

N_BOOTSTRAPS, N_FOLDS, LEVEL = 10, 5, 0.05
# Directions of the Gram matrix below this share of its largest are rounding: two equal columns.
RANK_TOLERANCE = 1e-10


def bootstrap_votes(
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    seed: Sequence[int],
    *,
    n_bootstraps: int = N_BOOTSTRAPS,
    regressor: Regressor = "least_squares",
) -> np.ndarray:
    """Return the set of columns that each bootstrap selects, bool ``[n_bootstraps, n_vars]``.

    Args:
        x: observational rows ``[n_obs, n_vars]``, standardised, without the target.
        y: the target in them ``[n_obs]``.
        names: of the columns; the draws of the networks follow them, not the columns' order.
        seed: of bootstraps, folds and networks.
        n_bootstraps: number of votes.
        regressor: ``"mlp"`` as in the source, or least squares in closed form, for linear systems.
    """
    n_obs, n_vars = x.shape
    if n_vars == 0:
        return np.zeros((n_bootstraps, 0), dtype=bool)
    rng = np.random.default_rng([*seed, 1])
    rows = padding.bucket(n_obs, padding.ROWS)
    width = padding.bucket(n_vars, padding.VARIABLES)
    drawn = rng.integers(n_obs, size=(n_bootstraps, n_obs))
    n_folds = min(N_FOLDS, n_obs)
    fold = np.arange(n_obs) % n_folds
    padded = padding.pad(x, rows, width), padding.pad(y, rows)
    with padding.double():
        if regressor == "least_squares":
            statistics = _least_squares_statistics(
                *padded, padding.pad(drawn, n_bootstraps, rows), padding.pad(fold, rows, fill=-1)
            )
        else:
            statistics = _network_statistics(*padded, drawn, fold, names, rng)
    return select(np.asarray(statistics)[:, :n_vars], n_obs)


def vote_shares(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sets that were voted for and their shares, as the source has it.

    The empty set is dropped; if nothing else was voted for, every single variable is as probable.

    Returns:
        Members bool ``[n_sets, n_vars]``, most votes first, and shares ``[n_sets]``.
    """
    members, counts = np.unique(votes[votes.any(axis=1)], axis=0, return_counts=True)
    if not len(members):
        members = np.eye(votes.shape[1], dtype=bool)
        counts = np.ones(len(members), dtype=int)
    order = np.argsort(-counts, kind="stable")
    return members[order], counts[order] / counts.sum()


def smoothed_shares(votes: np.ndarray, members: np.ndarray, edge_probability: float) -> np.ndarray:
    """Return a prior ``[n_sets]`` over given sets that leaves none of them impossible.

    Each variable is a parent independently of the others, with its share of votes after one more
    vote that is worth the edge probability.
    """
    share = (votes.sum(axis=0) + edge_probability) / (len(votes) + 1)
    logs = np.where(members, np.log(share), np.log1p(-share)).sum(axis=1)
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def select(statistics: np.ndarray, n_obs: int, level: float = LEVEL) -> np.ndarray:
    """Return what paired t-tests select under the correction of Benjamini and Yekutieli (2001).

    Args:
        statistics: t ``[n_bootstraps, n_vars]``, each of `n_obs` differences.
        n_obs: number of rows behind each.
        level: false discovery rate.

    Returns:
        bool ``[n_bootstraps, n_vars]``.
    """
    p_values = 2 * stats.t.sf(np.abs(statistics), n_obs - 1)
    n_tests = p_values.shape[1]
    ranks = np.arange(1, n_tests + 1)
    bounds = level * ranks / (n_tests * (1.0 / ranks).sum())
    ordered = np.sort(p_values, axis=1)
    last = np.where(ordered <= bounds, ordered, -1.0).max(axis=1)
    return np.asarray(p_values <= last[:, None])


@jax.jit
def _least_squares_statistics(
    x: jax.Array, y: jax.Array, drawn: jax.Array, fold: jax.Array
) -> jax.Array:
    """Statistics ``[n_bootstraps, n_vars]`` with least squares (both regressors are then the same).

    Args:
        x: ``[n_rows, n_vars]``, padded.
        y: ``[n_rows]``.
        drawn: rows of each bootstrap ``[n_bootstraps, n_rows]``.
        fold: of each drawn row ``[n_rows]``, -1 where padded.
    """
    design = jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=1)

    def held_out(rows: jax.Array, target: jax.Array, f: jax.Array) -> jax.Array:
        train = ((fold != f) & (fold >= 0)).astype(x.dtype)[:, None]
        values, vectors = jnp.linalg.eigh(rows.T @ (train * rows))
        usable = values > RANK_TOLERANCE * values[-1]
        inverse = jnp.where(usable, 1.0 / jnp.where(usable, values, 1.0), 0.0)
        weights = vectors @ (inverse * (vectors.T @ (rows.T @ (train[:, 0] * target))))
        full = rows @ weights
        # Column 0 has all variables, column i+1 all but variable i.
        without = full[:, None] - rows.at[:, 0].set(0.0) * weights
        return jnp.where((fold == f)[:, None], without, 0.0)

    def one_bootstrap(index: jax.Array) -> jax.Array:
        rows, target = design[index], y[index]
        fitted = jax.vmap(lambda f: held_out(rows, target, f))(jnp.arange(N_FOLDS)).sum(0)
        return _paired_statistics(fitted, fitted, target, fold >= 0)

    return jax.vmap(one_bootstrap)(drawn)


def _network_statistics(
    x: np.ndarray,
    y: np.ndarray,
    drawn: np.ndarray,
    fold: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
) -> jax.Array:
    """Statistics ``[n_bootstraps, n_vars]`` with two networks for each fold of each bootstrap."""
    n_bootstraps, n_obs = drawn.shape
    n_folds = int(fold.max()) + 1
    n_rows = len(y)
    room = padding.bucket(n_obs, BATCH)
    held_room = padding.bucket(-(-n_rows // N_FOLDS), BATCH)
    train, stop = (np.full((n_bootstraps, n_folds, 2, room), -1) for _ in range(2))
    held = np.full((n_bootstraps, n_folds, held_room), -1)
    for b in range(n_bootstraps):
        for f in range(n_folds):
            own = np.flatnonzero(fold == f)
            held[b, f, : len(own)] = own
            for role in range(2):
                others = rng.permutation(np.flatnonzero(fold != f))
                n_stop = len(others) // 5
                stop[b, f, role, :n_stop] = others[:n_stop]
                train[b, f, role, : len(others) - n_stop] = others[n_stop:]
    statistics: jax.Array = _network_tests(
        np.asarray(x, dtype=np.float32),
        np.asarray(y, dtype=np.float32),
        padding.pad(drawn, n_bootstraps, n_rows),
        padding.pad(np.ones(n_obs, dtype=bool), n_rows),
        train,
        stop,
        held,
        padding.pad(padding.name_codes(list(names)), x.shape[1]),
        jax.random.key(int(rng.integers(2**31))),
    )
    return statistics


@jax.jit
def _network_tests(
    x: jax.Array,
    y: jax.Array,
    drawn: jax.Array,
    present: jax.Array,
    train: jax.Array,
    stop: jax.Array,
    held: jax.Array,
    codes: jax.Array,
    key: jax.Array,
) -> jax.Array:
    n_bootstraps, n_folds = train.shape[:2]
    flat = jnp.arange(n_bootstraps * n_folds * 2)

    def one_network(number: jax.Array) -> jax.Array:
        b, f, role = jnp.unravel_index(number, (n_bootstraps, n_folds, 2))
        return predictions(
            jax.random.fold_in(key, number),
            x[drawn[b]],
            y[drawn[b]],
            train[b, f, role],
            stop[b, f, role],
            held[b, f],
            codes,
        )

    # One after the other: each stops when it has converged, and its weights stay in the cache.
    fitted = jax.lax.map(one_network, flat)
    fitted = fitted.reshape(n_bootstraps, n_folds, 2, *fitted.shape[1:])

    def one_bootstrap(rows: jax.Array, fitted: jax.Array, held: jax.Array) -> jax.Array:
        # Padded places of `held` are -1; they are written beyond the last row and dropped.
        place = jnp.where(held >= 0, held, x.shape[0]).ravel()
        both = [
            jnp.zeros((x.shape[0], fitted.shape[-1]), x.dtype)
            .at[place]
            .set(fitted[:, role].reshape(-1, fitted.shape[-1]), mode="drop")
            for role in range(2)
        ]
        return _paired_statistics(both[0], both[1], y[rows], present)

    return jax.vmap(one_bootstrap)(drawn, fitted, held)


def _paired_statistics(a: jax.Array, r: jax.Array, y: jax.Array, present: jax.Array) -> jax.Array:
    """Paired t ``[n_vars]`` of the scores y r - a (r - y), all columns against all but column i.

    Args:
        a: predictions ``[n_rows, 1 + n_vars]`` of the first regressor, the first with all columns.
        r: of the second.
        y: ``[n_rows]``.
        present: bool ``[n_rows]``.
    """
    weight = present.astype(jnp.float64)[:, None]
    scores = (y[:, None] * r - a * (r - y[:, None])).astype(jnp.float64)
    differences = (scores[:, :1] - scores[:, 1:]) * weight
    n = weight.sum()
    mean = differences.sum(0) / n
    squares = (weight * (differences - mean) ** 2).sum(0)
    error = jnp.sqrt(squares / jnp.maximum(n - 1, 1) / n)
    # Without any spread there is no test: the difference is that of padding or of equal rows.
    return jnp.where(error > 0, mean / jnp.where(error > 0, error, 1.0), 0.0)
