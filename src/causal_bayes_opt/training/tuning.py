"""Search over learning rate, width, depth and batch size: a resumable Optuna study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from causal_bayes_opt._optional import optional
from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.network import make_network
from causal_bayes_opt.training.configuration import TrainingRun
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.sources import held_out_loss

STUDY = "study.db"
_WIDTHS, _DEPTHS, _BATCH_SIZES = (32, 48, 64, 96, 128), (1, 6), (16, 32, 64)


def tune(
    run: TrainingRun,
    folder: Path,
    trials: int,
    steps: int,
    report: Callable[[int, float, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train short runs and keep the best options; the same call goes on with the study.

    A trial's loss is the negative log-probability of the true sets on systems that no step has
    seen. Its batches are paid for: a trial with twice the batch size has half the steps.

    Args:
        run: what is varied.
        folder: of the study (SQLite); it also gets ``best.json``, the options of the best trial.
        trials: how many trials the study is to have in all.
        steps: of a trial, at the run's batch size.
        report: called after each trial with its number, its loss and its options.

    Raises:
        ConfigError: no trials or no steps.
        OptionalDependencyError: Optuna is not installed.
    """
    if min(trials, steps) < 1:
        raise ConfigError(f"{trials} trials of {steps} steps; expected at least 1 of both")
    optuna = optional("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY}",
        study_name=run.name,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=run.loop.seed),
    )

    def objective(trial: Any) -> float:
        options = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            "hidden_dim": trial.suggest_categorical("hidden_dim", list(_WIDTHS)),
            "num_layers": trial.suggest_int("num_layers", *_DEPTHS),
            "batch_size": trial.suggest_categorical("batch_size", list(_BATCH_SIZES)),
        }
        loss = _loss_of(run, options, steps)
        if report is not None:
            report(trial.number, loss, options)
        return loss

    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    study.optimize(objective, n_trials=max(trials - len(finished), 0))
    best = {"loss": float(study.best_value), **study.best_params}
    (folder / "best.json").write_text(json.dumps(best, indent=1) + "\n")
    return best


def _loss_of(run: TrainingRun, options: dict[str, Any], steps: int) -> float:
    header = run.model.describe()
    sizes = {"hidden_dim": options["hidden_dim"], "num_layers": options["num_layers"]}
    model = make_network(header["architecture"], {**header["config"], **sizes})
    loop = replace(
        run.loop,
        steps=max(steps * run.loop.batch_size // options["batch_size"], 1),
        stop_after=None,
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
    )
    params = train(model, run.distribution, loop)
    return held_out_loss(model, run.distribution, run.loop.seed)(params)
