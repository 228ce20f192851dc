"""The outcome model: what the target becomes when some variables are set.

An ensemble of linear systems. Each member has a graph drawn from the posteriors of all variables
and coefficients drawn from their conjugate posterior given that graph, so that its spread is what
is not known about graph and coefficients together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import GraphError

_SLAB = 4.0  # prior variance of a coefficient, in units of the residual variance
_SHAPE, _RATE = 1.0, 0.25  # inverse-gamma prior of a residual variance of standardised data


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
        """Draw one linear system for each graph ``[n_members, n_vars, n_vars]``.

        A row informs the coefficients of every variable that was not set in it.
        """
        scaling = Scaling.of(buffer)
        values, mask = buffer.rows()
        values = scaling.apply(values)
        n, d = graphs.shape[:2]
        weights, bias, noise = np.zeros((n, d, d)), np.zeros((n, d)), np.ones((n, d))
        # NumPy's generator, seeded by the key: JAX would compile for every new shape.
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        normals = rng.normal(size=(d, n, d + 1))
        chi = rng.gamma((_SHAPE + 0.5 * (~mask).sum(axis=0))[:, None], size=(d, n))
        for node in range(d):
            free = ~mask[:, node]
            design = np.column_stack([np.ones(int(free.sum())), values[free]])
            gram, moment = design.T @ design, design.T @ values[free, node]
            square = float(values[free, node] @ values[free, node])
            sets, which = np.unique(graphs[:, :, node], axis=0, return_inverse=True)
            for index, parents in enumerate(sets):
                members = np.flatnonzero(which.ravel() == index)
                columns = np.flatnonzero(np.append(True, parents))
                mean, root, rate = _conjugate(gram, moment, square, columns)
                variance = rate / chi[node, members]
                unit = normals[node, members][:, : len(columns)]
                drawn = mean + np.sqrt(variance)[:, None] * (unit @ root.T)
                bias[members, node] = drawn[:, 0]
                weights[members[:, None], columns[1:] - 1, node] = drawn[:, 1:]
                noise[members, node] = variance
        # Total effects: (I - W)^-1, whose series ends because the graphs are acyclic.
        total = np.linalg.inv(np.eye(d) - weights)
        base = np.einsum("mi,mij->mj", bias, total)
        return cls(tuple(buffer.get_variable_names()), scaling, total, base, noise)

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

    def effects(self, target: int, subset: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """What setting a subset does to the target, in standardised units.

        Returns:
            slopes ``[n_members, len(subset)]``: of the target in each set variable while the others
            are held; and the variance ``[n_members]`` that is left in the target.
        """
        chosen = list(subset)
        block = self.total[:, chosen][:, :, chosen]
        to_target = self.total[:, chosen, target]
        # A total effect passes through the set variables: T_St = T_SS theta.
        slopes = np.linalg.solve(block, to_target[..., None])[..., 0]
        paths = self.total[:, :, target] - np.einsum("mik,mk->mi", self.total[:, :, chosen], slopes)
        paths[:, chosen] = 0.0
        return slopes, np.einsum("mi,mi->m", paths**2, self.noise)

    def predict(self, target: str, intervention: dict[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome.

        In the user's units.
        """
        t = self.variables.index(target)
        chosen = [self.variables.index(name) for name in intervention]
        means, variance = self.base[:, t], np.einsum(
            "mi,mi->m", self.total[:, :, t] ** 2, self.noise
        )
        if chosen:
            slopes, variance = self.effects(t, chosen)
            scale = self.scaling
            values = np.array(list(intervention.values()))
            unit = (values - scale.means[chosen]) / scale.stds[chosen]
            means = means + np.einsum("mk,mk->m", slopes, unit - self.base[:, chosen])
        spread = means.std()
        std = self.scaling.stds[t]
        return (
            float(means.mean() * std + self.scaling.means[t]),
            float(spread * std),
            float(np.sqrt(spread**2 + variance.mean()) * std),
        )


def _conjugate(
    gram: np.ndarray, moment: np.ndarray, square: float, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Normal-inverse-gamma posterior: mean, root of the scale matrix, rate of the variance."""
    precision = gram[np.ix_(columns, columns)] + np.eye(len(columns)) / _SLAB
    lower = np.linalg.cholesky(precision)
    half = np.linalg.solve(lower, moment[columns])
    mean = np.linalg.solve(lower.T, half)
    root = np.linalg.inv(lower).T
    rate = _RATE + 0.5 * max(square - float(half @ half), 1e-9)
    return mean, root, rate
