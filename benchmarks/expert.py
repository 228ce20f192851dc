"""PARENT_SCALE: time of a run and of a data set of runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.table import print_table
from causal_bayes_opt.core.random_systems import random_scm
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.expert import PARENT_SCALE, run_many
from causal_bayes_opt.training.speed import RECORDED_TRIAL_SECONDS

TRIALS = 5
SIZES, PER_SIZE = range(3, 9), 16


def rows() -> list[dict[str, object]]:
    scm = SCM.linear(
        ["X1", "X2", "X3", "Y"],
        {("X1", "X2"): 1.0, ("X1", "X3"): -0.8, ("X2", "Y"): 1.2, ("X3", "Y"): 0.7},
        target="Y",
    )
    public = TRIALS * RECORDED_TRIAL_SECONDS[4]
    result: list[dict[str, object]] = []
    cases: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
        ("votes, closed-form prior", 1, 5, {"support": "votes"}),
        ("all sets, closed-form prior", 1, 5, {}),
        ("votes, network prior", 10, 1, {"support": "votes", "regressor": "mlp"}),
    )
    for what, bar, repeats, options in cases:
        run = PARENT_SCALE(scm, n_observations=100, **options)
        seconds = _seconds(partial(run.run_algorithm, T=TRIALS), repeats)
        result.append(
            {
                "what": f"PARENT_SCALE, d=4, n=100, T={TRIALS}, {what}",
                "measured": f"{seconds:.2f} s",
                "bar": f"{bar} s",
                "note": f"warm; recorded public code: {public:.0f} s, {public / seconds:.0f} times",
            }
        )
    systems = [_system(n, number) for n in SIZES for number in range(PER_SIZE)]
    seconds = _seconds(lambda: run_many(systems, T=10, support="votes"), 1, warm=False)
    result.append(
        {
            "what": f"{len(systems)} runs, d={SIZES[0]}..{SIZES[-1]}, T=10, votes, closed form",
            "measured": f"{seconds:.1f} s",
            "bar": "90 s",
            "note": f"{os.cpu_count()} cores; what the runs above did not compile included",
        }
    )
    return result


def _system(n_vars: int, number: int) -> SCM:
    """A random linear system with a random target."""
    scm = random_scm(100 * number + n_vars, n_vars)
    rng = np.random.default_rng([number, n_vars])
    return scm.with_target(scm.variables[int(rng.integers(n_vars))])


def _seconds(call: Callable[[], object], repeats: int, warm: bool = True) -> float:
    """Median time of a call, after one that compiles if it is to be warm."""
    if warm:
        call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    """Print the one table."""
    print_table(rows())


if __name__ == "__main__":
    main()
