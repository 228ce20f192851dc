"""Data of simulated systems as records, with the truth or the exact posterior as label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.surrogate.bge import Statistics
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.exact import set_posteriors
from causal_bayes_opt.surrogate.training import DesignDistribution, draw_rows
from causal_bayes_opt.training.records import PADDING, RunRecords

_MOST_SETS = 128


def simulated_records(
    seeds: Sequence[int],
    systems: SystemArrays,
    targets: Sequence[int],
    design: DesignDistribution,
) -> RunRecords:
    """One run a system, its only state before any trial, with the truth as posterior."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    rows = jax.tree.map(np.asarray, _draw_all(keys, systems, design))
    n, d = len(targets), int(rows.present[0].sum())
    observed = np.where(rows.obs_rows[..., None], rows.obs_data[..., :d], np.float32(np.nan))
    kept = observed[:, : rows.obs_rows.sum(axis=1).max()]
    most = rows.int_rows.sum(axis=1).max(initial=0)
    there = rows.int_rows[:, :most]
    int_data = rows.int_data[:, :most, :d]
    tried = np.where(there[..., None], int_data[..., 0], np.float32(np.nan))
    parents = np.asarray(systems.adjacency)[np.arange(n), :d, list(targets)]
    means = np.asarray(np.nanmean(kept, axis=1, dtype=np.float64))
    stds = np.asarray(np.nanstd(kept, axis=1, dtype=np.float64))
    return RunRecords(
        seed=np.asarray(seeds, np.int64),
        target=np.asarray(targets, np.int16),
        true_parents=parents,
        observed=kept,
        tried=tried,
        was_set=(int_data[..., 1] > 0) & there[..., None],
        trial=np.where(there, 0, PADDING).astype(np.int16),
        means=means,
        stds=stds,
        ranges=np.full((n, d, 2), np.nan),
        marginals=parents[:, None].astype(np.float64),
        sets=parents[:, None],
        set_probs=np.ones((n, 1, 1)),
    )


@partial(jax.jit, static_argnames=("design",))
def _draw_all(keys: jax.Array, systems: SystemArrays, design: DesignDistribution) -> Rows:
    rows: Rows = jax.vmap(partial(draw_rows, design=design))(keys, systems)
    return rows


def with_exact_posteriors(records: RunRecords, edge_probability: float) -> RunRecords:
    """Put the exact posterior given the rows as they are in place of the truth.

    The rows keep their scales here: it is a posterior of the generator's own prior, and a valid
    label for whoever sees less. The 128 most probable sets are kept.

    Args:
        records: of linear Gaussian systems drawn from the prior that the BGe score assumes.
        edge_probability: of the generator.
    """
    n, d = records.means.shape
    posteriors = set_posteriors(
        Statistics.stack([_statistics(records, i) for i in range(n)]),
        range(d),
        edge_probability=edge_probability,
    )
    kept = min(_MOST_SETS, posteriors[0].members.shape[0])
    sets = np.zeros((n, kept, d), dtype=bool)
    set_probs = np.zeros((n, 1, kept))
    marginals = np.zeros((n, 1, d))
    for i, target in enumerate(records.target.tolist()):
        probs = np.exp(posteriors[target].log_probs[i])
        best = np.argsort(-probs, kind="stable")[:kept]
        sets[i], set_probs[i, 0] = posteriors[target].members[best], probs[best]
        marginals[i, 0] = probs @ posteriors[target].members
    return records._replace(marginals=marginals, sets=sets, set_probs=set_probs)


def _statistics(records: RunRecords, run: int) -> Statistics:
    observed = records.observed[run][~np.isnan(records.observed[run, :, 0])]
    there = records.trial[run] > PADDING
    values = np.concatenate([observed, records.tried[run][there]]).astype(np.float64)
    mask = np.concatenate([np.zeros(observed.shape, bool), records.was_set[run][there]])
    return Statistics.of(values, mask)
