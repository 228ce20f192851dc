"""The trained model inside the loop of experiments: from a buffer to a posterior to a new state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import haiku as hk
import jax
import numpy as np
from pyrsistent import PMap, pmap

from causal_bayes_opt.acquisition.pipeline import SurrogateUpdate
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import DataError, MethodLimitError, check_name
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel
from causal_bayes_opt.surrogate.posterior import ParentSet, ParentSetPosterior, all_subsets
from causal_bayes_opt.surrogate.predictor import AmortizedModel

MAX_ENUMERATED = 16
_SOURCE = "amortized_model"


def integrate_amortized_with_buffer(
    buffer: ExperienceBuffer,
    amortized_model: AmortizedModel,
    model_params: hk.Params,
    target_variable: str,
) -> ParentSetPosterior:
    """Return the model's joint posterior over the target's parent sets, given a buffer.

    Raises:
        UnknownNameError: the target is not in the buffer.
        DataError: fewer than 2 observational rows or a constant column.
    """
    found = _surrogate(amortized_model, model_params)(buffer, target_variable)
    return found.with_metadata(source=_SOURCE)


def convert_amortized_to_posterior(
    amortized_predictions: np.ndarray | jax.Array,
    variable_names: Sequence[str],
    target_variable: str,
) -> ParentSetPosterior:
    """Turn network output into a posterior.

    Args:
        amortized_predictions: marginals ``[n_vars]``, taken as independent; or joint
            log-probabilities ``[2^(n_vars - 1)]`` of all sets of the other variables, in their
            order, where row r holds the variable of slot s if bit s of r is set. Of two variables
            both have one shape: what holds a negative number is taken for logarithms.
        variable_names: all names, in order.
        target_variable: the target.

    Raises:
        DataError: neither of these shapes, or values that are no probabilities.
        UnknownNameError: the target is not among the names.
    """
    names = tuple(variable_names)
    check_name(target_variable, names, "target")
    predictions = np.asarray(amortized_predictions, dtype=np.float64)
    metadata = pmap({"source": _SOURCE, "method": "network"})
    if predictions.shape == (len(names),) and not (len(names) == 2 and (predictions < 0).any()):
        probs = generate_parent_sets_from_marginals(predictions, names, target_variable)
        return _from_probs(probs, names, target_variable, metadata)
    if predictions.shape == (2 ** (len(names) - 1),):
        t = names.index(target_variable)
        members = np.insert(all_subsets(len(names) - 1), t, False, axis=1)
        return ParentSetPosterior.from_log_probs(
            names, target_variable, members, predictions, metadata
        )
    raise DataError(
        f"predictions have shape {predictions.shape}; expected ({len(names)},) marginals or "
        f"({2 ** (len(names) - 1)},) joint log-probabilities for {len(names)} variables"
    )


def generate_parent_sets_from_marginals(
    marginals: np.ndarray | jax.Array, variable_names: Sequence[str], target_variable: str
) -> PMap[ParentSet, float]:
    """Return the probability of every parent set, were the variables independent.

    Args:
        marginals: ``[n_vars]``; the target's own entry is not looked at.
        variable_names: all names, in order.
        target_variable: the target.

    Raises:
        DataError: another shape, or values outside 0 to 1.
        MethodLimitError: more than 16 candidates, whose sets are too many to list.
    """
    names = tuple(variable_names)
    check_name(target_variable, names, "target")
    values = np.asarray(marginals, dtype=np.float64)
    if values.shape != (len(names),):
        raise DataError(f"marginals have shape {values.shape}; expected ({len(names)},)")
    others = [i for i, name in enumerate(names) if name != target_variable]
    p = values[others]
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("marginals must be probabilities between 0 and 1")
    if len(others) > MAX_ENUMERATED:
        raise MethodLimitError(
            f"{len(others)} candidates have too many parent sets to list (limit {MAX_ENUMERATED}); "
            "use integrate_amortized_with_buffer, which keeps the most probable ones"
        )
    members = all_subsets(len(others))
    probs = np.where(members, p, 1 - p).prod(axis=1)
    return pmap(
        {
            frozenset(names[others[s]] for s in np.flatnonzero(row)): float(prob)
            for row, prob in zip(members, probs, strict=True)
        }
    )


def update_state_with_intervention(
    state: AcquisitionState,
    intervention: Mapping[str, float],
    outcome: Mapping[str, float],
    new_posterior: ParentSetPosterior | Mapping[str, ParentSetPosterior],
) -> AcquisitionState:
    """Return the state after an experiment; the given one stays as it is.

    Args:
        state: before the experiment.
        intervention: what was set.
        outcome: what was measured.
        new_posterior: the target's, or one for each variable.

    Raises:
        DataError: an outcome that does not fit the intervention, or posteriors that are not those
            of the state's target or of all its variables.
    """
    buffer = state.buffer.copy()
    buffer.add_intervention(intervention, outcome)
    if isinstance(new_posterior, ParentSetPosterior):
        new_posterior = {**state.posteriors, state.current_target: new_posterior}
    posteriors = dict(new_posterior)
    missing = [name for name in state.problem.variables if name not in posteriors]
    if missing:
        raise DataError(f"there is no posterior for {missing[0]!r}; give one for every variable")
    for name, posterior in posteriors.items():
        if posterior.target_variable != name:
            raise DataError(
                f"the posterior for {name!r} is over the parents of {posterior.target_variable!r}"
            )
    return replace(
        state,
        buffer=buffer,
        posteriors=posteriors,
        step=state.step + 1,
        # What was drawn and found before this row need not hold after it.
        graphs=None,
        linear=None,
    )


def create_amortized_surrogate_update_fn(
    amortized_model: AmortizedModel, model_params: hk.Params
) -> SurrogateUpdate:
    """Return ``(state, intervention, outcome) -> state`` with the model's new posteriors."""
    return SurrogateUpdate(_surrogate(amortized_model, model_params))


def _surrogate(model: AmortizedModel, params: hk.Params) -> NetworkSurrogate:
    return NetworkSurrogate(TrainedModel(_SOURCE, model, params, {}))


def _from_probs(
    probs: PMap[ParentSet, float], names: tuple[str, ...], target: str, metadata: PMap[str, str]
) -> ParentSetPosterior:
    members = np.array([[name in parents for name in names] for parents in probs])
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array(list(probs.values())))
    return ParentSetPosterior.from_log_probs(names, target, members, log_probs, metadata)
