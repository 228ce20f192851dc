"""PARENT_SCALE: causal Bayesian optimisation when the graph is unknown.

`init` learns from the rows at hand, `suggest` names the next trial, `observe` takes its outcome;
the three are pure, so that a laboratory can be asked and told as well as a simulator.
Source: Durand, Annadani, Bauer and Parbhoo, "Causal Bayesian Optimization with Unknown Graphs",
arXiv 2503.19554 (2025), with the corrections that `ParentScaleOptions` names.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from causal_bayes_opt.acquisition.baselines import random_choice
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.acquisition.policy import Policy, Suggestion
from causal_bayes_opt.acquisition.search import like_failed
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError, DataError, ProblemError, nearest
from causal_bayes_opt.expert import trials
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import Beliefs
from causal_bayes_opt.expert.state import ParentScaleState, RunLog
from causal_bayes_opt.surrogate.protocol import EdgePrior

_PROBLEM_OPTIONS = ("direction", "ranges", "settable", "costs")


def init(
    buffer: ExperienceBuffer,
    problem: Problem,
    options: ParentScaleOptions | None = None,
    *,
    seed: int = 0,
    prior: EdgePrior | None = None,
) -> ParentScaleState:
    """Learn from the rows at hand: observations, and experiments if there are any.

    Args:
        buffer: complete rows serve all steps; an experiment of which the target alone was measured
            serves the choice of trials. It is copied.
        problem: what is asked; ranges that it leaves open are those of the observational rows.
        options: see `ParentScaleOptions`.
        seed: of bootstraps, networks and random features.
        prior: known and forbidden edges.

    Raises:
        ProblemError: other variables than the buffer's, or nothing may be set.
        DataError: fewer than 2 observational rows, or a constant column.
    """
    if tuple(buffer.get_variable_names()) != problem.variables:
        raise ProblemError(
            f"the problem has the variables {list(problem.variables)}, "
            f"the data {buffer.get_variable_names()}"
        )
    _ = problem.may_set
    own = buffer.copy()
    beliefs = Beliefs.of(own, problem.target, options or ParentScaleOptions(), (seed,), prior)
    values, mask = own.rows()
    experiments = mask.any(axis=1)
    beliefs = beliefs.after(values[experiments], mask[experiments])
    bench = trials.start(problem, beliefs, own.get_observations_as_array(), (seed,))
    return ParentScaleState(problem, own, beliefs, bench, _tried(own, problem))


def suggest(state: ParentScaleState) -> Suggestion:
    """Return the trial with the largest expected improvement of the target's mean for its cost."""
    return trials.best_trial(state.bench, state.beliefs, state.tried)[0]


def observe(
    state: ParentScaleState,
    intervention: Mapping[str, float],
    outcome: Mapping[str, float],
    *,
    mean: float | None = None,
    n_samples: int = 1,
) -> ParentScaleState:
    """Return the state after a trial, the suggested one or any other.

    Args:
        state: before it.
        intervention: what was set.
        outcome: one row, or the target alone, which then says nothing about the parents.
        mean: of the target over `n_samples` outcomes, where more than one was measured.
        n_samples: number of outcomes behind `mean`.

    Raises:
        DataError: an outcome that does not fit the intervention, or without the target.
        UnknownNameError: a name that is not among the variables.
    """
    problem = state.problem
    done = make_intervention(intervention)
    buffer = state.buffer.copy()
    buffer.add_intervention(done, outcome)
    if n_samples < 1 or (mean is None and n_samples > 1):
        raise DataError(f"n_samples is {n_samples}; 1 or more, and above 1 the mean is needed")
    if mean is not None and not np.isfinite(mean):
        raise DataError(f"the mean of {problem.target!r} is {mean}; a finite number is needed")
    tried = state.tried
    if problem.target not in done:
        if problem.target not in outcome:
            raise DataError(f"the outcome lacks the target {problem.target!r}; give at least that")
        told = float(outcome[problem.target] if mean is None else mean)
        tried = (*tried, trials.Tried(done, told, n_samples))
    values, mask = buffer.all_rows()
    beliefs = state.beliefs
    if np.isfinite(values[-1]).all():
        beliefs = beliefs.after(values[-1:], mask[-1:], drop=state.n_trials > 0)
    bench = trials.update(state.bench, beliefs)
    return ParentScaleState(problem, buffer, beliefs, bench, tried, state.n_trials + 1)


