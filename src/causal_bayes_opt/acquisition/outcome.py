"""Outcome models: what the target becomes when some variables are set.

An outcome model is an ensemble of systems. Each member has a graph drawn from the posteriors of all
variables, and mechanisms drawn from their posteriors given that graph and all rows, so that the
spread of the members is what is not known about graph and mechanisms together. How an unset parent
responds to what is set follows from the member's own graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.acquisition import linear_mechanisms
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.padding import bucket, double, pad
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import GraphError


class Candidates(NamedTuple):
    """Interventions as arrays; those that set fewer variables are padded."""

    columns: np.ndarray  # int [n, n_slots], positions of the variables set; 0 where padded
    there: np.ndarray  # bool [n, n_slots]
    values: np.ndarray  # [n, n_slots], in the user's units

    @classmethod
    def of(
        cls, interventions: Sequence[Mapping[str, float]], variables: Sequence[str]
    ) -> Candidates:
        """Turn named interventions into arrays."""
        n, k = len(interventions), max((len(i) for i in interventions), default=0)
        columns, there = np.zeros((n, k), dtype=int), np.zeros((n, k), dtype=bool)
        values = np.zeros((n, k))
        for row, intervention in enumerate(interventions):
            for slot, (name, value) in enumerate(intervention.items()):
                columns[row, slot] = list(variables).index(name)
                there[row, slot], values[row, slot] = True, value
        return cls(columns, there, values)

    @classmethod
    def of_rows(cls, values: np.ndarray, is_set: np.ndarray) -> Candidates:
        """Turn rows ``[n, n_vars]`` of values and of what is set into arrays."""
        columns = np.argsort(~is_set, axis=1, kind="stable")[:, : is_set.sum(axis=1).max(initial=0)]
        there = np.take_along_axis(is_set, columns, axis=1)
        chosen = np.where(there, np.take_along_axis(values, columns, axis=1), 0.0)
        return cls(np.where(there, columns, 0), there, chosen)

    def named(self, row: int, variables: Sequence[str]) -> dict[str, float]:
        """One of them as a mapping, in the variables' order."""
        listed = sorted(
            (int(column), float(value))
            for column, there, value in zip(*(a[row] for a in self), strict=True)
            if there
        )
        return {variables[column]: value for column, value in listed}

    def spread(self, values: np.ndarray, n_vars: int) -> tuple[np.ndarray, np.ndarray]:
        """What each sets, bool ``[n, n_vars]``, and values ``[n, n_slots]`` there, 0 elsewhere."""
        row, slot = np.nonzero(self.there)
        column = self.columns[row, slot]
        is_set, level = np.zeros((len(self.columns), n_vars), bool), np.zeros((len(values), n_vars))
        is_set[row, column], level[row, column] = True, values[row, slot]
        return is_set, level

    def standardised(self, scaling: Scaling) -> np.ndarray:
        """The values in standardised units, 0 where padded."""
        unit = (self.values - scaling.means[self.columns]) / scaling.stds[self.columns]
        return np.where(self.there, unit, 0.0)


class OutcomeModel(Protocol):
    """What policies ask: expected outcomes of many interventions under every member."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names, in order."""
        ...

    @property
    def scaling(self) -> Scaling:
        """What is between the user's units and standardised ones."""
        ...

    @property
    def corners_suffice(self) -> bool:
        """Whether expected outcomes are linear in the values set, so that ends of ranges win."""
        ...

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, n_members]``, in standardised units of the target."""
        ...

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome.

        In the user's units.
        """
        ...


class OnModel:
    """What an outcome model that stands on another has from it.

    Attributes:
        model: the other.
    """

    model: OutcomeModel

    @property
    def variables(self) -> tuple[str, ...]:
        """The names, in order."""
        return self.model.variables

    @property
    def scaling(self) -> Scaling:
        """What is between the user's units and standardised ones."""
        return self.model.scaling

    @property
    def corners_suffice(self) -> bool:
        """Whether expected outcomes are linear in the values set: as they are in the other."""
        return self.model.corners_suffice


