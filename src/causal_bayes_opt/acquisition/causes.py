"""What may cause the target, for an outcome model whose mechanisms are not linear.

Which sets of causes its members get matters more to what they foretell than all else in their
graphs. The posterior alone is too sure of them: it can be sure of something false, it knows nothing
of the question, which says that something moves the target, and it has seen the experiments with
less exact eyes than Gaussian processes have. So it is doubted, and pooled with what these foretell,
an effect that foretells its cause apart.
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
_NO_EFFECT, _SURELY = 1e-3, 1.0 - 1e-6  # chances of being an effect: less is 0, more is this


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


def chances_of_effects(edges: np.ndarray, target: int) -> np.ndarray:
    """Chances ``[n_vars]`` that a variable which is no cause of the target is an effect of it.

    As if edges were independent of each other.

    Args:
        edges: their probabilities ``[n_vars, n_vars]``, from row to column.
        target: position of the target.
    """
    reached = np.zeros(len(edges))
    for _ in edges:
        reached = 1.0 - (1.0 - edges[target]) * np.prod(1.0 - reached[:, None] * edges, axis=0)
        reached[target] = 0.0
    no_cause = 1.0 - edges[:, target]
    return np.asarray(
        np.divide(reached, no_cause, where=no_cause > reached, out=np.ones(len(edges)))
    )


def judged(
    suspects: Causes,
    target: int,
    evidence: learned.Evidence,
    usual: np.ndarray,
    effects: np.ndarray,
) -> Causes:
    """Weigh sets by how well mechanisms learned from observed rows foretold experiments.

    Their scales are learned from the first experiments, too, once there are ten.

    An effect foretells its cause well: observed rows do not count, and where an experiment did not
    set a variable, what that variable foretold speaks for a cause no more than for an effect. So a
    set without it gains as much, times the chance that it is an effect (see `_as_effects`).

    A logarithmic pool (Genest and Zidek, Statistical Science 1, 1986): the posterior has seen the
    experiments too, so that each counts by a power below one.

    Args:
        suspects: see `suspected`.
        target: position of the target.
        evidence: all rows.
        usual: see `smooth_functions.usual_values`.
        effects: chances that a variable is an effect of the target if it is no cause ``[n_vars]``.
    """
    foretold = _foretold(suspects.sets, target, evidence, usual, evidence)
    log_weights = np.log(suspects.probs) + _TRIED * foretold
    gained = _as_effects(suspects.sets, log_weights, target, evidence, usual, effects)
    log_weights = log_weights + _TRIED * gained
    weights = np.exp(log_weights - log_weights.max())
    return Causes(suspects.sets, weights / weights.sum())


def _foretold(
    sets: np.ndarray,
    target: int,
    evidence: learned.Evidence,
    usual: np.ndarray,
    judged_by: learned.Evidence,
) -> np.ndarray:
    """Log-density ``[n_sets]`` of some experiments by mechanisms with these causes."""
    mechanisms = [learned.Mechanism(target, tuple(np.flatnonzero(row).tolist())) for row in sets]
    slots = learned.room_for_parents(mechanisms)
    functions = learned.learn(mechanisms, evidence, slots, usual)
    return learned.foretell(functions, mechanisms, judged_by, learned.waves_of(slots))


def _as_effects(
    sets: np.ndarray,
    log_weights: np.ndarray,
    target: int,
    evidence: learned.Evidence,
    usual: np.ndarray,
    effects: np.ndarray,
) -> np.ndarray:
    """What each set gains ``[n_sets]``, as a variable outside may foretell the target as an effect.

    That a variable j depends on the target y multiplies its own density by
    ``p(j | y, ..) / p(j | ..)``, which is ``p(y | j, ..) / p(y | ..)``: what a set gains by j where
    experiments did not set it. The likeliest set without j stands for all of them: of one that
    foretells badly a variable more would gain for that alone.
    """
    gained = np.zeros(len(sets))
    doubtful = sets.any(axis=0) & ~sets.all(axis=0) & (effects > _NO_EFFECT)
    for j in np.flatnonzero(doubtful):
        not_set = evidence.at(~evidence.mask[:, j])
        without = ~sets[:, j]
        likeliest = sets[without][np.argmax(log_weights[without])]
        both = np.stack([likeliest, likeliest | (np.arange(len(likeliest)) == j)])
        before, after = _foretold(both, target, evidence, usual, not_set)
        chance = min(float(effects[j]), _SURELY)
        gained[without] += np.logaddexp(np.log1p(-chance), np.log(chance) + after - before)
    return gained


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
