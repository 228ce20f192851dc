"""Trained networks: saved, loaded, and used as surrogates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np
from scipy.special import expit, logit

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import reachable
from causal_bayes_opt.core.padding import bucket
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.weights import (
    find_header,
    load_weights,
    read_header,
    save_network,
    size_of,
    written_at,
)
from causal_bayes_opt.errors import MethodLimitError, ModelError, check_name
from causal_bayes_opt.surrogate.avici_adapter import AxialConfig, AxialModel
from causal_bayes_opt.surrogate.encoding import ENCODING_VERSION, MAX_CANDIDATES, Rows
from causal_bayes_opt.surrogate.joint import JointPosteriors, Network
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior, all_subsets
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.protocol import (
    EdgePrior,
    SystemPosterior,
    default_edge_probability,
)
from causal_bayes_opt.surrogate.support import support_of
from causal_bayes_opt.surrogate.temperature import Tempered

FORMAT = "causal_bayes_opt.predictor/1"
DEFAULT_MODEL = "linear-gaussian-v1"
VARIABLE_BUCKETS = (8, 12, 16, 24, 32, 50, 64, 100)
_MOST_GROWN = 4  # variables that are not enumerated, which may join the sets of a study


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights and its card.

    Attributes:
        name: what it is called in answers.
        model: the pure functions.
        params: the weights.
        card: what it was trained on, and measured; JSON values.
    """

    name: str
    model: Network
    params: hk.Params
    card: Mapping[str, Any]


def save_model(trained: TrainedModel, path: str | Path) -> Path:
    """Write ``PATH.safetensors`` and its header ``PATH.json``; return the header's path."""
    header = {"format": FORMAT, "name": trained.name, **trained.model.describe()}
    return save_network(path, {**header, "card": trained.card}, trained.params)


def load_pretrained(name_or_path: str | Path = DEFAULT_MODEL) -> TrainedModel:
    """Load a shipped model by its name, or any model by the path of its header.

    Raises:
        ModelError: no such model, or a file that does not fit this version, and why.
    """
    path = find_header(name_or_path, "surrogate", "model")
    return _loaded(path.resolve(), written_at(path))


@lru_cache(maxsize=16)
def _loaded(path: Path, _written_at: tuple[int, ...]) -> TrainedModel:
    header = read_header(path, "model", FORMAT, ENCODING_VERSION)
    model = make_network(
        str(header.get("architecture")), header["config"], header.get("temperature")
    )
    params = load_weights(path.with_suffix(".safetensors"))
    _require_same_shapes(model, params, path)
    return TrainedModel(header["name"], model, params, header["card"])


def model_digest(trained: TrainedModel) -> str:
    """A hash of the network's description, its temperature, and weights; not of name and card."""
    found = hashlib.sha256(json.dumps(trained.model.describe(), sort_keys=True).encode())
    for module, own in sorted(trained.params.items()):
        for name, value in sorted(own.items()):
            found.update(f"{module}//{name}".encode())
            found.update(np.asarray(value, dtype=np.float32).tobytes())
    return found.hexdigest()


def make_network(
    architecture: str, config: Mapping[str, Any], temperature: Sequence[float] | None = None
) -> Network:
    """A network from its header: `pairs` (`predictor`) or `rows` (`avici_adapter`).

    Args:
        architecture: its kind.
        config: its size.
        temperature: coefficients of `temperature.Tempered`; None: posteriors as they are.

    Raises:
        ModelError: no such architecture, size or temperature.
    """
    network: Network
    if architecture == "pairs":
        network = AmortizedModel(size_of(PredictorConfig, config))
    elif architecture == "rows":
        network = AxialModel(size_of(AxialConfig, config))
    else:
        raise ModelError(
            f"no architecture is called {architecture!r} (there are 'pairs' and 'rows')"
        )
    return network if temperature is None else Tempered(network, tuple(temperature))


