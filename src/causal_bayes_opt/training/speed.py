"""Whole studies on a clock: all decisions of several trials, warm, by every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np

from causal_bayes_opt.acquisition import linearity, mechanism_scales
from causal_bayes_opt.acquisition.policy import expected_improvement
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.intervention import Intervention
from causal_bayes_opt.core.sample import simulator
from causal_bayes_opt.expert import parent_scale
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.surrogate import support
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.training.criteria import Measured, ValidationCriteria
from causal_bayes_opt.training.held_out import HeldOutSystem

# Seconds of one core for a trial of the public code, by number of variables: the mean of the
# recorded runs of 6 trials.
RECORDED_TRIAL_SECONDS = {3: 8.7, 4: 13.6, 5: 12.3, 6: 17.4, 7: 19.0, 8: 15.0}


@dataclass
class Clock:
    """Adds up the seconds of what is timed."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class Study:
    """One study of several trials on a system.

    Attributes:
        seconds: of all decisions: reading the rows at hand, choosing, learning from the outcome.
        best: smallest true mean of the target among what was tried, by a large sample.
        failed: why it did not end; empty where it did.
    """

    seconds: float
    best: float
    failed: str = ""


def expert_for(mechanisms: Sequence[str]) -> ParentScaleOptions:
    """PARENT_SCALE's better option for some families of mechanisms: all sets, noise learned.

    For mechanisms that are not linear its regressions are on random Fourier features; the prior's
    votes stay with least squares, which is the faster choice and no worse
    (``python -m benchmarks teachers``).
    """
    if set(mechanisms) == {"linear"}:
        return ParentScaleOptions()
    return ParentScaleOptions(mechanism="nonlinear", regressor="least_squares")


def fastest_expert_for(mechanisms: Sequence[str]) -> ParentScaleOptions:
    """The option that decides fastest: only the sets that were voted for."""
    return replace(expert_for(mechanisms), support="votes")


