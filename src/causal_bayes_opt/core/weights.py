"""Weights of networks in files: safetensors, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.errors import ModelError


def save_weights(params: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Write nested weights as float32; a reader sees the old file or the new one."""
    flat = {
        f"{module}//{name}": np.asarray(value, dtype=np.float32)
        for module, own in params.items()
        for name, value in own.items()
    }
    save_file(flat, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def load_weights(path: Path) -> dict[str, dict[str, Array]]:
    """Read nested weights.

    Raises:
        ModelError: the file is missing or no safetensors file.
    """
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the weights of {str(path)!r} cannot be read: {error}") from error
    params: dict[str, dict[str, Array]] = {}
    for name, value in flat.items():
        module, _, leaf = name.rpartition("//")
        params.setdefault(module, {})[leaf] = jnp.asarray(value)
    return params
