"""Keys of draws by compiled programs: the library takes a fifth of a millisecond for each."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np


def key(seed: int) -> jax.Array:
    """The key of a seed, modulo 2^32: ``jax.random.key(seed)``."""
    made: jax.Array = _key(np.uint32(seed % 2**32))
    return made


@jax.jit
def _key(seed: jax.Array) -> jax.Array:
    return jax.random.key(seed)


def seeded(seed: int, number: int) -> jax.Array:
    """The key of a number under a seed, modulo 2^32: ``fold_in(key(seed), number)``."""
    key: jax.Array = _seeded(np.uint32(seed % 2**32), number)
    return key


@jax.jit
def _seeded(seed: jax.Array, number: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), number)


@jax.jit
def numbered(key: jax.Array, number: int) -> jax.Array:
    """The key of a number under another key: ``fold_in(key, number)``."""
    return jax.random.fold_in(key, number)


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator seeded by a key, for draws of so many shapes that JAX would compile on."""
    return np.random.default_rng(np.asarray(_words(key)))


@jax.jit
def _words(key: jax.Array) -> jax.Array:
    words: jax.Array = jax.random.key_data(key)
    return words


@partial(jax.jit, static_argnames=("n",))
def split(key: jax.Array, n: int = 2) -> tuple[jax.Array, ...]:
    """`n` keys from one, as `jax.random.split` gives them."""
    return tuple(jax.random.split(key, n))
