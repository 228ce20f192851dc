"""Plain Bayesian optimisation over all settable variables, by BoTorch; it knows of no graph.

Needs torch, which no environment of this repository brings: see CONTRIBUTING.md.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import jax
import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.policy import Suggestion
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
from causal_bayes_opt.errors import ProblemError


def policy(state: AcquisitionState, key: jax.Array) -> Suggestion:
    """The same as a policy: one decision from the rows of a state."""
    seed = int(np.random.default_rng(np.asarray(jax.random.key_data(key))).integers(2**20))
    own = BayesianOptimization(state.problem, state.buffer, seed)
    chosen = own.ask()
    mean, std = own.foretell(chosen)
    cost = state.problem.cost(chosen)
    return Suggestion(chosen, mean, std, cost, "largest expected improvement, no graph")


def entry(problem: Problem, buffer: ExperienceBuffer, seed: int) -> BayesianOptimization:
    """A contender for `causal_bayes_opt.benchmarks.runner`."""
    return BayesianOptimization(problem, buffer, seed)


@dataclass
class BayesianOptimization:
    """A Gaussian process from all settable variables to the target, and log expected improvement.

    It learns from every row, observed ones too (at most 100 of them): what a variable was counts,
    not who set it. Every trial sets all variables.
    """

    problem: Problem
    buffer: ExperienceBuffer
    seed: int

    def __post_init__(self) -> None:
        self.buffer = self.buffer.copy()
        limit = self.problem.max_targets
        if limit is not None and limit < len(self.problem.may_set):
            raise ProblemError(f"Bayesian optimisation sets all variables; max_targets is {limit}")
        names, data = self.problem.variables, self.buffer.get_observations_as_array()
        self.columns = [names.index(name) for name in self.problem.may_set]
        ranges = [
            self.problem.range_of(names[i]) or (data[:, i].min(), data[:, i].max())
            for i in self.columns
        ]
        self.ends = np.array(ranges)

    def ask(self) -> Intervention:
        """The point of the largest log expected improvement."""
        torch, improvement, optim = _modules("torch", "botorch.acquisition.logei", "botorch.optim")
        torch.manual_seed(self.seed * 1000 + len(self.buffer))
        model, x = self._fitted()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best, _ = optim.optimize_acqf(
                improvement.qLogNoisyExpectedImprovement(model, x, prune_baseline=True),
                bounds=torch.tensor([[0.0] * x.shape[1], [1.0] * x.shape[1]], dtype=x.dtype),
                q=1,
                num_restarts=4,
                raw_samples=64,
            )
        return self._named(best[0].numpy())

    def tell(self, intervention: Intervention, rows: pd.DataFrame) -> None:
        """Keep the mean of the rows: a process with a thousand rows a trial would not end."""
        mean = {str(name): float(value) for name, value in rows.mean().items()}
        self.buffer.add_intervention(intervention, {**mean, **intervention})

    def recommend(self) -> Intervention:
        """The best posterior mean among a sequence of points and those tried."""
        (torch,) = _modules("torch")
        model, x = self._fitted()
        d = len(self.columns)
        grid = torch.quasirandom.SobolEngine(d, seed=0).draw(1024).to(x)
        corners = torch.tensor(list(np.ndindex(*([2] * min(d, 8)))), dtype=x.dtype)
        if d <= 8:
            grid = torch.cat([grid, corners])
        with torch.no_grad():
            mean = model.posterior(torch.cat([grid, x.clamp(0, 1)])).mean[:, 0]
        return self._named(torch.cat([grid, x.clamp(0, 1)])[int(mean.argmax())].numpy())

    def foretell(self, intervention: Intervention) -> tuple[float, float]:
        """Mean and standard deviation of one outcome of an intervention."""
        (torch,) = _modules("torch")
        model, x = self._fitted()
        low, high = self.ends.T
        levels = np.array([intervention[name] for name in self.problem.may_set])
        with torch.no_grad():
            found = model.posterior(
                torch.tensor((levels - low) / (high - low)).to(x)[None], observation_noise=True
            )
            mean, variance = float(found.mean), float(found.variance)
        return -self.problem.sign * mean, variance**0.5

    def _fitted(self) -> tuple[Any, Any]:
        torch, fit, models, transforms, mlls = _modules(
            "torch",
            "botorch.fit",
            "botorch.models",
            "botorch.models.transforms",
            "gpytorch.mlls",
        )
        torch.set_num_threads(1)
        values, mask = self.buffer.rows()
        t = self.problem.variables.index(self.problem.target)
        observed = np.flatnonzero(~mask.any(axis=1))[:100]
        chosen = np.concatenate([observed, np.flatnonzero(mask.any(axis=1) & ~mask[:, t])])
        low, high = self.ends.T
        x = torch.tensor((values[chosen][:, self.columns] - low) / (high - low))
        y = torch.tensor(-self.problem.sign * values[chosen, t])[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = models.SingleTaskGP(x, y, outcome_transform=transforms.Standardize(1))
            fit.fit_gpytorch_mll(mlls.ExactMarginalLogLikelihood(model.likelihood, model))
        return model, x

    def _named(self, point: np.ndarray) -> Intervention:
        low, high = self.ends.T
        values = low + np.clip(point, 0.0, 1.0) * (high - low)
        names = self.problem.may_set
        return make_intervention(dict(zip(names, values.tolist(), strict=True)))


def _modules(*names: str) -> list[Any]:
    """Modules that are there only where somebody installed torch by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of each other
        return [import_module(name) for name in names]
