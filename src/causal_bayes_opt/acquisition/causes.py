"""What may cause the target, for an outcome model whose mechanisms are not linear.

Which sets of causes its members get matters more to what they foretell than all else in their
graphs. The posterior alone is too sure of them: it can be sure of something false, it knows nothing
of the question, which says that something moves the target, and it has seen the experiments with
less exact eyes than Gaussian processes have. So it is doubted, and pooled with what these foretell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from causal_bayes_opt.acquisition import smooth_functions as learned

_MOST_SETS = 16  # that are looked at
_MOST_LISTED = 64  # sets that get one cause more
_MOST_CAUSES = 6  # in a set that gets one more
_TRUST = 0.8  # power of the posterior
_DOUBT = 0.2  # what a set with one cause more counts beside the set itself
_ASKED = 0.5  # nats for each of the first few causes, since the target is one that is asked about
_FEW = 3
_TRIED = 0.5  # power of the evidence of experiments


class Causes(NamedTuple):
    """Sets of causes of a target."""

    sets: np.ndarray  # bool [n_sets, n_vars]
    probs: np.ndarray  # [n_sets]


def suspected(posterior: Causes, chances: np.ndarray) -> Causes:
    """The sets that count most before experiments are looked at.

    Every set may lack a cause, and then another. Of the first few causes each counts more than in a
    system of which nothing is asked: to set a variable in vain costs less than not to look at it.

    Args:
        posterior: the most probable sets.
        chances: that a variable is no effect of the target ``[n_vars]``; 0 for the target itself,
            and for what the user has ruled out as a cause.
    """
    sets, weights = _heaviest(posterior.sets, posterior.probs**_TRUST, _MOST_LISTED)
    weights = weights / weights.sum()
    all_sets, all_weights = [sets], [weights]
    for _ in range(2):
        sets, weights = _heaviest(*_with_one_more(sets, weights, chances), _MOST_LISTED)
        all_sets.append(sets)
        all_weights.append(weights)
    sets, weights = _summed(np.concatenate(all_sets), np.concatenate(all_weights))
    weights = weights * np.exp(_ASKED * np.minimum(sets.sum(axis=1), _FEW))
    sets, weights = _heaviest(sets[weights > 0], weights[weights > 0], _MOST_SETS)
    return Causes(sets, weights / weights.sum())


def judged(suspects: Causes, target: int, evidence: learned.Evidence, usual: np.ndarray) -> Causes:
    """Weigh sets by how well mechanisms learned from observed rows foretold experiments.

    Their scales are learned from the first experiments, too, once there are ten.

    A logarithmic pool (Genest and Zidek, Statistical Science 1, 1986): the posterior has seen the
    experiments too, so that each counts by a power below one. Observed rows do not count: an effect
    foretells its cause well.

    Args:
        suspects: see `suspected`.
        target: position of the target.
        evidence: all rows.
        usual: see `smooth_functions.usual_values`.
    """
    mechanisms = [
        learned.Mechanism(target, tuple(np.flatnonzero(row).tolist())) for row in suspects.sets
    ]
    slots = learned.room_for_parents(mechanisms)
    functions = learned.learn(mechanisms, evidence, slots, usual)
    foretold = learned.foretell(functions, mechanisms, evidence, learned.waves_of(slots))
    log_weights = np.log(suspects.probs) + _TRIED * foretold
    weights = np.exp(log_weights - log_weights.max())
    return Causes(suspects.sets, weights / weights.sum())


def _with_one_more(
    sets: np.ndarray, weights: np.ndarray, chances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All sets with one cause more, which sum to at most `_DOUBT` of the weights."""
    missing = ~sets & (chances > 0) & (sets.sum(axis=1, keepdims=True) < _MOST_CAUSES)
    row, added = np.nonzero(missing)
    grown = sets[row]
    grown[np.arange(len(row)), added] = True
    share = _DOUBT * weights / np.maximum(missing.sum(axis=1), 1)
    return _summed(grown, share[row] * chances[added])


def _summed(sets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal sets as one."""
    distinct, place = np.unique(sets, axis=0, return_inverse=True)
    return distinct, np.bincount(place.ravel(), weights=weights, minlength=len(distinct))


def _heaviest(sets: np.ndarray, weights: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    kept = np.argsort(-weights, kind="stable")[:n]
    return sets[kept], weights[kept]
