"""Where data are not linear, and exact inference or the network might answer: which is better?

``python -m benchmarks.beyond_training [--systems N]``. Prints a Markdown table of nats on the true
parent set of one target a system, by the mixed network and by exact inference, which takes the data
for linear Gaussian; differences are paired, with 95 % intervals. The data have more rows or
experiments than the network was trained on, so that it warns, or variables that vary only where
they were set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.intervals import mean_told
from benchmarks.peers import MECHANISMS
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.router import MIXED, surrogate_named
from causal_bayes_opt.training.cases import Case

SIZES = (5, 8)
LEAST = 1e-6  # a probability below counts as this
FIRST = 10_000  # number of the first system


class Design(NamedTuple):
    """What is special in it, and the data."""

    name: str
    n_obs: int
    experiments: int
    at_once: int
    outcomes: int = 1  # of each experiment
    held: int = 0  # variables that vary only where they were set


DESIGNS = (
    Design("1,500 observational rows", 1500, 0, 1),
    Design("1,500 rows, 10 experiments", 1500, 10, 1),
    Design("10 experiments, 100 outcomes each", 100, 10, 2, 100),
    Design("2 variables held, 20 experiments", 100, 20, 1, held=2),
)


def cases(mechanism: str, n_vars: int, design: Design, systems: int) -> Iterator[Case]:
    """Systems of one family, with one target each."""
    distribution = SystemDistribution(mechanisms=(mechanism,))
    for number in range(FIRST, FIRST + systems):
        scm, rng = random_scm(number, n_vars, distribution), np.random.default_rng(number)
        names = list(scm.variables)
        target = names[int(rng.integers(n_vars))]
        # Of its own noise: systems that share it are not so many systems.
        words = np.random.SeedSequence(number).generate_state(1 + design.experiments)
        seeds = (words // 2).tolist()
        free = sample(scm, design.n_obs, seed=seeds[0])
        others = [name for name in names if name != target]
        mean, std = free[names].mean(), free[names].std()
        held = {name: float(free[name].iloc[0]) for name in others[: design.held]}
        rows = [sample(scm, design.n_obs, intervention=held, seed=seeds[0]).assign(do="")]
        for trial in range(design.experiments):
            chosen = rng.choice(others, min(design.at_once, len(others)), replace=False)
            if design.held:  # what is held must be set at some time
                chosen = np.array(others)[[trial % len(others)]]
            values = {str(v): float(mean[v] + std[v] * rng.uniform(-2.0, 2.0)) for v in chosen}
            own = seeds[1 + trial]
            tried = sample(scm, design.outcomes, intervention=held | values, seed=own)
            rows.append(tried.assign(do=";".join(values)))
        buffer = ExperienceBuffer.from_dataframe(pd.concat(rows))
        yield Case(buffer, target, frozenset(scm.mechanism(target).parents))


def nats(surrogate: Surrogate, case: Case) -> float:
    """Of the true set."""
    return float(-np.log(max(surrogate(case.buffer, case.target).probability(case.parents), LEAST)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=100, help="systems a cell")
    options = parser.parse_args()
    network, exact = surrogate_named(MIXED), surrogate_named("exact")
    print(f"| data | mechanisms | d | {MIXED} | exact | exact less {MIXED} |\n|{'---|' * 6}")
    for design in DESIGNS:
        for mechanism in MECHANISMS:
            for n_vars in SIZES:
                given = list(cases(mechanism, n_vars, design, options.systems))
                own, other = (np.array([nats(s, case) for case in given]) for s in (network, exact))
                gap = mean_told(other - own, "+.2f")
                means = f"{own.mean():.2f} | {other.mean():.2f} | {gap}"
                print(f"| {design.name} | {mechanism} | {n_vars} | {means} |", flush=True)


if __name__ == "__main__":
    main()
