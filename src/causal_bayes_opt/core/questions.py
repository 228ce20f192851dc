"""What rows must have for a question about a target, and what a user should know about them."""

from __future__ import annotations

import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling, only_set
from causal_bayes_opt.errors import DataError, check_name

MIN_ROWS = 2
_SAME = 1e-9  # one minus the squared correlation of columns that are copies of each other
_COPIED, _FEW_VALUES = 0.1, 20  # share of rows that may be copies, where columns have more values


def check_question(buffer: ExperienceBuffer, target: str) -> None:
    """Refuse what no method can answer.

    Raises:
        UnknownNameError: the target is not among the variables.
        DataError: one variable, fewer than 2 rows, a constant column, or a target that was set in
            every row.
    """
    variables = buffer.get_variable_names()
    check_name(target, variables, "target")
    if len(variables) == 1:
        raise DataError(
            f"{target!r} is the only variable; at least one other is needed to look for its causes"
        )
    _, mask = buffer.rows()
    if len(mask) < MIN_ROWS:
        count = "1 row" if len(mask) == 1 else f"{len(mask)} rows"
        raise DataError(f"the data have {count}; at least {MIN_ROWS} rows are needed")
    if mask[:, variables.index(target)].all():
        raise DataError(
            f"the target {target!r} was set in every row, so no row shows what causes it; add rows "
            "in which it was left alone"
        )
    if target in only_set(buffer):
        raise DataError(
            f"the target {target!r} is constant where nothing was set, so nothing shows its causes"
        )
    Scaling.of(buffer)


def data_warnings(buffer: ExperienceBuffer) -> tuple[str, ...]:
    """Sentences about the rows that a user should know before trusting any answer from them."""
    variables = buffer.get_variable_names()
    values, mask = buffer.rows()
    observed = values[~mask.any(axis=1)]
    warnings = list(buffer.warnings)
    if len(observed) <= len(variables):
        warnings.append(
            f"{len(observed)} observational rows for {len(variables)} variables: too few to tell "
            "causes apart; the answer is mostly prior"
        )
    warnings += [
        f"{name!r} varies only where it was set: experiments alone say what it does, and nothing "
        "says what causes it"
        for name in only_set(buffer)
    ]
    z = Scaling.of(buffer).apply(observed)
    copies_of_rows = _copies(observed)
    if copies_of_rows > _COPIED * len(observed):
        warnings.append(
            f"{copies_of_rows} of {len(observed)} observational rows are copies of others, and "
            "each counts as evidence of its own: leave copies out"
        )
    correlation = z.T @ z / max(len(z), 1)
    copies = np.triu(1 - correlation**2 < _SAME, k=1) & (len(observed) > 2)
    warnings += [
        f"the columns {variables[i]!r} and {variables[j]!r} carry the same values up to scale; "
        "nothing can tell which of them is the cause: leave one out"
        for i, j in np.argwhere(copies)
    ]
    return tuple(warnings)


def _copies(observed: np.ndarray) -> int:
    """How many rows are copies of others; 0 where a column has few values, as rows recur then."""
    if not len(observed):
        return 0
    distinct = 1 + (np.diff(np.sort(observed, axis=0), axis=0) != 0).sum(axis=0)
    # A row is a copy where every column is: columns are sorted faster than rows.
    if distinct.min() <= _FEW_VALUES or distinct.max() == len(observed):
        return 0
    return len(observed) - len(np.unique(observed, axis=0))
