"""Time of a new process for its first answers, programs kept by an earlier one or not."""

from __future__ import annotations

import subprocess
import sys
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.decisions import system_of
from causal_bayes_opt.core.sample import sample

_TIMED = """
import sys, time
began = time.perf_counter()
from causal_bayes_opt import infer_parents, keep_compiled, suggest
keep_compiled(sys.argv[1])
file, target = sys.argv[2:]
for ask in (infer_parents, suggest):
    ask(file, target)
    print(time.perf_counter() - began)
"""
N_VARS, ROWS, EACH = 8, 200, 2


def rows() -> list[dict[str, object]]:
    return [_row(mechanism) for mechanism in ("linear", "polynomial")]


def _row(mechanism: str) -> dict[str, object]:
    scm, target = system_of(mechanism, N_VARS)
    with TemporaryDirectory() as folder:
        file = f"{folder}/data.csv"
        parts = [sample(scm, ROWS, seed=0).assign(do="")]
        for seed, name in enumerate(name for name in scm.variables if name != target):
            parts.append(sample(scm, EACH, intervention={name: 1.0}, seed=seed))
        pd.concat(parts).to_csv(file, index=False)
        cold, warm = (_seconds(f"{folder}/programs", file, target) for _ in range(2))
    return {
        "what": f"a new process's first answers, {mechanism}, d={N_VARS}, n={ROWS}",
        "measured": f"causes {warm[0]:.1f} s, and an experiment {warm[1]:.1f} s",
        "bar": "",
        "note": f"with nothing compiled {cold[0]:.0f} and {cold[1]:.0f} s",
    }


def _seconds(programs: str, file: str, target: str) -> list[float]:
    """After how many seconds each answer is there."""
    command = [sys.executable, "-c", _TIMED, programs, file, target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.splitlines()]
