"""Experiments of which the target alone was measured: what they say where mechanisms are linear.

Posteriors over causes, and mechanisms, take complete rows. What is left of an experiment in which
the other variables were not measured follows from systems drawn given the complete rows: how likely
each of them makes the outcome. Systems are weighed by that (importance sampling), to a power at
which enough of them count; what the outcomes say beyond that power moves them all by regression
over the systems (the ensemble Kalman filter). Both steps together are the bridge of Frei and Künsch
(Biometrika 100, 2013), here with the weights first, as outcomes tell graphs apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np
from pyrsistent import pmap

from causal_bayes_opt.acquisition.experiments import Experiments
from causal_bayes_opt.acquisition.outcome import (
    Candidates,
    LinearOutcomeModel,
    OutcomeModel,
    in_units,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.surrogate.posterior import ParentSet, ParentSetPosterior, entropy
from causal_bayes_opt.surrogate.protocol import SystemPosterior

_DRAWN = 8  # systems for each graph
_FEWEST, _MOST = 256, 4096  # systems
_ROOM = 1 << 18  # total effects of all systems
_COUNT = 64  # systems that must count (Kong's effective number)
_KEPT = 256  # members of an outcome model


def were_told(buffer: ExperienceBuffer, target: str) -> bool:
    """Whether there are experiments of which the target was measured and something else was not."""
    values, mask = buffer.all_rows()
    t = buffer.get_variable_names().index(target)
    alone = np.isnan(values).any(axis=1) & np.isfinite(values[:, t]) & ~mask[:, t]
    return bool(alone.any())


def n_graphs(n_vars: int) -> int:
    """How many graphs to draw, so that enough systems of them agree with the outcomes."""
    return int(np.clip(_ROOM // n_vars**2, _FEWEST, _MOST)) // _DRAWN


@dataclass(frozen=True)
class WeighedSystems:
    """Linear systems drawn given the complete rows, and what the target's outcomes say of them.

    Attributes:
        model: the systems, some for each graph side by side.
        told: the outcomes.
        expected: means of the target in each experiment ``[n_experiments, n_members]``.
        variances: of its average outcome there, likewise.
        weights: of the systems, by the outcomes' likelihood to the power ``[n_members]``.
        power: 1 where enough systems count by the likelihood itself; else below.
    """

    model: LinearOutcomeModel
    told: Experiments
    expected: np.ndarray
    variances: np.ndarray
    weights: np.ndarray
    power: float

    @classmethod
    def draw(
        cls, buffer: ExperienceBuffer, graphs: np.ndarray, target: str, key: jax.Array
    ) -> WeighedSystems:
        """Draw systems for graphs, bool ``[n_graphs, n_vars, n_vars]``, and weigh them."""
        told = Experiments.of(buffer, target, Scaling.of(buffer), alone=True)
        model = LinearOutcomeModel.fit(buffer, graphs.repeat(_DRAWN, axis=0), key)
        expected, variances = model.outcomes(target, told.candidates)
        variances = variances / told.counts[:, None]
        surprise = (told.means[:, None] - expected) ** 2 / variances
        log_likelihood = -0.5 * (surprise + np.log(variances)).sum(axis=0)
        weights, power = _enough(log_likelihood)
        return cls(model, told, expected, variances, weights, power)

    def of_graphs(self) -> np.ndarray:
        """Weights of the graphs, 1 on average ``[n_graphs]``."""
        by_graph = self.weights.reshape(-1, _DRAWN).sum(axis=1)
        return np.asarray(by_graph * len(by_graph))

    def outcome_model(self, rng: np.random.Generator) -> OutcomeModel:
        """The systems as members alike, each as often as its weight says."""
        steps = (np.arange(_KEPT) + rng.random()) / _KEPT
        place = np.searchsorted(np.cumsum(self.weights), steps * self.weights.sum())
        kept = np.minimum(place, len(self.weights) - 1)
        model, told = self.model, self.told
        model = replace(
            model, total=model.total[kept], base=model.base[kept], noise=model.noise[kept]
        )
        if self.power == 1.0:
            return model
        expected = self.expected[:, kept]
        left = self.variances[:, kept].mean(axis=1) / (1.0 - self.power)
        luck = rng.normal(size=expected.shape)
        luck = (luck - luck.mean(axis=1, keepdims=True)) * np.sqrt(left)[:, None]
        spread = expected - expected.mean(axis=1, keepdims=True)
        covariance = spread @ spread.T / (_KEPT - 1) + np.diag(left)
        moved = np.linalg.solve(covariance, told.means[:, None] + luck - expected)
        shared = spread.T @ moved / (_KEPT - 1)
        return MovedOutcomeModel(model, np.eye(_KEPT) + shared - shared.mean(axis=0))


@dataclass(frozen=True)
class MovedOutcomeModel:
    """Members that regression over all of them has moved towards outcomes.

    A member's expected outcome is a sum of those of all, which for what has been tried is near to
    what came out; as theirs are linear in the values set, so is it.

    Attributes:
        model: the members before.
        shares: of each in each of those after ``[n_members, n_members]``.
    """

    model: LinearOutcomeModel
    shares: np.ndarray

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
        """True: expected outcomes are linear in the values set."""
        return True

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, n_members]``, in standardised units of the target."""
        return np.asarray(self.model.means(target, candidates) @ self.shares)

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome."""
        asked = Candidates.of([intervention], self.variables)
        means, variances = self.model.outcomes(target, asked)
        within, t = float(variances.mean()), self.variables.index(target)
        return in_units(means[0] @ self.shares, within, self.scaling, t)


def reweighed(
    posteriors: Mapping[str, ParentSetPosterior], graphs: np.ndarray, weights: np.ndarray
) -> SystemPosterior:
    """Posteriors of all variables, whose graphs were drawn from them, by the graphs' weights.

    A set gains by the mean weight of the graphs that hold it, one graph of weight 1 added; a set in
    none of the graphs stays as probable as it was.

    Args:
        posteriors: before.
        graphs: bool ``[n_graphs, n_vars, n_vars]``.
        weights: 1 on average ``[n_graphs]``.
    """
    names = tuple(posteriors)

    def make(name: str) -> ParentSetPosterior:
        sums: dict[ParentSet, float] = {}
        held: dict[ParentSet, int] = {}
        for own, weight in zip(graphs[:, :, names.index(name)], weights.tolist(), strict=True):
            parents = frozenset(names[i] for i in np.flatnonzero(own))
            sums[parents] = sums.get(parents, 0.0) + weight
            held[parents] = held.get(parents, 0) + 1
        return _by_factors(posteriors[name], {s: (sums[s] + 1.0) / (held[s] + 1.0) for s in sums})

    return SystemPosterior(names, make)


def _by_factors(
    before: ParentSetPosterior, factors: Mapping[ParentSet, float]
) -> ParentSetPosterior:
    """A posterior with the probabilities of its listed sets times factors, normalised."""
    listed = dict(before.posterior_probs)
    raised = {parents: p * factors.get(parents, 1.0) for parents, p in listed.items()}
    scale = 1.0 / (sum(raised.values()) + before.mass_left_out)
    probs = {parents: p * scale for parents, p in raised.items()}
    marginals = {}
    for name, marginal in before.marginals.items():
        holding = [parents for parents in listed if name in parents]
        others = max(marginal - sum(listed[parents] for parents in holding), 0.0)
        now = sum(probs[parents] for parents in holding) + others * scale
        marginals[name] = min(now, 1.0)
    # Of the sets that are not listed: the sum of -q log q, where each q is `scale` times its own.
    of_others = max(before.uncertainty - entropy(np.array(list(listed.values()))), 0.0)
    of_others = scale * (of_others - before.mass_left_out * np.log(scale))
    return replace(
        before,
        posterior_probs=pmap(probs),
        uncertainty=entropy(np.array(list(probs.values()))) + max(float(of_others), 0.0),
        marginals=pmap(marginals),
        mass_left_out=before.mass_left_out * scale,
    )


def _enough(log_likelihood: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights ``[n]`` by the largest power at which enough of them count, and that power."""

    def by(power: float) -> np.ndarray:
        weights = np.exp(power * (log_likelihood - log_likelihood.max()))
        return np.asarray(weights / weights.sum())

    def counting(power: float) -> float:
        return 1.0 / float((by(power) ** 2).sum())

    if counting(1.0) >= _COUNT:
        return by(1.0), 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if counting(middle) >= _COUNT else (low, middle)
    return by(low), low
