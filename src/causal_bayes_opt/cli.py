"""The command line `acbo`: a thin shell over `api` and the demonstration.

Nothing heavy is imported before a command runs, so that help and version answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_bayes_opt import console
from causal_bayes_opt.cli_datasets import add_dataset, add_generate
from causal_bayes_opt.cli_training import (
    add_calibrate,
    add_train,
    add_train_policy,
    add_tune,
)
from causal_bayes_opt.cli_validation import add_validate
from causal_bayes_opt.cli_values import parse_costs, parse_edges, parse_ranges
from causal_bayes_opt.errors import check_name

if TYPE_CHECKING:
    from causal_bayes_opt.acquisition.policy import Suggestion
    from causal_bayes_opt.acquisition.state import AcquisitionState
    from causal_bayes_opt.surrogate.posterior import ParentSetPosterior

COMMANDS = (
    "parents",
    "suggest",
    "demo",
    "generate",
    "dataset",
    "train",
    "tune",
    "train-policy",
    "calibrate",
    "validate",
)
METHODS = ("auto", "exact", "network", "linear-gaussian-v1", "mixed-v1")
SEEDS = 2**32

_DESCRIPTION = """\
Which variables cause the target directly, and which experiment should be run next?

FILE is a CSV file with one column a variable, and optionally a column 'do' that names what was
set in a row (';' between names; empty where nothing was set)."""

_EXAMPLES = """\
examples:
  acbo parents data.csv --target yield
  acbo parents data.csv --target yield --method network --ignore batch operator --json
  acbo suggest data.csv --target yield --maximize --settable dose temperature
  acbo suggest data.csv --target yield --minimize --range dose=0:2.5 temperature=-5:1e2
  acbo suggest data.csv --target yield --maximize --edge dose:yield --no-edge batch:dose
  acbo demo --out runs/demo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `acbo` and return its exit status: 0, 2 for a user's error, 130 after Ctrl-C.

    That of `validate` is its verdict (0 go, 1 no-go, 2 undecided), and 3 for a user's error.
    """
    console.prepare_environment()
    arguments = list(sys.argv[1:] if argv is None else argv)
    judges = arguments[:1] == ["validate"]
    on_error = console.NO_VERDICT if judges else console.USER_ERROR
    return console.guarded(lambda: _run(arguments), on_error)


def _run(argv: list[str]) -> None:
    if argv and not argv[0].startswith("-"):
        check_name(argv[0], COMMANDS, "command")
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
    else:
        options.run(options)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = console.Parser(
        prog=console.PROGRAM,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_parents(commands)
    _add_suggest(commands)
    _add_demo(commands)
    add_generate(commands)
    add_dataset(commands)
    add_train(commands)
    add_tune(commands)
    add_train_policy(commands)
    add_calibrate(commands)
    add_validate(commands)
    return parser


def _add_parents(commands: Any) -> None:
    parser = console.add_command(
        commands,
        "parents",
        "which variables cause the target directly, and how sure that is",
        ["acbo parents data.csv --target yield", "acbo parents data.csv --target yield --json"],
    )
    _add_data(parser)
    parser.set_defaults(run=_parents)


def _add_suggest(commands: Any) -> None:
    parser = console.add_command(
        commands,
        "suggest",
        "which experiment to run next",
        [
            "acbo suggest data.csv --target yield --maximize --settable dose temperature",
            "acbo suggest data.csv --target yield --minimize --range dose=0:2 --range x=-1e3:1e3",
        ],
    )
    _add_data(parser)
    direction = parser.add_mutually_exclusive_group(required=True)
    for name in ("minimize", "maximize"):
        direction.add_argument(
            f"--{name}",
            dest="direction",
            action="store_const",
            const=name,
            help=f"make the target {'small' if name == 'minimize' else 'large'}",
        )
    parser.add_argument(
        "--range",
        dest="ranges",
        metavar="NAME=LO:HI",
        nargs="+",
        action="extend",
        default=[],
        help="values that a variable may be set to; by default those in the file",
    )
    parser.add_argument(
        "--settable",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="variables that may be set; all but the target by default",
    )
    parser.add_argument(
        "--cost",
        dest="costs",
        metavar="NAME=NUMBER",
        nargs="+",
        action="extend",
        default=[],
        help="what it costs to set a variable (default: 1); of about equals the cheapest is chosen",
    )
    parser.add_argument(
        "--max-targets",
        type=int,
        metavar="N",
        help="most variables that the experiment may set; as many as help by default",
    )
    parser.add_argument(
        "--policy",
        default="auto",
        metavar="NAME",
        help="who chooses: auto, expected_improvement, thompson_sampling, grpo-linear-v1, random, "
        "random_over_parents",
    )
    _add_seed(parser)
    parser.set_defaults(run=_suggest)


def _add_demo(commands: Any) -> None:
    parser = console.add_command(
        commands,
        "demo",
        "train a small model, judge it, and use it on two problems; takes some minutes",
        ["acbo demo", "acbo demo --quick --out runs/quick"],
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="FOLDER",
        help="where report and figures go (default: runs/demo)",
    )
    _add_seed(parser)
    parser.add_argument(
        "--quick", action="store_true", help="all steps in their smallest size; the model is poor"
    )
    parser.set_defaults(run=_demo)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="CSV file, one column a variable")
    parser.add_argument(
        "--target", required=True, metavar="NAME", help="the variable that is asked about"
    )
    parser.add_argument(
        "--method",
        default="auto",
        metavar="|".join(METHODS),
        help="how the causes are inferred (default: auto, by what the data look like)",
    )
    parser.add_argument(
        "--ignore",
        metavar="COLUMN",
        nargs="+",
        action="extend",
        default=[],
        help="columns to leave out",
    )
    for option, dest, says in (
        ("--edge", "known", "known for certain: CAUSE causes EFFECT directly"),
        ("--no-edge", "forbidden", "known for certain: CAUSE does not cause EFFECT directly"),
    ):
        parser.add_argument(
            option,
            dest=dest,
            metavar="CAUSE:EFFECT",
            nargs="+",
            action="extend",
            default=[],
            help=says,
        )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="the same seed gives the same answer (default: 0)",
    )


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < SEEDS):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {SEEDS - 1}")
    return int(text)


def _parents(options: argparse.Namespace) -> None:
    check_name(options.method, METHODS, "method")
    from causal_bayes_opt.api import infer_parents, read_data

    buffer = read_data(options.file, ignore=options.ignore)
    prior = parse_edges(options.known, options.forbidden, buffer.get_variable_names())
    posterior = infer_parents(buffer, options.target, method=options.method, prior=prior)
    if options.json:
        _print_record(_parents_record(posterior))
    else:
        print(posterior)


def _suggest(options: argparse.Namespace) -> None:
    check_name(options.method, METHODS, "method")
    ranges = parse_ranges(options.ranges)
    from causal_bayes_opt.api import decide, read_data
    from causal_bayes_opt.core.intervention import Problem

    buffer = read_data(options.file, ignore=options.ignore)
    settable = None if options.settable is None else tuple(options.settable)
    variables = tuple(buffer.get_variable_names())
    costs = parse_costs(options.costs)
    problem = Problem(
        variables,
        options.target,
        options.direction,
        ranges,
        settable,
        costs,
        options.max_targets,
    )
    prior = parse_edges(options.known, options.forbidden, variables)
    suggestion, state = decide(buffer, problem, options.method, options.seed, options.policy, prior)
    if options.json:
        _print_record(_suggestion_record(suggestion, state))
    else:
        print(_suggestion_text(suggestion, state))


def _demo(options: argparse.Namespace) -> None:
    from causal_bayes_opt.demo import DemoConfig, run_demo

    if options.quick:
        config = DemoConfig(steps=60, systems=20, trials=3, repeats=2, seed=options.seed)
    else:
        config = DemoConfig(seed=options.seed)
    run_demo(options.out, config)


def _parents_record(posterior: ParentSetPosterior) -> dict[str, Any]:
    listed = posterior.sets_as_records(len(posterior.posterior_probs))
    warnings = list(posterior.warnings)
    if posterior.mass_left_out > 1e-9:
        warnings.append(
            f"the sets listed hold {1 - posterior.mass_left_out:.6g} of the probability; the rest "
            "is spread over sets that are not listed"
        )
    return {
        "target": posterior.target_variable,
        "method": posterior.method,
        "marginals": {name: posterior.marginals[name] for name in posterior.candidates},
        "sets": listed,
        "entropy": posterior.uncertainty,
        "warnings": warnings,
    }


def _suggestion_record(suggestion: Suggestion, state: AcquisitionState) -> dict[str, Any]:
    return {
        "intervention": _in_order(suggestion, state),
        "predicted_mean": suggestion.predicted_mean,
        "predicted_std": suggestion.predicted_std,
        "best_observed": state.best_observed,
        "cost": suggestion.cost,
        "reason": suggestion.reason,
        "warnings": list(suggestion.warnings),
    }


def _suggestion_text(suggestion: Suggestion, state: AcquisitionState) -> str:
    target, direction = state.problem.target, state.problem.direction
    lines = [f"Next experiment, to {direction} {target}:"]
    from causal_bayes_opt.core.intervention import number_text

    low, high = state.outcome_range
    mean, best = (
        number_text(v, high - low, 4) for v in (suggestion.predicted_mean, state.best_observed)
    )
    lines += [
        f"  set {name} = {_within(value, *state.range_of(name))}"
        for name, value in _in_order(suggestion, state).items()
    ]
    lines += [
        f"  expected {target}: {mean}, standard deviation {suggestion.predicted_std:.2g} "
        f"(best so far: {best})",
        f"  cost: {suggestion.cost:.4g}",
        f"  why: {suggestion.reason}",
    ]
    lines += [f"  warning: {warning}" for warning in suggestion.warnings]
    return "\n".join(lines)


def _within(value: float, low: float, high: float) -> str:
    """A value in as few digits, six at least, as do not lead out of its range."""
    from causal_bayes_opt.core.intervention import number_text

    texts = (number_text(value, high - low, digits) for digits in range(6, 18))
    return next((text for text in texts if low <= float(text) <= high), repr(float(value)))


def _in_order(suggestion: Suggestion, state: AcquisitionState) -> dict[str, float]:
    done = suggestion.intervention
    return {name: done[name] for name in state.problem.variables if name in done}


def _print_record(record: dict[str, Any]) -> None:
    for warning in record["warnings"]:
        console.warn(warning)
    console.print_json(record)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"{console.PROGRAM} {version('causal-bayes-opt')}")
        parser.exit()


if __name__ == "__main__":
    raise SystemExit(main())
