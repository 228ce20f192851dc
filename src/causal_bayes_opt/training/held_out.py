"""Systems to judge on: fresh, described by their factors, and checked against the training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.core.sample import stack_systems
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.network import VARIABLE_BUCKETS
from causal_bayes_opt.surrogate.training import DesignDistribution, draw_rows
from causal_bayes_opt.training.cases import Case
from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator

_PART = 1  # of the generator: held-out systems
_ROWS = 7  # what a seed is for
_SPREAD = 2.0  # experiments lie within so many standard deviations of the mean, or 3 (see below)


@dataclass(frozen=True)
class HeldOut:
    """What is judged on.

    Attributes:
        graph_sizes: numbers of variables, in turn.
        mechanisms: families, in turn; a system has one.
        noises: families, drawn for each system.
        graph_families: likewise; keys of `core.graphs.FAMILIES`.
        scaling: see `SystemDistribution`.
        mean_parents: expected parents of a variable.
        n_obs: observational rows.
        rows_per_variable: experiments on each variable but the target, in turn.
        seed: everything follows from it.
    """

    graph_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    mechanisms: tuple[str, ...] = ("linear",)
    noises: tuple[str, ...] = ("gaussian",)
    graph_families: tuple[str, ...] = ("erdos_renyi",)
    scaling: str = "none"
    mean_parents: float = 1.0
    n_obs: int = 100
    rows_per_variable: tuple[int, ...] = (0, 3, 10)
    seed: int = 20_000


@dataclass(frozen=True, eq=False)
class HeldOutSystem:
    """A system, the data that all methods get, the question, and what it is like.

    Attributes:
        number: position among the systems of its seed.
        scm: the system, its target named.
        case: buffer, target and true parents.
        factors: ``variables``, ``parents``, ``experiments``, ``mechanism``, ``noise``, ``graph``.
    """

    number: int
    scm: SCM
    case: Case
    factors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """To make the target small, by experiments within what was observed."""
        return Problem(self.scm.variables, self.case.target)


def generate_test_graphs(
    n: int = 100, seed: int | None = None, config: HeldOut | None = None
) -> list[HeldOutSystem]:
    """Draw systems and data that no training run has seen.

    The target is any variable, with parents or without, since choosing one that has parents would
    tell something; it is never set. Intervention values are drawn within two observational
    standard deviations around a centre up to one off the mean.

    Args:
        n: number of systems.
        seed: in place of that of `config`.
        config: what to draw.

    Raises:
        ConfigError: `n` is below 1, or an impossible configuration.
    """
    if n < 1:
        raise ConfigError(f"{n} systems to judge on; expected 1 or more")
    config = config or HeldOut()
    config = config if seed is None else replace(config, seed=seed)
    drawn = [_factors(config, number) for number in range(n)]
    scms = [_system(config, number, factors) for number, factors in enumerate(drawn)]
    systems: list[HeldOutSystem | None] = [None] * n
    for key in dict.fromkeys((f["bucket"], f["experiments"]) for f in drawn):
        own = [i for i, f in enumerate(drawn) if (f["bucket"], f["experiments"]) == key]
        rows = _rows(config, [scms[i] for i in own], own, *key)
        for place, i in enumerate(own):
            one = Rows(*(np.asarray(leaf)[place] for leaf in rows))
            systems[i] = _finished(i, scms[i], one, drawn[i])
    return [system for system in systems if system is not None]


def digest_of_systems(systems: list[HeldOutSystem]) -> str:
    """A hash of all data and questions."""
    found = hashlib.sha256()
    for system in systems:
        values, mask = system.case.buffer.rows()
        found.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
        found.update(np.ascontiguousarray(mask).tobytes())
        found.update(f"{system.case.target}|{sorted(system.case.parents)}".encode())
    return found.hexdigest()


def seeds_of(config: HeldOut, n: int) -> list[int]:
    """The seeds of the random keys by which the systems' parameters are drawn."""
    generator = _generator(config, config.graph_sizes[0], config.mechanisms[0], "gaussian", "chain")
    return [generator.system_seed(_PART, number) for number in range(n)]


