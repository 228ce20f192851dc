"""ParentSetPosterior: how probable each set of direct causes of the target is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
from pyrsistent import PMap, pmap
from scipy.special import logsumexp

from causal_bayes_opt.errors import DataError, check_name

ParentSet: TypeAlias = frozenset[str]

MAX_SETS = 4096
_FLOOR = 1e-12


@dataclass(frozen=True)
class ParentSetPosterior:
    """A distribution over the parent sets of one target.

    Attributes:
        target_variable: the target.
        posterior_probs: probability of each set: all of them where there are at most 4,096, so
            that they sum to 1; else the most probable 4,096, and `mass_left_out` is the rest.
        uncertainty: entropy of the distribution over sets, in nats.
        metadata: where it comes from; `warnings` is a tuple of sentences for the user.
        variables: all names in the user's order, the target among them.
        marginals: probability of being a parent, for every variable but the target; exact even
            where sets are left out.
        mass_left_out: probability of all sets that are not listed.
    """

    target_variable: str
    posterior_probs: PMap[ParentSet, float]
    uncertainty: float
    metadata: PMap[str, Any] = field(default_factory=pmap)
    variables: tuple[str, ...] = ()
    marginals: PMap[str, float] = field(default_factory=pmap)
    mass_left_out: float = 0.0

    def __post_init__(self) -> None:
        probs = pmap({frozenset(s): float(p) for s, p in self.posterior_probs.items()})
        object.__setattr__(self, "posterior_probs", probs)
        object.__setattr__(self, "metadata", pmap(self.metadata))
        if not self.variables:
            named = sorted({name for parents in probs for name in parents})
            object.__setattr__(self, "variables", (*named, self.target_variable))
        object.__setattr__(self, "variables", tuple(self.variables))
        check_name(self.target_variable, self.variables, "target")
        marginals = self.marginals or _marginals_of(probs, self.variables, self.target_variable)
        object.__setattr__(self, "marginals", pmap(marginals))
        values = [*probs.values(), *self.marginals.values(), self.uncertainty]
        if not np.isfinite(values).all() or min(probs.values(), default=0.0) < 0:
            raise DataError("a posterior needs finite, non-negative probabilities")
        if abs(sum(probs.values()) + self.mass_left_out - 1.0) > 1e-4:
            raise DataError(
                f"probabilities sum to {sum(probs.values()) + self.mass_left_out:.6g}, not to 1"
            )

    @classmethod
    def from_log_probs(
        cls,
        variables: Sequence[str],
        target: str,
        members: np.ndarray,
        log_probs: np.ndarray,
        metadata: Mapping[str, Any] | None = None,
    ) -> ParentSetPosterior:
        """Build from all sets with their log-probabilities, which need not be normalised.

        Args:
            variables: names, in the user's order.
            target: the target.
            members: bool ``[n_sets, n_vars]``, one row a set, False at the target.
            log_probs: ``[n_sets]``; -inf is allowed, NaN is not.
            metadata: see the class.
        """
        members = np.asarray(members, dtype=bool)
        log_probs = np.asarray(log_probs, dtype=np.float64)
        probs = np.exp(log_probs - logsumexp(log_probs))
        probs = probs / probs.sum()
        uncertainty = entropy(probs)
        marginals = probs @ members
        order = np.argsort(-probs, kind="stable")[:MAX_SETS]
        names = np.asarray(variables, dtype=object)
        sets = {frozenset(names[members[i]]): float(probs[i]) for i in order}
        left_out = 1.0 - sum(sets.values()) if len(probs) > MAX_SETS else 0.0
        return cls(
            target_variable=target,
            posterior_probs=pmap(sets),
            uncertainty=uncertainty,
            metadata=pmap(dict(metadata or {})),
            variables=tuple(variables),
            marginals=pmap(
                {name: float(marginals[i]) for i, name in enumerate(variables) if name != target}
            ),
            mass_left_out=max(left_out, 0.0),
        )

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every variable but the target, in the user's order."""
        return tuple(name for name in self.variables if name != self.target_variable)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before trusting this answer."""
        return tuple(self.metadata.get("warnings", ()))

    @property
    def method(self) -> str:
        """The name of the surrogate that gave this answer."""
        return str(self.metadata.get("method", "unknown"))

    def marginal_vector(self) -> np.ndarray:
        """Probability of being a parent ``[n_vars]``, in the variables' order, 0 at the target."""
        return np.array([self.marginals.get(name, 0.0) for name in self.variables])

    def probability(self, parents: Iterable[str]) -> float:
        """Probability of one set (0 where it is not listed)."""
        chosen = frozenset(parents)
        for name in chosen:
            check_name(name, self.candidates, "parent")
        return self.posterior_probs.get(chosen, 0.0)

    def top_sets(self, k: int = 5) -> list[tuple[ParentSet, float]]:
        """The `k` most probable sets, ties in the order of the variables."""
        place = {name: i for i, name in enumerate(self.variables)}

        def rank(item: tuple[ParentSet, float]) -> tuple[float, int, list[int]]:
            return -item[1], len(item[0]), sorted(place[name] for name in item[0])

        return sorted(self.posterior_probs.items(), key=rank)[:k]

    def sample(self, key: jax.Array, n: int) -> list[ParentSet]:
        """Draw `n` sets (from the listed ones, renormalised)."""
        ranked = self.top_sets(len(self.posterior_probs))
        cumulative = np.cumsum([p for _, p in ranked])
        draws = np.asarray(jax.random.uniform(key, (n,)), dtype=np.float64) * cumulative[-1]
        return [ranked[i][0] for i in np.searchsorted(cumulative, draws, side="right")]

    def kl(self, other: ParentSetPosterior) -> float:
        """KL(self || other) in nats over the listed sets; `other` is floored at 1e-12."""
        self._require_same_question(other)
        total = 0.0
        for parents, p in self.posterior_probs.items():
            if p > 0:
                total += p * np.log(p / max(other.posterior_probs.get(parents, 0.0), _FLOOR))
        return float(total)

    def total_variation(self, other: ParentSetPosterior) -> float:
        """Half the summed absolute difference: 0 where equal, 1 where disjoint."""
        self._require_same_question(other)
        sets = set(self.posterior_probs) | set(other.posterior_probs)
        gaps = (
            abs(self.posterior_probs.get(s, 0.0) - other.posterior_probs.get(s, 0.0)) for s in sets
        )
        return 0.5 * float(sum(gaps))

    def to_json(self) -> str:
        """One JSON object that `from_json` reads back without loss."""
        return json.dumps(
            {
                "target": self.target_variable,
                "variables": list(self.variables),
                "sets": self.sets_as_records(len(self.posterior_probs)),
                "marginals": {name: self.marginals[name] for name in self.candidates},
                "entropy": self.uncertainty,
                "mass_left_out": self.mass_left_out,
                "metadata": dict(self.metadata),
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> ParentSetPosterior:
        """Read what `to_json` wrote.

        Raises:
            DataError: the text is no such object.
        """
        try:
            data = json.loads(text)
            metadata = {k: tuple(v) if k == "warnings" else v for k, v in data["metadata"].items()}
            return cls(
                target_variable=data["target"],
                posterior_probs=pmap(
                    {frozenset(s["parents"]): s["probability"] for s in data["sets"]}
                ),
                uncertainty=data["entropy"],
                metadata=pmap(metadata),
                variables=tuple(data["variables"]),
                marginals=pmap(data["marginals"]),
                mass_left_out=data["mass_left_out"],
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(f"this is no posterior in JSON: {error!r}") from error

    def sets_as_records(self, k: int) -> list[dict[str, Any]]:
        """The `k` most probable sets as ``{"parents": [names], "probability": p}``."""
        return [
            {"parents": [n for n in self.variables if n in parents], "probability": p}
            for parents, p in self.top_sets(k)
        ]

    def __str__(self) -> str:
        width = max([len("variable"), *(len(name) for name in self.candidates)])
        lines = [
            f"Direct causes of {self.target_variable}  "
            f"(method: {self.method}; entropy {self.uncertainty:.2f} nats)",
            f"  {'variable':<{width}}  probability",
        ]
        by_probability = sorted(self.candidates, key=lambda name: -self.marginals[name])
        for name in by_probability:
            p = self.marginals[name]
            lines.append(f"  {name:<{width}}  {p:6.3f}  {'#' * round(20 * p)}".rstrip())
        lines.append("  most probable sets:")
        for record in self.sets_as_records(5):
            named = ", ".join(record["parents"]) or "no cause among these variables"
            lines.append(f"    {record['probability']:6.3f}  {{{named}}}")
        if self.mass_left_out > 1e-9:
            lines.append(f"    {self.mass_left_out:6.3f}  all sets that are not listed")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _require_same_question(self, other: ParentSetPosterior) -> None:
        if self.target_variable != other.target_variable or set(self.variables) != set(
            other.variables
        ):
            raise DataError(
                f"these posteriors answer different questions: {self.target_variable!r} among "
                f"{list(self.variables)}, and {other.target_variable!r} among "
                f"{list(other.variables)}"
            )


def entropy(probs: np.ndarray) -> float:
    """Entropy of a distribution ``[n]`` in nats, 0 log 0 = 0."""
    positive = probs[probs > 0]
    return max(float(-(positive * np.log(positive)).sum()), 0.0)


def all_subsets(n: int) -> np.ndarray:
    """All subsets of `n` items as bool ``[2^n, n]``; row r has item i where bit i of r is set."""
    return (np.arange(2**n)[:, None] >> np.arange(n)[None, :] & 1).astype(bool)


def _marginals_of(
    probs: PMap[ParentSet, float], variables: tuple[str, ...], target: str
) -> dict[str, float]:
    return {
        name: float(sum(p for parents, p in probs.items() if name in parents))
        for name in variables
        if name != target
    }
