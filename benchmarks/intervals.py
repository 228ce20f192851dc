"""Figures with their 95 % intervals, as tables show them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_bayes_opt.surrogate.metrics import average_precision


def half_width(values: np.ndarray | Sequence[float]) -> float:
    """Half the width of the interval of a mean, normal."""
    return float(1.96 * np.std(values) / np.sqrt(len(values)))


def mean_told(values: np.ndarray | Sequence[float], form: str = ".3f") -> str:
    """A mean with half the width of its interval."""
    return f"{np.mean(values):{form}} ± {half_width(values):{form.lstrip('+')}}"


def precision_interval(
    scores: Sequence[np.ndarray], truth: Sequence[np.ndarray], resamples: int = 1000
) -> tuple[float, float, float]:
    """Average precision pooled over systems, and the ends of its interval (bootstrap)."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(len(scores), size=len(scores))
        drawn.append(
            average_precision(
                np.concatenate([scores[i] for i in chosen]),
                np.concatenate([truth[i] for i in chosen]),
            )
        )
    low, high = np.quantile(drawn, (0.025, 0.975))
    return average_precision(np.concatenate(scores), np.concatenate(truth)), low, high


def ends_told(found: tuple[float, float, float]) -> str:
    """A figure with the ends of its interval."""
    return f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"
