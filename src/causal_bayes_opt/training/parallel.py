"""Several devices, and several processes: one mesh along which the batch is split.

Weights are held by every device; the batch lies along the mesh, and the compiler adds up the
gradients. The same code runs on one device, where nothing is split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from causal_bayes_opt.errors import ConfigError

T = TypeVar("T")
AXIS = "data"
_current: list[Mesh] = []


def data_mesh(n_devices: int | None = None) -> Mesh:
    """A mesh over devices of all processes; None takes all of them.

    Raises:
        ConfigError: there are fewer.
    """
    devices = jax.devices()
    count = len(devices) if n_devices is None else n_devices
    if not 1 <= count <= len(devices):
        raise ConfigError(f"{count} devices were asked for; JAX sees {len(devices)}")
    return Mesh(np.array(devices[:count]), (AXIS,))


def join_processes(coordinator: str, n_processes: int, number: int) -> None:
    """Make this process one of several that train together; call it before any other use of JAX.

    Args:
        coordinator: host and port of process 0, as ``host:port``.
        n_processes: how many there are.
        number: of this one, from 0.

    Raises:
        ConfigError: numbers that do not fit, or nobody answers.
    """
    if not 0 <= number < n_processes:
        raise ConfigError(f"process {number} of {n_processes}; they are counted from 0")
    try:
        jax.distributed.initialize(coordinator, n_processes, number)
    except RuntimeError as error:
        raise ConfigError(f"no processes at {coordinator!r}: {error}") from error


@contextmanager
def using(mesh: Mesh | None) -> Iterator[None]:
    """Split batches along a mesh in everything that is traced inside."""
    if mesh is None:
        yield
        return
    _current.append(mesh)
    try:
        yield
    finally:
        _current.pop()


def spread(batch: T) -> T:
    """Lay the leading axis of all arrays along the mesh, where there is one; traced."""
    if not _current:
        return batch
    sharding = NamedSharding(_current[-1], PartitionSpec(AXIS))
    spread_out: T = jax.lax.with_sharding_constraint(batch, sharding)
    return spread_out


def everywhere(tree: T, mesh: Mesh | None) -> T:
    """Give every device its copy."""
    if mesh is None:
        return tree
    copied: T = jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
    return copied
