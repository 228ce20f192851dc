"""Whether mechanisms are taken for linear, by observed rows and by experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_bayes_opt.acquisition.smooth_functions import (
    Evidence,
    Mechanism,
    log_odds_of_linear,
    usual_values,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import MethodLimitError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.router import passes_for_linear

if TYPE_CHECKING:
    from causal_bayes_opt.acquisition.state import AcquisitionState

_SURE = 3.0  # log-odds, 20 to 1, from which no other posterior is asked


def is_linear(
    state: AcquisitionState, rival: Callable[[], ParentSetPosterior] | None = None
) -> bool:
    """Whether mechanisms are taken for linear; where the state says it already, that holds.

    `rival` is as in `seems_linear`.
    """
    if state.linear is not None:
        return state.linear
    ranges = {name: state.range_of(name) for name in state.problem.may_set}
    return seems_linear(state.buffer, state.problem.target, state.posterior, ranges, rival)


def seems_linear(
    buffer: ExperienceBuffer,
    target: str,
    posterior: ParentSetPosterior,
    ranges: Mapping[str, tuple[float, float]],
    rival: Callable[[], ParentSetPosterior] | None = None,
) -> bool:
    """Whether a target's data speak for linear mechanisms.

    Observed rows must pass the check for linear Gaussian systems, and all rows must speak for a
    linear mechanism of the target rather than for another, given the parents that are likelier than
    not, one at least. No others: of an effect the target looks linear whatever its causes do, and
    bent where experiments have set the effect.

    A posterior that takes mechanisms for linear rules out causes that act otherwise, and finds
    linear what is left. So unless the rows are sure, they are asked given the parents of another
    posterior, too.

    Args:
        buffer: all rows.
        target: its name.
        posterior: over the target's parents.
        ranges: of the variables that may be set.
        rival: gives a posterior that takes nothing for linear; called where it is needed. Where it
            has no answer (`MethodLimitError`), the first counts.
    """
    if not passes_for_linear(buffer):
        return False
    odds = _log_odds(buffer, target, posterior, ranges)
    if odds < 0 or odds >= _SURE or rival is None:
        return odds >= 0
    try:
        other = rival()
    except MethodLimitError:
        return True
    return _log_odds(buffer, target, other, ranges) >= 0


def _log_odds(
    buffer: ExperienceBuffer,
    target: str,
    posterior: ParentSetPosterior,
    ranges: Mapping[str, tuple[float, float]],
) -> float:
    """Of a linear mechanism of the target, given its likely parents."""
    names = tuple(buffer.get_variable_names())
    marginals = posterior.marginals
    likely = [name for name in marginals if marginals[name] > 0.5]
    likely = likely or [max(marginals, key=lambda name: marginals[name])]
    mechanism = Mechanism(names.index(target), tuple(sorted(map(names.index, likely))))
    return log_odds_of_linear(mechanism, *standardised_evidence(buffer, ranges))


def standardised_evidence(
    buffer: ExperienceBuffer, ranges: Mapping[str, tuple[float, float]]
) -> tuple[Evidence, np.ndarray]:
    """All rows, standardised, and the usual values of every variable."""
    scaling, names = Scaling.of(buffer), tuple(buffer.get_variable_names())
    values, mask = buffer.rows()
    values = scaling.apply(values)
    return Evidence.of(values, mask), usual_values(values, mask, scaling, names, ranges)