@dataclass(frozen=True)
class LinearOutcomeModel:
    """Linear systems ``[n_members]`` in standardised units.

    Attributes:
        variables: names, in order.
        scaling: of the observational rows.
        total: total effects ``[n_members, n_vars, n_vars]``, of i on j at [i, j]; 1 for i = j.
        base: observational means ``[n_members, n_vars]``.
        noise: residual variances ``[n_members, n_vars]``.
    """

    variables: tuple[str, ...]
    scaling: Scaling
    total: np.ndarray
    base: np.ndarray
    noise: np.ndarray

    @classmethod
    def fit(
        cls, buffer: ExperienceBuffer, graphs: np.ndarray, key: jax.Array
    ) -> LinearOutcomeModel:
        """Draw one linear system for each graph, bool ``[n_members, n_vars, n_vars]``.

        A row informs the coefficients of every variable that was not set in it.
        """
        scaling = Scaling.of(buffer)
        values, mask = buffer.rows()
        n, d = graphs.shape[:2]
        room, rows = bucket(d, 4), bucket(len(values), 64)
        slots = bucket(max(int(graphs.sum(axis=1).max(initial=0)), 1), 2)
        parents = linear_mechanisms.parent_columns(pad(graphs, n, room, room), slots)
        free = pad((~mask).sum(axis=0), room)
        # In an order that padding does not change.
        rng = keys.generator(key)
        normals = pad(rng.normal(size=(slots + 1, d, n)).T, n, room)
        shape = linear_mechanisms.SHAPE + 0.5 * free
        gammas = rng.gamma(shape[:d, None], size=(d, n)).T
        with double():
            drawn = _fitted(
                pad(scaling.apply(values), rows, room),
                pad(mask, rows, room),
                np.arange(rows) < len(values),
                parents,
                normals,
                pad(gammas, n, room, fill=1.0),
            )
        total, base, noise = (np.asarray(leaf) for leaf in drawn)
        kept = cls(
            tuple(buffer.get_variable_names()),
            scaling,
            total[:, :d, :d],
            base[:, :d],
            noise[:, :d],
        )
        return kept

    @classmethod
    def of_system(cls, scm: SCM) -> LinearOutcomeModel:
        """The one member that is a known linear system itself, in its own units.

        Raises:
            GraphError: a mechanism is not linear.
        """
        d = len(scm.variables)
        index = {name: i for i, name in enumerate(scm.variables)}
        weights, bias, noise = np.zeros((1, d, d)), np.zeros((1, d)), np.zeros((1, d))
        for name, j in index.items():
            mechanism = scm.mechanism(name)
            if mechanism.function is not None or mechanism.activations:
                raise GraphError(f"the mechanism of {name!r} is not linear")
            weights[0, [index[parent] for parent in mechanism.parents], j] = mechanism.weights
            bias[0, j], noise[0, j] = mechanism.bias, mechanism.noise.scale**2
        total = np.linalg.inv(np.eye(d) - weights)
        base = np.einsum("mi,mij->mj", bias, total)
        return cls(scm.variables, Scaling(np.zeros(d), np.ones(d)), total, base, noise)

    @property
    def corners_suffice(self) -> bool:
        """True: expected outcomes are linear in the values set."""
        return True

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, n_members]``, in standardised units of the target."""
        n, t = len(candidates.columns), self.variables.index(target)
        # Many candidates set the same variables, and slopes depend on nothing else.
        kinds, kind = _distinct(np.where(candidates.there, candidates.columns, -1))
        rows, few, slots = bucket(n, 64), bucket(len(kinds), 16), max(kinds.shape[1], 1)
        slots = slots if slots <= 3 else bucket(slots, 4)  # few sizes: each is compiled
        m, d = len(self.total), bucket(len(self.variables), 4)
        with double():
            found = _linear_means(
                pad(self.total, m, d, d),
                pad(self.base, m, d),
                t,
                pad(np.maximum(kinds, 0), few, slots),
                pad(kinds >= 0, few, slots),
                pad(kind, rows),
                pad(candidates.standardised(self.scaling), rows, slots),
            )
        return np.asarray(found)[:n]

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome.

        In the user's units.
        """
        t = self.variables.index(target)
        chosen = [self.variables.index(name) for name in intervention]
        levels = np.array(list(intervention.values()), dtype=np.float64)
        unit = (levels - self.scaling.means[chosen]) / self.scaling.stds[chosen]
        means, variances = self._held(t, chosen, unit[None])
        return in_units(means[0], float(variances.mean()), self.scaling, t)

    def outcomes(self, target: str, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """What `means` gives, and the variance of one outcome, ``[n_candidates, n_members]``."""
        t, unit = self.variables.index(target), candidates.standardised(self.scaling)
        means, variances = np.empty((2, len(unit), len(self.total)))
        kinds, kind = _distinct(np.where(candidates.there, candidates.columns, -1))
        for number, columns in enumerate(kinds):
            own, there = kind == number, columns >= 0
            means[own], variances[own] = self._held(t, columns[there].tolist(), unit[own][:, there])
        return means, variances

    def _held(self, t: int, chosen: list[int], unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means ``[n, n_members]`` and variance ``[n_members]`` of one variable, others held.

        Args:
            t: the variable.
            chosen: those that are held.
            unit: at which levels ``[n, n_chosen]``.
        """
        block = self.total[:, chosen][:, :, chosen]
        slopes = np.linalg.solve(block, self.total[:, chosen, t][..., None])[..., 0]
        start = self.base[:, t] - (slopes * self.base[:, chosen]).sum(axis=1)
        paths = self.total[:, :, t] - np.einsum("mik,mk->mi", self.total[:, :, chosen], slopes)
        paths[:, chosen] = 0.0
        return start + unit @ slopes.T, np.einsum("mi,mi->m", paths**2, self.noise)


def in_units(
    means: np.ndarray, within: float, scaling: Scaling, target: int
) -> tuple[float, float, float]:
    """What `OutcomeModel.predict` gives, from members' means and the variance of one outcome."""
    std = scaling.stds[target]
    return (
        float(means.mean() * std + scaling.means[target]),
        float(means.std() * std),
        float(np.sqrt(means.var() + within) * std),
    )


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of small integers from -1 on, and which of them each row is."""
    base = rows.max(initial=0) + 2
    if rows.shape[1] * np.log2(base) >= 62:
        distinct, which = np.unique(rows, axis=0, return_inverse=True)
        return distinct, which.ravel()
    # A row as one number: numbers are sorted faster than rows.
    numbers = (rows + 1) @ base ** np.arange(rows.shape[1])[::-1]
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    return rows[first], which


@jax.jit
def _fitted(
    values: jax.Array,
    mask: jax.Array,
    is_row: jax.Array,
    parents: linear_mechanisms.ParentColumns,
    normals: jax.Array,
    gammas: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Total effects, observational means and residual variances of one system a graph."""
    found = linear_mechanisms.fit(linear_mechanisms.moments(values, mask, is_row), parents)
    systems = linear_mechanisms.draw(found, normals, gammas)
    total = linear_mechanisms.total_effects(systems.weights)
    return total, jnp.einsum("mi,mij->mj", systems.bias, total), systems.noise


@jax.jit
def _linear_means(
    total: jax.Array,
    base: jax.Array,
    target: jax.Array,
    columns: jax.Array,
    there: jax.Array,
    kind: jax.Array,
    values: jax.Array,
) -> jax.Array:
    """``[n, n_members]``: base_t + theta . (x - base_S), where T_SS theta = T_St.

    The variables set are listed once for each kind of candidate, ``[n_kinds, n_slots]``. A total
    effect passes through the other variables that are set; T_SS is 1 plus a matrix whose powers
    end, so that the series for its inverse is exact. Members come last: the long axis is the one
    that is contiguous.
    """
    n_slots = columns.shape[1]
    effects, means = jnp.moveaxis(total, 0, -1), base.T
    others = there[:, :, None] & there[:, None, :] & ~jnp.eye(n_slots, dtype=bool)
    among = effects[columns[:, :, None], columns[:, None, :]]
    among = jnp.where(others[..., None], among, 0.0)  # T_SS - 1
    slopes = term = jnp.where(there[..., None], effects[columns, target], 0.0)
    for _ in range(n_slots - 1):
        term = -(among * term[:, None]).sum(axis=2)
        slopes = slopes + term
    found = (means[target] - (slopes * means[columns]).sum(axis=1))[kind]
    for slot in range(n_slots):
        found = found + slopes[:, slot][kind] * values[:, slot, None]
    return found
