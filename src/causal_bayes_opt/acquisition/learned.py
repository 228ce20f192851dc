"""A trained policy network as a policy: saved, loaded, and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import numpy as np

from causal_bayes_opt.acquisition import linear_mechanisms
from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.baselines import random_choice
from causal_bayes_opt.acquisition.features import (
    POLICY_ENCODING_VERSION,
    History,
    Question,
    features,
)
from causal_bayes_opt.acquisition.graph_samples import sample_graphs
from causal_bayes_opt.acquisition.outcome import Candidates, LinearOutcomeModel
from causal_bayes_opt.acquisition.policy import Suggestion
from causal_bayes_opt.acquisition.search import MAX_TARGETS, like_failed
from causal_bayes_opt.acquisition.state import N_GRAPHS, AcquisitionState
from causal_bayes_opt.core import keys
from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.core.padding import bucket, pad
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.weights import (
    find_header,
    load_weights,
    read_header,
    save_network,
    size_of,
    written_at,
)
from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.router import passes_for_linear

FORMAT = "causal_bayes_opt.policy/1"
DEFAULT_POLICY = "grpo-linear-v1"


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy network with its weights and its card.

    Attributes:
        name: what it is called in answers.
        network: the pure functions.
        params: the weights.
        card: what it was trained on, and measured; JSON values.
    """

    name: str
    network: net.PolicyNetwork
    params: hk.Params
    card: Mapping[str, Any]


def save_policy(trained: TrainedPolicy, path: str | Path) -> Path:
    """Write ``PATH.safetensors`` and its header ``PATH.json``; return the header's path."""
    header = {"format": FORMAT, "name": trained.name, **trained.network.describe()}
    return save_network(path, {**header, "card": trained.card}, trained.params)


def load_policy(name_or_path: str | Path = DEFAULT_POLICY) -> TrainedPolicy:
    """Load a shipped policy by its name, or any by the path of its header.

    Raises:
        ModelError: no such policy, or a file that does not fit this version, and why.
    """
    path = find_header(name_or_path, "acquisition", "policy")
    return _loaded(path.resolve(), written_at(path))


@lru_cache(maxsize=16)
def _loaded(path: Path, _written_at: tuple[int, ...]) -> TrainedPolicy:
    header = read_header(path, "policy", FORMAT, POLICY_ENCODING_VERSION)
    network = net.PolicyNetwork(size_of(net.PolicyConfig, header["config"]))
    params = load_weights(path.with_suffix(".safetensors"))
    expected = jax.tree.map(np.shape, dict(network.init(jax.random.key(0))))
    if jax.tree.map(np.shape, params) != expected:
        raise ModelError(f"the weights beside {str(path)!r} do not fit its configuration")
    return TrainedPolicy(header["name"], network, params, header["card"])


@dataclass(frozen=True)
class LearnedPolicy:
    """A trained network as a policy: the likeliest action in one pass.

    Attributes:
        policy: the network, or its name or path; it is loaded at the first question.
        max_targets: most variables set at once.
    """

    policy: TrainedPolicy | str | Path = DEFAULT_POLICY
    max_targets: int = MAX_TARGETS

    @property
    def trained(self) -> TrainedPolicy:
        """The loaded network."""
        given = self.policy
        return given if isinstance(given, TrainedPolicy) else load_policy(given)

    def __call__(self, state: AcquisitionState, key: jax.Array) -> Suggestion:
        """The next experiment; the outcome that it foretells is the linear outcome model's.

        One at random where its own is like an experiment that failed.

        Raises:
            ProblemError: nothing may be set, or a range is missing.
            ModelError: the network cannot be loaded.
        """
        trained = self.trained
        k_graphs, k_model = keys.split(key)
        graphs = state.graphs
        if graphs is None:
            graphs = sample_graphs(state.posteriors, state.problem.variables, N_GRAPHS, k_graphs)
        scaling = Scaling.of(state.buffer)
        asked, room = question(state, scaling)
        chosen, place = _act(trained.network, state.at_most(self.max_targets))(
            trained.params, mechanisms_of(state, graphs, scaling, room), asked, history(state, room)
        )
        names = state.problem.variables
        values: dict[str, float] = {}
        for i in np.flatnonzero(np.asarray(chosen)):
            low, high = state.range_of(names[i])
            value = low + 0.5 * (float(place[i]) + 1.0) * (high - low)
            values[names[i]] = min(max(value, low), high)  # rounding can lead beyond
        if like_failed(state, Candidates.of([values], names))[0]:
            return random_choice(state, key)
        model = LinearOutcomeModel.fit(state.buffer, graphs, k_model)
        mean, _, std = model.predict(state.problem.target, values)
        return Suggestion(
            make_intervention(values),
            mean,
            std,
            state.problem.cost(values),
            f"likeliest action of the network {trained.name}",
            (*state.posterior.warnings, *_outside(trained, state)),
        )


