"""Regret of policies on problems with known optima; ``python -m benchmarks.regret`` writes a page.

Results are kept in runs/regret.jsonl, a line a study, so that the same command goes on. Rows of the
page that were not made again stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import numpy as np

from benchmarks import bayesian_optimization
from benchmarks.regret_page import write_page
from causal_bayes_opt.acquisition.baselines import oracle, random_choice, random_over_parents
from causal_bayes_opt.acquisition.learned import LearnedPolicy
from causal_bayes_opt.acquisition.policy import (
    Policy,
    Suggestion,
    expected_improvement,
    recommend,
    thompson_sampling,
)
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.benchmarks.families import random_problem
from causal_bayes_opt.benchmarks.problems import PROBLEMS, NamedProblem, named_problem
from causal_bayes_opt.benchmarks.runner import (
    Entry,
    by_parent_scale,
    by_policy,
    run_study,
)
from causal_bayes_opt.core.intervention import make_intervention
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.surrogate.protocol import EdgePrior
from causal_bayes_opt.surrogate.router import auto_posterior

RESULTS = Path("runs/regret.jsonl")
LEARNED = LearnedPolicy()


class Cell(NamedTuple):
    """Problems, methods and how many trials.

    Attributes:
        problem: its name, or that of a family.
        methods: by name.
        trials: of each study.
        many: outcomes of each trial.
        times: how many times as many studies as elsewhere.
    """

    problem: str
    methods: tuple[str, ...]
    trials: int
    many: int = 1
    times: int = 1


def best_tried(state: AcquisitionState, key: Any) -> Suggestion:
    """What a policy without a model recommends: the trial with the best single outcome."""
    values, mask = state.buffer.rows()
    t = state.problem.variables.index(state.problem.target)
    trials = range(len(values) - state.step, len(values))
    best = min(trials, key=lambda i: state.problem.sign * values[i, t])
    done = {v: values[best, i] for i, v in enumerate(state.problem.variables) if mask[best, i]}
    outcome = float(values[best, t])
    return Suggestion(
        make_intervention(done), outcome, 0.0, state.problem.cost(done), "best so far"
    )


def entry_of(method: str, named: NamedProblem) -> Entry:
    """The contender of a name for a problem."""
    if method == "oracle":
        knows = oracle(named.scm)
        return by_policy(knows, auto_posterior, knows)
    if method == "PARENT_SCALE":
        return by_parent_scale(_expert_for(named))
    if method == JOINT_EXPERT:
        return by_parent_scale(replace(_expert_for(named), max_targets=3))
    if method in PLAIN:
        return bayesian_optimization.entry
    policy, recommended = POLICIES[method]
    prior = whole_graph(named) if method == KNOWN else None
    return by_policy(policy, auto_posterior, recommended, prior)


def whole_graph(named: NamedProblem) -> EdgePrior:
    """Every edge between variables that are seen as known, all others as forbidden."""
    names = named.problem.variables
    pairs = [(cause, effect) for cause in names for effect in names if cause != effect]
    is_edge = [cause in named.scm.mechanism(effect).parents for cause, effect in pairs]
    return EdgePrior(
        known=tuple(pair for pair, edge in zip(pairs, is_edge, strict=True) if edge),
        forbidden=tuple(pair for pair, edge in zip(pairs, is_edge, strict=True) if not edge),
    )


def _expert_for(named: NamedProblem) -> ParentScaleOptions:
    """The expert's better option: random features where a mechanism is not linear."""
    if named.is_linear:
        return ParentScaleOptions()
    return ParentScaleOptions(mechanism="nonlinear", regressor="least_squares")


