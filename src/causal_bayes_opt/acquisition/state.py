"""AcquisitionState: everything that a policy may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import numpy as np

from causal_bayes_opt.acquisition.graph_samples import sample_graphs
from causal_bayes_opt.acquisition.linearity import Rival, is_linear
from causal_bayes_opt.acquisition.target_alone import (
    WeighedSystems,
    n_graphs,
    reweighed,
    were_told,
)
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem, check_range
from causal_bayes_opt.errors import ProblemError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import (
    EdgePrior,
    Surrogate,
    SystemPosterior,
    all_posteriors,
)
from causal_bayes_opt.surrogate.router import Router

N_GRAPHS = 64


@dataclass(frozen=True)
class AcquisitionState:
    """What is known before an experiment. Nothing changes it: its rows refuse to grow.

    Attributes:
        buffer: all rows so far.
        problem: what is asked.
        posteriors: over the parent sets of every variable, the target's among them.
        step: rows of trials so far.
        graphs: whole graphs drawn from the posterior given complete rows, bool
            ``[n, n_vars, n_vars]``, where the surrogate can draw them or there are `systems`;
            None leaves it to a sampler over `posteriors`.
        linear: whether mechanisms are taken for linear; None leaves it to `linearity.is_linear`.
        failed: experiments that gave no outcome; what is like them is not suggested while anything
            else is left.
        systems: where mechanisms are linear and experiments measured the target alone, systems
            drawn given complete rows and weighed by these; the posteriors know of them, too.
    """

    buffer: ExperienceBuffer
    problem: Problem
    posteriors: Mapping[str, ParentSetPosterior]
    step: int = 0
    graphs: np.ndarray | None = None
    linear: bool | None = None
    failed: tuple[Intervention, ...] = ()
    systems: WeighedSystems | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffer", self.buffer.frozen())
        if not isinstance(self.posteriors, SystemPosterior):
            object.__setattr__(self, "posteriors", MappingProxyType(dict(self.posteriors)))
        if self.graphs is not None:
            graphs = np.asarray(self.graphs).view()
            graphs.flags.writeable = False
            object.__setattr__(self, "graphs", graphs)

    @classmethod
    def start(
        cls,
        buffer: ExperienceBuffer,
        problem: Problem,
        surrogate: Surrogate,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
        step: int = 0,
    ) -> AcquisitionState:
        """Ask the surrogate for the posteriors of all variables given a copy of the buffer.

        A router takes data for linear by observed rows alone. Where experiments on the target speak
        against that (see `linearity.seems_linear`), it is asked again without that choice, so that
        posteriors and outcome model agree. Where mechanisms are linear, outcomes of the target
        alone count, too (see `target_alone`).

        Raises:
            ProblemError: nothing may be set, or the buffer has other variables than the problem.
        """
        if tuple(buffer.get_variable_names()) != problem.variables:
            raise ProblemError(
                f"the problem has the variables {list(problem.variables)}, "
                f"the data {buffer.get_variable_names()}"
            )
        _ = problem.may_set
        own = buffer.frozen()
        posteriors = all_posteriors(surrogate, own, prior=prior, key=key)
        linear = None
        if isinstance(surrogate, Router) and surrogate.takes_for_linear(own):
            beyond = surrogate.beyond_linear
            before = cls(own, problem, posteriors, step)
            linear = is_linear(before, Rival(beyond, problem.target, prior))
            if not linear:
                posteriors = beyond.posteriors(own, prior=prior, key=key)
        drawn_by = keys.numbered(keys.key(0) if key is None else key, step)
        if were_told(own, problem.target):
            linear = is_linear(cls(own, problem, posteriors, step, linear=linear))
            if linear:
                return cls._of_systems(own, problem, posteriors, step, drawn_by)
        graphs = None
        if posteriors.draw_graphs is not None:
            graphs = posteriors.draw_graphs(drawn_by, N_GRAPHS)
        return cls(own, problem, posteriors, step, graphs, linear, own.failed)

    @classmethod
    def _of_systems(
        cls,
        buffer: ExperienceBuffer,
        problem: Problem,
        posteriors: SystemPosterior,
        step: int,
        key: jax.Array,
    ) -> AcquisitionState:
        """With what experiments say that measured the target alone."""
        names, n = problem.variables, n_graphs(len(problem.variables))
        if posteriors.draw_graphs is not None:
            graphs = posteriors.draw_graphs(key, n)
        else:
            graphs = sample_graphs(posteriors, names, n, key)
        systems = WeighedSystems.draw(buffer, graphs, problem.target, keys.numbered(key, 1))
        after = reweighed(posteriors, graphs, systems.of_graphs, systems.power_of_graphs)
        kept = graphs[:N_GRAPHS]
        return cls(buffer, problem, after, step, kept, True, buffer.failed, systems)

    @property
    def posterior(self) -> ParentSetPosterior:
        """The posterior over the target's parent sets."""
        return self.posteriors[self.problem.target]

    @property
    def current_target(self) -> str:
        """The target's name."""
        return self.problem.target

    @property
    def outcomes(self) -> np.ndarray:
        """All outcomes of the target so far ``[n]``, in the user's units.

        Rows in which the target itself was set are no outcomes.
        """
        values, mask = self.buffer.all_rows()
        target = self.problem.variables.index(self.problem.target)
        return np.asarray(values[np.isfinite(values[:, target]) & ~mask[:, target], target])

    @property
    def outcome_range(self) -> tuple[float, float]:
        """The smallest and the largest outcome of the target so far, in the user's units."""
        return float(self.outcomes.min()), float(self.outcomes.max())

    @property
    def best_observed(self) -> float:
        """The best single outcome of the target so far, in the user's units."""
        low, high = self.outcome_range
        return low if self.problem.direction == "minimize" else high

    def at_most(self, max_targets: int) -> int:
        """How many variables an experiment may set: what is given, or less by the problem."""
        limit = self.problem.max_targets
        return max_targets if limit is None else min(max_targets, limit)

    def range_of(self, name: str) -> tuple[float, float]:
        """The range in which a variable may be set: the problem's, or what was observed.

        Raises:
            ProblemError: no range is given and the variable never varied.
        """
        given = self.problem.range_of(name)
        if given is not None:
            return given
        extent = self.buffer.once(_extent)
        low, high = map(float, extent[:, self.problem.variables.index(name)])
        check_range(name, low, high)
        return low, high


def _extent(buffer: ExperienceBuffer) -> np.ndarray:
    """The smallest and the largest value of every variable ``[2, n_vars]``."""
    values, _ = buffer.all_rows()
    return np.array([np.nanmin(values, axis=0), np.nanmax(values, axis=0)])
