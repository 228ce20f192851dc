"""Training a policy network: starts on simulated systems, imitation, then GRPO, in the one loop."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.acquisition import linear_mechanisms
from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.baselines import oracle
from causal_bayes_opt.acquisition.episodes import Start, System, greedy_improvements
from causal_bayes_opt.acquisition.features import features, no_history
from causal_bayes_opt.acquisition.grpo import GRPOConfig, grpo_loss, imitation_loss, roll_out
from causal_bayes_opt.acquisition.learned import TrainedPolicy, question
from causal_bayes_opt.acquisition.outcome import LinearOutcomeModel
from causal_bayes_opt.acquisition.policy import expected_improvement
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import ancestors
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.padding import pad
from causal_bayes_opt.core.random_systems import SystemDistribution, draw_systems, to_scm
from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.training import DesignDistribution, draw_rows
from causal_bayes_opt.training.loop import (
    LoopConfig,
    Progress,
    StepFunction,
    seconds_trained,
    train,
)
from causal_bayes_opt.training.sources import Place

N_MEMBERS = 16
_HELD_OUT = 1_000_003  # added to a seed; far from any other


@dataclass(frozen=True)
class StartDistribution:
    """What episodes begin with.

    Attributes:
        systems: linear Gaussian systems.
        n_obs: fewest and most observed rows before the first trial.
        rows_per_variable: fewest and most earlier experiments on each variable but the target.
        settable: share of the variables that may be set.
        reach: smallest and largest half-width of a range, in observed deviations.
    """

    systems: SystemDistribution = field(default_factory=SystemDistribution)
    n_obs: tuple[int, int] = (20, 200)
    rows_per_variable: tuple[int, int] = (0, 3)
    settable: float = 0.85
    reach: tuple[float, float] = (1.0, 4.0)

    @property
    def design(self) -> DesignDistribution:
        """The rows before the first trial."""
        most = self.rows_per_variable[1] * self.systems.n_vars[1]
        return DesignDistribution(
            self.n_obs, self.rows_per_variable, max_experiments=max(most, 1), partial=0.0
        )


@dataclass(frozen=True)
class PolicyRun:
    """All that a run needs; `read_policy_run` makes it from a file.

    Attributes:
        name: of the policy that it makes.
        network: its size.
        starts: what episodes begin with.
        n_starts: how many systems are simulated.
        grpo: how rollouts become a gradient.
        imitation: steps of imitation first; None: none.
        loop: of GRPO; a batch is `batch_size` starts.
    """

    name: str = "policy"
    network: net.PolicyConfig = field(default_factory=net.PolicyConfig)
    starts: StartDistribution = field(default_factory=StartDistribution)
    n_starts: int = 2048
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    imitation: LoopConfig | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)


def train_policy(
    run: PolicyRun,
    folder: Path | None = None,
    report: Callable[[str, Progress], None] | None = None,
) -> TrainedPolicy:
    """Train a policy; the same folder goes on where an earlier call was stopped.

    Raises:
        ModelError: the folder holds a run with another configuration.
        ConfigError: the loss is not finite or diverges.
    """
    began = time.perf_counter() - (0.0 if folder is None else seconds_trained(folder))
    network = net.PolicyNetwork(run.network)
    starts = kept_starts(run.starts, run.n_starts, run.loop.seed, folder)
    held_out = make_starts(run.starts, max(run.n_starts // 8, 16), run.loop.seed + _HELD_OUT)
    key = jax.random.key(run.loop.seed)

    def shortfall(params: hk.Params) -> float:
        """What is missing to the optimum on held-out systems, mean over trials."""
        n, most = run.grpo.n_steps, run.grpo.max_targets
        found = greedy_improvements(key, network, params, held_out, n, most)
        return float(1.0 - found.mean())

    def stage(name: str, source: Any, loop: LoopConfig, start: hk.Params | None) -> hk.Params:
        inside = None if folder is None else folder / name
        told = None if report is None else partial(report, name)
        return train(network, source, loop, inside, told, start=start, validate=shortfall)

    params = None
    measured = {}
    if run.imitation is not None:
        params = stage("imitation", Imitation(starts, run.imitation), run.imitation, None)
        measured["imitation_shortfall"] = round(shortfall(params), 4)
    reference = network.init(key) if params is None else params
    episodes = Episodes(starts, reference, run.grpo, run.loop)
    params = stage("grpo", episodes, run.loop, reference)
    chosen, place = disagreement(network, params, held_out)
    measured |= {
        "shortfall": round(shortfall(params), 4),
        "differs_from_teacher": round(chosen, 4),
        "values_differ_from_teacher": round(place, 4),
    }
    card = {
        **json.loads(json.dumps(asdict(run))),
        **measured,
        "training_seconds": round(time.perf_counter() - began, 1),
    }
    return TrainedPolicy(run.name, network, params, card)


@dataclass(frozen=True, eq=False)
class Imitation:
    """Batches of starts with what the teacher does first, which is expected improvement."""

    starts: Start
    loop: LoopConfig

    def describe(self) -> dict[str, Any]:
        """The number of starts, and their digest."""
        return {"imitation": _digest(self.starts)}

    def batches(self, place: Place) -> Iterator[tuple[Place, Start]]:
        """Starts drawn with repetition, by the seed and the number of the batch."""
        return _batches(self.starts, self.loop, place)

    def loss(
        self, model: net.PolicyNetwork, params: hk.Params, batch: Start, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Negative log-probability of the teacher's actions, in nats."""
        return imitation_loss(model, params, _first_sight(batch), batch), {}


