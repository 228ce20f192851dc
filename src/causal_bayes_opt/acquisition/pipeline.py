"""A study: ask for an experiment, tell what came out, and again; on a simulator or by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, TypeAlias

import jax
import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.policy import Policy, Suggestion, recommend
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention, Problem, make_intervention
from causal_bayes_opt.core.questions import data_warnings
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.table import DO_COLUMN, SEPARATOR, names_set
from causal_bayes_opt.errors import ConfigError, DataError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate

_FARTHEST = 1e9  # standard deviations; beyond, single precision has no room for squares and sums

Experiment: TypeAlias = Callable[[dict[str, float] | None, int, int], pd.DataFrame]


@dataclass(frozen=True)
class SurrogateUpdate:
    """From a state and one more experiment to the next state, by a surrogate's posteriors.

    Attributes:
        surrogate: gives the posteriors of all variables.
        seed: of the graphs that a surrogate draws.
        prior: what is known about the edges beforehand.
    """

    surrogate: Surrogate
    seed: int = 0
    prior: EdgePrior | None = None

    def start(self, buffer: ExperienceBuffer, problem: Problem, step: int = 0) -> AcquisitionState:
        """The state after the rows of a buffer; raises what `AcquisitionState.start` raises."""
        key = keys.key(self.seed)
        return AcquisitionState.start(
            buffer, problem, self.surrogate, prior=self.prior, key=key, step=step
        )

    def __call__(
        self,
        state: AcquisitionState,
        intervention: Mapping[str, float],
        outcome: Mapping[str, float],
    ) -> AcquisitionState:
        """The state after an experiment; the given one stays as it is.

        Raises:
            DataError: an outcome that does not fit the intervention.
            UnknownNameError: a name that is not among the variables.
        """
        buffer = state.buffer.copy()
        buffer.add_intervention(intervention, outcome)
        return self.start(buffer, state.problem, state.step + 1)


@dataclass(frozen=True)
class StudyResult:
    """What a study found, in the user's units.

    Attributes:
        trials: a row a trial: ``trial``, ``do`` (what was set, ``;`` between names), every
            variable's value, ``predicted_mean``, ``predicted_std``, ``cost``, and ``error``, empty
            where the trial came off. A variable of one of these names keeps it, and ``_`` is added
            to the other.
        best_intervention: what is recommended after the last trial.
        best_value: the target's mean that is expected of it.
        best_std: standard deviation of one outcome of it: what is not known, and noise.
        posterior: over the target's parent sets, after the last trial.
        warnings: what the user should know before acting on the recommendation, such as that
            nothing is expected to be better than doing nothing.
    """

    trials: pd.DataFrame
    best_intervention: Intervention
    best_value: float
    best_std: float
    posterior: ParentSetPosterior
    warnings: tuple[str, ...]


class ACBOPipeline:
    """Surrogate, policy and buffer put together.

    Args:
        surrogate_update_fn: see `SurrogateUpdate`.
        acquisition_model: any policy.
        experience_buffer: the rows to begin with; it is copied. It may be empty until `begin`.
        problem: what is asked; it may be given to `begin` instead.
        recommendation: the policy that says what to do when trials end.
        seed: the same seed and the same outcomes give the same study.
    """

    def __init__(
        self,
        surrogate_update_fn: SurrogateUpdate,
        acquisition_model: Policy,
        experience_buffer: ExperienceBuffer,
        problem: Problem | None = None,
        *,
        recommendation: Policy = recommend,
        seed: int = 0,
    ) -> None:
        self.surrogate_update_fn = surrogate_update_fn
        self.acquisition_model = acquisition_model
        self.recommendation = recommendation
        self.seed = seed
        self._buffer = experience_buffer.copy()
        self._problem = problem
        self._step = self._trials = 0
        self._before = _n_tried(self._buffer)
        self._state: AcquisitionState | None = None

    def begin(self, problem: Problem, observations: ExperienceBuffer) -> None:
        """Start a study: a problem, and rows that were observed."""
        self._problem, self._buffer = problem, observations.copy()
        self._step, self._trials, self._state = 0, 0, None
        self._before = _n_tried(self._buffer)

    def __getstate__(self) -> dict[str, Any]:
        """What is kept of a study on disk: not the posteriors, which are asked for again."""
        return {**self.__dict__, "_state": None}

    @property
    def state(self) -> AcquisitionState:
        """What is known now; the posteriors are asked for when it is first looked at.

        Raises:
            ConfigError: no problem was given yet.
            ProblemError, DataError: see `AcquisitionState.start` and the surrogate.
        """
        if self._state is None:
            problem = self._stated_problem()
            self._state = self.surrogate_update_fn.start(self._buffer, problem, self._step)
        return self._state

    def _stated_problem(self) -> Problem:
        if self._problem is None:
            raise ConfigError("nothing says what is to be optimised; call begin(problem, rows)")
        return self._problem

    def ask(self) -> Suggestion:
        """The next experiment; its warnings say where rows could not be used."""
        return self._warned(self.acquisition_model(self.state, self._key(self.seed)))

    def tell(
        self, intervention: Mapping[str, float], outcome: Mapping[str, float] | pd.DataFrame
    ) -> None:
        """Take the outcome of an experiment, suggested or not: one row, or a table of many.

        Nothing changes where it is refused.

        Raises:
            DataError: an outcome without the target, or one that does not fit the intervention or
                is so far from the observed rows that nothing could be asked after it.
            UnknownNameError: a name that is not among the variables.
        """
        target = self._stated_problem().target
        rows: list[Any] = [outcome]
        if isinstance(outcome, pd.DataFrame):
            _require_same(intervention, outcome)
            rows = [
                {v: x for v, x in row.items() if v in (target, *intervention) or not pd.isna(x)}
                for row in outcome.drop(columns=DO_COLUMN, errors="ignore").to_dict("records")
            ]
            if not rows:
                raise DataError("the table has no rows: an experiment without outcome is not told")
        buffer = self._buffer.copy()
        for row in rows:
            if hasattr(row, "items") and target not in {*map(str, row.keys()), *intervention}:
                raise DataError(f"the outcome lacks the target {target!r}")
            buffer.add_intervention(intervention, row)
        _require_near(buffer, len(rows))
        self._buffer, self._step, self._state = buffer, self._step + len(rows), None
        self._trials += 1

    def tell_failed(self, intervention: Mapping[str, float]) -> None:
        """Take note that an experiment gave no outcome.

        Nothing like it is suggested again as long as there is anything else.

        Raises:
            DataError: nothing was set, or a value that is not finite.
            UnknownNameError: a name that is not among the variables.
        """
        state, buffer = self.state, self._buffer.copy()
        buffer.add_failure(intervention)
        self._buffer, self._state = buffer, replace(state, buffer=buffer, failed=buffer.failed)
        self._trials += 1

    def recommend(self) -> Suggestion:
        """What to do if trials ended here; its warnings are like those of `ask`."""
        return self._warned(self.recommendation(self.state, self._key(self.seed + 1)))

    def _key(self, seed: int) -> jax.Array:
        """Another trial, another key."""
        return keys.seeded(seed, self._number)

    @property
    def _number(self) -> int:
        """Experiments so far, those that the study began with among them.

        A study that goes on from rows on disk then does not draw again what it drew before.
        """
        return self._before + self._trials

    def _warned(self, suggestion: Suggestion) -> Suggestion:
        return replace(
            suggestion, warnings=(*data_warnings(self.state.buffer), *suggestion.warnings)
        )

    def run(
        self,
        simulate: Experiment,
        trials: int,
        report: Callable[[int, Suggestion], None] | None = None,
    ) -> StudyResult:
        """Ask, experiment and tell so many times; then recommend.

        A trial that fails is recorded with its reason, counts against the budget, and the study
        goes on; nothing like it is suggested again as long as there is anything else. Another call
        goes on with the same study, and counts on.

        Args:
            simulate: ``(intervention, n, seed) -> DataFrame`` of n rows, with the target, what was
                set, and as many of the other variables as were measured.
            trials: how many.
            report: called with the number of each trial and what is tried in it.

        Raises:
            ConfigError: no trials.
            DataError: every trial of the study failed.
        """
        if not isinstance(trials, Integral) or isinstance(trials, bool):
            raise ConfigError(f"trials is {trials!r}; it must be a whole number")
        if trials < 1:
            raise ConfigError(f"{trials} trials: the budget is spent before the first experiment")
        problem = self.state.problem
        records: list[dict[str, Any]] = []
        errors: list[str] = []
        for number in range(self._trials, self._trials + trials):
            suggestion = self.acquisition_model(self.state, self._key(self.seed))
            if report is not None:
                report(number + 1, suggestion)
            # Of its own: the user's rows may come from the same system and the same small seed.
            words = np.random.SeedSequence((self.seed % 2**32, self._number))
            seed = int(words.generate_state(1)[0] // 2)
            outcome, error = _run(simulate, suggestion, problem, seed)
            if outcome:
                try:
                    self.tell(suggestion.intervention, outcome)
                    outcome = {**outcome, **suggestion.intervention}
                except DataError as refused:
                    outcome, error = {}, f"{type(refused).__name__}: {refused}"
            if error:
                self.tell_failed(suggestion.intervention)
            records.append(_record(number, suggestion, problem, outcome, error))
            errors.append(error)
        if all(errors) and self._step == 0:
            raise DataError(f"all {trials} trials failed; the last one: {errors[-1]}")
        best = self.recommend()
        return StudyResult(
            pd.DataFrame(records),
            best.intervention,
            best.predicted_mean,
            best.predicted_std,
            self.state.posterior,
            best.warnings,
        )


def _n_tried(buffer: ExperienceBuffer) -> int:
    """Experiments in a buffer, with an outcome or without."""
    return buffer.n_interventions + len(buffer.failed)


def _require_same(intervention: Mapping[str, float], outcome: pd.DataFrame) -> None:
    """Refuse a table whose column ``do`` names other variables than an intervention."""
    expected = {name.strip() for name in intervention}
    for cell in outcome.get(DO_COLUMN, ()):
        named = names_set("" if pd.isna(cell) else str(cell))
        if {name.strip() for name in named} != expected:
            raise DataError(
                f"the table's column {DO_COLUMN!r} says {cell!r} where the intervention sets "
                f"{SEPARATOR.join(intervention)!r}"
            )


def _require_near(buffer: ExperienceBuffer, n_new: int) -> None:
    """Refuse the last, new rows of a buffer if they are out of all proportion to the others."""
    values, _ = buffer.all_rows()
    try:
        scaling = Scaling.of(buffer)
    except DataError:  # nothing is known of proportions yet
        return
    far = np.abs(np.nan_to_num(scaling.apply(values[-n_new:]))).max(axis=0)
    worst = int(far.argmax())
    if far[worst] > _FARTHEST:
        raise DataError(
            f"{buffer.get_variable_names()[worst]!r} lies {far[worst]:.3g} standard deviations "
            f"from the observed mean; at most {_FARTHEST:g} are taken; check its units"
        )


def _run(
    simulate: Experiment, suggestion: Suggestion, problem: Problem, seed: int
) -> tuple[dict[str, float], str]:
    """The outcome of an experiment, or why there is none."""
    try:
        rows: Any = simulate(dict(suggestion.intervention), 1, seed)
        if not isinstance(rows, pd.DataFrame) or rows.empty:
            return {}, "the simulator returned no DataFrame with a row"
        needed = {problem.target, *suggestion.intervention}
        absent = [name for name in problem.variables if name in needed and name not in rows]
        if absent:
            told = "the target and what was set are needed"
            return {}, f"the simulator's rows lack {absent[0]!r}; {told}"
        twice = [name for name in problem.variables if list(rows.columns).count(name) > 1]
        if twice:
            return {}, f"the simulator's rows have the column {twice[0]!r} more than once"
        _require_same(suggestion.intervention, rows)
        measured = {v: float(rows[v].iloc[0]) for v in problem.variables if v in rows}
    except Exception as error:  # noqa: BLE001  # the system is the user's: it may raise anything
        return {}, f"{type(error).__name__}: {error}"
    outcome = {v: value for v, value in measured.items() if v in needed or not np.isnan(value)}
    broken = [name for name, value in outcome.items() if not np.isfinite(value)]
    if broken:
        return {}, f"{broken[0]!r} has no finite value"
    return outcome, ""


def _record(
    number: int,
    suggestion: Suggestion,
    problem: Problem,
    outcome: Mapping[str, float],
    error: str,
) -> dict[str, Any]:
    done = [name for name in problem.variables if name in suggestion.intervention]
    values = outcome or make_intervention(suggestion.intervention)
    told = {
        "trial": number + 1,
        "predicted_mean": suggestion.predicted_mean,
        "predicted_std": suggestion.predicted_std,
        "cost": suggestion.cost,
        "error": error,
    }
    rows = {name: values.get(name, np.nan) for name in problem.variables}
    told = {f"{name}_" if name in rows else name: value for name, value in told.items()}
    first = next(iter(told))
    return {first: told.pop(first), DO_COLUMN: SEPARATOR.join(done), **rows, **told}