# As published it sets one variable at a time.
JOINT_EXPERT = "PARENT_SCALE, 3 variables"
# The price of not knowing the graph, apart from that of not knowing mechanisms.
KNOWN = "expected improvement, graph known"
# What chooses, and what recommends.
POLICIES: Mapping[str, tuple[Policy, Policy]] = {
    "expected improvement": (expected_improvement, recommend),
    KNOWN: (expected_improvement, recommend),
    "Thompson sampling": (thompson_sampling, recommend),
    "GRPO network": (LEARNED, LEARNED),
    "random": (random_choice, best_tried),
    "random over parents": (random_over_parents, best_tried),
}
MODELS = ("expected improvement", "Thompson sampling", "GRPO network")
PEERS = ("PARENT_SCALE", "random over parents", "random")
PLAIN = ("Bayesian optimisation",)
NONLINEAR = ("polynomial", "sigmoid", "neural")
NAMED = ("toy-shifted", "health", "epidemiology", "complete")
OURS = ("expected improvement",)
CELLS = (
    Cell("linear", (*MODELS, *PEERS, "oracle"), 20, times=3),
    *(Cell(name, OURS, 10) for name in ("er10", "er15")),
    *(Cell(name, (*OURS, "random"), 20) for name in NAMED),
    *(Cell(name, (*OURS, "GRPO network", *PEERS), 10) for name in NONLINEAR),
    Cell("er20", OURS, 10),
    Cell("linear", (JOINT_EXPERT,), 10, times=3),
    Cell("linear", PLAIN, 10, times=3),
    *(Cell(name, (*OURS, "GRPO network"), 10) for name in ("chain", "fork", "collider")),
    *(Cell(name, ("PARENT_SCALE", "random"), 10) for name in ("er10", "er15", "er20")),
    Cell("er10", (JOINT_EXPERT,), 10),
    *(Cell(name, PLAIN, 20) for name in NAMED),
    *(Cell(name, (*OURS, "GRPO network"), 10) for name in ("scale-free", "linear-large")),
    *(Cell(name, ("Thompson sampling", *PLAIN), 10) for name in NONLINEAR),
    *(Cell(name, OURS, 20, 1000) for name in NAMED),
    Cell("linear", (*OURS, "PARENT_SCALE"), 10, 1000),
    *(Cell(name, OURS, 10, 1000) for name in ("er10", "er15", "er20")),
    *(Cell(name, (*OURS, "random"), 20) for name in ("toy", "health-minus-bmi")),
    *(Cell(name, (KNOWN,), 20) for name in NAMED),
    *(Cell(name, (KNOWN,), 10) for name in NONLINEAR),
    *(Cell(name, (KNOWN,), 20, 1000) for name in ("toy-shifted", "epidemiology")),
    Cell("nonlinear-large", (*OURS, "GRPO network", "random"), 10),
)


def problem_of(name: str, seed: int) -> NamedProblem:
    """A named problem, or the random one of a family and a number."""
    return named_problem(name) if name in PROBLEMS else random_problem(name, seed)


def run_cell(
    cell: Cell, seeds: int, done: set[tuple[Any, ...]], say: Callable[[str], None]
) -> None:
    """Run what is missing of a cell, and append it to the results."""
    commit = _commit()
    for method in cell.methods:
        if method in PLAIN and find_spec("torch") is None:
            say(f"{cell.problem}: {method} is left out, torch is not installed")
            continue
        for seed in range(seeds * cell.times):
            if (cell.problem, method, cell.trials, cell.many, seed) in done:
                continue
            named = problem_of(cell.problem, seed)
            n_obs = 200 if cell.problem in PROBLEMS else 100
            buffer = named.data(n_obs, 2, seed)
            study = run_study(named, buffer, entry_of(method, named), cell.trials, seed, cell.many)
            line = {
                "problem": cell.problem,
                "method": method,
                "trials": cell.trials,
                "many": cell.many,
                "seed": seed,
                "n_vars": len(named.problem.variables),
                "optimum": named.optimum,
                "commit": commit,
                **{name: np.asarray(value).tolist() for name, value in vars(study).items()},
            }
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
        say(f"{cell.problem} ({cell.many} a trial): {method}")


def _commit() -> str:
    """That of this working tree, with a plus where it has changes."""
    if which("git") is None:
        return "unknown"
    asked = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def results() -> list[dict[str, Any]]:
    """All studies so far, in the order of `CELLS`."""
    if not RESULTS.exists():
        return []
    place = {(cell.problem, cell.many): i for i, cell in reversed(list(enumerate(CELLS)))}
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return sorted(lines, key=lambda r: place.get((r["problem"], r["many"]), len(CELLS)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--problems", nargs="+", help="these alone")
    parser.add_argument("--methods", nargs="+", help="these alone")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    if not options.page:
        for cell in CELLS:
            if options.problems and cell.problem not in options.problems:
                continue
            wanted = [m for m in cell.methods if not options.methods or m in options.methods]
            done = {
                (r["problem"], r["method"], r["trials"], r["many"], r["seed"]) for r in results()
            }
            run_cell(
                cell._replace(methods=tuple(wanted)),
                options.seeds,
                done,
                lambda text: print(text, flush=True),
            )
    write_page(results(), Path("docs"))


if __name__ == "__main__":
    main()
