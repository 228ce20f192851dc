"""Whether mechanisms are taken for linear, by observed rows and by experiments."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from causal_bayes_opt.acquisition.smooth_functions import (
    EVERY,
    Evidence,
    Mechanism,
    log_odds_of_linear,
    usual_values,
)
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling, only_set
from causal_bayes_opt.errors import MethodLimitError
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior
from causal_bayes_opt.surrogate.router import Router, passes_for_linear

if TYPE_CHECKING:
    from causal_bayes_opt.acquisition.state import AcquisitionState

# Log-odds from which mechanisms are taken for linear, by observed rows and with experiments: a bend
# that is not seen costs more than one that is looked for in vain.
_ENOUGH_OBSERVED, _ENOUGH_TRIED = 0.5, 1.0

Asked: TypeAlias = Callable[[ExperienceBuffer], ParentSetPosterior]


@dataclass(frozen=True)
class Rival:
    """A router that takes nothing for linear, asked for the causes of a target.

    Attributes:
        router: with `Router.linear_is_open` False.
        target: its name.
        prior: what is known about the edges beforehand.
    """

    router: Router
    target: str
    prior: EdgePrior | None = None

    def __call__(self, buffer: ExperienceBuffer) -> ParentSetPosterior:
        """The posterior over the target's parent sets."""
        return self.router(buffer, self.target, prior=self.prior)


def is_linear(state: AcquisitionState, rival: Asked | None = None) -> bool:
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
    rival: Asked | None = None,
) -> bool:
    """Whether a target's data speak for linear mechanisms.

    Observed rows must pass the check for linear Gaussian systems, and all rows must speak clearly
    for a linear mechanism of the target rather than for another, given the parents that are
    likelier than not, one at least. No others: of an effect the target looks linear whatever its
    causes do, and bent where experiments have set the effect.

    A posterior that takes mechanisms for linear rules out causes that act otherwise, and finds
    linear what is left. So the rows are asked given the parents of another posterior, too. Like
    what is learned of mechanisms, the verdict looks at every ten experiments and not at each, so
    that it can be kept.

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
    names = tuple(buffer.get_variable_names())
    values, mask = buffer.all_rows()
    tried = np.flatnonzero(mask.any(axis=1))
    # A variable that only experiments vary is constant without them.
    late = tried[:0] if only_set(buffer) else tried[len(tried) // EVERY * EVERY :]
    values, mask = np.delete(values, late, axis=0), np.delete(mask, late, axis=0)
    within = tuple((name, tuple(map(float, ends))) for name, ends in ranges.items())
    # A router with weights in its hands cannot be kept by.
    judge = _verdict if _is_hashable(rival) else _verdict.__wrapped__
    causes = _likely_causes(posterior, names)
    return judge(rival, names, target, causes, within, values.tobytes(), mask.tobytes())


def forget() -> None:
    """Forget all answers, so that what is timed next is not read from memory."""
    _verdict.cache_clear()


def _likely_causes(posterior: ParentSetPosterior, names: tuple[str, ...]) -> tuple[int, ...]:
    """The positions of the parents that are likelier than not, or of the likeliest."""
    marginals = posterior.marginals
    likely = [name for name in marginals if marginals[name] > 0.5]
    likely = likely or [max(marginals, key=lambda name: marginals[name])]
    return tuple(sorted(map(names.index, likely)))


@lru_cache(maxsize=64)
def _verdict(
    rival: Asked | None,
    names: tuple[str, ...],
    target: str,
    causes: tuple[int, ...],
    within: tuple[tuple[str, tuple[float, ...]], ...],
    values: bytes,
    mask: bytes,
) -> bool:
    shape = (-1, len(names))
    rows = np.frombuffer(values).reshape(shape), np.frombuffer(mask, dtype=bool).reshape(shape)
    buffer = ExperienceBuffer.from_arrays(*rows, names)
    ranges = {name: (low, high) for name, (low, high) in within}
    evidence, node = standardised_evidence(buffer, ranges), names.index(target)
    enough = _ENOUGH_TRIED if buffer.rows()[1].any() else _ENOUGH_OBSERVED
    clear = log_odds_of_linear(Mechanism(node, causes), *evidence) >= enough
    if not clear or rival is None:
        return clear
    try:
        others = _likely_causes(rival(buffer), names)
    except MethodLimitError:
        return True
    return others == causes or log_odds_of_linear(Mechanism(node, others), *evidence) >= enough


def _is_hashable(what: Hashable) -> bool:
    try:
        hash(what)
    except TypeError:
        return False
    return True


def standardised_evidence(
    buffer: ExperienceBuffer, ranges: Mapping[str, tuple[float, float]]
) -> tuple[Evidence, np.ndarray]:
    """All rows, standardised, and the usual values of every variable."""
    scaling, names = Scaling.of(buffer), tuple(buffer.get_variable_names())
    values, mask = buffer.rows()
    values = scaling.apply(values)
    return Evidence.of(values, mask), usual_values(values, mask, scaling, names, ranges)
