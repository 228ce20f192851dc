"""Experiments of which the target alone was measured: what they say where mechanisms are linear.

Posteriors over causes, and mechanisms, take complete rows. What is left of an experiment in which
the other variables were not measured follows from systems drawn given the complete rows: how likely
each of them makes the outcome. Systems are weighed by that (importance sampling), to a power at
which enough of them count; what the outcomes say beyond that power moves them all by regression
over the systems (the ensemble Kalman filter). Both steps together are the bridge of Frei and Künsch
(Biometrika 100, 2013), here with the weights first, as outcomes tell graphs apart. Posteriors over
causes follow the graphs: by the weights of their systems, or, where a power was needed, by their
evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import numpy as np
from pyrsistent import pmap

from causal_bayes_opt.acquisition.experiments import Experiments
from causal_bayes_opt.acquisition.outcome import (
    Candidates,
    LinearOutcomeModel,
    OnModel,
    OutcomeModel,
    in_units,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import DataError
from causal_bayes_opt.surrogate.posterior import ParentSet, ParentSetPosterior, entropy
from causal_bayes_opt.surrogate.protocol import SystemPosterior

_DRAWN = (8, 32)  # systems for each graph; more where the first do not tell what outcomes say
_FEWEST, _MOST = 64, 512  # graphs
_ROOM = 1 << 15  # edges of all graphs
_COUNT = 1 / 64  # of the systems must count (Kong's effective number), 64 at least
_GRAPHS = 8.0  # that must count
_KEPT = 1 / 16  # of the systems become members of an outcome model, 256 at least
_FARTHEST = 1e9  # standard deviations, of an outcome
_USED = 0.5  # power below which a warning says so


def were_told(buffer: ExperienceBuffer, target: str) -> bool:
    """Whether there are experiments of which the target was measured and something else was not."""
    values, mask = buffer.all_rows()
    t = buffer.get_variable_names().index(target)
    alone = np.isnan(values).any(axis=1) & np.isfinite(values[:, t]) & ~mask[:, t]
    return bool(alone.any())


def n_graphs(n_vars: int) -> int:
    """How many graphs to draw."""
    return int(np.clip(_ROOM // n_vars**2, _FEWEST, _MOST))


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
        of_graphs: weights of the graphs, 1 on average ``[n_graphs]``: sums of the systems' at power
            1; else by their evidence, for which outcomes of a graph's systems are taken for normal.
        power_of_graphs: of that evidence, likewise.
    """

    model: LinearOutcomeModel
    told: Experiments
    expected: np.ndarray
    variances: np.ndarray
    weights: np.ndarray
    power: float
    of_graphs: np.ndarray
    power_of_graphs: float

    @classmethod
    def draw(
        cls, buffer: ExperienceBuffer, graphs: np.ndarray, target: str, key: jax.Array
    ) -> WeighedSystems:
        """Draw systems for graphs, bool ``[n_graphs, n_vars, n_vars]``, and weigh them.

        Raises:
            DataError: an outcome is out of all proportion to the observed rows.
        """
        told = Experiments.of(buffer, target, Scaling.of(buffer), alone=True)
        farthest = np.abs(told.means).max()
        if not farthest <= _FARTHEST:
            raise DataError(
                f"an outcome of {target!r} lies {farthest:.3g} standard deviations from the "
                f"observed mean; at most {_FARTHEST:g} are taken; check its units"
            )
        for each in _DRAWN:
            model = LinearOutcomeModel.fit(buffer, graphs.repeat(each, axis=0), key)
            expected, variances = model.outcomes(target, told.candidates)
            variances = variances / told.counts[:, None]
            surprise = (told.means[:, None] - expected) ** 2 / variances
            log_likelihood = -0.5 * (surprise + np.log(variances)).sum(axis=0)
            weights, power = _enough(log_likelihood, max(_COUNT * len(log_likelihood), 64.0))
            if power == 1.0:
                break
        of_graphs, least = weights.reshape(len(graphs), each).sum(axis=1), 1.0
        if power < 1.0:
            evidence = _log_evidence(told.means, expected, variances, each)
            of_graphs, least = _enough(evidence, _GRAPHS)
        of_graphs = of_graphs * len(graphs)
        return cls(model, told, expected, variances, weights, power, of_graphs, least)

    def outcome_model(self, rng: np.random.Generator) -> OutcomeModel:
        """The systems as members alike, each as often as its weight says."""
        n = max(int(_KEPT * len(self.weights)), 256)
        steps = (np.arange(n) + rng.random()) / n
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
        covariance = spread @ spread.T / (n - 1) + np.diag(left)
        moved = np.linalg.solve(covariance, told.means[:, None] + luck - expected)
        return MovedOutcomeModel(model, np.eye(n) + spread.T @ moved / (n - 1))


