"""The commands `acbo generate` and `acbo dataset`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_bayes_opt import console
from causal_bayes_opt.errors import ConfigError

if TYPE_CHECKING:
    from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator


def add_generate(commands: Any) -> None:
    """Add `generate` to the parser's commands."""
    parser = console.add_command(
        commands,
        "generate",
        "make a dataset of demonstrations; the same command goes on where it was stopped",
        [
            "acbo generate --out data/first --systems 96 --seed 0",
            "acbo generate --out data/mixed --systems 100 --mechanisms linear neural",
            "acbo generate --out data/truth --teacher truth --systems 50000 --report report.json",
            "acbo generate --out data/first --systems 96 --engine ray --address auto",
        ],
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument("--systems", type=int, default=96, metavar="N", help="default: 96")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--sizes", type=_sizes, default=(3, 8), metavar="LO-HI", help="variables (default: 3-8)"
    )
    parser.add_argument(
        "--trials", type=int, default=10, metavar="N", help="of each run (default: 10)"
    )
    parser.add_argument("--teacher", default="parent_scale", metavar="parent_scale|truth|exact")
    for name, default, what in (
        ("families", ["erdos_renyi"], "graph families, in turn"),
        ("mechanisms", ["linear"], "families of mechanisms, drawn for each variable"),
        ("noises", ["gaussian"], "families of noise, drawn for each variable"),
    ):
        parser.add_argument(f"--{name}", nargs="+", default=default, metavar="NAME", help=what)
    parser.add_argument(
        "--mean-parents", type=float, default=1.0, metavar="X", help="of a variable (default: 1)"
    )
    parser.add_argument(
        "--parameters", default="uniform", metavar="uniform|bge", help="where weights come from"
    )
    for name, low, high, what in (
        ("weights", 0.5, 2.0, "sizes of weights"),
        ("noise-scale", 0.2, 2.0, "deviations of noise"),
    ):
        parser.add_argument(
            f"--{name}", nargs=2, type=float, default=(low, high), metavar=("LO", "HI"), help=what
        )
    parser.add_argument("--scaling", default="none", metavar="none|after|iscm")
    parser.add_argument("--engine", default="local", metavar="local|ray", help="default: local")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster")
    parser.add_argument("--workers", type=int, metavar="N", help="of Ray, at a time")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="validation report that allows a large dataset"
    )
    parser.add_argument(
        "--model",
        default="linear-gaussian-v1",
        metavar="NAME|PATH",
        help="that the report must be about (default: linear-gaussian-v1)",
    )
    parser.add_argument("--force", action="store_true", help="make a large one without a report")
    parser.set_defaults(run=_generate)


def add_dataset(commands: Any) -> None:
    """Add `dataset` to the parser's commands."""
    parser = console.add_command(
        commands, "dataset", "look at a dataset", ["acbo dataset digest data/first"]
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    digest = console.add_command(
        actions,
        "digest",
        "print one hash of a dataset's content, after checking every chunk",
        ["acbo dataset digest data/first"],
    )
    digest.add_argument("folder", type=Path, metavar="DIR")
    digest.set_defaults(run=_digest)


def _generate(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from causal_bayes_opt.training.engines import engine_named
    from causal_bayes_opt.training.generation import Generated, generate_dataset

    generator = _generator(options)
    engine = engine_named(options.engine, options.address, options.workers)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bars:
        task = bars.add_task("systems", total=generator.count)
        told: list[str] = []

        def report(done: Generated) -> None:
            if done.remade and not told:
                told.extend(done.remade)
                console.warn(f"damaged chunks are made again: {', '.join(done.remade)}")
            bars.update(task, completed=done.systems)

        store = generate_dataset(
            generator,
            options.out,
            engine=engine,
            report=report,
            validation_report=options.report,
            model=options.model,
            force=options.force,
        )
    print(f"{options.out}: {generator.count} systems in {len(store.chunks)} chunks")


def _digest(options: argparse.Namespace) -> None:
    from causal_bayes_opt.training.generation import digest_of

    print(digest_of(options.folder))


def _generator(options: argparse.Namespace) -> MinimalDatasetGenerator:
    from causal_bayes_opt.core.random_systems import SystemDistribution
    from causal_bayes_opt.training.data_generation import MinimalDatasetGenerator

    low, high = options.sizes
    if options.systems < 1:
        raise ConfigError(f"--systems is {options.systems}; it must be at least 1")
    return MinimalDatasetGenerator(
        graph_sizes=tuple(range(low, high + 1)),
        demonstrations_per_graph=options.trials,
        seed=options.seed,
        graph_families=tuple(options.families),
        mean_parents=options.mean_parents,
        systems=SystemDistribution(
            mechanisms=tuple(options.mechanisms),
            noises=tuple(options.noises),
            parameters=options.parameters,
            weights=tuple(options.weights),
            noise_scale=tuple(options.noise_scale),
            scaling=options.scaling,
        ),
        teacher=options.teacher,
        n_systems=options.systems,
    )


def _sizes(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal() and int(low) <= int(high or low)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range such as 3-8")
    return int(low), int(high or low)