def parent_scale_rule(options: ParentScaleOptions | None = None) -> Policy:
    """PARENT_SCALE as a policy: its beliefs and its choice, from all rows of a state.

    The surrogate's posteriors are not looked at. All experiments count as made before the start, so
    that no set of parents is dropped for good. An experiment at random where its own is like one
    that failed.
    """

    def policy(state: AcquisitionState, key: jax.Array) -> Suggestion:
        seed = int(np.asarray(jax.random.key_data(key))[-1])
        suggestion = suggest(init(state.buffer, state.problem, options, seed=seed))
        own = Candidates.of([suggestion.intervention], state.problem.variables)
        return random_choice(state, key) if like_failed(state, own)[0] else suggestion

    return policy


class PARENT_SCALE:  # noqa: N801  # the algorithm's own name, and the interface
    """The algorithm on a simulated system.

    Args:
        scm: the system; it must have a target.
        seed: the same seed gives the same run.
        buffer: rows to begin with; None draws `n_observations` rows and `n_experiments` for each
            variable, its value uniform over its observed range.
        prior: known and forbidden edges.
        **options: see `ParentScaleOptions`, and `direction`, `ranges`, `settable` and `costs` of
            `Problem`.

    Raises:
        ProblemError: the system has no target, or nothing may be set.
        ConfigError: an unknown option or an impossible value.
    """

    def __init__(
        self,
        scm: SCM,
        seed: int = 0,
        *,
        buffer: ExperienceBuffer | None = None,
        prior: EdgePrior | None = None,
        **options: Any,
    ) -> None:
        if scm.target is None:
            raise ProblemError("the system has no target; name one by scm.with_target(name)")
        asked = {name: options.pop(name) for name in _PROBLEM_OPTIONS if name in options}
        self.scm, self.seed, self.buffer, self.prior = scm, seed, buffer, prior
        self.options = options_of(options)
        self.problem = Problem(scm.variables, scm.target, **asked)
        _ = self.problem.may_set

    def run_algorithm(self, T: int = 10) -> dict[str, Any]:
        """Run at most `T` trials.

        Each trial tells the optimiser the mean of `n_evaluations` outcomes, and the posterior one
        further outcome.

        Returns:
            A list with one entry a trial under each of ``global_opt`` (best `current_y` so far),
            ``current_y`` (mean of the target), ``current_cost`` (sum over the trials so far),
            ``intervention_set`` (names), ``intervention_values``, ``average_uncertainty`` (standard
            deviation of the target's mean, averaged over what might have been tried),
            ``posterior_probabilities`` (marginals ``[n_vars]``), ``posterior_sets`` (probability of
            each frozenset of names). What the run started from: ``initial_probabilities`` and
            ``initial_sets``, the same before the first trial; ``D_O_standardized``
            ``[n_obs, n_vars]``, ``means`` and ``stds`` ``[n_vars]``, ``ranges``. Every complete row
            in order: ``row_values`` ``[n_rows, n_vars]`` in the user's units, ``row_mask`` True
            where set, ``row_trial`` (-1 observed, 0 initial experiment, then the trial from 1).
            And ``target``, ``variables``, ``true_parents``, ``seed``, ``elapsed_s``, ``warnings``.

        Raises:
            ConfigError: `T` is no whole number of 1 or more.
            DataError: the rows to begin with cannot be used.
        """
        if int(T) != T or T < 1:
            raise ConfigError(f"T is {T!r}; expected a whole number of trials of 1 or more")
        began = time.perf_counter()
        buffer = self._initial_rows() if self.buffer is None else self.buffer
        state = init(buffer, self.problem, self.options, seed=self.seed, prior=self.prior)
        log = RunLog(state)
        with Progress(disable=not self.options.progress) as progress:
            task = progress.add_task(f"PARENT_SCALE on {self.problem.target}", total=T)
            for trial in range(T):
                state = self._one_trial(state, log, trial)
                progress.advance(task)
                if self._stalled(log):
                    break
        result = log.result(state)
        result |= {
            "true_parents": self.scm.parents(self.problem.target),
            "seed": self.seed,
            "elapsed_s": time.perf_counter() - began,
        }
        return result

    def _one_trial(self, state: ParentScaleState, log: RunLog, trial: int) -> ParentScaleState:
        suggestion, uncertainty = trials.best_trial(state.bench, state.beliefs, state.tried)
        done, n = suggestion.intervention, self.options.n_evaluations
        target = self.problem.target
        many = self._sample(n, done, 2 * trial)[target]
        row = self._sample(1, done, 2 * trial + 1).iloc[0]
        outcome = {name: float(row[name]) for name in self.problem.variables}
        mean = float(many.mean())
        state = observe(state, done, outcome, mean=mean, n_samples=n)
        log.add(suggestion, mean, uncertainty, state)
        return state

    def _initial_rows(self) -> ExperienceBuffer:
        scm, options = self.scm, self.options
        rng = np.random.default_rng([self.seed, 3])
        observed = sample(scm, options.n_observations, seed=int(rng.integers(2**31)))
        buffer = ExperienceBuffer(scm.variables)
        buffer.add_observations(observed.drop(columns="do", errors="ignore"))
        for name in self.problem.may_set:
            low, high = self.problem.range_of(name) or (observed[name].min(), observed[name].max())
            for value in rng.uniform(low, high, size=options.n_experiments):
                done = make_intervention({name: float(value)})
                row = sample(scm, 1, intervention=done, seed=int(rng.integers(2**31))).iloc[0]
                buffer.add_intervention(done, {v: float(row[v]) for v in scm.variables})
        return buffer

    def _sample(self, n: int, done: Intervention, number: int) -> Any:
        seed = int(np.random.default_rng([self.seed, 4, number]).integers(2**31))
        return sample(self.scm, n, intervention=done, seed=seed)

    def _stalled(self, log: RunLog) -> bool:
        patience = self.options.patience
        if patience is None or len(log.outcomes) <= patience:
            return False
        gained = self.problem.sign * (log.best(-patience) - log.best(None))
        return bool(gained <= self.options.min_improvement * log.unit)