def describe(config: HeldOut) -> dict[str, Any]:
    """The configuration as JSON values."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()}


def _factors(config: HeldOut, number: int) -> dict[str, Any]:
    rng = np.random.default_rng((config.seed, number, 0))
    sizes, kinds, plans = config.graph_sizes, config.mechanisms, config.rows_per_variable
    size = sizes[number % len(sizes)]
    turn = number // len(sizes)
    return {
        "variables": size,
        "bucket": next(bucket for bucket in VARIABLE_BUCKETS if bucket >= size),
        "mechanism": kinds[turn % len(kinds)],
        "experiments": plans[turn // len(kinds) % len(plans)],
        "noise": str(rng.choice(config.noises)),
        "graph": str(rng.choice(config.graph_families)),
        "target": int(rng.integers(size)),
    }


def _generator(
    config: HeldOut, size: int, mechanism: str, noise: str, graph: str
) -> MinimalDatasetGenerator:
    return MinimalDatasetGenerator(
        graph_sizes=(size,),
        seed=config.seed,
        graph_families=(graph,),
        mean_parents=min(config.mean_parents, (size - 1) / 2),
        systems=SystemDistribution(
            mechanisms=(mechanism,), noises=(noise,), scaling=config.scaling
        ),
        teacher="truth",
    )


def _system(config: HeldOut, number: int, factors: Mapping[str, Any]) -> SCM:
    generator = _generator(
        config, factors["variables"], factors["mechanism"], factors["noise"], factors["graph"]
    )
    scm = generator.system(_PART, number)
    return scm.with_target(scm.variables[factors["target"]])


def _rows(config: HeldOut, scms: list[SCM], numbers: list[int], bucket: int, each: int) -> Rows:
    design = DesignDistribution(
        n_obs=(config.n_obs, config.n_obs),
        rows_per_variable=(each, each),
        max_experiments=max(each * (bucket - 1), 1),
        spread=(_SPREAD, _SPREAD),
        observational=0.0,
        partial=0.0,
        joint=0.0,
    )
    room = 1 << (len(scms) - 1).bit_length()  # few sizes of batches, so that little is compiled
    filled = [*range(len(scms)), *[0] * (room - len(scms))]
    systems = stack_systems([scms[i] for i in filled], bucket)
    seeds = [
        int(np.random.default_rng((config.seed, numbers[i], _ROWS)).integers(2**31)) for i in filled
    ]
    spared = [scms[i].variables.index(str(scms[i].target)) for i in filled]
    rows: Rows = _draw_all(
        jax.vmap(jax.random.key)(jnp.asarray(seeds)), systems, jnp.asarray(spared), design
    )
    return rows


@partial(jax.jit, static_argnames=("design",))
def _draw_all(keys: jax.Array, systems: Any, spared: jax.Array, design: DesignDistribution) -> Rows:
    rows: Rows = jax.vmap(partial(draw_rows, design=design))(keys, systems, spared=spared)
    return rows


def _finished(number: int, scm: SCM, rows: Rows, factors: dict[str, Any]) -> HeldOutSystem:
    d = len(scm.variables)
    observed = rows.obs_data[rows.obs_rows][:, :d]
    tried = rows.int_data[rows.int_rows][:, :d]
    values = np.concatenate([observed, tried[..., 0]])
    mask = np.concatenate([np.zeros(observed.shape, bool), tried[..., 1] > 0])
    parents = frozenset(scm.parents(str(scm.target)))
    buffer = ExperienceBuffer.from_arrays(values, mask, scm.variables)
    kept = {name: value for name, value in factors.items() if name not in ("bucket", "target")}
    case = Case(buffer, str(scm.target), parents)
    return HeldOutSystem(number, scm, case, {**kept, "parents": len(parents)})
