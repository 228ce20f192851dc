"""The page of the regret benchmark: tables with intervals, and the plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from causal_bayes_opt.benchmarks.runner import CHECKPOINTS
from causal_bayes_opt.training.speed import RECORDED_TRIAL_SECONDS

# Of a problem, with so many outcomes a trial: the studies of each method.
Group: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]

_RESAMPLES = 2000
_PACED = 8  # variables
_ORDER = (
    "expected improvement",
    "expected improvement, graph known",
    "Thompson sampling",
    "GRPO network",
    "PARENT_SCALE",
    "Bayesian optimisation",
    "random over parents",
    "random",
    "oracle",
)
_HEAD = """# Regret

Made by `python -m benchmarks.regret` (`make bench-regret`). Nobody but the oracle knows a
system; "graph known" is told all edges and no mechanism, which is the price of the graph.
Each method gets the same rows to begin with (100 observations for random systems, 200 for named
problems, and two experiments on each variable that may be set, at uniform values), the same noise,
and one noisy outcome a trial unless a table says 1,000. PARENT_SCALE takes the mean of a trial's
outcomes for its choice, as published. Each method gets 30 studies, on linear systems 90; one with
less was stopped there.

**Regret** is of the intervention that a method recommends after T trials, divided
by the span between the system's best and its observed mean: 0 is the optimum, 1 is doing nothing;
below 0 a method beat the best that a search of a nonlinear system had found.
Those with a model recommend by it, the others (PARENT_SCALE, both random ones) their best trial.
Median and mean over studies with 95 % bootstrap intervals, and where all studies have one system
the median expected outcome of what is recommended. **value** is the mean expected outcome of the
last recommendation, **mean Y** that of all trials, **noisy** the mean of what came out. **GAP** is
that of Branchini et al. (2023) for the trials' expected outcomes (1 is best). **ms** is the median
time of a decision, posterior included, on one core beside other work.
"""


def write_page(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write ``regret.md`` and its figure into a folder."""
    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for line in results:
        methods = groups[line["problem"], line["many"]]
        methods.setdefault(line["method"], []).append(line)
    parts = [_HEAD, "![Median regret by trial](figures/policies.png)\n"]
    parts.append(_pace(groups.get(("linear", 1), {})))
    for (problem, many), methods in groups.items():
        known = [name for name in _ORDER if name in methods]
        parts += _section(problem, many, {name: methods[name] for name in known})
    (folder / "regret.md").write_text("\n".join(parts))
    _plot({key: group for key, group in groups.items() if key[1] == 1}, folder)


def _pace(methods: Group) -> str:
    """How long decisions take at the largest size of the linear family."""
    times = {
        method: [t for s in studies if s["n_vars"] == _PACED for t in s["seconds"][1:]]
        for method, studies in methods.items()
    }
    ours, expert = times.get(_ORDER[0], []), times.get("PARENT_SCALE", [])
    if not ours or not expert:
        return ""
    median = float(np.median(ours))
    public = RECORDED_TRIAL_SECONDS[_PACED]
    beside, recorded = np.median(expert) / median, public / median
    return (
        f"A decision by {_ORDER[0]} on a linear system of {_PACED} variables took "
        f"{1e3 * median:.1f} ms, posterior included (median of {len(ours)}; the fastest tenth "
        f"{1e3 * np.quantile(ours, 0.1):.1f} ms). Our PARENT_SCALE takes {beside:.1f} times as "
        f"long, and a trial of the recorded public runs on as many variables ({public:g} s of one "
        f"core, another machine) {recorded:,.0f} times.\n"
    )


def _section(problem: str, many: int, methods: Group) -> list[str]:
    trials = max(len(s["outcomes"]) for studies in methods.values() for s in studies)
    at = [k for k in CHECKPOINTS if k <= trials]
    optima = {s["optimum"] for studies in methods.values() for s in studies}
    known = f", optimum {optima.pop():.4g}" if len(optima) == 1 else ""
    lines = [
        f"\n## {problem}, {many:,} outcome{'s' if many > 1 else ''} a trial{known}\n",
        f"| method | n | {' | '.join(f'T={k}' for k in at)} | value | mean Y | noisy | GAP | ms |",
        f"|{'---|' * (len(at) + 7)}",
    ]
    for method, studies in methods.items():
        cells = [_reached(studies, i, bool(known)) for i in range(len(at))]
        last = [s["values"][-1] for s in studies]
        numbers = [
            f"{np.mean(last):.4g}",
            _mean([float(np.mean(s["outcomes"])) for s in studies]),
            f"{np.mean([np.mean(s['noisy']) for s in studies]):.4g}",
            _mean([s["gap"] for s in studies]),
            f"{1e3 * np.median([t for s in studies for t in s['seconds'][1:]]):.0f}",
        ]
        lines.append(f"| {method} | {len(studies)} | {' | '.join([*cells, *numbers])} |")
    return lines


def _reached(studies: Sequence[Mapping[str, Any]], i: int, one_system: bool) -> str:
    """Regret at the i-th of the checkpoints, and the value behind it where that says something."""
    there = [s for s in studies if len(s["regret"]) > i]
    if not there:
        return ""
    regret = [s["regret"][i] for s in there]
    low, high = _interval(regret, np.median)
    text = f"{np.median(regret):.3f} ({low:.3f} to {high:.3f})"
    low, high = _interval(regret, np.mean)
    text += f"; mean {np.mean(regret):.3f} ({low:.3f} to {high:.3f})"
    return f"{text}; {np.median([s['values'][i] for s in there]):.4g}" if one_system else text


def _mean(values: Sequence[float]) -> str:
    low, high = _interval(values, np.mean)
    return f"{np.mean(values):.4g} ({low:.4g} to {high:.4g})"


def _interval(values: Sequence[float], statistic: Callable[..., Any]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(statistic(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _plot(groups: Mapping[tuple[str, int], Group], folder: Path) -> None:
    shown = [key for key, methods in groups.items() if len(methods) > 1]
    width = 4
    height = -(-len(shown) // width)
    figure = Figure(figsize=(3.2 * width, 2.6 * max(height, 1)))
    for place, key in enumerate(shown):
        axes = figure.add_subplot(height, width, place + 1)
        # Ours last, so that nothing hides it.
        for number in reversed(range(len(_ORDER))):
            method, studies = _ORDER[number], groups[key].get(_ORDER[number], [])
            if not studies:
                continue
            length = min(len(s["regret"]) for s in studies)
            median = np.median([s["regret"][:length] for s in studies], axis=0)
            width_of = 2.0 if number == 0 else 1.0
            axes.plot(
                CHECKPOINTS[:length],
                median.clip(1e-4),
                "o-",
                color=f"C{number}",
                label=method,
                ms=3,
                lw=width_of,
            )
        axes.set_yscale("log")
        axes.set_xscale("log")
        axes.set_xticks(CHECKPOINTS, [str(k) for k in CHECKPOINTS])
        axes.minorticks_off()
        axes.set_title(key[0], fontsize=9)
        axes.set_ylim(8e-5, 3)
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    shown_names = [name for name in _ORDER if name in handles]
    inch = 1.0 / figure.get_figheight()
    figure.legend(
        [handles[name] for name in shown_names],
        shown_names,
        loc="lower center",
        ncols=5,
        fontsize=8,
    )
    figure.supxlabel("trials", fontsize=9, y=0.5 * inch)
    figure.supylabel("median normalised regret (below 0.0001 drawn there)", fontsize=9)
    figure.tight_layout(rect=(0.02, 0.6 * inch, 1, 1))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "figures" / "policies.png", dpi=110)
