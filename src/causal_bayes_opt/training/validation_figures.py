"""The figures of the judge's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from causal_bayes_opt.pages import CHANCE, EXACT, NETWORK, TRUTH, new_figure

MEASURES = {
    "f1": "F1",
    "average_precision": "average precision",
    "auroc": "AUROC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "negative_log_probability": "nats on the true set",
    "coverage_90": "90 % sets hold the truth",
}
_COLOURS = {"amortized": NETWORK, "exact": EXACT, "expert": TRUTH}


def draw_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a report by their names."""
    figures = {
        "reliability": _reliability(content),
        "speedup": _speedup(content),
        "quality_by_size": _by_size(content),
        "break_even": _break_even(content),
    }
    if content["scaling"]:
        figures["learning_curve"] = _learning_curve(content)
    if content["transfer"]:
        figures["transfer"] = _transfer(content)
    return figures


def _reliability(content: Mapping[str, Any]) -> Figure:
    figure, (axis,) = new_figure(4.6, 4.2)
    axis.plot([0, 1], [0, 1], color="#cccccc", zorder=0)
    for method, bins in content["quality"]["reliability"].items():
        axis.plot(
            [entry["stated"] for entry in bins],
            [entry["found"] for entry in bins],
            "o-",
            color=_COLOURS[method],
            label=method,
        )
    axis.set(xlabel="stated probability", ylabel="share that are causes", aspect="equal")
    axis.legend(frameon=False, loc="upper left")
    return figure


def _speedup(content: Mapping[str, Any]) -> Figure:
    figure, (axis,) = new_figure()
    ratios = np.array(content["speed"]["ratio"])
    low, high = max(ratios.min(), 1e-3), max(ratios.max(), 2e-3)
    bins = np.geomspace(low * 0.95, high * 1.05, 30)
    axis.hist(ratios, bins=bins.tolist(), color=NETWORK)
    threshold = content["criteria"]["min_speedup"]
    axis.axvline(threshold, color=EXACT, linestyle="--", label=f"threshold {threshold:g}")
    axis.set(xlabel="seconds of the expert, by those of the model", ylabel="graphs", xscale="log")
    _plain_ticks(axis)
    axis.legend(frameon=False)
    return figure


def _by_size(content: Mapping[str, Any]) -> Figure:
    figure, (left, right) = new_figure(9.0, 3.6, 2)
    levels = content["quality"]["by_factor"].get("variables", {})
    for axis, measure in ((left, "average_precision"), (right, "negative_log_probability")):
        for method, colour in _COLOURS.items():
            found = [
                (int(size), own[method][measure]) for size, own in levels.items() if method in own
            ]
            if not found:
                continue
            at = [size for size, _ in found]
            values = np.array([[m["value"], m["low"], m["high"]] for _, m in found])
            axis.plot(at, values[:, 0], "o-", color=colour, label=method)
            axis.fill_between(at, values[:, 1], values[:, 2], color=colour, alpha=0.12)
        axis.set(xlabel="variables", ylabel=MEASURES[measure])
    if levels:
        left.legend(frameon=False)
    return figure


def _break_even(content: Mapping[str, Any]) -> Figure:
    figure, (axis,) = new_figure()
    curve = content["cost"]["curve"]
    hours = {name: np.array(curve[f"{name}_seconds"]) / 3600 for name in ("expert", "amortized")}
    axis.plot(curve["graphs"], hours["expert"], color=TRUTH, label="the expert, graph by graph")
    axis.plot(curve["graphs"], hours["amortized"], color=NETWORK, label="training, then the model")
    plan = content["cost"]["plan"]
    axis.axvline(
        plan["break_even"],
        color=CHANCE,
        linestyle=":",
        label=f"the design target at {plan['speedup']:g} times",
    )
    most = content["criteria"]["max_break_even"]
    axis.axvline(most, color=EXACT, linestyle="--", label=f"asked: at most {most:,.0f}")
    axis.set(xlabel="graphs", ylabel="hours of this machine")
    axis.legend(frameon=False)
    return figure


def _learning_curve(content: Mapping[str, Any]) -> Figure:
    figure, (left, right) = new_figure(9.0, 3.6, 2)
    curve = content["scaling"]["curve"]
    at = [entry["demonstrations"] for entry in curve]
    for axis, measure in ((left, "negative_log_probability"), (right, "average_precision")):
        values = np.array(
            [[entry[measure][k] for k in ("value", "low", "high")] for entry in curve]
        )
        axis.plot(at, values[:, 0], "o-", color=NETWORK)
        axis.fill_between(at, values[:, 1], values[:, 2], color=NETWORK, alpha=0.15)
        axis.set(xlabel="demonstrations", ylabel=MEASURES[measure], xscale="log")
        axis.set_xticks(at, [f"{count:,}" for count in at])
        axis.minorticks_off()
    return figure


def _transfer(content: Mapping[str, Any]) -> Figure:
    entries = content["transfer"]
    figure, (axis,) = new_figure(7.0, 0.35 * len(entries) + 1.0)
    place = np.arange(len(entries))
    values = np.array([[e["drop"][k] for k in ("value", "low", "high")] for e in entries])
    errors = np.abs(values[:, 1:].T - values[:, 0])
    axis.errorbar(values[:, 0], place, xerr=errors, fmt="o", color=NETWORK)
    threshold = content["criteria"]["max_transfer_drop"]
    axis.axvline(threshold, color=EXACT, linestyle="--", label=f"threshold {threshold:g}")
    names = [e["condition"] + (" (unseen)" if e["unseen"] else "") for e in entries]
    axis.set_yticks(place, names)
    axis.invert_yaxis()
    axis.set(xlabel="drop of average precision, as a share")
    axis.legend(frameon=False)
    return figure


def _plain_ticks(axis: Axes) -> None:
    """A logarithmic axis with 2 and 20 in place of powers of ten."""
    axis.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
