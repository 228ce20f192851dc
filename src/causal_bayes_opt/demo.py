"""The main job on a small scale: train, judge, read a file, decide, and compare with chance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from causal_bayes_opt.acquisition.baselines import random_choice
from causal_bayes_opt.acquisition.pipeline import ACBOPipeline, SurrogateUpdate
from causal_bayes_opt.acquisition.policy import expected_improvement
from causal_bayes_opt.acquisition.state import AcquisitionState
from causal_bayes_opt.benchmarks.families import random_problem
from causal_bayes_opt.benchmarks.problems import NamedProblem, named_problem
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.intervention import Intervention
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.core.table import DO_COLUMN
from causal_bayes_opt.report import summary, write_report
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.metrics import Quality
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel, save_model
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.cases import Judgement, held_out_cases, judge_surrogate
from causal_bayes_opt.training.loop import Progress as TrainingProgress
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig

MAX_EXCESS = 0.3  # nats above exact inference
MIN_F1_SHARE = 0.8  # of exact inference's F1
DISTRIBUTION = TrainingDistribution(
    (
        SystemDistribution(),
        SystemDistribution(parameters="bge"),
        SystemDistribution(noise_scale=(0.02, 0.5)),
    ),
    DesignDistribution(n_obs=(20, 256), max_experiments=64),
)


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration.

    Attributes:
        steps: training steps.
        systems: held-out systems on which the network is judged.
        trials: trials of each study.
        repeats: runs of each policy, whose mean regret is shown.
        seed: of everything.
    """

    steps: int = 1500
    systems: int = 200
    trials: int = 10
    repeats: int = 5
    seed: int = 0


