"""Supervised training on simulated systems: fresh data on the device at every step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from causal_bayes_opt.core.random_systems import SystemDistribution, draw_systems
from causal_bayes_opt.core.sample import SystemArrays, sample_system
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.joint import Network, log_prob_of_sets

_FEW = 10  # experiments
_MOST_REPEATS = 60
_PILOT_ROWS = 64
_FLOOR = 1e-6


@dataclass(frozen=True)
class DesignDistribution:
    """What data are taken from a random system.

    Attributes:
        n_obs: fewest and most observational rows, uniform in the logarithm.
        rows_per_variable: fewest and most experiments on each variable that is set at all.
        max_experiments: most experiments in all; more are cut off.
        spread: smallest and largest half-width of the range in which a variable is set, in its
            observational standard deviations, uniform in the logarithm; the range's centre lies up
            to half of that off the mean.
        observational: share of systems without experiments.
        partial: share of systems in which only some variables are set; in the rest all but one are.
        few: share of systems in which there are ten experiments at most, each number as often.
        joint: share of experiments that set more than one variable, mean over systems: in some it
            is hardly one, in some all of them.
        at_once: most variables that such an experiment sets.
        repeated: share of systems in which every experiment is made several times, up to 60.
        held: share of systems in which some of the variables that are set vary nowhere else, as
            treatments do that nobody gets by himself: where they are not set they stay at one
            value of their own. Half of them are only ever set to one other value.
    """

    n_obs: tuple[int, int] = (20, 512)
    rows_per_variable: tuple[int, int] = (1, 10)
    max_experiments: int = 96
    spread: tuple[float, float] = (1.0, 10.0)
    observational: float = 0.2
    partial: float = 0.3
    few: float = 0.0
    joint: float = 0.1
    at_once: int = 2
    repeated: float = 0.0
    held: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.n_obs[0] <= self.n_obs[1]:
            raise ConfigError(f"n_obs is {self.n_obs}; expected 2 <= fewest <= most")
        if not 0 <= self.rows_per_variable[0] <= self.rows_per_variable[1]:
            raise ConfigError(
                f"rows_per_variable is {self.rows_per_variable}; expected 0 <= fewest <= most"
            )
        if not 0 < self.spread[0] <= self.spread[1]:
            raise ConfigError(f"spread is {self.spread}; expected 0 < smallest <= largest")
        for name in ("observational", "partial", "few", "joint", "repeated", "held"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; a share lies in 0 to 1")
        if self.at_once < 2:
            raise ConfigError(f"at_once is {self.at_once}; expected 2 or more")


@dataclass(frozen=True)
class TrainingDistribution:
    """A mixture of distributions over systems, under one design.

    Attributes:
        systems: its parts; all must have the same largest number of variables.
        design: what data are taken.
        shares: of the parts, in proportion; empty: equal ones.
    """

    systems: tuple[SystemDistribution, ...] = (SystemDistribution(),)
    design: DesignDistribution = DesignDistribution()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.shares and len(self.shares) != len(self.systems):
            raise ConfigError(
                f"shares has {len(self.shares)} numbers for {len(self.systems)} parts of systems"
            )
        if self.shares and not min(self.shares) > 0:
            raise ConfigError(f"shares is {self.shares}; every part needs more than 0")
        if len({part.n_vars[1] for part in self.systems}) != 1:
            raise ConfigError("all parts of a training distribution need one largest n_vars")


class SimulatedBatch(NamedTuple):
    """Data of simulated systems with the truth."""

    rows: Rows  # leading axis [n_systems]
    parents: jax.Array  # bool [n_systems, n_vars, n_vars], [t, j]: j is a parent of t


@partial(jax.jit, static_argnames=("n_systems", "distribution"))
def simulate(key: jax.Array, n_systems: int, distribution: TrainingDistribution) -> SimulatedBatch:
    """Draw systems and data of them; each part has its share to within one system."""
    parts = distribution.systems
    sizes = part_sizes(n_systems, distribution)
    batches = [
        _simulate_part(jax.random.fold_in(key, i), size, part, distribution.design)
        for i, (size, part) in enumerate(zip(sizes, parts, strict=True))
    ]
    joined: SimulatedBatch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)
    return joined


def part_sizes(n_systems: int, distribution: TrainingDistribution) -> list[int]:
    """How many systems each part gives; what is left over goes to the largest remainders."""
    shares = distribution.shares or (1.0,) * len(distribution.systems)
    wanted = [n_systems * share / sum(shares) for share in shares]
    sizes = [int(size) for size in wanted]
    by_remainder = sorted(range(len(shares)), key=lambda i: sizes[i] - wanted[i])
    for i in by_remainder[: n_systems - sum(sizes)]:
        sizes[i] += 1
    return sizes


def negative_log_probability(model: Network, params: hk.Params, batch: SimulatedBatch) -> jax.Array:
    """-log q(true parent set) in nats: mean over a system's variables, then over systems.

    So every system counts the same, as it does where one target a system is judged; a mean over
    all variables at once would all but leave out the small ones.
    """
    joint = jax.vmap(partial(model.joint, params))(batch.rows)
    log_probs = jax.vmap(log_prob_of_sets)(joint, batch.parents)
    present = batch.rows.present
    return -((log_probs * present).sum(axis=-1) / present.sum(axis=-1)).mean()


def _simulate_part(
    key: jax.Array, n_systems: int, part: SystemDistribution, design: DesignDistribution
) -> SimulatedBatch:
    k_systems, k_rows = jax.random.split(key)
    systems = draw_systems(k_systems, n_systems, part)
    rows = jax.vmap(partial(draw_rows, design=design))(jax.random.split(k_rows, n_systems), systems)
    return SimulatedBatch(rows, jnp.swapaxes(systems.adjacency, 1, 2) & varies(rows)[..., None])


def varies(rows: Rows) -> jax.Array:
    """Which variables vary where nothing was set, bool ``[..., n_vars]``: others have no causes."""
    first = rows.obs_data[..., :1, :]
    return ((rows.obs_data != first) & rows.obs_rows[..., None]).any(axis=-2)


def draw_rows(
    key: jax.Array,
    system: SystemArrays,
    design: DesignDistribution,
    spared: jax.Array | None = None,
) -> Rows:
    """Draw the data of one system, padded to the design's largest numbers of rows.

    Args:
        key: of everything drawn.
        system: the system.
        design: what is drawn.
        spared: the variable that is not set where all others are; None draws it.
    """
    k_count, k_obs, k_plan, k_value, k_int = jax.random.split(key, 5)
    low, high = design.n_obs
    d = system.present.shape[0]
    uniform = jax.random.uniform(k_count)
    n_obs = jnp.exp(jnp.log(low) + uniform * (jnp.log(high + 1) - jnp.log(low))).astype(int)
    obs_rows = jnp.arange(high) < n_obs
    mask, int_rows, setting = _plan(k_plan, system.present, design, spared)
    held = _hold(jax.random.fold_in(key, 5), system, mask, design)

    obs = sample_system(
        k_obs,
        system,
        jnp.broadcast_to(held.level, (high, d)),
        jnp.broadcast_to(held.variables, (high, d)),
    )
    weight = obs_rows[:, None] / jnp.maximum(n_obs, 1)
    mean = (obs * weight).sum(axis=0)
    std = jnp.sqrt(((obs - mean) ** 2 * weight).sum(axis=0))
    mean = jnp.where(held.variables, held.level, mean)
    std = jnp.where(held.variables, held.std, std)

    k_width, k_centre, k_unit = jax.random.split(k_value, 3)
    low_width, high_width = (jnp.log(end) for end in design.spread)
    width = jnp.exp(jax.random.uniform(k_width, (d,), minval=low_width, maxval=high_width))
    centre = jax.random.uniform(k_centre, (d,), minval=-0.5, maxval=0.5)
    unit = jax.random.uniform(k_unit, mask.shape, minval=-1.0, maxval=1.0)[setting]
    unit = jnp.where(held.one_value, unit[0], unit)
    values = mean + std * width * (centre + unit)
    tried = sample_system(k_int, system, jnp.where(mask, values, held.level), mask | held.variables)
    obs, tried = held.in_own_units(obs, tried)
    trials = jnp.stack([tried, mask.astype(tried.dtype)], axis=-1)
    return Rows(obs, trials, obs_rows, int_rows, system.present)


class _Held(NamedTuple):
    """The variables that vary only where they are set; each ``[n_vars]``."""

    variables: jax.Array  # bool
    one_value: jax.Array  # bool, whether it is only ever set to one value
    level: jax.Array  # where it stays
    std: jax.Array  # that it would have by itself

    def in_own_units(self, obs: jax.Array, tried: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rows in which such a variable is 0 by itself and 1 away where it was set farthest.

        As `core.scaling` has it; and 0 is without rounding error.
        """
        obs, tried = (jnp.where(self.variables, rows - self.level, rows) for rows in (obs, tried))
        farthest = jnp.abs(tried).max(axis=0, initial=0.0)
        return obs, tried / jnp.where(self.variables & (farthest > 0), farthest, 1.0)