@dataclass(frozen=True)
class MovedOutcomeModel(OnModel):
    """Members that regression over all of them has moved towards outcomes.

    A member's expected outcome is a sum of those of all, which for what has been tried is near to
    what came out; as theirs are linear in the values set, so is it.

    Attributes:
        model: the members before.
        shares: of each in each of those after ``[n_members, n_members]``.
    """

    model: LinearOutcomeModel
    shares: np.ndarray

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
    posteriors: Mapping[str, ParentSetPosterior],
    graphs: np.ndarray,
    weights: np.ndarray,
    power: float = 1.0,
) -> SystemPosterior:
    """Posteriors of all variables by the weights of the graphs that were drawn from them.

    A set gains by the mean weight of the graphs that hold it, one graph of weight 1 added. A set
    that was not drawn loses like those of its members' edges that loses most.

    Args:
        posteriors: before.
        graphs: bool ``[n_graphs, n_vars, n_vars]``.
        weights: of these graphs, 1 on average ``[n_graphs]``.
        power: of the likelihood that gave them; far below 1, a warning says so.
    """
    names, warnings = tuple(posteriors), list[str]()
    if power < _USED:
        warnings.append(
            "outcomes of the target alone say more of the causes than was taken from them "
            f"(likelihood to the power {power:.2g})"
        )

    def make(name: str) -> ParentSetPosterior:
        drawn = graphs[:, :, names.index(name)]
        sets, of_graph = np.unique(drawn, axis=0, return_inverse=True)
        factors = _gains(np.bincount(of_graph.ravel(), weights), np.bincount(of_graph.ravel()))
        edges = _gains(weights @ drawn, drawn.sum(axis=0))
        of_edge: dict[str, float] = dict(zip(names, np.minimum(edges, 1.0).tolist(), strict=True))
        of_set: dict[ParentSet, float] = {
            frozenset(names[i] for i in np.flatnonzero(own)): factor
            for own, factor in zip(sets, factors.tolist(), strict=True)
        }

        def gain(parents: ParentSet) -> float:
            if parents in of_set:
                return of_set[parents]
            return min((of_edge[parent] for parent in parents), default=1.0)

        before = posteriors[name]
        after = _by_factors(before, gain)
        return after.with_metadata(warnings=(*before.warnings, *warnings), power=power)

    return SystemPosterior(names, make)


def _gains(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean weights, one of 1 added to each."""
    return np.asarray((sums + 1.0) / (counts + 1.0))


def _by_factors(
    before: ParentSetPosterior, gain: Callable[[ParentSet], float]
) -> ParentSetPosterior:
    """A posterior with the probabilities of its listed sets times factors, normalised."""
    listed = dict(before.posterior_probs)
    raised = {parents: p * gain(parents) for parents, p in listed.items()}
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


def _log_evidence(
    told: np.ndarray, expected: np.ndarray, variances: np.ndarray, each: int
) -> np.ndarray:
    """Log-density of outcomes ``[n]`` under each graph, without its constant ``[n_graphs]``.

    Normal, with mean and covariance over the graph's systems; by the matrix inversion lemma.

    Args:
        told: outcomes ``[n]``.
        expected: of all systems ``[n, n_graphs * each]``.
        variances: of the outcomes, likewise.
        each: systems a graph, side by side.
    """
    n = len(told)
    means, within = (np.moveaxis(a.reshape(n, -1, each), 0, 1) for a in (expected, variances))
    noise, centre = within.mean(axis=2), means.mean(axis=2)  # [n_graphs, n]
    spread = (means - centre[..., None]) / np.sqrt((each - 1) * noise)[..., None]
    error = (told - centre) / np.sqrt(noise)
    inner = np.eye(each) + np.swapaxes(spread, 1, 2) @ spread
    shared = (np.swapaxes(spread, 1, 2) @ error[..., None])[..., 0]
    explained = (shared * np.linalg.solve(inner, shared[..., None])[..., 0]).sum(axis=1)
    log_det = np.log(noise).sum(axis=1) + np.linalg.slogdet(inner)[1]
    return np.asarray(-0.5 * ((error**2).sum(axis=1) - explained + log_det))


def _enough(log_likelihood: np.ndarray, enough: float) -> tuple[np.ndarray, float]:
    """Weights ``[n]`` by the largest power at which so many of them count, and that power."""

    def by(power: float) -> np.ndarray:
        weights = np.exp(power * (log_likelihood - log_likelihood.max()))
        return np.asarray(weights / weights.sum())

    def counting(power: float) -> float:
        return 1.0 / float((by(power) ** 2).sum())

    if counting(1.0) >= enough:
        return by(1.0), 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if counting(middle) >= enough else (low, middle)
    return by(low), low
