"""Runs as arrays: the form in which they are stored, and back, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from causal_bayes_opt.errors import DataError

OBSERVED = -1  # what `row_trial` says of rows that were observed
PADDING = -2


class RunRecords(NamedTuple):
    """Runs on systems of one size, side by side; rows, trials and sets are padded.

    Variables are X1 to Xd. A run without an expert has one state, whose posterior is the truth.
    """

    seed: np.ndarray  # int64 [n_runs]
    target: np.ndarray  # int16 [n_runs], position
    true_parents: np.ndarray  # bool [n_runs, n_vars]
    observed: np.ndarray  # [n_runs, n_obs, n_vars], in the system's units; NaN where padded
    tried: np.ndarray  # [n_runs, n_int, n_vars], likewise
    was_set: np.ndarray  # bool [n_runs, n_int, n_vars]
    trial: np.ndarray  # int16 [n_runs, n_int], 0 before the first trial; -2 where padded
    means: np.ndarray  # [n_runs, n_vars], of the observed rows
    stds: np.ndarray  # [n_runs, n_vars], likewise, ddof 0
    ranges: np.ndarray  # [n_runs, n_vars, 2]; NaN at the target and where there is none
    marginals: np.ndarray  # [n_runs, n_states, n_vars]
    sets: np.ndarray  # bool [n_runs, n_sets, n_vars]
    set_probs: np.ndarray  # [n_runs, n_states, n_sets]; NaN for sets that are not listed


def names_of(n_vars: int) -> tuple[str, ...]:
    """X1 to Xd."""
    return tuple(f"X{i + 1}" for i in range(n_vars))


def to_records(runs: Sequence[Mapping[str, Any]]) -> RunRecords:
    """Put runs of the expert on systems of one size side by side.

    Raises:
        DataError: other names than X1 to Xd, several sizes, or rows that are out of order.
    """
    parts = [_record(run) for run in runs]
    if len({part.means.shape[-1] for part in parts}) != 1:
        raise DataError("records are made of runs with one number of variables")
    return stack_records(parts)


def stack_records(parts: Sequence[RunRecords]) -> RunRecords:
    """Join records of one number of variables, padded to the longest."""
    fill = {"trial": PADDING, "sets": False, "was_set": False}
    return RunRecords(
        *(
            _padded([getattr(part, name) for part in parts], fill.get(name, np.nan))
            for name in RunRecords._fields
        )
    )


def to_runs(records: RunRecords) -> list[dict[str, Any]]:
    """The runs again, as far as examples are made of them."""
    return [_run(RunRecords(*(field[i] for field in records))) for i in range(len(records.seed))]


def _record(run: Mapping[str, Any]) -> RunRecords:
    names = tuple(run["variables"])
    if names != names_of(len(names)):
        raise DataError(f"a store holds systems of X1 to X{len(names)}, not of {names}")
    order = np.asarray(run["row_trial"])
    if (np.diff(order) < 0).any():
        raise DataError("the rows of a run must be observed first, then tried, trial by trial")
    seen, values = order == OBSERVED, np.asarray(run["row_values"])
    states = [run["initial_sets"], *run["posterior_sets"]]
    listed = sorted({tuple(n in s for n in names) for state in states for s in state})
    set_probs = np.full((len(states), len(listed)), np.nan)
    place = {members: i for i, members in enumerate(listed)}
    for row, state in enumerate(states):
        for chosen, probability in state.items():
            set_probs[row, place[tuple(name in chosen for name in names)]] = probability
    ranges = np.array([run["ranges"].get(name, (np.nan, np.nan)) for name in names])
    single = RunRecords(
        seed=np.array(run["seed"], np.int64),
        target=np.array(names.index(run["target"]), np.int16),
        true_parents=np.array([name in run["true_parents"] for name in names]),
        observed=values[seen],
        tried=values[~seen],
        was_set=np.asarray(run["row_mask"])[~seen],
        trial=order[~seen].astype(np.int16),
        means=np.asarray(run["means"]),
        stds=np.asarray(run["stds"]),
        ranges=ranges,
        marginals=np.array([run["initial_probabilities"], *run["posterior_probabilities"]]),
        sets=np.array(listed, dtype=bool).reshape(-1, len(names)),
        set_probs=set_probs,
    )
    return RunRecords(*(np.asarray(field)[None] for field in single))


def _run(record: RunRecords) -> dict[str, Any]:
    names = names_of(len(record.means))
    observed = record.observed[~np.isnan(record.observed[:, 0])]
    kept = record.trial > PADDING
    tried, was_set = record.tried[kept], record.was_set[kept]
    listed = [
        frozenset(name for name, is_in in zip(names, row, strict=True) if is_in)
        for row in record.sets
    ]
    states = [
        {members: float(p) for members, p in zip(listed, row, strict=True) if not np.isnan(p)}
        for row in record.set_probs
    ]
    return {
        "variables": names,
        "target": names[int(record.target)],
        "true_parents": tuple(
            n for n, is_in in zip(names, record.true_parents, strict=True) if is_in
        ),
        "seed": int(record.seed),
        "means": record.means,
        "stds": record.stds,
        "ranges": {
            name: (float(low), float(high))
            for name, (low, high) in zip(names, record.ranges, strict=True)
            if not np.isnan(low)
        },
        "row_values": np.concatenate([observed, tried]),
        "row_mask": np.concatenate([np.zeros(observed.shape, dtype=bool), was_set]),
        "row_trial": np.concatenate(
            [np.full(len(observed), OBSERVED), record.trial[kept].astype(np.int64)]
        ),
        "D_O_standardized": (observed - record.means) / record.stds,
        "initial_probabilities": record.marginals[0],
        "posterior_probabilities": list(record.marginals[1:]),
        "initial_sets": states[0],
        "posterior_sets": states[1:],
    }


def _padded(arrays: Sequence[np.ndarray], fill: float) -> np.ndarray:
    shape = tuple(max(array.shape[axis] for array in arrays) for axis in range(1, arrays[0].ndim))
    if all(array.shape[1:] == shape for array in arrays):
        return np.concatenate(arrays)
    joined = np.full((sum(map(len, arrays)), *shape), fill, dtype=arrays[0].dtype)
    start = 0
    for array in arrays:
        room = (slice(start, start + len(array)), *(slice(0, size) for size in array.shape[1:]))
        joined[room] = array
        start += len(array)
    return joined
