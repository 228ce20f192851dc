"""A whole study in one call: rows and a system to experiment on in, best intervention out."""

from __future__ import annotations

from collections.abc import Callable

from causal_bayes_opt.acquisition.pipeline import (
    ACBOPipeline,
    Experiment,
    StudyResult,
    SurrogateUpdate,
)
from causal_bayes_opt.acquisition.policies import policy_named
from causal_bayes_opt.acquisition.policy import Policy, Suggestion
from causal_bayes_opt.api import Data, check_seed, read_data
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.questions import check_question
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate
from causal_bayes_opt.surrogate.router import surrogate_named

__all__ = ["StudyResult", "optimize", "study"]


def study(
    problem: Problem,
    observations: Data,
    seed: int = 0,
    surrogate: str | Surrogate = "auto",
    policy: str | Policy = "auto",
    *,
    prior: EdgePrior | None = None,
) -> ACBOPipeline:
    """A study by hand: `ask` it for an experiment, run that, `tell` it the outcome, and again.

    ``tell_failed`` where there was none, and ``recommend`` when trials end.

    Args:
        problem: target, direction, what may be set, ranges, costs.
        observations: rows to begin with; see `infer_parents`. They are not changed.
        seed: the same seed and the same outcomes give the same study.
        surrogate: a method of `infer_parents`, or any surrogate.
        policy: ``"auto"``, another name of `acquisition.policies.POLICIES`, or any policy.
        prior: what is known about the edges beforehand; see `EdgePrior`.

    Raises:
        ConfigError: an impossible seed.
        DataError: observations that cannot be used.
        UnknownNameError: no such surrogate or policy, or a target that the rows do not have.
    """
    check_seed(seed)
    believe = surrogate if callable(surrogate) else surrogate_named(surrogate)
    choose = policy if callable(policy) else policy_named(policy)
    buffer = read_data(observations)
    check_question(buffer, problem.target)
    return ACBOPipeline(SurrogateUpdate(believe, seed, prior), choose, buffer, problem, seed=seed)


def optimize(
    simulate: Experiment,
    problem: Problem,
    observations: Data,
    trials: int,
    seed: int = 0,
    surrogate: str | Surrogate = "auto",
    policy: str | Policy = "auto",
    *,
    prior: EdgePrior | None = None,
    report: Callable[[int, Suggestion], None] | None = None,
) -> StudyResult:
    """Run a study: suggest, experiment, learn, and again; then recommend.

    A trial that fails (the system raises an error, or gives no finite row) is recorded with its
    reason, counts against the budget, and the study goes on.

    Args:
        simulate: the system, ``(intervention or None, n, seed) -> DataFrame`` of n rows with a
            column for each variable, in which what was set has the value that it was set to. What
            was neither set nor is the target may be missing, and then the outcome says less.
        problem: target, direction, what may be set, ranges, costs.
        observations: see `study`.
        trials: how many experiments may be made.
        seed: the same seed, and a system that follows its own, give the same study.
        surrogate: see `study`.
        policy: see `study`.
        prior: see `study`.
        report: called with the number of each trial and what is tried in it.

    Raises:
        ConfigError: no trials, an impossible seed, or a system that cannot be called.
        DataError: observations that cannot be used, or every trial failed.
        ProblemError: nothing may be set, an impossible range, or other variables than the rows'.
        UnknownNameError: no such surrogate or policy.
    """
    if not callable(simulate):
        raise ConfigError(f"simulate is {simulate!r}; it must be a function that does experiments")
    begun = study(problem, observations, seed, surrogate, policy, prior=prior)
    return begun.run(simulate, trials, report)
