"""Choosing a surrogate: by name, or by what the data allow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import check_name
from causal_bayes_opt.surrogate.exact import MAX_UNCAPPED, exact_posterior
from causal_bayes_opt.surrogate.network import NetworkSurrogate
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import (
    AllPosteriors,
    EdgePrior,
    Surrogate,
    WholeGraphs,
)


@dataclass(frozen=True)
class Router:
    """Exact inference where it needs no limit on parents, the network beyond.

    The metadata of an answer say which was chosen, and why.
    """

    exact: AllPosteriors
    network: AllPosteriors

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """The posterior over the target's parent sets by the chosen surrogate."""
        chosen, reason = self._choose(buffer)
        return _because(chosen(buffer, target, prior=prior, key=key), reason)

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> dict[str, ParentSetPosterior]:
        """The posteriors of all variables by the chosen surrogate."""
        chosen, reason = self._choose(buffer)
        found = chosen.posteriors(buffer, prior=prior, key=key)
        return {name: _because(posterior, reason) for name, posterior in found.items()}

    def graphs(
        self,
        key: jax.Array,
        buffer: ExperienceBuffer,
        n: int,
        *,
        prior: EdgePrior | None = None,
    ) -> np.ndarray | None:
        """Whole graphs where the chosen surrogate can draw them, else None."""
        chosen, _ = self._choose(buffer)
        if isinstance(chosen, WholeGraphs):
            return chosen.graphs(key, buffer, n, prior=prior)
        return None

    def _choose(self, buffer: ExperienceBuffer) -> tuple[AllPosteriors, str]:
        n_vars = len(buffer.get_variable_names())
        if n_vars <= MAX_UNCAPPED:
            return self.exact, f"{n_vars} variables: exact inference looks at all parent sets"
        reason = f"{n_vars} variables: beyond {MAX_UNCAPPED} exact inference would limit parents"
        return self.network, reason


network_posterior = NetworkSurrogate()
"""The shipped network."""

auto_posterior = Router(exact_posterior, network_posterior)
"""The default: exact inference or the shipped network."""

SURROGATES: dict[str, Surrogate] = {
    "auto": auto_posterior,
    "exact": exact_posterior,
    "network": network_posterior,
}


def surrogate_named(method: str) -> Surrogate:
    """The surrogate of a name; `UnknownNameError` with the nearest name otherwise."""
    check_name(method, SURROGATES, "method")
    return SURROGATES[method]


def _because(posterior: ParentSetPosterior, reason: str) -> ParentSetPosterior:
    return replace(posterior, metadata=posterior.metadata.set("chosen_because", reason))