def measure_speed(
    surrogate: Surrogate,
    systems: Sequence[HeldOutSystem],
    trials: int,
    criteria: ValidationCriteria,
    resamples: int,
    report: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Studies by every method, system after system, so that a busy machine is busy for all.

    Args:
        surrogate: what is judged.
        systems: one study each.
        trials: of a study.
        criteria: the speed-up that counts, and the confidence of the intervals.
        resamples: of the bootstrap.
        report: called with the number of systems done.

    Returns:
        Seconds of each system by method (``expert`` is its better option, ``expert_votes`` its
        fastest), the ratios of the expert's to ours with their median, the share of graphs on
        which ours is faster and on which it is so by the threshold, what failed, and how often
        our best trial is no worse than the expert's.
    """
    methods: dict[str, Callable[[HeldOutSystem], Study]] = {
        "amortized": lambda s: amortized_study(s, surrogate, trials, s.number),
        "expert": lambda s: expert_study(s, trials, s.number),
        "expert_votes": lambda s: expert_study(
            s, trials, s.number, fastest_expert_for([s.factors["mechanism"]])
        ),
        "exact": lambda s: amortized_study(s, exact_posterior, trials, s.number),
    }
    found: dict[str, list[Study]] = {method: [] for method in methods}
    for number, system in enumerate(systems, 1):
        for method, study in methods.items():
            found[method].append(study(system))
        if report is not None:
            report(number)
    seconds = {method: np.array([s.seconds for s in own]) for method, own in found.items()}
    best = {method: [s.best for s in own] for method, own in found.items()}
    ratio, level = seconds["expert"] / seconds["amortized"], criteria.confidence
    # One that failed has won nothing, however fast it did so.
    won = np.where([bool(s.failed) for s in found["amortized"]], 0.0, ratio)
    recorded = float(np.mean([_recorded(len(s.scm.variables)) for s in systems])) * trials
    return {
        "trials": trials,
        "systems": len(systems),
        "seconds": {method: own.tolist() for method, own in seconds.items()},
        "mean_seconds": {method: float(own.mean()) for method, own in seconds.items()},
        "ratio": ratio.tolist(),
        "median_ratio": asdict(_median(ratio, resamples, level)),
        "share_faster": asdict(Measured.share(int((won > 1).sum()), len(won), level)),
        "share_at_threshold": asdict(
            Measured.share(int((won >= criteria.min_speedup).sum()), len(won), level)
        ),
        "ratio_to_exact": float(np.median(seconds["exact"] / seconds["amortized"])),
        "recorded_public_seconds": recorded,
        "ratio_to_recorded": recorded / float(seconds["amortized"].mean()),
        "failures": {m: [s.failed for s in own if s.failed] for m, own in found.items()},
        "no_worse_than_expert": asdict(_no_worse(best["amortized"], best["expert"], level)),
    }


def _recorded(n_vars: int) -> float:
    """Seconds of a recorded trial; the nearest number of variables counts."""
    nearest = min(RECORDED_TRIAL_SECONDS, key=lambda n: abs(n - n_vars))
    return RECORDED_TRIAL_SECONDS[nearest]


def amortized_study(system: HeldOutSystem, surrogate: Surrogate, trials: int, seed: int) -> Study:
    """Trials chosen by expected improvement under a surrogate's posteriors, timed when warm."""
    return _warm(lambda: _amortized_study(system, surrogate, trials, seed))


def expert_study(
    system: HeldOutSystem, trials: int, seed: int, options: ParentScaleOptions | None = None
) -> Study:
    """The same number of trials by PARENT_SCALE, timed when warm; its better option by default."""
    chosen = options or expert_for([system.factors["mechanism"]])
    return _warm(lambda: _expert_study(system, trials, seed, chosen))


def _warm(study: Callable[[], Study]) -> Study:
    """Make a study twice and keep the second: nothing is left to compile, and all to be learned."""
    first = study()
    if first.failed:
        return first
    mechanism_scales.forget()
    linearity.forget()
    support.forget()
    return study()


def _amortized_study(system: HeldOutSystem, surrogate: Surrogate, trials: int, seed: int) -> Study:
    clock, simulate, problem = Clock(), simulator(system.scm), system.problem
    buffer = system.case.buffer.copy()
    key = jax.random.key(seed)
    done = []
    try:
        with clock.running():
            state = AcquisitionState.start(buffer, problem, surrogate, key=key)
        for trial in range(trials):
            own = jax.random.fold_in(key, trial)
            with clock.running():
                chosen = expected_improvement(state, own).intervention
            row = simulate(chosen, 1, seed + trial).iloc[0]
            done.append(chosen)
            with clock.running():
                buffer.add_intervention(
                    chosen, {name: float(row[name]) for name in problem.variables}
                )
                state = AcquisitionState.start(buffer, problem, surrogate, key=own, step=trial + 1)
    except Exception as error:  # noqa: BLE001  # whatever a method raises, it failed
        return Study(clock.seconds, float("nan"), f"{type(error).__name__}: {error}")
    return Study(clock.seconds, _best(system, done))


def _expert_study(
    system: HeldOutSystem, trials: int, seed: int, options: ParentScaleOptions
) -> Study:
    clock, simulate, problem = Clock(), simulator(system.scm), system.problem
    done = []
    try:
        with clock.running():
            state = parent_scale.init(system.case.buffer, problem, options, seed=seed)
        for trial in range(trials):
            with clock.running():
                chosen = parent_scale.suggest(state).intervention
            row = simulate(chosen, 1, seed + trial).iloc[0]
            done.append(chosen)
            with clock.running():
                outcome = {name: float(row[name]) for name in problem.variables}
                state = parent_scale.observe(state, chosen, outcome)
    except Exception as error:  # noqa: BLE001  # whatever a method raises, it failed
        return Study(clock.seconds, float("nan"), f"{type(error).__name__}: {error}")
    return Study(clock.seconds, _best(system, done))


def _best(system: HeldOutSystem, done: Sequence[Intervention]) -> float:
    simulate = simulator(system.scm)
    target = system.case.target
    return min(float(simulate(i, 1000, 0)[target].mean()) for i in dict.fromkeys(done))


def _median(ratio: np.ndarray, resamples: int, level: float) -> Measured:
    draws = np.random.default_rng(0).integers(len(ratio), size=(resamples, len(ratio)))
    tail = (1 - level) / 2
    low, high = np.quantile(np.median(ratio[draws], axis=1), (tail, 1 - tail))
    return Measured(float(np.median(ratio)), float(low), float(high))


def _no_worse(ours: Sequence[float], expert: Sequence[float], level: float) -> Measured:
    """Share of studies whose best trial is no worse than the expert's, by the true mean."""
    pairs = [(a, b) for a, b in zip(ours, expert, strict=True) if np.isfinite(a + b)]
    hits = sum(a <= b + 1e-3 * abs(b) for a, b in pairs)
    return Measured.share(hits, len(pairs), level)