def _outside(trained: TrainedPolicy, state: AcquisitionState) -> tuple[str, ...]:
    """What of a study lies outside of what a policy was trained on, by its card."""
    systems = trained.card.get("starts", {}).get("systems", {})
    told = f"the policy {trained.name} was trained on"
    found = []
    bent = state.linear is False or not passes_for_linear(state.buffer)
    if systems.get("mechanisms") == ["linear"] and bent:
        found.append(
            f"mechanisms do not look linear; {told} linear ones, and expects such outcomes"
        )
    if "n_vars" in systems:
        (least, most), n_vars = systems["n_vars"], len(state.problem.variables)
        if not least <= n_vars <= most:
            found.append(f"{n_vars} variables; {told} {least} to {most}")
    return tuple(found)


def question(state: AcquisitionState, scaling: Scaling) -> tuple[Question, int]:
    """What is asked as padded arrays, and to how many variables they are padded."""
    problem = state.problem
    d = len(problem.variables)
    room = bucket(d, 8)
    settable = np.array([name in problem.may_set for name in problem.variables])
    ends = np.zeros((d, 2))
    cost = np.zeros(d)
    for i in np.flatnonzero(settable):
        name = problem.variables[i]
        low, high = state.range_of(name)
        ends[i] = (np.array([low, high]) - scaling.means[i]) / scaling.stds[i]
        cost[i] = problem.cost({name: 0.5 * (low + high)})
    cost = cost / max(cost[settable].mean(), 1e-12)
    told: list[Any] = [
        pad(np.ones(d, dtype=bool), room),
        pad(settable, room),
        np.asarray(problem.variables.index(problem.target)),
        *(np.float32(x) for x in (problem.sign, pad(ends[:, 0], room), pad(ends[:, 1], room))),
        np.float32(pad(cost, room)),
    ]
    asked = Question(*told)
    return asked, room


def history(state: AcquisitionState, room: int) -> History:
    """What the state's trials tried, as padded arrays; rows from before them do not count."""
    problem, scaling = state.problem, Scaling.of(state.buffer)
    values, mask = state.buffer.all_rows()
    t = problem.variables.index(problem.target)
    values = scaling.apply(values)[len(values) - state.step :]
    mask = mask[len(mask) - state.step :]
    outcomes = problem.sign * np.where(mask[:, t], np.nan, values[:, t])
    finite = np.isfinite(outcomes)
    best, was_set, at = 0.0, np.zeros(len(scaling.means), dtype=bool), np.zeros(len(scaling.means))
    if finite.any() and np.nanmin(outcomes) < 0.0:
        row = int(np.nanargmin(outcomes))
        best, was_set = float(outcomes[row]), mask[row]
        at = np.where(was_set, values[row], 0.0)
    told: list[Any] = [
        np.float32(pad(mask.sum(axis=0), room)),
        np.float32(best),
        pad(was_set, room),
        np.float32(pad(at, room)),
        np.float32(state.step),
    ]
    return History(*told)


def mechanisms_of(
    state: AcquisitionState, graphs: np.ndarray, scaling: Scaling, room: int
) -> linear_mechanisms.LinearMechanisms:
    """Every variable's mechanism under each graph, padded to `room` variables."""
    values, mask = state.buffer.rows()
    rows, slots = bucket(len(values), 64), bucket(max(int(graphs.sum(axis=1).max()), 1), 2)
    found: linear_mechanisms.LinearMechanisms = linear_mechanisms.fit_rows(
        np.float32(pad(scaling.apply(values), rows, room)),
        pad(mask, rows, room),
        np.arange(rows) < len(values),
        linear_mechanisms.parent_columns(pad(graphs, len(graphs), room, room), slots),
    )
    return found


@lru_cache(maxsize=8)
def _act(network: net.PolicyNetwork, max_targets: int) -> Any:
    @jax.jit
    def act(
        params: hk.Params,
        mechanisms: linear_mechanisms.LinearMechanisms,
        asked: Question,
        told: History,
    ) -> net.Action:
        seen = features(mechanisms, asked, told)
        distribution = network.apply(params, seen, asked.present)
        likeliest = net.Action((distribution.logits > 0) & asked.settable, distribution.mean)
        return net.legal(likeliest, distribution, asked.settable, max_targets)

    return act
