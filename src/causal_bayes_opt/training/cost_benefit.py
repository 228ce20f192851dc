"""When does training pay? What it cost, what each graph saves, and after how many it is even."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from causal_bayes_opt.errors import ConfigError, check_name
from causal_bayes_opt.training.criteria import Measured

COSTS = ("training", "tuning", "data", "failed")
PLAN_SPEEDUP, PLAN_BREAK_EVEN = 2.0, 1000.0


@dataclass(frozen=True)
class Costs:
    """Seconds of machine time that a model took; None where nobody recorded it.

    Attributes:
        training: of the run that made the weights.
        tuning: of searches before it.
        data: of making demonstrations.
        failed: of runs that came to nothing.
        price_per_hour: money for an hour of the machine.
    """

    training: float | None = None
    tuning: float | None = None
    data: float | None = None
    failed: float | None = None
    price_per_hour: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value >= 0:
                raise ConfigError(f"costs: {name} is {value}; it cannot be negative")

    @property
    def seconds(self) -> float:
        """All that was recorded."""
        return sum(getattr(self, name) or 0.0 for name in COSTS)

    @property
    def not_recorded(self) -> list[str]:
        """What was not."""
        return [name for name in COSTS if getattr(self, name) is None]


def break_even(
    costs: Costs,
    expert: np.ndarray,
    amortized: np.ndarray,
    resamples: int,
    confidence: float,
) -> dict[str, Any]:
    """Number of graphs after which training has paid, with its interval and the curve.

    Where a cost was not recorded the number is a lower bound, and the interval has no upper end.

    Args:
        costs: of the model.
        expert: seconds ``[n]`` of our fastest expert for each study.
        amortized: seconds ``[n]`` for the same studies.
        resamples: of the bootstrap over graphs.
        confidence: of the interval.
    """
    saved = expert - amortized
    rng = np.random.default_rng(0)
    draws = saved[rng.integers(len(saved), size=(resamples, len(saved)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    graphs = Measured(
        _graphs(costs.seconds, float(saved.mean())),
        _graphs(costs.seconds, float(high)),
        float("inf") if costs.not_recorded else _graphs(costs.seconds, float(low)),
    )
    return {
        "costs": asdict(costs),
        "seconds": costs.seconds,
        "not_recorded": costs.not_recorded,
        "money": costs.seconds / 3600 * costs.price_per_hour,
        "saved_seconds_per_graph": float(saved.mean()),
        "saved_money_per_graph": float(saved.mean()) / 3600 * costs.price_per_hour,
        "break_even": asdict(graphs),
        "curve": _curve(costs, float(expert.mean()), float(amortized.mean()), graphs.value),
        "plan": {"speedup": PLAN_SPEEDUP, "break_even": PLAN_BREAK_EVEN},
    }


def _graphs(seconds: float, saved: float) -> float:
    return seconds / saved if saved > 0 else float("inf")


def _curve(costs: Costs, expert: float, amortized: float, even: float) -> dict[str, list[float]]:
    last = 2 * even if np.isfinite(even) and even > 0 else 2 * PLAN_BREAK_EVEN
    graphs = np.linspace(0, last, 41)
    return {
        "graphs": graphs.tolist(),
        "expert_seconds": (graphs * expert).tolist(),
        "amortized_seconds": (costs.seconds + graphs * amortized).tolist(),
    }


def costs_of(
    card: Mapping[str, Any], price_per_hour: float, told: Mapping[str, float] | None = None
) -> Costs:
    """What a model cost.

    Data that are simulated at every step of the training (the card's ``loop``) cost nothing
    beside it.

    Args:
        card: of the model; its ``training_seconds``, and its ``costs`` by the names of `COSTS`.
        price_per_hour: money for an hour of the machine.
        told: seconds by the same names, before those of the card.

    Raises:
        ConfigError: a negative cost.
        UnknownNameError: a cost of another name.
    """
    for name in told or {}:
        check_name(name, COSTS, "cost")
    recorded = {"data": 0.0} if "loop" in card else {}
    if "training_seconds" in card:
        recorded["training"] = float(card["training_seconds"])
    recorded |= {name: float(value) for name, value in card.get("costs", {}).items()}
    return Costs(**{**recorded, **(told or {})}, price_per_hour=price_per_hour)
