"""The state between two trials of PARENT_SCALE, and the report of a whole run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causal_bayes_opt.acquisition.policy import Suggestion
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.expert import trials
from causal_bayes_opt.expert.parent_posterior import Beliefs
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior


@dataclass(frozen=True)
class ParentScaleState:
    """Everything that is known between two trials. Nothing changes it.

    Attributes:
        problem: what is asked.
        buffer: all rows so far; its own copy.
        beliefs: the posterior over parent sets.
        bench: the GPs.
        tried: all experiments that did not set the target, the initial ones first.
        n_trials: number of trials done.
    """

    problem: Problem
    buffer: ExperienceBuffer
    beliefs: Beliefs
    bench: trials.Workbench
    tried: tuple[trials.Tried, ...]
    n_trials: int = 0

    @property
    def posterior(self) -> ParentSetPosterior:
        """The posterior over the target's parent sets."""
        return self.beliefs.posterior()


class RunLog:
    """What a run has to report, trial by trial."""

    def __init__(self, state: ParentScaleState) -> None:
        self.first = state
        target = state.problem.variables.index(state.problem.target)
        self.unit = float(state.beliefs.scaling.stds[target])
        self.suggestions: list[Suggestion] = []
        self.outcomes: list[float] = []
        self.uncertainties: list[float] = []
        self.posteriors: list[ParentSetPosterior] = []

    def add(
        self, suggestion: Suggestion, mean: float, uncertainty: float, after: ParentScaleState
    ) -> None:
        """Append one trial: what was tried, the mean that came out, and the state after it."""
        self.suggestions.append(suggestion)
        self.outcomes.append(mean)
        self.uncertainties.append(uncertainty)
        self.posteriors.append(after.posterior)

    def best(self, end: int | None) -> float:
        """The best mean of the trials up to `end` (as in a slice)."""
        sign = self.first.problem.sign
        return sign * min(sign * y for y in self.outcomes[:end])

    def result(self, last: ParentScaleState) -> dict[str, Any]:
        """What `PARENT_SCALE.run_algorithm` returns, but for what only the simulator knows."""
        first, problem = self.first, self.first.problem
        scaling, start = first.beliefs.scaling, first.posterior
        values, mask = last.buffer.rows()
        n_trials = len(self.outcomes)
        number = np.where(mask.any(axis=1), 0, -1)
        number[len(values) - n_trials :] = np.arange(1, n_trials + 1)
        in_order = [
            tuple(name for name in problem.variables if name in s.intervention)
            for s in self.suggestions
        ]
        return {
            "global_opt": [self.best(i + 1) for i in range(n_trials)],
            "current_y": list(self.outcomes),
            "current_cost": np.cumsum([s.cost for s in self.suggestions]).tolist(),
            "intervention_set": in_order,
            "intervention_values": [
                tuple(s.intervention[name] for name in names)
                for s, names in zip(self.suggestions, in_order, strict=True)
            ],
            "average_uncertainty": list(self.uncertainties),
            "posterior_probabilities": [p.marginal_vector() for p in self.posteriors],
            "posterior_sets": [dict(p.posterior_probs) for p in self.posteriors],
            "initial_probabilities": start.marginal_vector(),
            "initial_sets": dict(start.posterior_probs),
            "D_O_standardized": scaling.apply(first.buffer.get_observations_as_array()),
            "means": scaling.means,
            "stds": scaling.stds,
            "ranges": dict(first.bench.ranges),
            "row_values": values,
            "row_mask": mask,
            "row_trial": number,
            "target": problem.target,
            "variables": problem.variables,
            "warnings": first.beliefs.warnings,
        }
