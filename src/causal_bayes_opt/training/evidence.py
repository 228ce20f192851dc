"""What the judge measures: answers, whole studies on a clock, order, and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from causal_bayes_opt.acquisition.policy import expected_improvement
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.sample import simulator
from causal_bayes_opt.expert import parent_scale
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import parent_scale_surrogate
from causal_bayes_opt.surrogate.network import NetworkSurrogate, load_pretrained
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.training import TrainingDistribution
from causal_bayes_opt.training.held_out import HeldOutSystem
from causal_bayes_opt.training.loop import LoopConfig, train
from causal_bayes_opt.training.quality import Answer


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


def ask(
    surrogate: Surrogate, systems: Sequence[HeldOutSystem], report: Callable[[], None] | None = None
) -> list[Answer]:
    """The answers of a surrogate; an error is an answer too, a failed one."""
    answers = []
    for system in systems:
        case = system.case
        try:
            answers.append(Answer.of(surrogate(case.buffer, case.target), case))
        except Exception as error:  # noqa: BLE001  # whatever a method raises, it failed
            answers.append(Answer.failure(f"{type(error).__name__}: {error}", case))
        if report is not None:
            report()
    return answers


def expert_for(mechanism: str) -> ParentScaleOptions:
    """PARENT_SCALE's better option for a family of mechanisms: all sets, noise learned.

    For mechanisms that are not linear its regressions are on random Fourier features; the prior's
    votes stay with least squares, which is the faster choice and no worse
    (``python -m benchmarks teachers``).
    """
    if mechanism == "linear":
        return ParentScaleOptions()
    return ParentScaleOptions(mechanism="nonlinear", regressor="least_squares")


def ask_expert(
    systems: Sequence[HeldOutSystem], report: Callable[[], None] | None = None
) -> list[Answer]:
    """The expert's answers, with its better option for each system."""
    answers = []
    for system in systems:
        options = expert_for(system.factors["mechanism"])
        named = {"mechanism": options.mechanism, "regressor": options.regressor}
        answers += ask(parent_scale_surrogate(**named), [system], report)
    return answers


def amortized_study(system: HeldOutSystem, surrogate: Surrogate, trials: int, seed: int) -> Study:
    """Trials chosen by expected improvement under a surrogate's posteriors, timed when warm."""
    return _warm(lambda: _amortized_study(system, surrogate, trials, seed))


def expert_study(system: HeldOutSystem, trials: int, seed: int) -> Study:
    """The same number of trials by PARENT_SCALE, timed when warm."""
    return _warm(lambda: _expert_study(system, trials, seed))


def order_change(surrogate: Surrogate, systems: Sequence[HeldOutSystem], seed: int = 0) -> float:
    """Largest change of any probability when the variables are put into another order.

    Raises:
        Exception: whatever the surrogate raises.
    """
    largest = 0.0
    for system in systems:
        case = system.case
        names = case.buffer.get_variable_names()
        order = np.random.default_rng((seed, system.number)).permutation(len(names))
        values, mask = case.buffer.rows()
        turned = ExperienceBuffer.from_arrays(
            values[:, order], mask[:, order], [names[i] for i in order]
        )
        before = surrogate(case.buffer, case.target).marginals
        after = surrogate(turned, case.target).marginals
        largest = max(largest, *(abs(before[name] - after[name]) for name in before))
    return float(largest)


def peak_memory(model: Path, batch_size: int) -> dict[str, int]:
    """Bytes that a fresh process needs to ask a saved model, and to train it for two steps."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name, work in (("inference", _infer), ("training", _train)):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_measured, args=(work, str(model), batch_size, sender))
        process.start()
        sender.close()
        try:
            found[name] = int(receiver.recv())
        except EOFError:
            found[name] = -1
        process.join()
    return found


def device_memory() -> int:
    """Bytes of the accelerator that JAX uses, or of this machine."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _warm(study: Callable[[], Study]) -> Study:
    """Make a study twice and keep the second: nothing is left to compile."""
    first = study()
    return first if first.failed else study()


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


def _expert_study(system: HeldOutSystem, trials: int, seed: int) -> Study:
    clock, simulate, problem = Clock(), simulator(system.scm), system.problem
    options = expert_for(system.factors["mechanism"])
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


def _best(system: HeldOutSystem, done: Sequence[object]) -> float:
    simulate = simulator(system.scm)
    unique = list(dict.fromkeys(done))
    target = system.case.target
    return min(float(simulate(i, 1000, 0)[target].mean()) for i in unique)  # type: ignore[arg-type]


def _measured(work: Callable[[str, int], None], model: str, batch_size: int, sender: Any) -> None:
    work(model, batch_size)
    sender.send(_peak())


def _peak() -> int:
    """Bytes of this process at its largest; getrusage would count those of its parent too."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _infer(model: str, batch_size: int) -> None:
    values = np.random.default_rng(0).normal(size=(120, 8))
    buffer = ExperienceBuffer.from_arrays(values, np.zeros(values.shape, bool))
    NetworkSurrogate(model)(buffer, buffer.get_variable_names()[0])


def _train(model: str, batch_size: int) -> None:
    trained = load_pretrained(model)
    loop = LoopConfig(steps=2, batch_size=batch_size)
    train(trained.model, TrainingDistribution(), loop, start=trained.params)
