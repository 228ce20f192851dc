"""Errors that a user can meet: what came, what was expected and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CausalBayesOptError(Exception):
    """Base class of every error that this package raises on purpose."""


class CommandLineError(CausalBayesOptError):
    """A command line that cannot be read."""


class DataError(CausalBayesOptError):
    """Rows that cannot be used: missing cells, constant columns, too few rows, a broken file."""


class UnknownNameError(CausalBayesOptError):
    """A variable, option or family that does not exist."""


class ProblemError(CausalBayesOptError):
    """A question that has no answer: nothing may be set, a reversed range, an unknown direction."""


class GraphError(CausalBayesOptError):
    """A graph or a system that is not a causal system: a cycle, a parent that does not exist."""


class MethodLimitError(CausalBayesOptError):
    """A method asked for more than it can take; the message names the limit and the alternative."""


class ConfigError(CausalBayesOptError):
    """A configuration with an unknown key or an impossible value."""


class ModelError(CausalBayesOptError):
    """A model file that does not fit: another format, encoding version or configuration."""


class StoreError(CausalBayesOptError):
    """A data store that cannot be written, read or continued."""


class GateError(CausalBayesOptError):
    """A step that needs a favourable validation report and has none."""


class OptionalDependencyError(CausalBayesOptError):
    """A feature whose optional dependency is not installed."""


def check_sizes(hidden_dim: int, num_layers: int, num_heads: int) -> None:
    """Raise `ConfigError` unless a network of attention can have these sizes."""
    if min(hidden_dim, num_layers, num_heads) < 1:
        raise ConfigError("hidden_dim, num_layers and num_heads must be at least 1")
    if hidden_dim % num_heads:
        raise ConfigError(f"num_heads is {num_heads}; it must divide hidden_dim, {hidden_dim}")


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``"; did you mean 'X1'?"`` for the closest of `options`, or an empty string."""
    names = [str(option) for option in options]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if not close:
        lowered = {option.lower(): option for option in names}
        close = [
            lowered[found]
            for found in difflib.get_close_matches(str(name).lower(), list(lowered), 1, 0.5)
        ]
    return f"; did you mean {close[0]!r}?" if close else ""


def check_name(name: str, options: Iterable[str], what: str) -> None:
    """Raise `UnknownNameError` unless `name` is one of `options`; `what` says what it names."""
    names = list(options)
    if name not in names:
        listed = ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
        raise UnknownNameError(
            f"unknown {what} {name!r}{nearest(str(name), names) or f' (known: {listed})'}"
        )
