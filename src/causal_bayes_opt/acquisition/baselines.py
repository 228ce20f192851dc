"""Policies to compare with: chance, chance among likely parents, and one that knows the system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel, OutcomeModel
from causal_bayes_opt.acquisition.policy import Policy, Suggestion
from causal_bayes_opt.acquisition.search import MAX_TARGETS, like_failed, search
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.graphs import topological_order
from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import UnknownNameError

_ROWS = 256
_DRAWS = 20  # until one is not like an experiment that failed


def random_choice(state: AcquisitionState, key: jax.Array) -> Suggestion:
    """A random non-empty subset of up to three settable variables, at uniform values."""
    rng = keys.generator(key)
    names = list(state.problem.may_set)
    size = int(rng.integers(1, min(len(names), state.at_most(MAX_TARGETS)) + 1))
    chosen = rng.choice(len(names), size=size, replace=False)
    return _at_random(
        state, [names[i] for i in sorted(chosen)], rng, "random choice of variables and values"
    )


def random_over_parents(state: AcquisitionState, key: jax.Array) -> Suggestion:
    """A parent set drawn from the posterior, at uniform values.

    Members that may not be set are left out; where none is left, a random settable variable.
    """
    rng = keys.generator(key)
    listed = state.posterior.top_sets(256)
    probs = np.array([p for _, p in listed])
    drawn = listed[int(rng.choice(len(listed), p=probs / probs.sum()))][0]
    names = [name for name in state.problem.may_set if name in drawn]
    names = names[: state.at_most(MAX_TARGETS)]
    if not names:
        names = [str(rng.choice(state.problem.may_set))]
    return _at_random(state, names, rng, "likely parents at random values")


def oracle(scm: SCM, *, max_targets: int = MAX_TARGETS) -> Policy:
    """The best intervention for a known system, on up to `max_targets` variables.

    Exact for linear systems of up to thirteen variables; for others by simulation and one search,
    which may end in a local optimum: another key searches elsewhere.
    """
    model: OutcomeModel
    if all(m.function is None and not m.activations for m in scm.mechanisms.values()):
        model = LinearOutcomeModel.of_system(scm)
    else:
        model = KnownSystem.of(scm)

    def policy(state: AcquisitionState, key: jax.Array) -> Suggestion:
        found = search(
            state, model, lambda means: -means[:, 0], key, max_targets, listed=max_targets
        )
        values = found.candidates.named(int(found.scores.argmax()), model.variables)
        mean, _, std = model.predict(state.problem.target, values)
        cost = state.problem.cost(values)
        return Suggestion(make_intervention(values), mean, std, cost, "knows the system")

    return policy


@dataclass(frozen=True)
class KnownSystem:
    """An outcome model of one member that simulates a known system, always with the same noise.

    Attributes:
        scm: the system.
        variables: its names, causes first or not.
        scaling: none: it answers in the system's own units.
        noise: what its mechanisms leave over in simulated rows ``[n_rows, n_vars]``.
    """

    scm: SCM
    variables: tuple[str, ...]
    scaling: Scaling
    noise: np.ndarray

    @classmethod
    def of(cls, scm: SCM) -> KnownSystem:
        """Wrap a system."""
        d, rows = len(scm.variables), sample(scm, _ROWS, seed=0)
        noise = [
            rows[name].to_numpy()
            - scm.mechanism(name).mean(rows[list(scm.mechanism(name).parents)].values)
            for name in scm.variables
        ]
        none = Scaling(np.zeros(d), np.ones(d))
        return cls(scm, scm.variables, none, np.stack(noise, axis=1))

    @property
    def corners_suffice(self) -> bool:
        """False: nothing is known about the shape of its outcomes."""
        return False

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, 1]``."""
        return np.asarray(self._levels(target, candidates).mean(axis=1)[:, None])

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, 0, and the standard deviation of one outcome."""
        levels = self._levels(target, Candidates.of([intervention], self.variables))[0]
        noise = self.noise[:, self.variables.index(target)]
        return float(levels.mean()), 0.0, float((levels + noise).std())

    def _levels(self, target: str, candidates: Candidates) -> np.ndarray:
        """The target's mechanism under each candidate and noise ``[n_candidates, n_rows]``."""
        n, rows = len(candidates.columns), len(self.noise)
        place = {name: i for i, name in enumerate(self.variables)}
        values: dict[str, np.ndarray] = {}
        for i in topological_order(self.scm.adjacency()):
            name = self.variables[i]
            parents = [values[parent].ravel() for parent in self.scm.mechanism(name).parents]
            inputs = np.stack(parents, axis=-1) if parents else np.zeros((n * rows, 0))
            mean = np.asarray(self.scm.mechanism(name).mean(inputs)).reshape(n, rows)
            if name == target:
                return mean
            is_set = candidates.there & (candidates.columns == place[name])
            level = np.where(is_set, candidates.values, 0.0).sum(axis=1)
            free = mean + self.noise[:, place[name]]
            values[name] = np.where(is_set.any(axis=1)[:, None], level[:, None], free)
        raise UnknownNameError(f"no variable is called {target!r}")


def _at_random(
    state: AcquisitionState, names: list[str], rng: np.random.Generator, reason: str
) -> Suggestion:
    for _ in range(_DRAWS):
        values = {name: float(rng.uniform(*state.range_of(name))) for name in names}
        if not like_failed(state, Candidates.of([values], state.problem.variables))[0]:
            break
    column = state.outcomes
    return Suggestion(
        make_intervention(values),
        float(column.mean()),
        float(column.std()),
        state.problem.cost(values),
        reason,
    )
