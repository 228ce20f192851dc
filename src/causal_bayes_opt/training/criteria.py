"""Criteria and verdicts: a threshold, a measured value with its interval, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from scipy.stats import binomtest

from causal_bayes_opt.errors import ConfigError


class Verdict(StrEnum):
    """What follows from a criterion or from several."""

    GO = "go"
    NO_GO = "no-go"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class ValidationCriteria:
    """Thresholds of the judge.

    Attributes:
        min_speedup: of a graph, all decisions of one study.
        min_share: of the graphs that must reach it.
        max_drop: of F1 and of average precision below the expert's, relative.
        max_failures: answers that were an error or no distribution.
        max_order_change: of any probability when the variables are put into another order.
        max_memory: bytes; None: what the device has.
        no_go_speedup: a median below is an indicator against going on.
        no_go_drop: a drop above is another.
        max_transfer_drop: of average precision on larger systems, relative.
        max_break_even: graphs after which the training must have paid.
        confidence: of all intervals.
    """

    min_speedup: float = 2.0
    min_share: float = 0.9
    max_drop: float = 0.2
    max_failures: int = 0
    max_order_change: float = 1e-3
    max_memory: int | None = None
    no_go_speedup: float = 1.5
    no_go_drop: float = 0.3
    max_transfer_drop: float = 0.3
    max_break_even: float = 2000.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("min_share", "max_drop", "no_go_drop", "max_transfer_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; a share lies in 0 to 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Measured:
    """A value with its interval; an exact one has itself at both ends."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Measured:
        """A value that was counted, not estimated."""
        return cls(float(value), float(value), float(value))

    @classmethod
    def share(cls, hits: int, n: int, confidence: float) -> Measured:
        """A share with Wilson's interval."""
        if n == 0:
            return cls(float("nan"), 0.0, 1.0)
        ends = binomtest(hits, n).proportion_ci(confidence, method="wilson")
        return cls(hits / n, float(ends.low), float(ends.high))


@dataclass(frozen=True)
class Criterion:
    """One requirement.

    Attributes:
        name: what is asked.
        requirement: the threshold in words.
        threshold: as a number.
        measured: None where it was not measured.
        verdict: undecided when the interval holds the threshold or nothing was measured.
        note: one sentence.
    """

    name: str
    requirement: str
    threshold: float
    measured: Measured | None
    verdict: Verdict
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found = asdict(self)
        found["verdict"] = self.verdict.value
        return found


def at_least(name: str, threshold: float, measured: Measured | None, note: str = "") -> Criterion:
    """A value that must not be below a threshold."""
    verdict = Verdict.UNDECIDED
    if measured is not None and measured.low >= threshold:
        verdict = Verdict.GO
    elif measured is not None and measured.high < threshold:
        verdict = Verdict.NO_GO
    return Criterion(name, f"at least {threshold:,.12g}", threshold, measured, verdict, note)


def below(name: str, threshold: float, measured: Measured | None, note: str = "") -> Criterion:
    """A value that must be below a threshold."""
    verdict = Verdict.UNDECIDED
    if measured is not None and measured.high < threshold:
        verdict = Verdict.GO
    elif measured is not None and measured.low >= threshold:
        verdict = Verdict.NO_GO
    return Criterion(name, f"below {threshold:,.12g}", threshold, measured, verdict, note)


def at_most(name: str, threshold: float, measured: Measured | None, note: str = "") -> Criterion:
    """A value that must not be above a threshold."""
    verdict = Verdict.UNDECIDED
    if measured is not None and measured.high <= threshold:
        verdict = Verdict.GO
    elif measured is not None and measured.low > threshold:
        verdict = Verdict.NO_GO
    return Criterion(name, f"at most {threshold:,.12g}", threshold, measured, verdict, note)


def all_hold(criteria: Sequence[Criterion]) -> Verdict:
    """Go where all do, no-go where one does not."""
    verdicts = {criterion.verdict for criterion in criteria}
    if Verdict.NO_GO in verdicts:
        return Verdict.NO_GO
    return Verdict.GO if verdicts == {Verdict.GO} else Verdict.UNDECIDED


def most_hold(criteria: Sequence[Criterion]) -> Verdict:
    """Go where more than half do, no-go where that cannot be any more."""
    needed = len(criteria) // 2 + 1
    held = sum(criterion.verdict is Verdict.GO for criterion in criteria)
    failed = sum(criterion.verdict is Verdict.NO_GO for criterion in criteria)
    if held >= needed:
        return Verdict.GO
    return Verdict.NO_GO if failed > len(criteria) - needed else Verdict.UNDECIDED
