"""Whether mechanisms are taken for linear, by observed rows and by experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_bayes_opt.acquisition.smooth_functions import (
    Evidence,
    Mechanism,
    linear_is_likeliest,
    usual_values,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.router import passes_for_linear

if TYPE_CHECKING:
    from causal_bayes_opt.acquisition.state import AcquisitionState

_LOOKED_AT = 3  # likeliest parents, at least
_MOST_SMOOTH = 20  # variables up to which mechanisms that are not linear are modelled


def is_linear(state: AcquisitionState) -> bool:
    """Whether mechanisms are taken for linear; where the state says it already, that holds."""
    if state.linear is not None:
        return state.linear
    ranges = {name: state.range_of(name) for name in state.problem.may_set}
    return seems_linear(state.buffer, state.problem.target, state.posterior, ranges)


def seems_linear(
    buffer: ExperienceBuffer,
    target: str,
    posterior: ParentSetPosterior,
    ranges: Mapping[str, tuple[float, float]],
) -> bool:
    """Whether a target's data speak for linear mechanisms; always, beyond 20 variables.

    Observed rows must pass the check for linear Gaussian systems, and all rows must speak for a
    linear mechanism of the target rather than for another, given its three likeliest parents and
    all others that are likelier than not: one that is left out moves what it moves unexplained.

    Args:
        buffer: all rows.
        target: its name.
        posterior: over the target's parents.
        ranges: of the variables that may be set.
    """
    names = tuple(buffer.get_variable_names())
    if len(names) > _MOST_SMOOTH:
        return True
    if not passes_for_linear(buffer):
        return False
    marginals = posterior.marginals
    many = max(_LOOKED_AT, sum(p > 0.5 for p in marginals.values()))
    likeliest = sorted(marginals, key=lambda name: -marginals[name])[:many]
    parents = tuple(sorted(names.index(name) for name in likeliest))
    mechanism = Mechanism(names.index(target), parents)
    return linear_is_likeliest(mechanism, *standardised_evidence(buffer, ranges))


def standardised_evidence(
    buffer: ExperienceBuffer, ranges: Mapping[str, tuple[float, float]]
) -> tuple[Evidence, np.ndarray]:
    """All rows, standardised, and the usual values of every variable."""
    scaling, names = Scaling.of(buffer), tuple(buffer.get_variable_names())
    values, mask = buffer.rows()
    values = scaling.apply(values)
    return Evidence.of(values, mask), usual_values(values, mask, scaling, names, ranges)