def run_demo(out: Path = Path("runs/demo"), config: DemoConfig | None = None) -> dict[str, Any]:
    """Run all of it, write `out`/report.json, report.html and figures, and return the report."""
    config = config or DemoConfig()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _progress() as progress:
        trained, losses = _train(config, out, progress)
        judged = _judge(trained, config, progress)
        health, random = named_problem("health"), random_problem("linear", config.seed)
        file = _read_a_file(health, trained, out / "health.csv", config)
        studies = [
            _study(health, health.data(200, 2, config.seed), trained, config, progress),
            _study(random, random.data(100, 2, config.seed), trained, config, progress),
        ]
    report = {
        "config": asdict(config),
        "training": {"losses": losses, "seconds": trained.card["seconds"]},
        "judged": judged,
        "file": file,
        "studies": studies,
        "seconds": round(time.monotonic() - started, 1),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_report(report, out)
    Console(highlight=False).print(summary(report, out), markup=False)
    return report


def _train(
    config: DemoConfig, out: Path, progress: Progress
) -> tuple[TrainedModel, list[list[float]]]:
    model = AmortizedModel(PredictorConfig(hidden_dim=48, num_layers=2, num_heads=4, rank=8))
    loop = LoopConfig(steps=config.steps, batch_size=64, learning_rate=3e-3, seed=config.seed)
    task = progress.add_task("train on simulated systems", total=config.steps)
    losses: list[tuple[int, float]] = []

    def report(done: TrainingProgress) -> None:
        progress.update(task, completed=done.step)
        losses.append((done.step, done.loss))

    started = time.monotonic()
    params = train(model, DISTRIBUTION, loop, report=report)
    trained_on = {
        "n_vars": list(DISTRIBUTION.systems[0].n_vars),
        "n_obs": list(DISTRIBUTION.design.n_obs),
    }
    seconds = round(time.monotonic() - started, 1)
    trained = TrainedModel("demo", model, params, {"trained_on": trained_on, "seconds": seconds})
    save_model(trained, out / "model.json")
    return trained, _block_means(losses)


def _judge(trained: TrainedModel, config: DemoConfig, progress: Progress) -> dict[str, Any]:
    cases = held_out_cases(config.systems, config.seed, DISTRIBUTION)
    task = progress.add_task("judge on held-out systems", total=2 * len(cases))
    surrogates: dict[str, Surrogate] = {
        "network": NetworkSurrogate(trained),
        "exact": exact_posterior,
    }
    found: dict[str, Judgement] = {
        name: judge_surrogate(surrogate, cases, lambda: progress.advance(task))
        for name, surrogate in surrogates.items()
    }
    judged: dict[str, Any] = {
        name: {
            **asdict(judgement.quality),
            "milliseconds": round(1e3 * float(np.median(judgement.seconds)), 3),
            "marginals": [
                round(p.marginals[v], 4) for p in judgement.posteriors for v in p.candidates
            ],
        }
        for name, judgement in found.items()
    }
    judged["edges"] = [
        name in case.parents
        for case in cases
        for name in case.buffer.get_variable_names()
        if name != case.target
    ]
    return judged | _verdict(found["network"].quality, found["exact"].quality)


def _verdict(network: Quality, exact: Quality) -> dict[str, Any]:
    excess = network.negative_log_probability - exact.negative_log_probability
    share = network.f1 / max(exact.f1, 1e-9)
    return {
        "excess_nats": excess,
        "verdict": "go" if excess <= MAX_EXCESS and share >= MIN_F1_SHARE else "no-go",
        "verdict_reason": (
            f"the network loses {excess:+.3f} nats against exact inference (at most "
            f"{MAX_EXCESS:+}) and has {100 * share:.0f} % of its F1 (at least "
            f"{100 * MIN_F1_SHARE:.0f} %)"
        ),
    }


def _read_a_file(
    named: NamedProblem, trained: TrainedModel, path: Path, config: DemoConfig
) -> dict[str, Any]:
    named.data(200, 3, config.seed).to_csv(path)
    buffer, target = ExperienceBuffer.from_csv(path), named.problem.target
    answers: dict[str, Any] = {
        "path": str(path),
        "target": target,
        "true_parents": list(named.scm.parents(target)),
    }
    surrogates: dict[str, Surrogate] = {
        "network": NetworkSurrogate(trained),
        "exact": exact_posterior,
    }
    for name, surrogate in surrogates.items():
        state = AcquisitionState.start(buffer, named.problem, surrogate)
        suggestion = expected_improvement(state, jax.random.key(config.seed))
        posterior = state.posterior
        answers[name] = {
            "marginals": {v: posterior.marginals[v] for v in posterior.candidates},
            "sets": posterior.sets_as_records(5),
            "entropy": posterior.uncertainty,
            "warnings": list(posterior.warnings),
            "suggestion": {**asdict(suggestion), "intervention": dict(suggestion.intervention)},
        }
    network, exact = answers["network"]["marginals"], answers["exact"]["marginals"]
    worst = max(exact, key=lambda v: abs(network[v] - exact[v]))
    answers["largest_disagreement"] = f"{worst}, by {abs(network[worst] - exact[worst]):.3f}"
    return answers


def _study(
    named: NamedProblem,
    buffer: ExperienceBuffer,
    trained: TrainedModel,
    config: DemoConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Mean normalised regret after each trial: 0 is the optimum, 1 is doing nothing."""
    nothing = named.expected_outcome({})
    span, sign = abs(named.optimum - nothing), named.problem.sign

    def regret(intervention: Intervention) -> float:
        return float(sign * (named.expected_outcome(intervention) - named.optimum) / span)

    task = progress.add_task(f"trials, {named.name}", total=3 * config.repeats * config.trials)
    surrogates: dict[str, Surrogate] = {
        "network": NetworkSurrogate(trained),
        "exact": exact_posterior,
    }
    runs: dict[str, list[list[float]]] = {name: [] for name in (*surrogates, "random")}
    for repeat in range(config.repeats):
        seed = config.seed + repeat
        for name, surrogate in surrogates.items():
            pipeline = ACBOPipeline(
                SurrogateUpdate(surrogate, seed),
                expected_improvement,
                buffer,
                named.problem,
                seed=seed,
            )
            recommended = []
            for number in range(config.trials):
                tried = pipeline.ask().intervention
                rows = named.simulator()(tried, 1, seed * 100_003 + number)
                pipeline.tell(tried, rows.drop(columns=DO_COLUMN))
                recommended.append(pipeline.recommend().intervention)
                progress.advance(task)
            runs[name].append([regret(intervention) for intervention in recommended])
        runs["random"].append(_random_trials(named, buffer, config.trials, seed, regret))
        progress.advance(task, config.trials)
    curves = {name: [round(float(v), 5) for v in np.mean(r, axis=0)] for name, r in runs.items()}
    return {"name": named.name, "optimum": named.optimum, "nothing": nothing, "regret": curves}


def _random_trials(
    named: NamedProblem,
    buffer: ExperienceBuffer,
    n_trials: int,
    seed: int,
    regret: Callable[[Intervention], float],
) -> list[float]:
    """Random trials; what is recommended is the one with the best single outcome so far."""
    state = AcquisitionState(buffer, named.problem, {})
    outcomes: list[tuple[float, Intervention]] = []
    curve = []
    for number in range(n_trials):
        key = jax.random.fold_in(jax.random.key(seed), number)
        tried = random_choice(state, key).intervention
        row = named.simulator()(tried, 1, seed * 100_003 + number)
        outcome = named.problem.sign * float(row[named.problem.target].iloc[0])
        outcomes.append((outcome, tried))
        curve.append(regret(min(outcomes, key=lambda pair: pair[0])[1]))
    return curve


def _block_means(losses: list[tuple[int, float]], n_blocks: int = 50) -> list[list[float]]:
    size = max(len(losses) // n_blocks, 1)
    blocks = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [[b[-1][0], round(float(np.mean([loss for _, loss in b])), 4)] for b in blocks]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
