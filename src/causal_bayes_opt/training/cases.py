"""Judging a model: held-out systems, posteriors of any surrogate on them, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.surrogate.metrics import Quality, judge
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.training import TrainingDistribution, simulate

_HELD_OUT = 2**31 - 1


@dataclass(frozen=True)
class Case:
    """Data of one simulated system, the question, and the true answer."""

    buffer: ExperienceBuffer
    target: str
    parents: frozenset[str]


@dataclass(frozen=True)
class Judgement:
    """What a surrogate said on the cases, how good that is, and the seconds of each answer."""

    posteriors: list[ParentSetPosterior]
    quality: Quality
    seconds: np.ndarray  # [n_cases]


def held_out_cases(n: int, seed: int, distribution: TrainingDistribution) -> list[Case]:
    """Simulate cases by a key that no step of the training loop uses.

    The target is drawn among the variables that were never set, if there is one.
    """
    key = jax.random.fold_in(jax.random.key(seed), _HELD_OUT)
    batch = simulate(key, n, distribution)
    rows = jax.tree.map(np.asarray, batch.rows)
    parents = np.asarray(batch.parents)
    cases = []
    for i in range(n):
        kept = np.flatnonzero(rows.present[i])
        names = [f"X{j + 1}" for j in range(len(kept))]
        observed = rows.obs_data[i][rows.obs_rows[i]][:, kept]
        trials = rows.int_data[i][rows.int_rows[i]][:, kept]
        values = np.concatenate([observed, trials[..., 0]])
        mask = np.concatenate([np.zeros(observed.shape, bool), trials[..., 1] > 0])
        free = np.flatnonzero(~mask.any(axis=0))
        target = int(np.random.default_rng((seed, i)).choice(free if free.size else len(kept)))
        members = parents[i][kept[target]][kept]
        truth = frozenset(names[j] for j in np.flatnonzero(members))
        buffer = ExperienceBuffer.from_arrays(values, mask, names)
        cases.append(Case(buffer, names[target], truth))
    return cases


def judge_surrogate(
    surrogate: Surrogate, cases: Sequence[Case], report: Callable[[], None] | None = None
) -> Judgement:
    """Ask a surrogate about every case, twice: the second, warm answer is timed.

    Args:
        surrogate: any.
        cases: what to ask.
        report: called after each case.
    """
    posteriors, seconds = [], []
    for case in cases:
        surrogate(case.buffer, case.target)
        start = time.perf_counter()
        posteriors.append(surrogate(case.buffer, case.target))
        seconds.append(time.perf_counter() - start)
        if report is not None:
            report()
    quality = judge(posteriors, [case.parents for case in cases])
    return Judgement(posteriors, quality, np.array(seconds))
