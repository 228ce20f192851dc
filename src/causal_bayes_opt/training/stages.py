"""A configured run, whole: the stages of its curriculum, then its own distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from causal_bayes_opt.errors import ModelError
from causal_bayes_opt.surrogate.joint import Network
from causal_bayes_opt.surrogate.network import load_pretrained
from causal_bayes_opt.training.configuration import TrainingRun
from causal_bayes_opt.training.loop import Progress, train
from causal_bayes_opt.training.sources import held_out_loss

_CHECKS = 10


def train_run(
    run: TrainingRun,
    folder: Path,
    report: Callable[[str, Progress], None] | None = None,
    mesh: Mesh | None = None,
) -> hk.Params:
    """Train through the stages and the run; return the averaged weights.

    Each stage has a folder of its own and hands its weights to the next one. The same call goes on
    where it was stopped, stages that are done included.

    Args:
        run: from `read_run`.
        folder: keeps checkpoints and metrics.
        report: called after every step with the stage's name.
        mesh: devices along which batches are split.

    Raises:
        ModelError: the folder holds another run.
        ConfigError: the loss is lost.
    """
    params = None if run.start is None else _beginning(run.model, run.start, run.loop.seed)
    named = [(f"{run.name}, stage {i + 1}", stage) for i, stage in enumerate(run.stages)]
    for number, (name, stage) in enumerate(named, 1):
        loop = replace(
            run.loop,
            steps=stage.steps,
            stop_after=None,
            validate_every=max(stage.steps // _CHECKS, 1),
            enough=stage.promote_at,
        )
        params = train(
            run.model,
            stage.distribution,
            loop,
            folder / f"stage-{number}",
            _named(report, name),
            params,
            held_out_loss(run.model, stage.distribution, loop.seed),
            mesh,
        )
    validate = held_out_loss(run.model, run.distribution, run.loop.seed)
    return train(
        run.model,
        run.distribution,
        run.loop,
        folder,
        _named(report, run.name),
        params,
        validate,
        mesh,
    )


def _beginning(model: Network, start: str, seed: int) -> hk.Params:
    """Weights of a trained model; what it lacks (a `stream`, say) is drawn."""
    drawn, given = model.init(jax.random.key(seed)), load_pretrained(start).params
    shapes = {module: jax.tree.map(jnp.shape, own) for module, own in drawn.items()}
    for module, own in given.items():
        if shapes.get(module) != jax.tree.map(jnp.shape, own):
            raise ModelError(f"{module} of {start!r} has no place in the network to be trained")
    return {**drawn, **given}


def _named(
    report: Callable[[str, Progress], None] | None, name: str
) -> Callable[[Progress], None] | None:
    if report is None:
        return None
    return lambda progress: report(name, progress)
