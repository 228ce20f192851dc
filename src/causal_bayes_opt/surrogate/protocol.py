"""What every surrogate is: a function from rows to a posterior over parent sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import ConfigError, GraphError, check_name
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior


def _pairs(edges: Iterable[Iterable[str]], what: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for edge in (edges,) if isinstance(edges, str) else edges:
        names = (edge,) if isinstance(edge, str) else tuple(edge)
        if len(names) != 2:
            raise GraphError(f"{what} edges are pairs (cause, effect), not {edge!r}")
        pairs.append((names[0], names[1]))
    return tuple(pairs)


@dataclass(frozen=True)
class EdgePrior:
    """What is known about the edges before any row is seen.

    Attributes:
        edge_probability: of each edge that the order of the variables allows; None takes
            ``min(0.5, 2 / (n_vars - 1))``.
        expected_parents: in place of that probability, how many parents a variable has on average
            over all graphs: ``p = 2 expected_parents / (n_vars - 1)``, as half of all pairs are
            allowed by an order.
        known: (cause, effect) pairs that are edges for certain.
        forbidden: (cause, effect) pairs that are no edges.

    Raises:
        ConfigError: a probability that is none, or two.
        GraphError: edges that are no pairs of names, or cannot be: a variable's own cause, an edge
            that is known and forbidden, known edges in a cycle.
    """

    edge_probability: float | None = None
    expected_parents: float | None = None
    known: tuple[tuple[str, str], ...] = ()
    forbidden: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        p = self.edge_probability
        if p is not None and not 0 < p < 1:
            raise ConfigError(
                f"edge_probability is {p}; it must lie between 0 and 1, ends excluded"
            )
        if p is not None and self.expected_parents is not None:
            raise ConfigError("give edge_probability or expected_parents, not both")
        if self.expected_parents is not None and not self.expected_parents > 0:
            raise ConfigError(f"expected_parents is {self.expected_parents}; it must be above 0")
        for name in ("known", "forbidden"):
            object.__setattr__(self, name, _pairs(getattr(self, name), name))
        for cause, effect in (*self.known, *self.forbidden):
            if cause == effect:
                raise GraphError(f"{cause!r} -> {effect!r} is no edge: nothing causes itself")
        both = set(self.known) & set(self.forbidden)
        if both:
            cause, effect = sorted(both)[0]
            raise GraphError(f"the edge {cause!r} -> {effect!r} is both known and forbidden")
        causes: dict[str, set[str]] = {}
        for cause, effect in self.known:
            causes.setdefault(effect, set()).add(cause)
        try:
            TopologicalSorter(causes).prepare()
        except CycleError as error:
            cycle = " -> ".join(repr(name) for name in error.args[1])
            raise GraphError(f"the known edges form a cycle: {cycle}") from None

    def matrices(self, variables: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return known and forbidden edges as bool ``[n_vars, n_vars]``, [i, j]: i -> j.

        Raises:
            UnknownNameError: an edge names a variable that does not exist.
        """
        names = list(variables)
        matrices = []
        for edges in (self.known, self.forbidden):
            matrix = np.zeros((len(names), len(names)), dtype=bool)
            for cause, effect in edges:
                check_name(cause, names, "cause")
                check_name(effect, names, "effect")
                matrix[names.index(cause), names.index(effect)] = True
            matrices.append(matrix)
        return matrices[0], matrices[1]

    def probability(self, n_vars: int) -> float:
        """The edge probability for a system of `n_vars` variables.

        Raises:
            ConfigError: more parents are expected than there is room for.
        """
        if self.expected_parents is not None:
            p = 2.0 * self.expected_parents / max(n_vars - 1, 1)
            if not p < 1:
                raise ConfigError(
                    f"{self.expected_parents} expected parents are too many for {n_vars} "
                    f"variables: below {(n_vars - 1) / 2} is possible"
                )
            return p
        return self.edge_probability or default_edge_probability(n_vars)


def default_edge_probability(n_vars: int) -> float:
    """``min(0.5, 2 / (n_vars - 1))``: about one parent a variable in larger systems."""
    return min(0.5, 2.0 / max(n_vars - 1, 1))


# From a key and a number to whole graphs, bool [n, n_vars, n_vars], [m, i, j]: i causes j.
DrawGraphs: TypeAlias = Callable[[jax.Array, int], np.ndarray]
# From a name and a number to that many of its most probable parent sets, bool [n_sets, n_vars], and
# their probabilities [n_sets].
ListSets: TypeAlias = Callable[[str, int], tuple[np.ndarray, np.ndarray]]


class SystemPosterior(Mapping[str, ParentSetPosterior]):
    """The posteriors of all variables of one system by name, each made when first looked at.

    Args:
        variables: names, in order.
        make: from a name to its posterior.
        draw_graphs: draws whole graphs from the posterior, where a surrogate has one over them.
        list_sets: the most probable sets as arrays, where a surrogate has them before it makes a
            posterior of them.
    """

    def __init__(
        self,
        variables: Sequence[str],
        make: Callable[[str], ParentSetPosterior],
        draw_graphs: DrawGraphs | None = None,
        list_sets: ListSets | None = None,
    ) -> None:
        self._variables = tuple(variables)
        self._make = make
        self._made: dict[str, ParentSetPosterior] = {}
        self.draw_graphs = draw_graphs
        self.list_sets = list_sets

    def __getitem__(self, name: str) -> ParentSetPosterior:
        if name not in self._made:
            if name not in self._variables:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def all_posteriors(
    surrogate: Surrogate,
    buffer: ExperienceBuffer,
    *,
    prior: EdgePrior | None = None,
    key: jax.Array | None = None,
) -> SystemPosterior:
    """The posteriors of all variables: from one piece of work where the surrogate can do that.

    A surrogate that can has a method ``posteriors(buffer, *, prior, key)``. Any other is asked for
    every variable at once, so that rows it can't use are refused here.
    """
    if isinstance(surrogate, AllPosteriors):
        return surrogate.posteriors(buffer, prior=prior, key=key)
    names = buffer.get_variable_names()
    found = {name: surrogate(buffer, name, prior=prior, key=key) for name in names}
    return SystemPosterior(names, found.__getitem__)


@runtime_checkable
class AllPosteriors(Protocol):
    """A surrogate that answers for all variables at the price of one."""

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """As any surrogate."""
        ...

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> SystemPosterior:
        """The posteriors of all variables by name."""
        ...


class Surrogate(Protocol):
    """Rows to posterior: exact inference, PARENT_SCALE, the network and the router are such."""

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """Return the posterior over the target's parent sets given the buffer's complete rows.

        Raises:
            UnknownNameError: the target is not among the variables.
            DataError: fewer than 2 observational rows or a constant column.
            MethodLimitError: more variables than the method takes.
        """
        ...
