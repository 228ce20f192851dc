"""Values of options that are more than a word: ranges, and what is known about edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from causal_bayes_opt.errors import GraphError, ProblemError, check_name

if TYPE_CHECKING:
    from causal_bayes_opt.surrogate.protocol import EdgePrior

T = TypeVar("T")


def parse_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]] | None:
    """Read ``NAME=LO:HI`` each; a name may hold ``=`` and ``:`` itself. None where none is given.

    Raises:
        ProblemError: another form, or a name that is given twice.
    """
    form = "NAME=LO:HI with two numbers, such as dose=-2:3.5"
    return _by_name("--range", texts, _two_numbers, form)


def parse_costs(texts: Sequence[str]) -> dict[str, float] | None:
    """Read ``NAME=NUMBER`` each; a name may hold ``=`` itself. None where none is given.

    Raises:
        ProblemError: another form, or a name that is given twice.
    """
    return _by_name("--cost", texts, float, "NAME=NUMBER, such as dose=2.5")


def parse_edges(
    known: Sequence[str], forbidden: Sequence[str], names: Sequence[str]
) -> EdgePrior | None:
    """What ``--edge`` and ``--no-edge`` say; None where neither is given.

    Raises:
        GraphError: another form than ``CAUSE:EFFECT``, or edges that contradict each other.
        UnknownNameError: a variable that does not exist.
    """
    if not (known or forbidden):
        return None
    from causal_bayes_opt.surrogate.protocol import EdgePrior

    return EdgePrior(
        known=tuple(_edge("--edge", text, names) for text in known),
        forbidden=tuple(_edge("--no-edge", text, names) for text in forbidden),
    )


def _by_name(
    option: str, texts: Sequence[str], read: Callable[[str], T], form: str
) -> dict[str, T] | None:
    """What `read` makes of the part after the last ``=``; it raises `ValueError` for others."""
    found: dict[str, T] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.rpartition("="))
        try:
            content = read(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ProblemError(f"{option} {text!r} is not of the form {form}")
        if name in found:
            raise ProblemError(f"{option} names {name!r} twice")
        found[name] = content
    return found or None


def _two_numbers(text: str) -> tuple[float, float]:
    low, high = map(float, text.split(":"))
    return low, high


def _edge(option: str, text: str, names: Sequence[str]) -> tuple[str, str]:
    """Read ``CAUSE:EFFECT``; where names hold ``:`` themselves, the place that fits names."""
    places = [i for i, letter in enumerate(text) if letter == ":"]
    pairs = [(text[:i].strip(), text[i + 1 :].strip()) for i in places]
    if not any(cause and effect for cause, effect in pairs):
        raise GraphError(
            f"{option} {text!r} is not of the form CAUSE:EFFECT, such as {names[0]}:{names[-1]}"
        )
    cause, effect = next((pair for pair in pairs if set(pair) <= set(names)), pairs[0])
    check_name(cause, names, "cause")
    check_name(effect, names, "effect")
    return cause, effect
