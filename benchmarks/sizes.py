"""Accuracy against time for networks of several sizes, and transfer to larger systems.

``python -m benchmarks.sizes [--out FOLDER]`` trains each size for as many steps on linear systems
of 3 to 8 variables (resumable), judges all on the same fresh systems, times one posterior at 8
variables, and then asks the size of the shipped models about systems of 9 to 12 and of 20. It draws
docs/figures/sizes.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.table import print_table
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.surrogate.network import NetworkSurrogate, TrainedModel
from causal_bayes_opt.surrogate.predictor import AmortizedModel, PredictorConfig
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.evidence import ask
from causal_bayes_opt.training.held_out import HeldOut, generate_test_graphs
from causal_bayes_opt.training.loop import train
from causal_bayes_opt.training.loop_config import LoopConfig
from causal_bayes_opt.training.quality import quality_table, relative_drop

SIZES = ((32, 2), (64, 2), (64, 4), (96, 6))
SHIPPED = (64, 4)
STEPS, BATCH = 1200, 32
DATA = TrainingDistribution(
    (SystemDistribution(n_vars=(3, 8)),), DesignDistribution(n_obs=(20, 256), max_experiments=70)
)
JUDGED_ON = HeldOut(seed=77_000)
FIGURE = Path("docs/figures/sizes.png")
SYSTEMS, RESAMPLES, CONFIDENCE = 300, 500, 0.95


def trained(width: int, depth: int, folder: Path) -> TrainedModel:
    model = AmortizedModel(PredictorConfig(width, depth))
    loop = LoopConfig(steps=STEPS, batch_size=BATCH, checkpoint_every=100)
    params = train(model, DATA, loop, folder / f"{width}x{depth}")
    return TrainedModel(f"{width} x {depth}", model, params, {})


def milliseconds(surrogate: NetworkSurrogate) -> float:
    system = generate_test_graphs(1, config=HeldOut(graph_sizes=(8,), rows_per_variable=(3,)))[0]
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        surrogate(system.case.buffer, system.case.target)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/sizes"), help="checkpoints")
    folder = parser.parse_args().out
    systems = generate_test_graphs(SYSTEMS, config=JUDGED_ON)
    surrogates, answers = {}, {}
    for width, depth in SIZES:
        model = trained(width, depth, folder)
        surrogates[model.name] = NetworkSurrogate(model)
        answers[model.name] = ask(surrogates[model.name], systems)
        print(f"trained {model.name}", flush=True)
    times = {name: milliseconds(surrogate) for name, surrogate in surrogates.items()}
    shipped = " x ".join(map(str, SHIPPED))
    table = quality_table(answers, RESAMPLES, CONFIDENCE, ours=shipped)
    rows: list[dict[str, object]] = [
        {
            "what": f"{name}: nats on the true set, {SYSTEMS} systems of 3 to 8 variables",
            "measured": _told(table["methods"][name]["negative_log_probability"]),
            "note": f"average precision {_told(table['methods'][name]['average_precision'])}; "
            f"{times[name]:.2f} ms a posterior, d=8",
        }
        for name in surrogates
    ]
    _plot(times, {name: table["methods"][name]["negative_log_probability"] for name in times})
    for group in ((9, 10, 11, 12), (20,)):
        larger = generate_test_graphs(
            SYSTEMS // 3, config=HeldOut(graph_sizes=group, seed=JUDGED_ON.seed)
        )
        found = ask(surrogates[shipped], larger)
        drop = relative_drop(answers[shipped], found, RESAMPLES, CONFIDENCE)
        quality = quality_table({shipped: found}, RESAMPLES, CONFIDENCE, ours=shipped)
        told = "-".join(map(str, sorted({group[0], group[-1]})))
        precision = quality["methods"][shipped]["average_precision"]
        rows.append(
            {
                "what": f"{shipped}, trained on 3-8: drop of average precision at {told} variables",
                "measured": f"{drop.value:.3f} ({drop.low:.3f} to {drop.high:.3f})",
                "bar": "0.3",
                "note": f"average precision {_told(precision)}",
            }
        )
    print_table(rows)


def _plot(times: Mapping[str, float], nats: Mapping[str, Mapping[str, float]]) -> None:
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.add_subplot()
    for name, milliseconds_each in times.items():
        value, low, high = (nats[name][key] for key in ("value", "low", "high"))
        axes.errorbar(
            [milliseconds_each], [value], [[value - low], [high - value]], fmt="o", capsize=3
        )
        axes.annotate(name, (milliseconds_each, value), xytext=(4, 4), textcoords="offset points")
    axes.set_xlabel("milliseconds a posterior, 8 variables")
    axes.set_ylabel("nats on the true set")
    figure.tight_layout()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def _told(measured: dict[str, float]) -> str:
    return f"{measured['value']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"


if __name__ == "__main__":
    main()