@dataclass(frozen=True)
class NetworkSurrogate:
    """A trained network as a surrogate; see `protocol.Surrogate` and `protocol.all_posteriors`.

    Attributes:
        model: the network, or its name or path; it is loaded at the first question.
    """

    model: TrainedModel | str | Path = DEFAULT_MODEL

    @property
    def trained(self) -> TrainedModel:
        """The loaded network."""
        return self.model if isinstance(self.model, TrainedModel) else load_pretrained(self.model)

    def __call__(
        self,
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        """The posterior over the target's parent sets."""
        check_name(target, buffer.get_variable_names(), "target")
        return network_posteriors(self.trained, buffer, prior=prior)[target]

    def posteriors(
        self,
        buffer: ExperienceBuffer,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> SystemPosterior:
        """The posteriors of all variables from one pass."""
        return network_posteriors(self.trained, buffer, prior=prior)


def network_posteriors(
    trained: TrainedModel, buffer: ExperienceBuffer, *, prior: EdgePrior | None = None
) -> SystemPosterior:
    """Posteriors of all variables from one pass of the network.

    Known and forbidden edges condition the network's distribution; another edge probability
    changes the odds of a set by its number of members. A network for nonlinear systems is shown
    no more experiments than it was trained on, evenly chosen: where one is repeated hundreds of
    times, what the encoding misses of its mechanism comes to look like the work of another cause.

    Raises:
        MethodLimitError: too many variables, or an answer that is not a number.
    """
    names = buffer.get_variable_names()
    if len(names) > VARIABLE_BUCKETS[-1]:
        raise MethodLimitError(
            f"{len(names)} variables; the network takes at most {VARIABLE_BUCKETS[-1]}; leave some "
            "out"
        )
    nonlinear = getattr(trained.model.config, "nonlinear", True)
    trained_on = trained.card.get("trained_on", {})
    rows = pad_rows(buffer, trained_on["n_int"][1] if nonlinear and "n_int" in trained_on else None)
    joint = jax.tree.map(np.asarray, _jitted_joint(trained.model)(trained.params, rows))
    if not np.isfinite(joint.log_probs[: len(names)]).all():
        raise MethodLimitError(
            f"the network {trained.name!r} has no answer: single precision lost all digits on "
            "these data, whose columns may follow from each other; leave one out, or ask for "
            "exact inference"
        )
    support = support_of(trained_on, buffer, trained.name)
    metadata = {
        "method": "network",
        "model": trained.name,
        "support": support.score,
        "warnings": support.outside,
    }
    beliefs = prior or EdgePrior()

    def list_sets(name: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        sets = _sets_of(joint, names, names.index(name), beliefs).likeliest(most)
        if len(names) - 1 > MAX_CANDIDATES:
            outside = _outsiders(joint, names, names.index(name), beliefs)
            sets = _grown(sets, *outside).likeliest(most)
        return sets.members, np.exp(sets.log_probs)

    return SystemPosterior(
        names,
        lambda target: _to_posterior(joint, names, target, beliefs, metadata),
        list_sets=list_sets,
    )


def pad_rows(buffer: ExperienceBuffer, most: int | None = None) -> Rows:
    """Standardised rows of a buffer, padded to the bucket of their size.

    Of more than `most` experiments, so many are taken, evenly from first to last.
    """
    scaling = Scaling.of(buffer)
    values, mask = buffer.rows()
    tried = np.asarray(mask.any(axis=1))
    if most is not None and tried.sum() > most:
        kept = ~tried
        kept[np.flatnonzero(tried)[np.linspace(0, tried.sum() - 1, most).astype(int)]] = True
        values, mask, tried = values[kept], mask[kept], tried[kept]
    values = scaling.apply(values)
    n_vars = values.shape[1]
    room = next(size for size in VARIABLE_BUCKETS if size >= n_vars)
    n_obs, n_int = int((~tried).sum()), int(tried.sum())
    obs = np.zeros((bucket(n_obs, 128), room), np.float32)
    trials = np.zeros((bucket(n_int, 32), room, 2), np.float32)
    obs[:n_obs, :n_vars] = values[~tried]
    trials[:n_int, :n_vars, 0] = values[tried]
    trials[:n_int, :n_vars, 1] = mask[tried]
    # NumPy arrays: the jitted call moves them to the device faster than one by one.
    arrays: tuple[Any, ...] = (
        obs,
        trials,
        np.arange(len(obs)) < n_obs,
        np.arange(len(trials)) < n_int,
        np.arange(room) < n_vars,
    )
    return Rows(*arrays)


@lru_cache(maxsize=8)
def _jitted_joint(model: Network) -> Any:
    return jax.jit(model.joint)


class _Reduced(NamedTuple):
    members: np.ndarray
    log_probs: np.ndarray

    def likeliest(self, most: int) -> _Reduced:
        """The likeliest of them."""
        kept = np.argsort(-self.log_probs, kind="stable")[:most]
        return _Reduced(self.members[kept], self.log_probs[kept])


def _to_posterior(
    joint: JointPosteriors,
    names: list[str],
    target: str,
    prior: EdgePrior,
    metadata: dict[str, Any],
) -> ParentSetPosterior:
    t, d = names.index(target), len(names)
    reduced = _sets_of(joint, names, t, prior)
    posterior = ParentSetPosterior.from_log_probs(
        names, target, reduced.members, reduced.log_probs, metadata
    )
    if d - 1 <= MAX_CANDIDATES:
        return posterior
    outside, p = _outsiders(joint, names, t, prior)
    extra = float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).sum())
    return posterior.with_others(
        {names[i]: float(q) for i, q in zip(outside, p, strict=True)}, extra
    )


def _sets_of(joint: JointPosteriors, names: list[str], t: int, prior: EdgePrior) -> _Reduced:
    """The sets that the network enumerates and the prior allows, normalised."""
    slots, d = np.asarray(joint.candidates[t]), len(names)
    log_probs = np.asarray(joint.log_probs[t], dtype=np.float64)
    possible = log_probs > -1e8
    members = np.zeros((int(possible.sum()), d), dtype=bool)
    inside = slots < d
    members[:, slots[inside]] = all_subsets(len(slots))[possible][:, inside]
    if prior.known:
        # A known cause that the network does not enumerate is in every set.
        known, _ = prior.matrices(names)
        members |= known[:, t] & ~np.isin(np.arange(d), slots)
    return _condition(_Reduced(members, log_probs[possible]), names, t, prior)


def _condition(sets: _Reduced, names: list[str], t: int, prior: EdgePrior) -> _Reduced:
    if prior == EdgePrior():
        return sets
    known, forbidden = prior.matrices(names)
    keep = ~(sets.members & forbidden[:, t]).any(axis=1)
    keep &= ~(~sets.members & known[:, t]).any(axis=1)
    # What t causes for certain, directly or not, cannot cause it.
    keep &= ~(sets.members & reachable(known)[t]).any(axis=1)
    members, log_probs = sets.members[keep], sets.log_probs[keep]
    log_probs = log_probs + members.sum(axis=1) * _change_of_odds(prior, len(names))
    log_probs = log_probs - np.logaddexp.reduce(log_probs)
    return _Reduced(members, log_probs)


def _change_of_odds(prior: EdgePrior, n_vars: int) -> float:
    """Log-odds of an edge by the prior, less those of the training."""
    p, default = prior.probability(n_vars), default_edge_probability(n_vars)
    return float(np.log(p / (1 - p)) - np.log(default / (1 - default)))


def _outsiders(
    joint: JointPosteriors, names: list[str], t: int, prior: EdgePrior
) -> tuple[list[int], np.ndarray]:
    """Beyond 12 variables: those that are not enumerated, independent of all, and how likely."""
    d, slots = len(names), np.asarray(joint.candidates[t])
    marginals = np.asarray(joint.marginals[t][:d])
    known, forbidden = prior.matrices(names)
    settled = known[:, t] | forbidden[:, t] | reachable(known)[t]
    listed = {*slots.tolist(), *np.flatnonzero(settled).tolist()}
    free = [i for i, p in enumerate(marginals.tolist()) if p > 0 and i not in listed]
    p = np.clip(marginals[free].astype(np.float64), 1e-12, 1 - 1e-12)
    return free, np.asarray(expit(logit(p) + _change_of_odds(prior, d)))


def _grown(sets: _Reduced, outside: list[int], p: np.ndarray) -> _Reduced:
    """Sets with and without each of the few likeliest variables that are not enumerated."""
    likely = np.argsort(-p, kind="stable")[:_MOST_GROWN]
    chosen = all_subsets(len(likely))
    members = np.repeat(sets.members, len(chosen), axis=0)
    members[:, np.array(outside, dtype=int)[likely]] |= np.tile(chosen, (len(sets.members), 1))
    odds = np.where(chosen, np.log(p[likely]), np.log1p(-p[likely])).sum(axis=1)
    return _Reduced(members, (sets.log_probs[:, None] + odds).ravel())


def _require_same_shapes(model: Network, params: hk.Params, path: Path) -> None:
    expected = jax.eval_shape(model.init, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    if jax.tree.map(lambda leaf: leaf.shape, expected) != shapes:
        raise ModelError(f"the weights of {str(path)!r} do not fit the network in its header")
