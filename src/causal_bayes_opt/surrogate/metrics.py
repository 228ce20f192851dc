"""How good posteriors over parent sets are, against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from causal_bayes_opt.errors import DataError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior

FLOOR = 1e-12


@dataclass(frozen=True)
class Quality:
    """Quality over a number of systems, one target each.

    Attributes:
        n_systems: number of systems.
        f1: of the marginals above one half, pooled over all candidate edges.
        average_precision: of the marginals, pooled over all candidate edges.
        negative_log_probability: of the true parent set, mean over systems, in nats.
        standard_error: of that mean.
        exact_match: share of systems whose most probable set is the true one.
    """

    n_systems: int
    f1: float
    average_precision: float
    negative_log_probability: float
    standard_error: float
    exact_match: float


def judge(posteriors: Sequence[ParentSetPosterior], truths: Sequence[frozenset[str]]) -> Quality:
    """Judge posteriors against the true parent sets.

    Raises:
        DataError: no systems, or as many truths as posteriors are not there.
    """
    if not posteriors or len(posteriors) != len(truths):
        raise DataError(f"{len(posteriors)} posteriors and {len(truths)} truths; expected as many")
    losses = np.array([set_loss(p, t) for p, t in zip(posteriors, truths, strict=True)])
    scores = np.array([p.marginals[name] for p in posteriors for name in p.candidates])
    edges = np.array(
        [name in t for p, t in zip(posteriors, truths, strict=True) for name in p.candidates]
    )
    best = [p.top_sets(1)[0][0] == t for p, t in zip(posteriors, truths, strict=True)]
    return Quality(
        n_systems=len(truths),
        f1=f1_score(scores > 0.5, edges),
        average_precision=average_precision(scores, edges),
        negative_log_probability=float(losses.mean()),
        standard_error=float(losses.std() / np.sqrt(len(losses))),
        exact_match=float(np.mean(best)),
    )


def set_loss(posterior: ParentSetPosterior, truth: frozenset[str]) -> float:
    """-log probability of the true set in nats, floored at 1e-12."""
    return float(-np.log(max(posterior.probability(truth), FLOOR)))


def f1_score(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F1 of boolean ``[n]`` against boolean ``[n]``; 1 where both are empty."""
    hits = float((predicted & truth).sum())
    total = float(predicted.sum() + truth.sum())
    return 2 * hits / total if total else 1.0


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean precision at the rank of each true edge; ties share a rank. 0 where none is true.

    The step-wise sum, not the trapezoid, which overrates nearly constant scores.
    """
    positives = int(truth.sum())
    if positives == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    precision = hits[last_of_tie] / (np.flatnonzero(last_of_tie) + 1)
    gained = np.diff(np.concatenate([[0], hits[last_of_tie]]))
    return float((precision * gained).sum() / positives)


def calibration_error(scores: np.ndarray, truth: np.ndarray, n_bins: int = 10) -> float:
    """Mean absolute gap between stated and found shares over bins of equal mass, debiased.

    What the same probabilities would show by chance alone, were they perfectly calibrated, is
    subtracted: bin by bin the mean absolute deviation of a mean of Bernoulli draws,
    ``sqrt(2 / pi) * sqrt(mean p (1 - p) / n)``. Never below 0.

    Args:
        scores: stated probabilities ``[n]``.
        truth: bool ``[n]``.
        n_bins: number of bins.
    """
    gaps, weights = [], []
    for group in np.array_split(np.argsort(scores, kind="stable"), n_bins):
        if group.size == 0:
            continue
        p = scores[group]
        floor = np.sqrt(2 / np.pi) * np.sqrt((p * (1 - p)).mean() / group.size)
        gaps.append(abs(p.mean() - truth[group].mean()) - floor)
        weights.append(group.size)
    return max(float(np.average(gaps, weights=weights)), 0.0)


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a true edge scores above a false one, ties half; 0.5 where one kind is missing.

    The Mann-Whitney statistic.
    """
    positives = int(truth.sum())
    negatives = truth.size - positives
    if positives == 0 or negatives == 0:
        return 0.5
    ranks = rankdata(scores)
    above = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


class Brier(NamedTuple):
    """The Brier score and Murphy's parts of it: score = reliability - resolution + uncertainty.

    The parts are those of ten bins of equal mass; what varies within a bin makes the sum differ a
    little from the score.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float


def brier(scores: np.ndarray, truth: np.ndarray, n_bins: int = 10) -> Brier:
    """The mean squared error of probabilities ``[n]``, decomposed (Murphy 1973)."""
    base = float(truth.mean())
    reliability = resolution = 0.0
    for group in np.array_split(np.argsort(scores, kind="stable"), n_bins):
        if group.size:
            share, found = group.size / scores.size, float(truth[group].mean())
            reliability += share * (float(scores[group].mean()) - found) ** 2
            resolution += share * (found - base) ** 2
    score = float(((scores - truth) ** 2).mean())
    return Brier(score, reliability, resolution, base * (1 - base))


def in_credible_set(
    posterior: ParentSetPosterior, truth: frozenset[str], level: float = 0.9
) -> bool:
    """Whether the true set is among the fewest most probable sets that hold `level` together."""
    ranked = posterior.top_sets(len(posterior.posterior_probs))
    total = 0.0
    for parents, probability in ranked:
        if parents == truth:
            return True
        total += probability
        if total >= level:
            return False
    return False
