"""ParentSetPosterior: how probable each set of direct causes of the target is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from typing import Any, TypeAlias

import jax
import numpy as np
from pyrsistent import PMap, pmap

from causal_bayes_opt.errors import DataError, check_name

ParentSet: TypeAlias = frozenset[str]

MAX_SETS = 4096
_FLOOR = 1e-12
_MOST_KEPT = 12  # names whose sets are all kept
_ROUNDING = 1e-4  # of probabilities that were computed in float32


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
        # What takes part in checks is a plain mapping: persistent ones are slow to walk.
        probs = {frozenset(s): float(p) for s, p in self.posterior_probs.items()}
        object.__setattr__(self, "posterior_probs", pmap(probs))
        object.__setattr__(self, "metadata", pmap(self.metadata))
        if not self.variables:
            named = sorted({name for parents in probs for name in parents})
            object.__setattr__(self, "variables", (*named, self.target_variable))
        object.__setattr__(self, "variables", tuple(self.variables))
        check_name(self.target_variable, self.variables, "target")
        if len(set(self.variables)) < len(self.variables):
            raise DataError(f"a variable is named more than once in {list(self.variables)}")
        self._require_candidates(frozenset().union(*probs), "a parent set")
        given = dict(self.marginals)
        marginals = given or _marginals_of(probs, self.variables, self.target_variable)
        object.__setattr__(self, "marginals", pmap(marginals))
        self._require_candidates(marginals, "the marginals")
        for name in self.candidates:
            if name not in marginals:
                raise DataError(f"the marginals lack {name!r}")
        self._require_numbers(list(probs.values()), list(marginals.values()))

    def with_metadata(self, **entries: Any) -> ParentSetPosterior:
        """The same posterior with further entries in its metadata; nothing is checked again."""
        other = copy(self)
        object.__setattr__(other, "metadata", self.metadata.update(entries))
        return other

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

        Raises:
            DataError: shapes that do not fit, a set twice or with the target, no possible set.
            UnknownNameError: the target is not among the variables.
        """
        members = np.asarray(members, dtype=bool)
        log_probs = np.asarray(log_probs, dtype=np.float64)
        if members.shape != (*log_probs.shape, len(variables)):
            raise DataError(
                f"members have shape {members.shape} and log-probabilities {log_probs.shape}; "
                f"expected [n_sets, {len(variables)}] and [n_sets]"
            )
        if not log_probs.size or not np.isfinite(log_probs.max()):
            raise DataError(
                "log-probabilities must be numbers or -inf, and at least one must be finite"
            )
        check_name(target, variables, "target")
        if len(set(variables)) < len(variables):
            raise DataError(f"a variable is named more than once in {list(variables)}")
        if members[:, list(variables).index(target)].any():
            raise DataError(f"{target!r} in a parent set is no possible parent of itself")
        probs = np.exp(log_probs - log_probs.max())
        probs = probs / probs.sum()
        marginals = np.minimum(probs @ members, 1.0).tolist()
        order = np.argsort(-probs, kind="stable")[:MAX_SETS]
        sets = dict(zip(_named_sets(members[order], variables), probs[order].tolist(), strict=True))
        if len(sets) < len(order):
            raise DataError("a parent set is listed more than once")
        left_out = 1.0 - sum(sets.values()) if len(probs) > MAX_SETS else 0.0
        of_others = zip(variables, marginals, strict=True)
        return cls._checked(
            target_variable=target,
            posterior_probs=pmap(sets),
            uncertainty=entropy(probs),
            metadata=pmap(dict(metadata or {})),
            variables=tuple(variables),
            marginals=pmap({name: p for name, p in of_others if name != target}),
            mass_left_out=max(left_out, 0.0),
        )

    @classmethod
    def _checked(cls, **fields: Any) -> ParentSetPosterior:
        """A posterior of fields that need no further check, which takes longer than making them."""
        made = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(made, name, value)
        return made

    def with_others(self, marginals: Mapping[str, float], extra: float) -> ParentSetPosterior:
        """The same posterior with variables that are independent of its sets and of each other.

        Args:
            marginals: of those variables, which are in no listed set.
            extra: entropy of their distribution, in nats.
        """
        none = float(np.prod([max(1.0 - p, _FLOOR) for p in marginals.values()]))
        probs = {parents: p * none for parents, p in self.posterior_probs.items()}
        other = copy(self)
        fields = {
            "posterior_probs": pmap(probs),
            "uncertainty": self.uncertainty + extra,
            "marginals": self.marginals.update(marginals),
            "mass_left_out": max(1.0 - sum(probs.values()), 0.0),
        }
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other

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
        """KL(self || other) in nats, never negative; `other` is floored at 1e-12.

        All sets that `self` does not list count as one event, which makes this a lower bound.
        """
        self._require_same_question(other)
        total, elsewhere = 0.0, 1.0
        for parents, p in self.posterior_probs.items():
            q = other.posterior_probs.get(parents, 0.0)
            elsewhere -= q
            if p > 0:
                total += p * np.log(p / max(q, _FLOOR))
        if self.mass_left_out > 0:
            total += self.mass_left_out * np.log(self.mass_left_out / max(elsewhere, _FLOOR))
        return max(float(total), 0.0)

    def total_variation(self, other: ParentSetPosterior) -> float:
        """Half the summed absolute difference: 0 where equal, 1 where disjoint."""
        self._require_same_question(other)
        sets = set(self.posterior_probs) | set(other.posterior_probs)
        gaps = (
            abs(self.posterior_probs.get(s, 0.0) - other.posterior_probs.get(s, 0.0)) for s in sets
        )
        return 0.5 * float(sum(gaps))

    def to_json(self) -> str:
        """One JSON object that `from_json` reads back without loss.

        Metadata come back so where they are JSON's own kinds: NumPy's scalars come back as
        Python's, and tuples as lists but for the warnings.
        """
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
            default=_plain,
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
        except (AttributeError, KeyError, TypeError, ValueError) as error:
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
        if "chosen_because" in self.metadata:
            lines.insert(1, f"  chosen because: {self.metadata['chosen_because']}")
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

    def _require_candidates(self, names: Iterable[str], where: str) -> None:
        unknown = sorted(set(names) - set(self.candidates))
        if unknown:
            raise DataError(
                f"{unknown[0]!r} in {where} is no possible parent of {self.target_variable!r}; "
                f"those are {list(self.candidates)}"
            )

    def _require_numbers(self, probs: list[float], marginals: list[float]) -> None:
        values = np.array([*probs, *marginals, self.uncertainty, self.mass_left_out])
        if not (np.isfinite(values).all() and values.min() >= 0):
            raise DataError("a posterior needs finite, non-negative probabilities and entropy")
        if max(marginals, default=0.0) > 1.0 + _ROUNDING:
            raise DataError(f"a marginal is {max(marginals):.6g}, above 1")
        total = sum(probs) + self.mass_left_out
        if abs(total - 1.0) > _ROUNDING:
            raise DataError(f"probabilities sum to {total:.6g}, not to 1")

    def _require_same_question(self, other: ParentSetPosterior) -> None:
        if self.target_variable != other.target_variable or set(self.variables) != set(
            other.variables
        ):
            raise DataError(
                f"these posteriors answer different questions: {self.target_variable!r} among "
                f"{list(self.variables)}, and {other.target_variable!r} among "
                f"{list(other.variables)}"
            )


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as what JSON knows."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def entropy(probs: np.ndarray) -> float:
    """Entropy of a distribution ``[n]`` in nats, 0 log 0 = 0."""
    positive = probs[probs > 0]
    return max(float(-(positive * np.log(positive)).sum()), 0.0)


