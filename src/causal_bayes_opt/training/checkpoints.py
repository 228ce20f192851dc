"""What a training run keeps in its folder: checkpoints and metrics."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file, save_file

from causal_bayes_opt.errors import ModelError

CHECKPOINT_FORMAT = 2


class LoopState(NamedTuple):
    """Everything that a step changes."""

    step: jax.Array  # int [], steps done
    params: hk.Params
    opt_state: optax.OptState
    average: hk.Params  # running mean of the weights
    best: hk.Params  # the mean at the best validation
    best_loss: jax.Array  # [], of that validation; infinite before the first
    misses: jax.Array  # int [], validations since then
    place: jax.Array  # int [3], where the source goes on


def save_checkpoint(folder: Path, state: LoopState, described: dict[str, Any]) -> None:
    """Write the state so that a reader sees the old one or the new one, never a part."""
    arrays = {name: np.asarray(leaf) for name, leaf in _named_leaves(state)}
    temporary = folder / "checkpoint.partial"
    save_file(arrays, temporary)
    (folder / "run.partial").write_text(json.dumps(described, indent=1, sort_keys=True))
    os.replace(folder / "run.partial", folder / "run.json")
    os.replace(temporary, folder / "checkpoint.safetensors")


def resume(folder: Path, state: LoopState, described: dict[str, Any]) -> LoopState:
    """The state in a folder's checkpoint, or the given one where there is none.

    Raises:
        ModelError: the folder holds a run with another configuration.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return state
    recorded = json.loads((folder / "run.json").read_text())
    if digest(recorded) != digest(described):
        changed = [key for key in described if recorded.get(key) != described[key]]
        raise ModelError(
            f"{str(folder)!r} holds a run with another configuration ({', '.join(changed)} "
            "differ); choose another folder, or repeat that configuration to go on"
        )
    arrays = load_file(path)
    leaves = [jnp.asarray(arrays[name]) for name, _ in _named_leaves(state)]
    restored: LoopState = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return restored


def log_step(
    folder: Path,
    step: int,
    metrics: dict[str, jax.Array],
    seconds: float,
    validation: float | None,
) -> None:
    """Append a line of metrics; a line that a stopped process left unfinished is cut off first."""
    record = {"step": step, "seconds": round(seconds, 3)}
    record |= {name: float(value) for name, value in metrics.items()}
    if validation is not None:
        record["validation"] = validation
    with (folder / "metrics.jsonl").open("a+b") as file:
        file.seek(0)
        written = file.read()
        file.truncate(written.rfind(b"\n") + 1)
        file.write(json.dumps(record).encode() + b"\n")


def seconds_trained(folder: Path) -> float:
    """Seconds that all processes so far have trained in a folder, those inside it included."""
    total = 0.0
    for path in folder.rglob("metrics.jsonl"):
        last = 0.0
        lines = path.read_text()
        # The last line of a process that was stopped may be a part of one.
        for line in lines[: lines.rfind("\n") + 1].splitlines():
            seconds = float(json.loads(line)["seconds"])
            # They begin again with each process.
            total += seconds - last if seconds >= last else seconds
            last = seconds
    return total


def digest(described: dict[str, Any]) -> str:
    """A hash of a configuration."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(params: hk.Params) -> str:
    """A hash of weights, whatever the order in which they are held."""
    leaves, _ = jax.tree.flatten_with_path(params)
    named = sorted((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves)
    data = b"".join(name.encode() + array.tobytes() for name, array in named)
    return hashlib.sha256(data).hexdigest()[:16]


def _named_leaves(state: LoopState) -> list[tuple[str, jax.Array]]:
    leaves, _ = jax.tree.flatten_with_path(state)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