def _hold(
    key: jax.Array, system: SystemArrays, mask: jax.Array, design: DesignDistribution
) -> _Held:
    """Draw which of the variables that are set are held elsewhere; one is always left to vary."""
    d = system.present.shape[0]
    nothing = jnp.zeros(d, dtype=bool)
    if not design.held:
        return _Held(nothing, nothing, jnp.zeros(d), jnp.ones(d))
    k_any, k_share, k_which, k_one, k_pilot, k_free = jax.random.split(key, 6)
    share = jax.random.uniform(k_share) * jax.random.bernoulli(k_any, float(design.held))
    chosen = jax.random.uniform(k_which, (d,)) < share
    left = jnp.argmax(jnp.where(system.present, jax.random.uniform(k_free, (d,)), -1.0))
    chosen &= (jnp.arange(d) != left) & mask.any(axis=0)
    zeros = jnp.zeros((_PILOT_ROWS, d))
    pilot = sample_system(k_pilot, system, zeros, zeros > 0)
    one_value = chosen & jax.random.bernoulli(k_one, 0.5, (d,))
    return _Held(chosen, one_value, pilot[0], jnp.maximum(pilot.std(axis=0), _FLOOR))


def _plan(
    key: jax.Array, present: jax.Array, design: DesignDistribution, spared: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which variables each experiment sets ``[n_int, n_vars]``, which rows there are ``[n_int]``.

    Last comes the number of the setting, int ``[n_int]``, which repeated experiments share.
    """
    k_kind, k_rows, k_spare, k_subset, k_second, k_which = jax.random.split(key, 6)
    k_number, k_share, k_few, k_fewer = (jax.random.fold_in(k_which, i) for i in range(1, 5))
    d = present.shape[0]
    kind = jax.random.uniform(k_kind)
    if spared is None:
        spared = jnp.argmax(jnp.where(present, jax.random.uniform(k_spare, (d,)), -1.0))
    some = jax.random.bernoulli(k_subset, 0.5, (d,))
    is_partial = kind < design.observational + design.partial
    chosen = present & jnp.where(is_partial, some, jnp.arange(d) != spared)
    chosen &= kind >= design.observational
    each = jax.random.randint(
        k_rows, (), design.rows_per_variable[0], design.rows_per_variable[1] + 1
    )
    row = jnp.arange(design.max_experiments)
    repeats = _draw_repeats(jax.random.fold_in(k_which, 5), design)
    setting = row // repeats
    count = jnp.maximum(chosen.sum(), 1)
    listed = jnp.argsort(~chosen)  # the chosen variables first
    first = jax.nn.one_hot(listed[row % count], d) > 0
    # The power of a uniform number whose mean is `joint`.
    power = (1.0 - design.joint) / max(design.joint, _FLOOR)
    share = jax.random.uniform(k_share) ** power
    with_more = jax.random.bernoulli(k_second, share, row.shape)
    more = (len(row), design.at_once - 1)
    others = jax.nn.one_hot(listed[jax.random.randint(k_which, more, 0, count)], d) > 0
    # One more, or two, and so on: each number as often.
    wanted = jax.random.randint(k_number, row.shape, 1, design.at_once)
    others &= (jnp.arange(more[1]) < wanted[:, None])[..., None]
    fewer = jax.random.randint(k_fewer, (), 1, _FEW + 1)
    most = jnp.where(jax.random.bernoulli(k_few, float(design.few)), fewer, design.max_experiments)
    int_rows = row < jnp.minimum(each * chosen.sum() * repeats, most)
    mask = (first | (others.any(axis=1) & with_more[:, None]))[setting] & int_rows[:, None]
    return mask, int_rows, setting


def _draw_repeats(key: jax.Array, design: DesignDistribution) -> jax.Array:
    """How often each experiment is made, uniform in the logarithm where it is repeated at all."""
    k_any, k_number = jax.random.split(key)
    number = jnp.exp(jax.random.uniform(k_number) * jnp.log(_MOST_REPEATS + 1.0)).astype(int)
    return jnp.where(jax.random.bernoulli(k_any, float(design.repeated)), number, 1)