@dataclass(frozen=True, eq=False)
class Episodes:
    """Batches of starts, and GRPO's own step on the episodes played from them."""

    starts: Start
    reference: hk.Params
    grpo: GRPOConfig
    loop: LoopConfig

    @property
    def updates(self) -> int:
        """Changes of the weights in each step of the loop."""
        return self.grpo.updates

    def describe(self) -> dict[str, Any]:
        """The configuration, and the digest of the starts."""
        grpo: dict[str, Any] = json.loads(json.dumps(asdict(self.grpo)))
        return {"grpo": grpo, "starts": _digest(self.starts)}

    def batches(self, place: Place) -> Iterator[tuple[Place, Start]]:
        """See `Imitation.batches`."""
        return _batches(self.starts, self.loop, place)

    def loss(
        self, model: net.PolicyNetwork, params: hk.Params, batch: Start, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss on episodes of the same weights, whose ratio is 1."""
        rollouts = roll_out(key, model, jax.lax.stop_gradient(params), batch, self.grpo)
        return grpo_loss(model, params, self.reference, rollouts, self.grpo)

    def step(
        self, model: net.PolicyNetwork, optimizer: optax.GradientTransformation
    ) -> StepFunction:
        """Play episodes once, then follow the clipped gradient on them several times."""

        def step(
            params: hk.Params, opt_state: optax.OptState, batch: Start, key: jax.Array
        ) -> tuple[hk.Params, optax.OptState, dict[str, jax.Array]]:
            rollouts = roll_out(key, model, params, batch, self.grpo)
            terms = {name: term.mean() for name, term in rollouts.steps.terms._asdict().items()}

            def loss_of(weights: hk.Params) -> tuple[jax.Array, dict[str, jax.Array]]:
                return grpo_loss(model, weights, self.reference, rollouts, self.grpo)

            def update(
                carry: tuple[hk.Params, optax.OptState], _: None
            ) -> tuple[tuple[hk.Params, optax.OptState], dict[str, jax.Array]]:
                weights, state = carry
                (loss, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(weights)
                changes, state = optimizer.update(grads, state, weights)
                told = {"loss": loss, **parts, "grad_norm": optax.tree.norm(grads)}
                return (optax.apply_updates(weights, changes), state), told

            (params, opt_state), told = jax.lax.scan(
                update, (params, opt_state), length=self.grpo.updates
            )
            return params, opt_state, {name: v[-1] for name, v in told.items()} | terms

        return step


def disagreement(
    network: net.PolicyNetwork, params: hk.Params, starts: Start
) -> tuple[float, float]:
    """How far first decisions are from the teacher's.

    Returns:
        The share that sets other variables, and, where they are the same, the mean distance of
        their places (a range is 2 wide).
    """
    seen = jax.jit(_first_sight)(starts)
    found = jax.vmap(partial(network.apply, params))(seen, starts.asked.present)
    action = net.Action((found.logits > 0) & starts.asked.settable, found.mean)
    done = jax.vmap(partial(net.legal, max_targets=3))(action, found, starts.asked.settable)
    other = (done.chosen != starts.teacher.chosen).any(axis=1)
    both = done.chosen & starts.teacher.chosen & ~other[:, None]
    away = jnp.where(both, jnp.abs(done.place - starts.teacher.place), 0.0)
    return float(other.mean()), float(away.sum() / jnp.maximum(both.sum(), 1))


def kept_starts(distribution: StartDistribution, n: int, seed: int, folder: Path | None) -> Start:
    """Make starts, or take those that an earlier call made in this folder."""
    if folder is None:
        return make_starts(distribution, n, seed)
    path = folder / "starts.safetensors"
    asked = json.dumps([asdict(distribution), n, seed])
    note = folder / "starts.json"
    if path.exists() and note.exists() and note.read_text() == asked:
        arrays = load_file(path)
        shape = jax.tree.structure(make_starts(distribution, 1, seed))
        leaves = [jnp.asarray(arrays[str(i)]) for i in range(len(arrays))]
        restored: Start = jax.tree.unflatten(shape, leaves)
        return restored
    starts = make_starts(distribution, n, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(starts))}, path)
    note.write_text(asked)
    return starts


@lru_cache(maxsize=4)
def make_starts(distribution: StartDistribution, n: int, seed: int) -> Start:
    """Simulate systems, rows of them and the posterior given those; leading axis ``[n]``.

    Systems in which nothing that may be set moves the target are drawn again.
    """
    starts: list[Start] = []
    chunk = 0
    while len(starts) < n:
        k_systems, k_rows = jax.random.split(jax.random.fold_in(jax.random.key(seed), chunk))
        systems = draw_systems(k_systems, _CHUNK, distribution.systems)
        targets = np.array([_target(systems, i) for i in range(_CHUNK)])
        rows = _rows(jax.random.split(k_rows, _CHUNK), systems, targets, distribution.design)
        rows = jax.tree.map(np.asarray, rows)
        for i in range(_CHUNK):
            if len(starts) == n:
                break
            system = SystemArrays(*(np.asarray(leaf)[i] for leaf in systems))
            own = jax.tree.map(lambda leaf, i=i: leaf[i], rows)
            found = _start(system, own, int(targets[i]), distribution, (seed, chunk, i))
            if found is not None:
                starts.append(found)
        chunk += 1
    stacked: Start = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *starts)
    return stacked


_CHUNK = 64


@partial(jax.jit, static_argnames=("design",))
def _rows(
    keys: jax.Array, systems: SystemArrays, targets: jax.Array, design: DesignDistribution
) -> Any:
    draw = partial(draw_rows, design=design)
    return jax.vmap(lambda k, s, t: draw(k, s, spared=t))(keys, systems, targets)


def _target(systems: SystemArrays, i: int) -> int:
    """The variable with most ancestors: the one that experiments can do most about."""
    adjacency = np.asarray(systems.adjacency[i])
    return int(np.argmax([ancestors(adjacency, j).sum() for j in range(len(adjacency))]))


def _start(
    system: SystemArrays,
    rows: Any,
    target: int,
    distribution: StartDistribution,
    seed: tuple[int, ...],
) -> Start | None:
    rng = np.random.default_rng(seed)
    room = len(system.present)
    scm = to_scm(system).with_target(f"X{target + 1}")
    buffer = _buffer(rows, scm.variables)
    scaling = Scaling.of(buffer)
    problem = _problem(scm, scaling, distribution, rng)
    if problem is None:
        return None
    key = jax.random.key(int(rng.integers(2**31)))
    state = AcquisitionState.start(buffer, problem, exact_posterior, key=key)
    best = oracle(scm)(state, key).predicted_mean
    observed = LinearOutcomeModel.of_system(scm).predict(problem.target, {})[0]
    unit = problem.sign / scaling.stds[target]
    if unit * (observed - best) < _LEAST_SPAN:
        return None
    asked, _ = question(state, scaling)
    assert state.graphs is not None
    return Start(
        _standardised(
            system,
            scaling,
            room,
            unit * (best - scaling.means[target]),
            unit * (observed - scaling.means[target]),
        ),
        _mechanisms(state, scaling, room),
        asked,
        _teacher(state, key, room),
    )


_LEAST_SPAN = 0.05  # deviations of the target: less is nothing that experiments could show


def _buffer(rows: Any, variables: tuple[str, ...]) -> ExperienceBuffer:
    d = len(variables)
    observed = rows.obs_data[rows.obs_rows][:, :d]
    tried = rows.int_data[rows.int_rows][:, :d]
    values = np.concatenate([observed, tried[..., 0]]).astype(np.float64)
    mask = np.concatenate([np.zeros(observed.shape, dtype=bool), tried[..., 1] > 0])
    return ExperienceBuffer.from_arrays(values, mask, variables)


def _problem(
    scm: SCM, scaling: Scaling, distribution: StartDistribution, rng: np.random.Generator
) -> Problem | None:
    """Random ranges, settable variables and direction; None where nothing could be moved."""
    assert scm.target is not None
    names, t = scm.variables, scm.variables.index(scm.target)
    settable = [
        name for name in names if name != scm.target and rng.random() < distribution.settable
    ]
    moving = ancestors(scm.adjacency(), t)
    if not any(moving[names.index(name)] for name in settable):
        return None
    ranges = {}
    for name in settable:
        i = names.index(name)
        half = np.exp(rng.uniform(*np.log(distribution.reach)))
        centre = rng.uniform(-0.5, 0.5)
        low, high = scaling.means[i] + scaling.stds[i] * (centre + half * np.array([-1.0, 1.0]))
        ranges[name] = (float(low), float(high))
    direction = "minimize" if rng.random() < 0.5 else "maximize"
    return Problem(names, scm.target, direction, ranges, tuple(settable))  # type: ignore[arg-type]


def _standardised(
    system: SystemArrays, scaling: Scaling, room: int, best: float, observed: float
) -> System:
    d = len(scaling.means)
    s, m = scaling.stds, scaling.means
    weights = np.asarray(system.weights, np.float64)[:d, :d] * s[:, None] / s[None, :]
    raw = np.asarray(system.bias, np.float64)[:d] + m @ np.asarray(system.weights)[:d, :d]
    noise = np.asarray(system.noise_scale, np.float64)[:d] / s
    told = pad(weights, room, room), pad((raw - m) / s, room), pad(noise, room), best, observed
    leaves: list[Any] = [np.asarray(leaf, np.float32) for leaf in told]
    return System(*leaves)


def _mechanisms(
    state: AcquisitionState, scaling: Scaling, room: int
) -> linear_mechanisms.LinearMechanisms:
    assert state.graphs is not None
    graphs = state.graphs[:N_MEMBERS]
    values, mask = state.buffer.rows()
    most = 512
    found = _fit(
        np.float32(pad(scaling.apply(values), most, room)),
        pad(mask, most, room),
        np.arange(most) < len(values),
        linear_mechanisms.parent_columns(pad(graphs, len(graphs), room, room), room - 1),
    )
    kept: linear_mechanisms.LinearMechanisms = jax.tree.map(np.asarray, found)
    return kept


@jax.jit
def _fit(
    values: jax.Array,
    mask: jax.Array,
    is_row: jax.Array,
    parents: linear_mechanisms.ParentColumns,
) -> linear_mechanisms.LinearMechanisms:
    return linear_mechanisms.fit(linear_mechanisms.moments(values, mask, is_row), parents)


def _teacher(state: AcquisitionState, key: jax.Array, room: int) -> net.Action:
    done = expected_improvement(state, key).intervention
    chosen, place = np.zeros(room, dtype=bool), np.zeros(room, np.float32)
    for name, value in done.items():
        i = state.problem.variables.index(name)
        low, high = state.range_of(name)
        chosen[i], place[i] = True, 2.0 * (value - low) / (high - low) - 1.0
    return net.Action(chosen, place)  # type: ignore[arg-type]


@jax.jit
def _first_sight(starts: Start) -> jax.Array:
    n_vars = starts.asked.low.shape[-1]
    none = no_history(n_vars)
    return jax.vmap(lambda s: features(s.mechanisms, s.asked, none))(starts)


def _batches(starts: Start, loop: LoopConfig, place: Place) -> Iterator[tuple[Place, Start]]:
    n = starts.asked.target.shape[0]
    while True:
        chosen = np.random.default_rng((loop.seed, place.batch)).integers(n, size=loop.batch_size)
        place = place._replace(batch=place.batch + 1)
        yield place, jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], starts)


def _digest(starts: Start) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(starts):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]
