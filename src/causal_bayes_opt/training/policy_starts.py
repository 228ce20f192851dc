"""What episodes of a policy begin with: simulated systems, rows of them, and their posteriors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.acquisition import linear_mechanisms
from causal_bayes_opt.acquisition import policy_network as net
from causal_bayes_opt.acquisition.baselines import oracle
from causal_bayes_opt.acquisition.episodes import Start, System
from causal_bayes_opt.acquisition.learned import question
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
from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.training import DesignDistribution, draw_rows

N_MEMBERS = 16
_CHUNK = 64


@dataclass(frozen=True)
class StartDistribution:
    """What episodes begin with.

    Attributes:
        systems: linear Gaussian systems.
        n_obs: fewest and most observed rows before the first trial.
        rows_per_variable: fewest and most earlier experiments on each variable but the target.
        settable: share of the variables that may be set.
        reach: smallest and largest half-width of a range, in observed deviations.
        max_targets: most variables that may be set at once; `train_policy` takes GRPO's.
    """

    systems: SystemDistribution = field(default_factory=SystemDistribution)
    n_obs: tuple[int, int] = (20, 200)
    rows_per_variable: tuple[int, int] = (0, 3)
    settable: float = 0.85
    reach: tuple[float, float] = (1.0, 4.0)
    max_targets: int = 3

    @property
    def design(self) -> DesignDistribution:
        """The rows before the first trial."""
        most = self.rows_per_variable[1] * self.systems.n_vars[1]
        return DesignDistribution(
            self.n_obs, self.rows_per_variable, max_experiments=max(most, 1), partial=0.0
        )


def kept_starts(distribution: StartDistribution, n: int, seed: int, folder: Path | None) -> Start:
    """Make starts, or take those that an earlier call made in this folder.

    Raises:
        ModelError: the folder holds starts of another run.
    """
    if folder is None:
        return make_starts(distribution, n, seed)
    path = folder / "starts.safetensors"
    asked = json.dumps([asdict(distribution), n, seed])
    note = folder / "starts.json"
    if path.exists() and note.exists():
        if note.read_text() != asked:
            raise ModelError(
                f"{str(folder)!r} holds the starts of a run with another configuration; name "
                "another folder, or delete this one"
            )
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
    chunks = (_starts_of_chunk(distribution, seed, chunk) for chunk in count())
    starts = islice(chain.from_iterable(chunks), n)
    stacked: Start = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *starts)
    return stacked


def _starts_of_chunk(distribution: StartDistribution, seed: int, chunk: int) -> Iterator[Start]:
    k_systems, k_rows = jax.random.split(jax.random.fold_in(jax.random.key(seed), chunk))
    systems = draw_systems(k_systems, _CHUNK, distribution.systems)
    targets = np.array([_target(systems, i) for i in range(_CHUNK)])
    rows = _rows(jax.random.split(k_rows, _CHUNK), systems, targets, distribution.design)
    rows, systems = jax.tree.map(np.asarray, (rows, systems))
    for i in range(_CHUNK):
        system, own = jax.tree.map(lambda leaf, i=i: leaf[i], (systems, rows))
        found = _start(system, own, int(targets[i]), distribution, (seed, chunk, i))
        if found is not None:
            yield found


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
    # Asking the data whether mechanisms are linear takes longer than all the rest.
    state = replace(AcquisitionState.start(buffer, problem, exact_posterior, key=key), linear=True)
    best = oracle(scm, max_targets=distribution.max_targets)(state, key).predicted_mean
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
    return Problem(
        names,
        scm.target,
        direction,  # type: ignore[arg-type]
        ranges,
        tuple(settable),
        max_targets=distribution.max_targets,
    )


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
    found = linear_mechanisms.fit_rows(
        np.float32(pad(scaling.apply(values), most, room)),
        pad(mask, most, room),
        np.arange(most) < len(values),
        linear_mechanisms.parent_columns(pad(graphs, len(graphs), room, room), room - 1),
    )
    kept: linear_mechanisms.LinearMechanisms = jax.tree.map(np.asarray, found)
    return kept


def _teacher(state: AcquisitionState, key: jax.Array, room: int) -> net.Action:
    done = expected_improvement(state, key).intervention
    chosen, place = np.zeros(room, dtype=bool), np.zeros(room, np.float32)
    for name, value in done.items():
        i = state.problem.variables.index(name)
        low, high = state.range_of(name)
        chosen[i], place[i] = True, 2.0 * (value - low) / (high - low) - 1.0
    return net.Action(chosen, place)  # type: ignore[arg-type]
