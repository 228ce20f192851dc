"""Choosing a surrogate: by name, or by what the data allow and the measured accuracy says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.errors import MethodLimitError, check_name
from causal_bayes_opt.surrogate.exact import MAX_UNCAPPED, exact_posterior
from causal_bayes_opt.surrogate.network import NetworkSurrogate
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import (
    AllPosteriors,
    EdgePrior,
    Surrogate,
    SystemPosterior,
)
from causal_bayes_opt.surrogate.support import (
    COUNTS,
    Support,
    looks_linear_gaussian,
    summary_of,
    support_of,
)

_FEWEST_ROWS = 8  # below, no check of the data says anything
_NO_WORSE = 0.02  # nats
_NOTHING_FITS = (
    "the data are neither linear Gaussian nor like those of the networks: the answer takes them "
    "for linear Gaussian"
)
_NO_NETWORK = "the network has no answer on these data: this one takes them for linear Gaussian"

_Answer = TypeVar("_Answer")


class Choice(NamedTuple):
    """A surrogate, the reason in one sentence, and what the user should know."""

    surrogate: AllPosteriors
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Router:
    """Exact inference or one of two networks, by the data.

    Data that pass a check for linear Gaussian systems go to the network for these where its
    measured accuracy is no worse than that of exact inference and the data lie inside what it was
    trained on, one variable set at a time, as that table has them; otherwise to exact inference, as
    far as that needs no limit on parents. Other data go to the network that knows nonlinear
    mechanisms; with more rows, experiments or variables than it was trained on it warns, and is
    still better than inference for systems that these are not (`docs/peers.md`). Where the data
    themselves are unlike its training (tails, say) it is wrong without noticing, and exact
    inference answers with a warning, as far as it can. Of the networks only that one knows
    variables that vary only where they were set.
    The metadata of an answer say which was chosen, and why.

    Attributes:
        exact: exact inference; None leaves the choice among the networks.
        linear: the network for linear Gaussian systems.
        mixed: the network for others.
        linear_is_open: whether data may be taken for linear Gaussian at all.
    """

    exact: AllPosteriors | None
    linear: NetworkSurrogate
    mixed: NetworkSurrogate
    linear_is_open: bool = True

    @property
    def beyond_linear(self) -> Router:
        """The same for data of which it is known that they are not linear."""
        return replace(self, linear_is_open=False)

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """The posterior over the target's parent sets by the chosen surrogate."""
        choice, found = self._ask(
            self.choose(buffer), buffer, lambda s: s(buffer, target, prior=prior, key=key)
        )
        return _because(found, choice)

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> SystemPosterior:
        """The posteriors of all variables by the chosen surrogate.

        Of data that pass for linear by exact inference, where that needs no limit on parents: the
        linear network's are as good, but it has no distribution over whole graphs.
        """
        choice, found = self._ask(
            self._choose_for_all(buffer),
            buffer,
            lambda s: s.posteriors(buffer, prior=prior, key=key),
        )
        names = buffer.get_variable_names()
        return SystemPosterior(
            names, lambda name: _because(found[name], choice), found.draw_graphs, found.list_sets
        )

    def _ask(
        self, choice: Choice, buffer: ExperienceBuffer, ask: Callable[[AllPosteriors], _Answer]
    ) -> tuple[Choice, _Answer]:
        """Ask the chosen surrogate; where a network has no answer, exact inference if it can."""
        try:
            return choice, ask(choice.surrogate)
        except MethodLimitError as error:
            exact = self._exact_without_limit(buffer)
            if exact is None or choice.surrogate is exact:
                raise
            instead = Choice(exact, f"{error}: exact inference instead", (_NO_NETWORK,))
            return instead, ask(exact)

    def _exact_without_limit(self, buffer: ExperienceBuffer) -> AllPosteriors | None:
        """Exact inference, where there is one and it needs no limit on parents."""
        return self.exact if len(buffer.get_variable_names()) <= MAX_UNCAPPED else None

    def takes_for_linear(self, buffer: ExperienceBuffer) -> bool:
        """Whether it would ask inference for linear Gaussian systems, or the network for them."""
        return self.linear_is_open and passes_for_linear(buffer)

    def choose(self, buffer: ExperienceBuffer) -> Choice:
        """The surrogate for a buffer, and why."""
        if self.takes_for_linear(buffer):
            return self._choose_linear(buffer)
        support = _support(self.mixed, buffer)
        if not support.outside:
            return Choice(
                self.mixed, "the data are not linear Gaussian: the network knows other systems"
            )
        named = zip(support.names, support.outside, strict=True)
        unlike = [told for name, told in named if name not in COUNTS]
        exact = self._exact_without_limit(buffer)
        if unlike and exact is not None:
            return Choice(
                exact,
                "the data are not linear Gaussian, and unlike what the networks were trained on",
                (f"{_NOTHING_FITS} ({unlike[0]})",),
            )
        return Choice(self.mixed, "the data are not linear Gaussian, and unlike any training")

    def _choose_for_all(self, buffer: ExperienceBuffer) -> Choice:
        """For all variables and whole graphs of them, which networks do not know."""
        exact = self._exact_without_limit(buffer)
        if exact is None or not self.takes_for_linear(buffer):
            return self.choose(buffer)
        return Choice(
            exact,
            "the data pass the check for linear Gaussian systems: exact inference knows whole "
            "graphs",
        )

    def _choose_linear(self, buffer: ExperienceBuffer) -> Choice:
        d = len(buffer.get_variable_names())
        if self.exact is None:
            reason = "the data pass the check for linear Gaussian systems"
            return Choice(self._linear_network(buffer), reason)
        if d > MAX_UNCAPPED:
            reason = f"{d} variables: beyond {MAX_UNCAPPED} exact inference would limit parents"
            return Choice(self._linear_network(buffer), reason)
        gap = measured_gap(self.linear.trained.card.get("accuracy", ()), buffer)
        measured = summary_of(buffer)["set_at_once"] <= 1  # the table has no joint experiments
        if measured and not _support(self.linear, buffer).outside and gap <= _NO_WORSE:
            return Choice(
                self.linear,
                "linear Gaussian data inside what the network was trained on, where it was "
                f"measured at {gap:+.2f} nats beside exact inference",
            )
        return Choice(
            self.exact,
            f"{d} variables that pass the check for linear Gaussian systems: exact inference "
            "looks at all parent sets",
        )

    def _linear_network(self, buffer: ExperienceBuffer) -> NetworkSurrogate:
        """The one for linear systems, unless only the other knows that variables were held."""
        knows = "only_set" not in _support(self.linear, buffer).names
        return self.linear if knows else self.mixed


