"""Quality of several methods on the same systems, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from causal_bayes_opt.surrogate import metrics
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.training.cases import Case
from causal_bayes_opt.training.criteria import Measured


@dataclass(frozen=True, eq=False)
class Answer:
    """What one method said of one system; a failure says that nothing causes the target.

    Attributes:
        scores: probabilities of the candidates ``[n_vars - 1]``.
        truth: bool ``[n_vars - 1]``.
        loss: nats on the true set.
        covered: whether the true set is in the 90 % credible set.
        failed: why there is no answer; empty where there is one.
    """

    scores: np.ndarray
    truth: np.ndarray
    loss: float
    covered: bool
    failed: str = ""

    @classmethod
    def of(cls, posterior: ParentSetPosterior, case: Case) -> Answer:
        """Compare a posterior with the truth; one that is no distribution is a failure."""
        names = posterior.candidates
        scores = np.array([posterior.marginals[name] for name in names])
        if not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1 + 1e-6).any():
            return cls.failure("its probabilities are none", case)
        return cls(
            scores,
            np.array([name in case.parents for name in names]),
            metrics.set_loss(posterior, case.parents),
            metrics.in_credible_set(posterior, case.parents),
        )

    @classmethod
    def failure(cls, reason: str, case: Case) -> Answer:
        """An answer that is none."""
        names = [name for name in case.buffer.get_variable_names() if name != case.target]
        truth = np.array([name in case.parents for name in names])
        return cls(np.zeros(len(names)), truth, -np.log(metrics.FLOOR), False, reason)


Answers: TypeAlias = Mapping[str, Sequence[Answer]]

LARGER_IS_BETTER = {
    "f1": True,
    "average_precision": True,
    "auroc": True,
    "brier": False,
    "calibration_error": False,
    "negative_log_probability": False,
    "coverage_90": True,
}
_MAIN = ("f1", "average_precision", "negative_log_probability")


def quality_table(
    answers: Answers, resamples: int, confidence: float, ours: str = "amortized"
) -> dict[str, Any]:
    """Each measure of each method, and the differences between ours and the others.

    Systems are drawn again, the same for all methods, so that differences are paired.

    Args:
        answers: of each method, systems in one order.
        resamples: of the bootstrap.
        confidence: of its percentile intervals.
        ours: the method whose differences from the others are shown.

    Returns:
        ``methods`` (method, measure, `Measured` as a mapping), ``differences`` (ours minus the
        other), ``drops`` (how much lower ours is, as a share of the other: positive is worse),
        ``brier_parts`` (method, part).
    """
    drawn = _bootstrap(answers, tuple(LARGER_IS_BETTER), resamples)
    point = {method: _measures(own, tuple(LARGER_IS_BETTER)) for method, own in answers.items()}
    table: dict[str, Any] = {"methods": {}, "differences": {}, "drops": {}, "brier_parts": {}}
    for method, own in answers.items():
        table["methods"][method] = {
            name: _measured(point[method][name], drawn[method][name], confidence)
            for name in LARGER_IS_BETTER
        }
        scores, truth = _pooled(own)
        table["brier_parts"][method] = metrics.brier(scores, truth)._asdict()
        if method == ours:
            continue
        table["differences"][method] = {
            name: _measured(
                point[ours][name] - point[method][name],
                drawn[ours][name] - drawn[method][name],
                confidence,
            )
            for name in LARGER_IS_BETTER
        }
        table["drops"][method] = {
            name: _measured(
                _drop(point[method][name], point[ours][name]),
                np.array([_drop(a, b) for a, b in _pairs(drawn, method, ours, name)]),
                confidence,
            )
            for name in ("f1", "average_precision")
        }
    return table


def by_factor(
    answers: Answers,
    factors: Sequence[Mapping[str, Any]],
    resamples: int,
    confidence: float,
) -> dict[str, dict[str, Any]]:
    """The main measures within each level of each factor."""
    found: dict[str, dict[str, Any]] = {}
    for name in factors[0]:
        levels = sorted({factor[name] for factor in factors})
        if len(levels) < 2:
            continue
        found[name] = {}
        for level in levels:
            chosen = [i for i, factor in enumerate(factors) if factor[name] == level]
            part = {method: [own[i] for i in chosen] for method, own in answers.items()}
            drawn = _bootstrap(part, _MAIN, resamples)
            found[name][str(level)] = {"systems": len(chosen)} | {
                method: {
                    measure: _measured(value, drawn[method][measure], confidence)
                    for measure, value in _measures(own, _MAIN).items()
                }
                for method, own in part.items()
            }
    return found


def relative_drop(
    before: Sequence[Answer], after: Sequence[Answer], resamples: int, confidence: float
) -> Measured:
    """How much lower the average precision is on other systems, as a share of that before."""
    names = ("average_precision",)
    first = _bootstrap({"m": before}, names, resamples, seed=1)["m"]["average_precision"]
    second = _bootstrap({"m": after}, names, resamples, seed=2)["m"]["average_precision"]
    value = _drop(
        _measures(before, names)["average_precision"], _measures(after, names)["average_precision"]
    )
    drops = np.array([_drop(a, b) for a, b in zip(first, second, strict=True)])
    return Measured(**_measured(value, drops, confidence))


def reliability(answers: Sequence[Answer], n_bins: int = 10) -> list[dict[str, float]]:
    """Stated and found shares over bins of equal mass, for a diagram."""
    scores, truth = _pooled(answers)
    groups = np.array_split(np.argsort(scores, kind="stable"), n_bins)
    return [
        {
            "stated": float(scores[g].mean()),
            "found": float(truth[g].mean()),
            "candidates": float(g.size),
        }
        for g in groups
        if g.size
    ]


def agreement(ours: Sequence[Answer], expert: Sequence[Answer]) -> float:
    """Mean divergence of our marginals from the expert's, in nats a system; no quality."""
    total = 0.0
    for a, b in zip(ours, expert, strict=True):
        q = np.clip(a.scores, 1e-6, 1 - 1e-6)
        p = np.clip(b.scores, 1e-6, 1 - 1e-6)
        total += float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum())
    return total / len(ours)