def all_subsets(n: int) -> np.ndarray:
    """All subsets of `n` items as bool ``[2^n, n]``; row r has item i where bit i of r is set."""
    return (np.arange(2**n)[:, None] >> np.arange(n)[None, :] & 1).astype(bool)


def _named_sets(members: np.ndarray, variables: Sequence[str]) -> list[ParentSet]:
    """Rows ``[n_sets, n_vars]`` as sets of names; of few names, sets that were made before."""
    used = np.flatnonzero(members.any(axis=0))
    named, members = tuple(variables[i] for i in used.tolist()), members[:, used]
    if len(named) > _MOST_KEPT:
        rows: list[list[bool]] = members.tolist()
        return [frozenset(compress(named, row)) for row in rows]
    made, codes = _all_sets(named), members @ (1 << np.arange(len(named)))
    return [made[code] for code in codes.tolist()]


@lru_cache(maxsize=32)
def _all_sets(names: tuple[str, ...]) -> list[ParentSet]:
    """All sets of names; number r has name i where bit i of r is set."""
    rows: list[list[bool]] = all_subsets(len(names)).tolist()
    return [frozenset(compress(names, row)) for row in rows]


def _marginals_of(
    probs: Mapping[ParentSet, float], variables: tuple[str, ...], target: str
) -> dict[str, float]:
    return {
        name: float(sum(p for parents, p in probs.items() if name in parents))
        for name in variables
        if name != target
    }