def passes_for_linear(buffer: ExperienceBuffer) -> bool:
    """Whether observed rows pass for those of a linear Gaussian system; a few always do."""
    few = buffer.n_observations < _FEWEST_ROWS
    return few or looks_linear_gaussian(summary_of(buffer))


def measured_gap(accuracy: Sequence[Mapping[str, Any]], buffer: ExperienceBuffer) -> float:
    """Nats by which a network was measured above exact inference on the most similar data.

    Args:
        accuracy: lines of a card's table, with ``source``, ``d``, ``n``, ``m`` and ``gap``. The
            nearest of each source counts.
        buffer: the data.

    Returns:
        The mean over sources; infinite without a table.
    """
    if not accuracy:
        return np.inf
    names = buffer.get_variable_names()
    tried = buffer.n_interventions / max(len(names) - 1, 1)
    own = np.log([len(names), max(buffer.n_observations, 1), 1.0 + tried])
    places = np.log([[line["d"], line["n"], 1.0 + line["m"]] for line in accuracy])
    distances = np.abs(places - own).sum(axis=1)
    gaps: dict[str, float] = {}
    for i in np.argsort(distances, kind="stable"):
        gaps.setdefault(accuracy[i]["source"], float(accuracy[i]["gap"]))
    return float(np.mean(list(gaps.values())))


LINEAR, MIXED = "linear-gaussian-v1", "mixed-v1"

network_posterior = Router(None, NetworkSurrogate(LINEAR), NetworkSurrogate(MIXED))
"""The shipped networks: for linear Gaussian data the one, for others the other."""

auto_posterior = Router(exact_posterior, NetworkSurrogate(LINEAR), NetworkSurrogate(MIXED))
"""The default: exact inference or one of the shipped networks."""

SURROGATES: dict[str, Surrogate] = {
    "auto": auto_posterior,
    "exact": exact_posterior,
    "network": network_posterior,
    LINEAR: NetworkSurrogate(LINEAR),
    MIXED: NetworkSurrogate(MIXED),
}


def surrogate_named(method: str) -> Surrogate:
    """The surrogate of a name; `UnknownNameError` with the nearest name otherwise."""
    check_name(method, SURROGATES, "method")
    return SURROGATES[method]


def _support(network: NetworkSurrogate, buffer: ExperienceBuffer) -> Support:
    trained = network.trained
    return support_of(trained.card.get("trained_on", {}), buffer, trained.name)


def _because(posterior: ParentSetPosterior, choice: Choice) -> ParentSetPosterior:
    warnings = (*posterior.warnings, *choice.warnings)
    return posterior.with_metadata(chosen_because=choice.reason, warnings=warnings)
