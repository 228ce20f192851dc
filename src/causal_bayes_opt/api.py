"""The two questions in one call each: what causes the target, and what should be tried next."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
import pandas as pd

from causal_bayes_opt.acquisition.linearity import Rival, seems_linear
from causal_bayes_opt.acquisition.policies import policy_named
from causal_bayes_opt.acquisition.policy import Suggestion
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.acquisition.target_alone import were_told
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Cost, Direction, Problem
from causal_bayes_opt.core.questions import check_question, data_warnings
from causal_bayes_opt.core.table import DO_COLUMN, Table
from causal_bayes_opt.errors import (
    ConfigError,
    DataError,
    ProblemError,
    UnknownNameError,
    nearest,
)
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate
from causal_bayes_opt.surrogate.router import Router, surrogate_named

Data: TypeAlias = ExperienceBuffer | pd.DataFrame | np.ndarray | str | Path

SEEDS = 2**32


def infer_parents(
    data: Data,
    target: str,
    interventions: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    method: str = "auto",
    *,
    ignore: Iterable[str] = (),
    prior: EdgePrior | None = None,
) -> ParentSetPosterior:
    """Say which variables cause the target directly, and how sure that is.

    Args:
        data: a DataFrame or the path of a CSV file (a column a variable; the optional column ``do``
            names what was set in a row, ``;`` between names), an `ExperienceBuffer`, or an array
            ``[n, n_vars]``.
        target: name of the variable whose direct causes are asked for.
        interventions: with an array: bool ``[n, n_vars]``, True where the value was set.
        names: with an array: the variables' names ``[n_vars]``; X1, X2, … by default.
        method: ``"auto"``, ``"exact"``, ``"network"``, or the name of a shipped network; see
            `surrogate.router`.
        ignore: columns to leave out.
        prior: what is known about the edges beforehand.

    Returns:
        The posterior over parent sets; its metadata's ``warnings`` say what to be careful about.

    Raises:
        DataError: cells, columns or rows that cannot be used, and which.
        UnknownNameError: a name that does not exist, with the nearest that does.
        MethodLimitError: more variables than the method can take.
    """
    surrogate = surrogate_named(method)
    buffer = read_data(data, interventions, names, ignore)
    check_question(buffer, target)
    if were_told(buffer, target):
        problem = Problem(tuple(buffer.get_variable_names()), target)
        posterior = AcquisitionState.start(buffer, problem, surrogate, prior=prior).posterior
    else:
        posterior = _complete(surrogate, buffer, target, prior)
    warnings = (*data_warnings(buffer), *_failures_told(buffer), *posterior.warnings)
    return posterior.with_metadata(warnings=warnings)


def _complete(
    surrogate: Surrogate, buffer: ExperienceBuffer, target: str, prior: EdgePrior | None
) -> ParentSetPosterior:
    posterior = surrogate(buffer, target, prior=prior)
    # As `AcquisitionState.start`: experiments may speak against what observed rows look like.
    if (
        isinstance(surrogate, Router)
        and buffer.n_interventions
        and surrogate.takes_for_linear(buffer)
    ):
        rival = Rival(surrogate.beyond_linear, target, prior)
        if not seems_linear(buffer, target, posterior, {}, rival):
            posterior = rival(buffer)
    return posterior


def suggest(
    data: Data,
    target: str | None = None,
    *,
    problem: Problem | None = None,
    direction: Direction = "minimize",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    settable: Sequence[str] | None = None,
    costs: Mapping[str, Cost] | None = None,
    max_targets: int | None = None,
    failed: Sequence[Mapping[str, float]] = (),
    interventions: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    method: str = "auto",
    seed: int = 0,
    ignore: Iterable[str] = (),
    policy: str = "auto",
    prior: EdgePrior | None = None,
) -> Suggestion:
    """Suggest the next experiment: what to set, and to which values (in the data's units).

    Args:
        data: see `infer_parents`.
        target: the variable to be made small or large.
        problem: in place of `target`, `direction`, `ranges`, `settable`, `costs` and `max_targets`.
        direction: ``"minimize"`` or ``"maximize"``.
        ranges: lowest and highest value of what may be set; where missing, those of the rows.
        settable: what may be set; all but the target by default.
        costs: see `Problem`.
        max_targets: most variables that the experiment may set; as many as help by default.
        failed: experiments that gave no outcome, beside those in the data (rows without any value
            but what was set); nothing like them is suggested while there is anything else.
        interventions: see `infer_parents`.
        names: see `infer_parents`.
        method: see `infer_parents`.
        seed: the same seed gives the same suggestion.
        ignore: columns to leave out.
        policy: who chooses: a name of `acquisition.policies.POLICIES`.
        prior: see `infer_parents`.

    Raises:
        DataError, UnknownNameError, MethodLimitError: see `infer_parents`.
        ProblemError: a reversed range, nothing that may be set, or a question asked twice.
        ConfigError: a negative seed.
    """
    buffer = read_data(data, interventions, names, ignore)
    asked = (target, direction, ranges, settable, costs, max_targets)
    if problem is None:
        problem = _problem_of(buffer, *asked)
    elif asked != (None, "minimize", None, None, None, None):
        raise ProblemError(
            "a problem was given, and its parts again beside it; give either the problem or "
            "target, direction, ranges, settable, costs and max_targets"
        )
    return decide(buffer, problem, method, seed, policy, prior, failed)[0]


def decide(
    buffer: ExperienceBuffer,
    problem: Problem,
    method: str = "auto",
    seed: int = 0,
    policy: str = "auto",
    prior: EdgePrior | None = None,
    failed: Sequence[Mapping[str, float]] = (),
) -> tuple[Suggestion, AcquisitionState]:
    """The next experiment for a stated problem, and the state from which it was chosen.

    Raises:
        See `suggest`.
    """
    surrogate = surrogate_named(method)
    check_question(buffer, problem.target)
    check_seed(seed)
    choose = policy_named(policy)
    key_state, key_policy = jax.random.split(jax.random.key(seed))
    told = _failures_told(buffer)
    buffer = buffer.copy()
    for experiment in failed:
        buffer.add_failure(experiment)
    state = AcquisitionState.start(buffer, problem, surrogate, prior=prior, key=key_state)
    suggestion = choose(state, key_policy)
    warnings = (*data_warnings(buffer), *told, *suggestion.warnings)
    return replace(suggestion, warnings=warnings), state


def _failures_told(buffer: ExperienceBuffer) -> tuple[str, ...]:
    """Say that rows without any outcome are taken for failures: they may have been planned."""
    n = len(buffer.failed)
    if not n:
        return ()
    return (f"{n} of the experiments have no outcome: they count as failed",)


def read_data(
    data: Data,
    interventions: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    ignore: Iterable[str] = (),
) -> ExperienceBuffer:
    """Turn any of the accepted kinds of data into a buffer; see `infer_parents`.

    Raises:
        DataError: of another kind, or with cells, columns or a mask that cannot be used.
        UnknownNameError: ``do`` or `ignore` names a column that does not exist.
    """
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    if isinstance(data, np.ndarray | jax.Array):
        mask = None if interventions is None else _boolean(interventions)
        buffer = ExperienceBuffer.from_arrays(np.asarray(data), mask, names)
        return _without(buffer, ignored)
    if interventions is not None or names is not None:
        raise DataError(
            "interventions and names go with an array; a table names its variables in its columns "
            f"and what was set in its column {DO_COLUMN!r}"
        )
    if isinstance(data, ExperienceBuffer):
        return _without(data, ignored)
    if isinstance(data, pd.DataFrame):
        return ExperienceBuffer.from_dataframe(data, ignored)
    if isinstance(data, str | os.PathLike):
        return ExperienceBuffer.from_csv(data, ignored)
    raise DataError(
        f"data of type {type(data).__name__!r} cannot be read; give a DataFrame, the path of a CSV "
        "file, an ExperienceBuffer or an array [n_rows, n_vars]"
    )


def check_seed(seed: int) -> None:
    """Raise `ConfigError` unless a seed is a whole number that keys can be made of."""
    if not (isinstance(seed, Integral) and 0 <= seed < SEEDS):
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0 to {SEEDS - 1}")


def _problem_of(
    buffer: ExperienceBuffer,
    target: str | None,
    direction: Direction,
    ranges: Mapping[str, tuple[float, float]] | None,
    settable: Sequence[str] | None,
    costs: Mapping[str, Cost] | None,
    max_targets: int | None,
) -> Problem:
    if target is None:
        raise ProblemError("nothing says what is to be optimised; give a target or a problem")
    chosen = (settable,) if isinstance(settable, str) else settable
    return Problem(
        tuple(buffer.get_variable_names()),
        target,
        direction,
        ranges,
        None if chosen is None else tuple(chosen),
        costs,
        max_targets,
    )


def _boolean(mask: np.ndarray) -> np.ndarray:
    """A mask given as numbers may be the values that were set, by mistake."""
    array = np.asarray(mask)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise DataError(
            "interventions must be a boolean mask, True where a value was set; the values "
            "themselves stand in the data"
        )
    return array.astype(bool)


def _without(buffer: ExperienceBuffer, ignored: tuple[str, ...]) -> ExperienceBuffer:
    variables = buffer.get_variable_names()
    for name in ignored:
        if name not in variables:
            raise UnknownNameError(f"unknown column to ignore: {name!r}{nearest(name, variables)}")
    if not ignored:
        return buffer
    values, mask = buffer.all_rows()
    kept = np.array([name not in ignored for name in variables])
    lost = np.argwhere(mask & ~kept)
    if lost.size:
        row, column = lost[0]
        raise DataError(
            f"row {row + 1}: {variables[column]!r} was set there but its column is ignored; leave "
            "those rows out, or keep the column"
        )
    for name in (name for done in buffer.failed for name in done if name in ignored):
        raise DataError(
            f"{name!r} was set in an experiment that failed but its column is ignored; leave that "
            "experiment out, or keep the column"
        )
    names = tuple(name for name in variables if name not in ignored)
    smaller = Table(names, values[:, kept], mask[:, kept])
    # Rows of which nothing is left: what was measured in them is ignored, but they did not fail.
    left = ExperienceBuffer.from_table(smaller.without(smaller.failed))
    for experiment in buffer.failed:
        left.add_failure(experiment)
    return left
