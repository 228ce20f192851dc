"""Interventions, and the problem that they are to solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, TypeAlias

from pyrsistent import PMap, pmap

from causal_bayes_opt.errors import DataError, ProblemError, check_name, nearest

Intervention: TypeAlias = PMap[str, float]
Direction: TypeAlias = Literal["minimize", "maximize"]
Cost: TypeAlias = float | Callable[[float], float]


def make_intervention(values: Mapping[str, float]) -> Intervention:
    """Return the immutable intervention that sets each name to its value (user's units).

    Raises:
        DataError: a value is not a finite number.
    """
    for name, value in values.items():
        if not _is_finite(value):
            raise DataError(f"an intervention sets {name!r} to {value}; a finite number is needed")
    return pmap({name: float(value) for name, value in values.items()})


@dataclass(frozen=True)
class Problem:
    """What is to be optimised, and what may be done to get there.

    Attributes:
        variables: all names, in the user's order.
        target: the variable to be made small or large.
        direction: ``"minimize"`` or ``"maximize"``.
        ranges: for each settable variable its lowest and highest value, in the user's units;
            None leaves them to the data (the range observed).
        settable: the variables that may be set; None means all but the target.
        costs: a constant, or a function of the value, per settable variable; missing ones cost 1.
        max_targets: most variables that one experiment may set; None means as many as help.

    Raises:
        ProblemError: no variables, duplicates, a bad direction, range or settable set, or a
            `max_targets` below 1.
        UnknownNameError: a name that is not among the variables.
    """

    variables: tuple[str, ...]
    target: str
    direction: Direction = "minimize"
    ranges: Mapping[str, tuple[float, float]] | None = None
    settable: tuple[str, ...] | None = None
    costs: Mapping[str, Cost] | None = None
    max_targets: int | None = None

    def __post_init__(self) -> None:
        names = _unique(self.variables, "variable")
        object.__setattr__(self, "variables", names)
        if not names:
            raise ProblemError("a problem needs at least one variable")
        check_name(self.target, names, "target")
        if self.direction not in ("minimize", "maximize"):
            hint = nearest(self.direction, ("minimize", "maximize"))
            raise ProblemError(
                f"direction is {self.direction!r}; expected 'minimize' or 'maximize'{hint}"
            )
        settable = self.settable
        if settable is None:
            settable = tuple(name for name in names if name != self.target)
        settable = _unique(settable, "settable variable")
        for name in settable:
            check_name(name, names, "settable variable")
        if self.target in settable:
            raise ProblemError(f"the target {self.target!r} cannot be a settable variable")
        object.__setattr__(self, "settable", settable)
        most = self.max_targets
        if most is not None and not (isinstance(most, Integral) and most >= 1):
            raise ProblemError(f"max_targets is {most!r}; an experiment sets at least one variable")
        # The problem keeps what it checked, whatever the caller does with the mappings later.
        if self.ranges is not None:
            object.__setattr__(self, "ranges", pmap(self._checked_ranges(self.ranges)))
        if self.costs is not None:
            object.__setattr__(self, "costs", pmap(self._checked_costs(self.costs)))

    @property
    def sign(self) -> float:
        """+1 to minimise, -1 to maximise: the target times this is always to be made small."""
        return 1.0 if self.direction == "minimize" else -1.0

    @property
    def may_set(self) -> tuple[str, ...]:
        """The settable variables, in the user's order.

        Raises:
            ProblemError: there are none.
        """
        assert self.settable is not None
        if not self.settable:
            raise ProblemError(
                f"no variable may be set to move {self.target!r}; name at least one as settable"
            )
        return tuple(name for name in self.variables if name in self.settable)

    def range_of(self, name: str) -> tuple[float, float] | None:
        """The lowest and highest value of a variable, or None where the data decide."""
        return (self.ranges or {}).get(name)

    def cost(self, intervention: Mapping[str, float]) -> float:
        """The cost of an intervention: the sum over what it sets; 1 a variable by default.

        Raises:
            ProblemError: the user's function gave no number from 0 on, or raised an error.
        """
        total = 0.0
        for name, value in intervention.items():
            cost = (self.costs or {}).get(name, 1.0)
            if callable(cost):
                cost = _cost_at(cost, name, value)
                if not (_is_finite(cost) and cost >= 0):
                    raise ProblemError(
                        f"cost of {name!r} at {value:g} is {cost!r}; expected a number from 0 on"
                    )
            total += float(cost)
        return total

    def _checked_ranges(
        self, ranges: Mapping[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        checked = {}
        for name, ends in ranges.items():
            check_name(name, self.variables, "variable in ranges")
            if name == self.target:
                raise ProblemError(f"the target {name!r} is never set and takes no range")
            try:
                low, high = map(float, ends)
            except (TypeError, ValueError):
                raise ProblemError(
                    f"range of {name!r} is {ends!r}; expected its lowest and highest value"
                ) from None
            check_range(name, low, high)
            checked[name] = (low, high)
        return checked

    def _checked_costs(self, costs: Mapping[str, Cost]) -> dict[str, Cost]:
        for name, cost in costs.items():
            check_name(name, self.variables, "variable in costs")
            if not callable(cost) and not (_is_finite(cost) and cost >= 0):
                raise ProblemError(
                    f"cost of {name!r} is {cost!r}; expected a number from 0 on, or a function of "
                    "the value that is set"
                )
        return dict(costs)


def number_text(value: float, width: float, digits: int) -> str:
    """A number with so many digits, more where it is far larger than the `width` it varies over."""
    size = abs(value) / width if width > 0 else 1.0
    more = max(math.ceil(math.log10(size)) - 2, 0) if 0 < size < math.inf else 0
    return f"{value:.{min(digits + more, 17)}g}"


def check_range(name: str, low: float, high: float) -> None:
    """Raise `ProblemError` unless ``low < high`` and both are finite, as is their distance."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ProblemError(f"range of {name!r} is {low:g} to {high:g}; both ends must be finite")
    if not math.isfinite(high - low):
        raise ProblemError(f"range of {name!r} is {low:g} to {high:g}; its width must be finite")
    if low > high:
        raise ProblemError(
            f"range of {name!r} is reversed: {low:g} is above {high:g}; write the lower end first"
        )
    if low == high:
        raise ProblemError(f"range of {name!r} has zero width at {low:g}")


def _cost_at(cost: Callable[[float], float], name: str, value: float) -> float:
    try:
        return cost(value)
    except Exception as error:  # the function is the user's: it may raise anything
        raise ProblemError(
            f"cost of {name!r} at {value:g} raised {type(error).__name__}: {error}"
        ) from error


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _unique(names: Iterable[str], what: str) -> tuple[str, ...]:
    result = tuple(names)
    repeated = sorted({name for name in result if result.count(name) > 1})
    if repeated:
        raise ProblemError(f"{what} {repeated[0]!r} is named more than once")
    return result