def run_many(
    scms: Sequence[SCM],
    T: int = 10,
    seeds: Sequence[int] | None = None,
    *,
    workers: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Run the algorithm on many systems, on all cores; each result is that of a run alone.

    Args:
        scms: the systems.
        T: trials of each.
        seeds: one for each system; None counts from 0.
        workers: how many run at once; None takes the number of cores.
        **options: as for `PARENT_SCALE`; `progress` shows one bar over all systems.

    Raises:
        ConfigError: another number of seeds than of systems, or what `PARENT_SCALE` raises.
    """
    numbers = list(range(len(scms))) if seeds is None else list(seeds)
    if len(numbers) != len(scms):
        raise ConfigError(f"{len(numbers)} seeds for {len(scms)} systems; give one for each")
    show = bool(options.pop("progress", False))
    runs = [PARENT_SCALE(scm, seed, **options) for scm, seed in zip(scms, numbers, strict=True)]
    with (
        Progress(disable=not show) as progress,
        # Threads: compiled programs run outside Python's lock, and all share what is compiled.
        ThreadPoolExecutor(workers or cpu_count()) as pool,
    ):
        task = progress.add_task("PARENT_SCALE", total=len(runs))
        results = []
        for result in pool.map(lambda run: run.run_algorithm(T), runs):
            results.append(result)
            progress.advance(task)
    return results


def options_of(given: Mapping[str, Any]) -> ParentScaleOptions:
    """Options from a mapping; `ConfigError` names one that does not exist, and the nearest."""
    known = [*ParentScaleOptions.__dataclass_fields__, *_PROBLEM_OPTIONS]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"unknown option {name!r}{nearest(name, known) or f' (known: {known})'}"
            )
    return ParentScaleOptions.of(given)


def _tried(buffer: ExperienceBuffer, problem: Problem) -> tuple[trials.Tried, ...]:
    """The experiments of a buffer whose target was measured and not set, in order."""
    values, mask = buffer.all_rows()
    t = problem.variables.index(problem.target)
    usable = mask.any(axis=1) & ~mask[:, t] & np.isfinite(values[:, t])
    return tuple(
        trials.Tried(
            make_intervention(
                {problem.variables[i]: float(row[i]) for i in np.flatnonzero(was_set)}
            ),
            float(row[t]),
        )
        for row, was_set in zip(values[usable], mask[usable], strict=True)
    )
