"""Trained networks in files: a JSON header beside safetensors, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.errors import ModelError, nearest

Config = TypeVar("Config")


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


def find_header(name_or_path: str | Path, floor: str, kind: str) -> Path:
    """The header of a shipped network by its name, or of any by its path.

    Args:
        name_or_path: of the network.
        floor: the folder of this package in whose ``pretrained`` the shipped ones lie.
        kind: what to call it in an error, such as "model".

    Raises:
        ModelError: there is none; the message offers the nearest name.
    """
    name = str(name_or_path)
    folder = Path(str(resources.files("causal_bayes_opt") / floor / "pretrained"))
    shipped = folder / f"{name}.json"
    # First: a folder here may have such a name by chance.
    if shipped.parent == folder and shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.exists():
        return path
    if path.suffix == ".json":
        raise ModelError(f"no such {kind} file: {name!r}")
    names = sorted(file.stem for file in folder.glob("*.json"))
    raise ModelError(f"no {kind} is called {name!r}{nearest(name, names)} (shipped: {names})")


def written_at(header: Path) -> tuple[int, ...]:
    """Numbers that change when a header or its weights are written: when, and which file it is.

    What was read from them may be kept as long as these are the same.
    """
    files = header, header.with_suffix(".safetensors")
    states = [file.stat() for file in files if file.exists()]
    return tuple(number for state in states for number in (state.st_mtime_ns, state.st_ino))


def read_header(path: Path, kind: str, form: str, encoding_version: int) -> dict[str, Any]:
    """Read a header that was written for this version.

    Raises:
        ModelError: no header, or one of another format or encoding.
    """
    try:
        header: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} is no {kind} header: {error}") from error
    if not isinstance(header, dict):
        raise ModelError(f"{str(path)!r} is no {kind} header: it is no JSON object")
    if header.get("format") != form:
        raise ModelError(
            f"{str(path)!r} has the format {header.get('format')!r}; this version reads {form!r}"
        )
    if header.get("encoding_version") != encoding_version:
        raise ModelError(
            f"{str(path)!r} was trained for encoding {header.get('encoding_version')!r}; this "
            f"version has encoding {encoding_version}; train it again or use the version that made "
            "it"
        )
    missing = sorted({"name", "config", "card"} - header.keys())
    if missing:
        raise ModelError(f"the header {str(path)!r} lacks {missing[0]!r}")
    return header


def size_of(config: type[Config], values: object) -> Config:
    """The size of a network by a header's entry ``config``.

    Raises:
        ModelError: there is something else.
    """
    try:
        return config(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise ModelError(f"a header's 'config' is {values!r}, no {config.__name__}: {error}") from (
            error
        )


def save_network(
    path: str | Path, header: Mapping[str, Any], params: Mapping[str, Mapping[str, Array]]
) -> Path:
    """Write ``PATH.safetensors`` and its header ``PATH.json``; return the header's path."""
    path = Path(path)
    # Names may have dots of their own.
    path = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(params, path.with_suffix(".safetensors"))
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(header, indent=1) + "\n")
    os.replace(partial, path)
    return path
