"""Choosing a surrogate: by name, or by what the data allow."""

from __future__ import annotations

from dataclasses import replace

import jax
from pyrsistent import pmap

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import check_name
from causal_bayes_opt.surrogate.exact import MAX_UNCAPPED, exact_posterior
from causal_bayes_opt.surrogate.network import network_posterior
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate


def auto_posterior(
    buffer: ExperienceBuffer,
    target: str,
    *,
    prior: EdgePrior | None = None,
    key: jax.Array | None = None,
) -> ParentSetPosterior:
    """Exact inference up to 15 variables, the network beyond; the metadata say which and why."""
    n_vars = len(buffer.get_variable_names())
    if n_vars <= MAX_UNCAPPED:
        posterior = exact_posterior(buffer, target, prior=prior, key=key)
        reason = f"{n_vars} variables, and exact inference is fast up to {MAX_UNCAPPED}"
    else:
        posterior = network_posterior(buffer, target, prior=prior, key=key)
        reason = f"{n_vars} variables, more than the {MAX_UNCAPPED} that exact inference does fast"
    return _with_reason(posterior, reason)


SURROGATES: dict[str, Surrogate] = {
    "auto": auto_posterior,
    "exact": exact_posterior,
    "network": network_posterior,
}


def surrogate_named(method: str) -> Surrogate:
    """The surrogate of a name; `UnknownNameError` with the nearest name otherwise."""
    check_name(method, SURROGATES, "method")
    return SURROGATES[method]


def _with_reason(posterior: ParentSetPosterior, reason: str) -> ParentSetPosterior:

    return replace(posterior, metadata=pmap({**posterior.metadata, "chosen_because": reason}))
