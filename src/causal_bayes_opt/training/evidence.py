"""What the judge measures beside speed: answers, order, and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.expert.parent_posterior import parent_scale_surrogate
from causal_bayes_opt.surrogate.network import NetworkSurrogate, load_pretrained
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.training import TrainingDistribution
from causal_bayes_opt.training.held_out import HeldOutSystem
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.quality import Answer
from causal_bayes_opt.training.speed import expert_for


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


def ask_expert(
    systems: Sequence[HeldOutSystem], report: Callable[[], None] | None = None
) -> list[Answer]:
    """The expert's answers, with its better option for each system."""
    answers = []
    for system in systems:
        options = expert_for([system.factors["mechanism"]])
        named = {"mechanism": options.mechanism, "regressor": options.regressor}
        answers += ask(parent_scale_surrogate(**named), [system], report)
    return answers


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
    found = {}
    for name, work in (("inference", _infer), ("training", _train)):
        # No process of `multiprocessing`: that would run the user's script again.
        code = f"from {__name__} import {work.__name__}, _peak; import sys; "
        code += f"{work.__name__}(sys.argv[1], int(sys.argv[2])); print(_peak())"
        command = [sys.executable, "-c", code, str(model), str(batch_size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        found[name] = int(done.stdout.split()[-1]) if done.returncode == 0 else -1
    return found


def device_memory() -> int:
    """Bytes of the accelerator that JAX uses, or of this machine."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
