"""The commands `acbo train`, `acbo tune`, `acbo calibrate` and `acbo train-policy`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_bayes_opt import console
from causal_bayes_opt._optional import optional
from causal_bayes_opt.errors import ConfigError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from causal_bayes_opt.training.loop import Progress

_TRACK_EVERY = 50


def add_train(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = console.add_command(
        commands,
        "train",
        "train a network on simulated systems; the same command goes on where it was stopped",
        ["acbo train --config configs/linear-gaussian-base.json --out runs/linear"],
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="JSON file with the run"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="checkpoints, metrics, model"
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="split batches over N devices (default: 1)"
    )
    parser.add_argument(
        "--mlflow", metavar="URI", help="write metrics to this MLflow store too: sqlite:///runs.db"
    )
    group = parser.add_argument_group("several processes that train together")
    group.add_argument("--processes", type=int, default=1, metavar="N", help="how many")
    group.add_argument("--process", type=int, default=0, metavar="I", help="this one, from 0")
    group.add_argument("--join", metavar="HOST:PORT", help="where process 0 listens")
    parser.set_defaults(run=_train)


def add_tune(commands: Any) -> None:
    """Add `tune` to the parser's commands."""
    parser = console.add_command(
        commands,
        "tune",
        "search for learning rate, width, depth and batch size; the same command goes on",
        ["acbo tune --config configs/linear-gaussian-base.json --out runs/tuned --trials 20"],
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="JSON file with the run"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the study and its best options"
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="in all (default: 20)")
    parser.add_argument(
        "--steps", type=int, default=300, metavar="N", help="of a trial (default: 300)"
    )
    parser.set_defaults(run=_tune)


def add_calibrate(commands: Any) -> None:
    """Add `calibrate` to the parser's commands."""
    parser = console.add_command(
        commands,
        "calibrate",
        "fit the temperature of a trained model on fresh systems of its training distribution",
        ["acbo calibrate --model runs/linear-gaussian-v1/linear-gaussian-v1.json"],
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="its header; written anew where that helps",
    )
    parser.add_argument(
        "--systems", type=int, default=4000, metavar="N", help="to fit on (default: 4000)"
    )
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    from causal_bayes_opt.surrogate.network import load_pretrained, save_model
    from causal_bayes_opt.training.calibration import calibrate
    from causal_bayes_opt.training.configuration import distribution_of

    trained = load_pretrained(options.model)
    found = calibrate(trained, distribution_of(trained.card), options.systems)
    low, high = found.temperatures
    before, after = found.before, found.after
    print(f"temperature {low:.3f} to {high:.3f}; on other systems of the same distribution:")
    print(f"  nats a variable: {before.negative_log_probability:.4f}, tempered ", end="")
    print(f"{after.negative_log_probability:.4f}")
    print(f"  calibration error: {before.calibration_error:.4f}, tempered ", end="")
    print(f"{after.calibration_error:.4f}")
    if found.helps:
        print(f"wrote {save_model(found.model, options.model)}")
    else:
        print("the temperature is of no use: the model stays as it is")


def _tune(options: argparse.Namespace) -> None:
    from causal_bayes_opt.training.configuration import read_run
    from causal_bayes_opt.training.tuning import tune

    def report(number: int, loss: float, chosen: dict[str, Any]) -> None:
        told = ", ".join(f"{name} {value:.4g}" for name, value in chosen.items())
        print(f"trial {number}: {loss:.4f} nats; {told}", flush=True)

    best = tune(read_run(options.config), options.out, options.trials, options.steps, report)
    print(f"best: {best}")


def add_train_policy(commands: Any) -> None:
    """Add `train-policy` to the parser's commands."""
    parser = console.add_command(
        commands,
        "train-policy",
        "train a policy network by GRPO on simulated studies; the same command goes on",
        ["acbo train-policy --config configs/grpo-linear-v1.json --out runs/policy"],
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="JSON file with the run"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="checkpoints, metrics, policy"
    )
    parser.set_defaults(run=_train_policy)


def _train_policy(options: argparse.Namespace) -> None:
    from causal_bayes_opt.acquisition.learned import save_policy
    from causal_bayes_opt.training.configuration import read_policy_run
    from causal_bayes_opt.training.policy_training import train_policy

    run = read_policy_run(options.config)
    with _bars(None) as report:
        trained = train_policy(run, options.out, report)
    path = save_policy(trained, options.out / run.name)
    print(f"wrote {path} and {path.with_suffix('.safetensors')}")


def _train(options: argparse.Namespace) -> None:
    from causal_bayes_opt.surrogate.network import TrainedModel, save_model
    from causal_bayes_opt.training.checkpoints import seconds_trained
    from causal_bayes_opt.training.configuration import model_card, read_run
    from causal_bayes_opt.training.stages import train_run

    run = read_run(options.config)
    mesh = _mesh(options)
    write = None
    if options.mlflow and options.process == 0:
        write = _tracker(options.mlflow, run.name, options.out)
    earlier, started = seconds_trained(options.out), time.monotonic()
    with _bars(write) as report:
        params = train_run(run, options.out, report, mesh)
    if options.process > 0:
        return
    card = model_card(run, earlier + time.monotonic() - started)
    path = save_model(TrainedModel(run.name, run.model, params, card), options.out / run.name)
    print(f"wrote {path} and {path.with_suffix('.safetensors')}")


@contextmanager
def _bars(
    write: Callable[[str, Progress], None] | None,
) -> Iterator[Callable[[str, Progress], None]]:
    """Progress bars, one a stage, and what tells them how far a run is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: Progress) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"train {stage}", total=done.steps, loss="")
            told = f"loss {done.loss:.4f}, {done.steps_per_second:.2f} steps/s"
            bars.update(tasks[stage], completed=done.step, loss=told)
            if write is not None:
                write(stage, done)

        yield report


def _tracker(uri: str, name: str, folder: Path) -> Callable[[str, Progress], None]:
    """Writes numbers to an MLflow run; a training that goes on writes to the run it began."""
    mlflow = optional("mlflow", "mlflow")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("causal_bayes_opt")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "mlflow-run"
    begun = kept.read_text().strip() if kept.exists() else None
    run = mlflow.start_run(run_id=begun, run_name=None if begun else name)
    kept.write_text(run.info.run_id)

    def write(stage: str, done: Progress) -> None:
        if done.validation is None and done.step % _TRACK_EVERY and done.step != done.steps:
            return
        values = {"loss": done.loss, "steps_per_second": done.steps_per_second}
        if done.validation is not None:
            values["validation"] = done.validation
        prefix = stage.replace(",", "")
        mlflow.log_metrics({f"{prefix}/{key}": v for key, v in values.items()}, step=done.step)

    return write


def _mesh(options: argparse.Namespace) -> Mesh | None:
    """The devices that the options ask for; None: one."""
    from causal_bayes_opt.training.parallel import data_mesh, join_processes

    if options.processes > 1:
        if options.join is None:
            raise ConfigError("several processes need --join HOST:PORT of process 0")
        join_processes(options.join, options.processes, options.process)
        return data_mesh(options.devices)
    return None if options.devices is None else data_mesh(options.devices)
