"""Candidate parent sets and their prior, from votes and from what is known about the edges."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from causal_bayes_opt.core.graphs import reachable
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.expert.doubly_robust import smoothed_shares, vote_shares
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.surrogate.protocol import EdgePrior

# The most sets that are kept; features make each of them heavier.
MAX_SETS = {"linear": 4096, "nonlinear": 512}


class Candidates(NamedTuple):
    """Sets over all variables (never the target), and their prior."""

    members: np.ndarray  # bool [n_sets, n_vars]
    weights: np.ndarray  # [n_sets], summing to 1
    warnings: tuple[str, ...]


def candidate_sets(
    votes: np.ndarray,
    variables: tuple[str, ...],
    target: str,
    options: ParentScaleOptions,
    prior: EdgePrior | None = None,
) -> Candidates:
    """Return the sets that the posterior is about.

    Args:
        votes: bool ``[n_bootstraps, n_vars]``, False at the target.
        variables: names ``[n_vars]``.
        target: the target.
        options: `support`, `max_parents`, `mechanism`.
        prior: known and forbidden edges. What a known path leads to from the target cannot be its
            parent. The edge probability counts where sets without votes are kept.

    Raises:
        ConfigError: more known parents than `max_parents`.
    """
    prior = prior or EdgePrior()
    must, never = _certain(prior, variables, target)
    limit = len(variables) if options.max_parents is None else options.max_parents
    if must.sum() > limit:
        raise ConfigError(
            f"{int(must.sum())} parents of {target!r} are known, more than max_parents={limit}"
        )
    votes = (votes & ~never) | must
    if options.support == "votes":
        members, weights = _voted(votes, must, never, limit)
        return Candidates(members, weights, ())
    members, warnings = _every_set(votes, must, never, limit, MAX_SETS[options.mechanism])
    free = ~(must | never)
    weights = smoothed_shares(votes[:, free], members[:, free], prior.probability(len(variables)))
    return Candidates(members, weights, warnings)


def _certain(
    prior: EdgePrior, variables: tuple[str, ...], target: str
) -> tuple[np.ndarray, np.ndarray]:
    """Variables that must and that cannot be parents of the target, bool ``[n_vars]`` each."""
    known, forbidden = prior.matrices(variables)
    t = variables.index(target)
    never = forbidden[:, t] | reachable(known)[t]
    never[t] = True
    return known[:, t], never


def _voted(
    votes: np.ndarray, must: np.ndarray, never: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The sets with votes; too large ones lose the members with the fewest votes."""
    rank = np.argsort(np.argsort(-(votes.sum(axis=0) + votes.shape[0] * must), kind="stable"))
    place = np.where(votes, rank, votes.shape[1])
    cut = np.sort(place, axis=1)[:, :limit].max(axis=1, initial=-1)
    votes = votes & (place <= cut[:, None])
    if votes.any():
        return vote_shares(votes)
    single = np.eye(votes.shape[1], dtype=bool)[~never][: None if limit else 0]
    if not len(single):
        return must[None, :], np.ones(1)
    return single, np.full(len(single), 1.0 / len(single))


def _every_set(
    votes: np.ndarray, must: np.ndarray, never: np.ndarray, limit: int, most: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """All sets up to the limit, over as many of the most voted variables as there is room for."""
    free = np.flatnonzero(~(must | never))
    extra = limit - int(must.sum())
    pool = len(free)
    while _count(pool, extra) > most:
        pool -= 1
    ranked = free[np.argsort(-votes[:, free].sum(axis=0), kind="stable")][:pool]
    chosen = sorted(int(i) for i in ranked)
    sets = [subset for size in range(min(extra, pool) + 1) for subset in combinations(chosen, size)]
    members = np.tile(must, (len(sets), 1))
    for row, subset in enumerate(sets):
        members[row, list(subset)] = True
    if pool == len(free):
        return members, ()
    return members, (
        f"there is room for {most} parent sets: only the {pool} variables with most votes of "
        f"{len(free)} may be parents; a max_parents lower than {limit} makes room for more",
    )


def _count(pool: int, extra: int) -> int:
    return sum(comb(pool, size) for size in range(min(extra, pool) + 1))
