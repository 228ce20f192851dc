"""Was a held-out system trained on? Compared by random keys, and by the systems themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.random_systems import SystemDistribution, draw_systems
from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.training import TrainingDistribution, part_sizes
from causal_bayes_opt.training.configuration import distribution_of

_AT_ONCE = 32  # training steps whose systems are drawn together


class Phase(NamedTuple):
    """A part of a training with one distribution."""

    distribution: TrainingDistribution
    steps: int
    batch_size: int
    seed: int


def overlap_with_training(
    scms: Sequence[SCM], seeds: Sequence[int], card: Mapping[str, Any], steps: int
) -> dict[str, int]:
    """Compare held-out systems with what a model was trained on.

    Keys are compared for every training step. Systems are compared by their numbers: those of
    some steps, evenly spread over each phase of the training, are drawn again as the training
    drew them. A system whose variables were put into another order, or changed their signs, is
    the same.

    Args:
        scms: held-out systems.
        seeds: of their random keys.
        card: of the model: ``systems`` and ``loop``, and ``stages`` and ``start`` where it had any.
        steps: of the training that are drawn again, of each phase.

    Returns:
        ``held_out``, their number; ``keys`` of training steps and ``systems`` drawn again that
        were compared; ``shared_keys`` and ``shared_systems``. A model whose card names no run has
        0 keys and systems: nothing could be compared.
    """
    phases = _phases(card)
    own_keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    lengths: dict[int, int] = {}
    for phase in phases:
        lengths[phase.seed] = max(phase.steps, lengths.get(phase.seed, 0))
    shared = sum(shared_keys(own_keys, _keys(seed, last)) for seed, last in lengths.items())
    own = {fingerprint(system_numbers(scm)) for scm in scms}
    drawn = [
        fingerprint(numbers) in own
        for phase in phases
        for numbers in training_systems(phase, _spread(phase.steps, steps))
    ]
    return {
        "held_out": len(scms),
        "keys": sum(lengths.values()),
        "shared_keys": shared,
        "systems": len(drawn),
        "shared_systems": sum(drawn),
    }


def shared_keys(some: jax.Array, others: jax.Array) -> int:
    """How many of the random keys ``[n]`` are among the others ``[m]``."""
    found = {tuple(row) for row in np.asarray(jax.random.key_data(others)).tolist()}
    return sum(tuple(row) in found for row in np.asarray(jax.random.key_data(some)).tolist())


def fingerprint(numbers: Iterable[float]) -> str:
    """A hash of a system's numbers, to 5 digits; order, sign and zeros do not count."""
    sizes = np.abs(np.fromiter(numbers, dtype=np.float64))
    told = sorted(f"{size:.4e}" for size in sizes[sizes > 0].tolist())
    return hashlib.sha256("|".join(told).encode()).hexdigest()


def system_numbers(scm: SCM) -> list[float]:
    """All weights, readouts and noise scales of a system."""
    found: list[float] = []
    for name in scm.variables:
        mechanism = scm.mechanisms[name]
        found += np.ravel(mechanism.weights).tolist() + np.ravel(mechanism.readout).tolist()
        found.append(float(mechanism.noise.scale))
    return found


def training_systems(phase: Phase, steps: Sequence[int]) -> Iterator[np.ndarray]:
    """The numbers of every system that the given steps of a phase drew."""
    base = _base(phase.seed)
    sizes = part_sizes(phase.batch_size, phase.distribution)
    for start in range(0, len(steps), _AT_ONCE):
        own = list(steps[start : start + _AT_ONCE])
        keys = jnp.asarray((own * _AT_ONCE)[:_AT_ONCE])  # one size, so that it compiles once
        for i, (size, part) in enumerate(zip(sizes, phase.distribution.systems, strict=True)):
            if size:
                arrays = _draw(base, keys, i, size, part)
                yield from _numbers(arrays, len(own))


@partial(jax.jit, static_argnames=("size", "distribution"))
def _draw(
    base: jax.Array, steps: jax.Array, part: int, size: int, distribution: SystemDistribution
) -> SystemArrays:
    """Systems ``[n_steps, size]``, by the keys of `surrogate.training.simulate`."""

    def one(step: jax.Array) -> SystemArrays:
        key = jax.random.fold_in(jax.random.fold_in(base, step), part)
        systems: SystemArrays = draw_systems(jax.random.split(key)[0], size, distribution)
        return systems

    drawn: SystemArrays = jax.vmap(one)(steps)
    return drawn


def _numbers(arrays: SystemArrays, steps: int) -> Iterator[np.ndarray]:
    found = [np.asarray(leaf)[:steps] for leaf in (arrays.weights, arrays.readout)]
    scales = np.where(np.asarray(arrays.present), np.asarray(arrays.noise_scale), 0.0)[:steps]
    found.append(scales)
    flat = np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in found], axis=-1)
    yield from flat.reshape(-1, flat.shape[-1])


def _phases(card: Mapping[str, Any]) -> list[Phase]:
    """All that a model was trained on, one after the other; the model it began with included."""
    found = _phases(card["start"]) if card.get("start") else []
    if "loop" not in card or "systems" not in card:
        return found
    seed, batch = int(card["loop"].get("seed", 0)), int(card["loop"]["batch_size"])
    stages = [(stage["distribution"], stage["steps"]) for stage in card.get("stages", ())]
    stages.append((card, card["loop"]["steps"]))
    return found + [Phase(distribution_of(told), int(steps), batch, seed) for told, steps in stages]


def _base(seed: int) -> jax.Array:
    """The key from which the loop makes those of its steps."""
    return jax.random.key(seed + 1)


def _keys(seed: int, steps: int) -> jax.Array:
    return jax.vmap(partial(jax.random.fold_in, _base(seed)))(jnp.arange(steps))


def _spread(count: int, steps: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(steps, count))})