def _pairs(
    drawn: dict[str, dict[str, np.ndarray]], method: str, ours: str, name: str
) -> Iterator[tuple[float, float]]:
    return zip(drawn[method][name].tolist(), drawn[ours][name].tolist(), strict=True)


def _drop(before: float, after: float) -> float:
    return (before - after) / before if before > 0 else 0.0


def _bootstrap(
    answers: Answers, names: tuple[str, ...], resamples: int, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    n = len(next(iter(answers.values())))
    draws = rng.integers(n, size=(resamples, n))
    return {
        method: _transposed([_measures([own[i] for i in draw], names) for draw in draws.tolist()])
        for method, own in answers.items()
    }


def _transposed(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _measures(answers: Sequence[Answer], names: tuple[str, ...]) -> dict[str, float]:
    scores, truth = _pooled(answers)
    found = {
        "f1": lambda: metrics.f1_score(scores > 0.5, truth),
        "average_precision": lambda: metrics.average_precision(scores, truth),
        "auroc": lambda: metrics.auroc(scores, truth),
        "brier": lambda: metrics.brier(scores, truth).score,
        "calibration_error": lambda: metrics.calibration_error(scores, truth),
        "negative_log_probability": lambda: float(np.mean([a.loss for a in answers])),
        "coverage_90": lambda: float(np.mean([a.covered for a in answers])),
    }
    return {name: found[name]() for name in names}


def _pooled(answers: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([a.scores for a in answers]),
        np.concatenate([a.truth for a in answers]),
    )


def _measured(value: float, drawn: np.ndarray, confidence: float) -> dict[str, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return {"value": float(value), "low": float(low), "high": float(high)}
