"""Whether observed rows speak for linear mechanisms or for others: a Bayes factor.

In a linear Gaussian system every variable is linear in any set of others, whichever of them cause
it; so no graph need be known, but rows in which nothing was set are. Each variable is regressed on
the sets of the others, linearly and with the functions of `nonlinear`, and the sets' evidence is
summed. Where systems are not linear most variables speak against it a little, which a test of each
alone does not see.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.padding import bucket, pad
from causal_bayes_opt.surrogate.local_scores import set_scores
from causal_bayes_opt.surrogate.nonlinear import N_FUNCTIONS, expand
from causal_bayes_opt.surrogate.posterior import all_subsets
from causal_bayes_opt.surrogate.protocol import default_edge_probability

_CANDIDATES = 6  # variables whose sets are looked at, for each variable
_SCALES = (0.5, 2.0)  # of the prior of weights, as in `encoding`
_ROUNDED_TO = 8  # variables: each number is compiled


def log_odds_of_linear(z: np.ndarray) -> float:
    """Log-odds of a linear system against one in which each mechanism may be of either kind.

    A mechanism that is surely not linear counts in full, one that is surely linear log 2.

    Args:
        z: standardised observational rows ``[n_obs, n_vars]``, two variables or more.
    """
    n, d = z.shape
    wide = expand(z, np).reshape(n, -1)
    relevance = _relevance(z)
    order = np.argsort(-relevance, axis=0, kind="stable")[: min(_CANDIDATES, d - 1)].T
    slots = np.pad(order, ((0, 0), (0, _CANDIDATES - order.shape[1])), constant_values=-1)
    linear, curved = (
        _evidence(columns, functions, slots, default_edge_probability(d))
        for columns, functions in ((z, 1), (wide, N_FUNCTIONS))
    )
    return float(-np.logaddexp(-np.log(2.0), curved - linear - np.log(2.0)).sum())


def _relevance(z: np.ndarray) -> np.ndarray:
    """How much i tells of j ``[n_vars, n_vars]``: alone, or beside all others; -1 for i = j."""
    n, d = z.shape
    correlation = z.T @ z / max(n, 1)
    precision = np.linalg.inv(correlation * n + np.eye(d))
    root = np.sqrt(np.diag(precision))
    found = np.maximum(np.abs(correlation), np.abs(precision / np.outer(root, root)))
    np.fill_diagonal(found, -1.0)
    return np.asarray(found)


def _evidence(
    columns: np.ndarray, n_functions: int, slots: np.ndarray, probability: float
) -> np.ndarray:
    """Log-evidence ``[n_vars]`` of each variable over the sets of its candidates.

    Args:
        columns: functions of all variables, those of a variable side by side, its value first.
        n_functions: how many there are of each.
        slots: candidates ``[n_vars, _CANDIDATES]``, -1 where there are no more.
        probability: of one edge.
    """
    d, room = len(slots), bucket(len(slots), _ROUNDED_TO)
    own = slots[:, :, None] * n_functions + np.arange(n_functions)
    own = np.where(slots[:, :, None] < 0, columns.shape[1], own).reshape(d, -1)
    index = np.hstack([own, np.arange(d)[:, None] * n_functions])
    padded = np.hstack([columns, np.zeros((len(columns), 1))])
    scatter, total = padded.T @ padded, padded.sum(axis=0)
    blocks = scatter[index[:, :, None], index[:, None, :]]
    found = _summed(
        jnp.asarray(pad(blocks, room), jnp.float32),
        jnp.asarray(pad(total[index], room), jnp.float32),
        jnp.asarray(pad(slots >= 0, room)),
        float(len(columns)),
        float(np.log(probability) - np.log1p(-probability)),
        n_functions=n_functions,
    )
    return np.asarray(found, np.float64)[:d]


@partial(jax.jit, static_argnames="n_functions")
def _summed(
    blocks: jax.Array,
    totals: jax.Array,
    there: jax.Array,
    count: jax.Array,
    log_prior_odds: jax.Array,
    n_functions: int,
) -> jax.Array:
    members = jnp.asarray(all_subsets(_CANDIDATES))
    sizes = members.sum(axis=1)

    def node(block: jax.Array, total: jax.Array, own: jax.Array) -> jax.Array:
        scores = [set_scores(block, total, count, t, sizes, n_functions) for t in _SCALES]
        possible = ~(members & ~own).any(axis=1)
        prior = jnp.where(possible, sizes * log_prior_odds, -jnp.inf)
        return jax.nn.logsumexp(jnp.stack(scores) + prior)

    return jax.vmap(node)(blocks, totals, there)
