"""Time of one decision on one core, posterior included, warm: the default policy, some sizes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policies import policy_named
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Problem
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.surrogate.router import auto_posterior

SIZES = (("linear", 8), ("linear", 15), ("linear", 20), ("linear", 100), ("polynomial", 8))
ALONE = (("linear", 8), ("linear", 15), ("linear", 20))  # told by the target's outcomes alone
BARS = {("linear", 8): "10 ms"}
ROWS, TRIALS, WARM_UP = 200, 15, 3


def rows() -> list[dict[str, object]]:
    with _one_core():
        whole = [_row(mechanism, n_vars, alone=False) for mechanism, n_vars in SIZES]
        return whole + [_row(mechanism, n_vars, alone=True) for mechanism, n_vars in ALONE]


@contextmanager
def _one_core() -> Iterator[None]:
    """Stay on the last core that this process may use, where the system lets it choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def system_of(mechanism: str, n_vars: int) -> tuple[SCM, str]:
    """A system, and the variable with most causes."""
    scaling = "none" if mechanism == "linear" else "iscm"
    scm = random_scm(1, n_vars, SystemDistribution(mechanisms=(mechanism,), scaling=scaling))
    return scm, max(scm.variables, key=lambda name: len(scm.parents(name)))


def _row(mechanism: str, n_vars: int, *, alone: bool) -> dict[str, object]:
    scm, target = system_of(mechanism, n_vars)
    pipeline = ACBOPipeline(
        SurrogateUpdate(auto_posterior),
        policy_named("auto"),
        ExperienceBuffer.from_dataframe(sample(scm, ROWS, seed=0)),
        Problem(scm.variables, target),
    )
    seconds = []
    for number in range(WARM_UP + TRIALS):
        began = time.perf_counter()
        done = pipeline.ask().intervention
        seconds.append(time.perf_counter() - began)
        outcome = sample(scm, 1, intervention=done, seed=number)
        pipeline.tell(done, outcome[[target]] if alone else outcome.drop(columns=DO_COLUMN))
    warm = 1e3 * np.array(seconds[WARM_UP:])
    return {
        "what": f"one decision, {mechanism}, d={n_vars}, n={ROWS}"
        + (", told the target alone" if alone else ""),
        "measured": f"{np.median(warm):.3g} ms",
        "bar": "" if alone else BARS.get((mechanism, n_vars), ""),
        "note": f"{warm.min():.3g} to {warm.max():.3g} over {TRIALS}; the first "
        f"{seconds[0]:.1f} s with compilation",
    }
