"""SCM: a causal system with named variables. Immutable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pyrsistent import PMap, pmap

from causal_bayes_opt.core.graphs import topological_order
from causal_bayes_opt.core.mechanisms import Mechanism, Noise, linear
from causal_bayes_opt.errors import GraphError, check_name, nearest


@dataclass(frozen=True, init=False, eq=False)
class SCM:
    """A structural causal model: ordered names, one mechanism a name, and maybe a target.

    Attributes:
        variables: names in the user's order.
        mechanisms: one for each name; its `parents` are the edges.
        target: the variable of interest, or None.
        order: the names, causes before effects.

    Raises:
        GraphError: duplicate names, a mechanism too many or too few, an unknown parent, a cycle.
        UnknownNameError: an unknown target.
    """

    variables: tuple[str, ...]
    mechanisms: PMap[str, Mechanism]
    target: str | None
    order: tuple[str, ...]

    def __init__(
        self,
        variables: Sequence[str],
        mechanisms: Mapping[str, Mechanism],
        target: str | None = None,
    ) -> None:
        names = tuple(variables)
        if len(set(names)) != len(names) or not names:
            raise GraphError(f"variables must be one or more distinct names, not {list(names)}")
        for name in mechanisms:
            if name not in names:
                raise GraphError(f"mechanism of an unknown variable {name!r}{nearest(name, names)}")
        for name in names:
            if name not in mechanisms:
                raise GraphError(f"variable {name!r} has no mechanism; a root takes linear([], [])")
            for parent in mechanisms[name].parents:
                if parent not in names:
                    hint = nearest(parent, names)
                    raise GraphError(f"{name!r} has an unknown parent {parent!r}{hint}")
        if target is not None:
            check_name(target, names, "target")
        object.__setattr__(self, "variables", names)
        object.__setattr__(self, "mechanisms", pmap(dict(mechanisms)))
        object.__setattr__(self, "target", target)
        positions = topological_order(self.adjacency(), names)
        object.__setattr__(self, "order", tuple(names[i] for i in positions))

    @classmethod
    def linear(
        cls,
        variables: Sequence[str],
        weights: Mapping[tuple[str, str], float],
        *,
        biases: Mapping[str, float] | None = None,
        noise: Noise | Mapping[str, Noise] | None = None,
        target: str | None = None,
    ) -> SCM:
        """Build from ``{(cause, effect): weight}``; the noise is unit Gaussian by default."""
        for cause, effect in weights:
            check_name(cause, variables, "cause")
            check_name(effect, variables, "effect")
        for name in biases or {}:
            check_name(name, variables, "variable in biases")
        for name in noise if isinstance(noise, Mapping) else ():
            check_name(name, variables, "variable in noise")

        def mechanism(name: str) -> Mechanism:
            parents = [other for other in variables if (other, name) in weights]
            own = noise.get(name) if isinstance(noise, Mapping) else noise
            return linear(
                parents, [weights[p, name] for p in parents], (biases or {}).get(name, 0.0), own
            )

        return cls(variables, {name: mechanism(name) for name in variables}, target)

    def mechanism(self, name: str) -> Mechanism:
        """The mechanism of a variable; `UnknownNameError` if there is none of that name."""
        check_name(name, self.variables, "variable")
        return self.mechanisms[name]

    def parents(self, name: str) -> tuple[str, ...]:
        """The direct causes of a variable, in the variables' order."""
        found = set(self.mechanism(name).parents)
        return tuple(other for other in self.variables if other in found)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """All (cause, effect) pairs."""
        return tuple((cause, name) for name in self.variables for cause in self.parents(name))

    def adjacency(self) -> np.ndarray:
        """Boolean ``[n_vars, n_vars]``, [i, j] True where i causes j directly."""
        index = {name: i for i, name in enumerate(self.variables)}
        matrix = np.zeros((len(index), len(index)), dtype=bool)
        for name in self.variables:
            for parent in self.mechanisms[name].parents:
                matrix[index[parent], index[name]] = True
        return matrix

    def with_target(self, target: str) -> SCM:
        """The same system with another target."""
        return SCM(self.variables, self.mechanisms, target)

    def with_mechanism(self, name: str, mechanism: Mechanism) -> SCM:
        """The same system with another mechanism of one variable."""
        check_name(name, self.variables, "variable")
        return SCM(self.variables, self.mechanisms.set(name, mechanism), self.target)

    def reordered(self, variables: Sequence[str]) -> SCM:
        """The same system with its variables in another order."""
        return SCM(variables, self.mechanisms, self.target)

    def __repr__(self) -> str:
        edges = ", ".join(f"{cause} -> {effect}" for cause, effect in self.edges) or "no edges"
        return f"SCM({len(self.variables)} variables; {edges}; target {self.target})"
