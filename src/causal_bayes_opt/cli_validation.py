"""The command `acbo validate`: the judge on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from causal_bayes_opt import console
from causal_bayes_opt.errors import ConfigError


def add_validate(commands: Any) -> None:
    """Add `validate` to the parser's commands."""
    parser = console.add_command(
        commands,
        "validate",
        "judge a model against the expert, exact inference and the truth; "
        "exit status 0: go, 1: no-go, 2: undecided, 3: an error",
        [
            "acbo validate --out runs/validation",
            "acbo validate --model mixed-v1 --mechanisms polynomial neural --out runs/mixed",
            "acbo validate --systems 60 --no-transfer --no-scaling --out runs/quick",
        ],
    )
    parser.add_argument(
        "--model", default="linear-gaussian-v1", metavar="NAME|PATH", help="(default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the report")
    parser.add_argument("--systems", type=int, default=200, metavar="N", help="held out (200)")
    parser.add_argument("--studies", type=int, metavar="N", help="systems that are timed (all)")
    parser.add_argument("--trials", type=int, default=5, metavar="N", help="of a study (5)")
    parser.add_argument("--seed", type=int, default=20_000, metavar="N", help="(default: 20000)")
    parser.add_argument(
        "--mechanisms", nargs="+", default=["linear"], metavar="FAMILY", help="judged on (linear)"
    )
    parser.add_argument(
        "--price", type=float, default=0.5, metavar="MONEY", help="an hour of this machine (0.5)"
    )
    parser.add_argument(
        "--spent",
        nargs="+",
        default=[],
        metavar="WHAT=SECONDS",
        help="what the model took (training, tuning, data, failed), where its card does not say so",
    )
    parser.add_argument(
        "--demonstrations",
        nargs="+",
        type=int,
        metavar="N",
        help="of the learning curve, 1000 and 5000, which are compared, among them "
        "(250 1000 2500 5000)",
    )
    parser.add_argument("--no-transfer", action="store_true", help="leave transfer unmeasured")
    parser.add_argument("--no-scaling", action="store_true", help="train on no demonstrations")
    parser.set_defaults(run=_validate)


def _validate(options: argparse.Namespace) -> None:
    from rich.console import Console

    from causal_bayes_opt.training.held_out import HeldOut
    from causal_bayes_opt.training.scaling_study import ScalingStudy
    from causal_bayes_opt.training.validation import (
        ValidationConfig,
        validate_amortization_benefit,
    )
    from causal_bayes_opt.training.validation_report import in_words, write_validation_report

    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}; it cannot be negative")
    config = ValidationConfig(
        systems=options.systems,
        studies=options.studies,
        trials=options.trials,
        held_out=HeldOut(seed=options.seed, mechanisms=tuple(options.mechanisms)),
        price_per_hour=options.price,
        spent=_spent(options.spent),
    )
    if options.no_transfer:
        config = replace(config, transfer_systems=0)
    if options.demonstrations is not None:
        config = replace(config, scaling=ScalingStudy(tuple(options.demonstrations)))
    if options.no_scaling:
        config = replace(config, scaling=None)
    with Console(stderr=True).status("systems") as status:
        found = validate_amortization_benefit(
            options.model,
            config=config,
            folder=options.out / "scaling",
            report=lambda sentence: status.update(f"done: {sentence}"),
        )
    path = write_validation_report(found, options.out)
    print(in_words(found.content))
    for criterion in (*found.content["week_2"], *found.content["week_4"]):
        print(f"  {criterion['verdict']:<10} {criterion['name']}: {criterion['requirement']}")
    print(f"report: {path}")
    raise SystemExit(found.exit_status)


def _spent(told: Sequence[str]) -> dict[str, float]:
    found = {}
    for entry in told:
        name, _, seconds = entry.partition("=")
        try:
            found[name] = float(seconds)
        except ValueError as error:
            raise ConfigError(f"--spent has {entry!r}; expected WHAT=SECONDS") from error
    return found
