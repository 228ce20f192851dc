"""The judge's report: JSON for machines, figures, one self-contained page for people."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from causal_bayes_opt.pages import (
    CHANCE,
    EXACT,
    NETWORK,
    TRUTH,
    image,
    new_figure,
    page,
    save_figures,
    table,
)
from causal_bayes_opt.training.validation import ValidationReport

_COLOURS = {"amortized": NETWORK, "exact": EXACT, "expert": TRUTH}
_MEASURES = {
    "f1": "F1",
    "average_precision": "average precision",
    "auroc": "AUROC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "negative_log_probability": "nats on the true set",
    "coverage_90": "90 % sets hold the truth",
}


def write_validation_report(report: ValidationReport, out: Path) -> Path:
    """Write report.json, the figures and report.html; return the path of the last."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    embedded = save_figures(_figures(report.content), out)
    path = out / "report.html"
    path.write_text(_page(report.content, embedded), encoding="utf-8")
    return path


def in_words(content: Mapping[str, Any]) -> str:
    """What holds and what does not, in a paragraph."""
    verdicts = content["verdicts"]
    listed = [*content["week_2"], *content["week_4"]]
    missed = [c["name"] for c in listed if c["verdict"] == "no-go"]
    open_ones = [c["name"] for c in listed if c["verdict"] == "undecided"]
    speed, quality = content["speed"], content["quality"]
    ours = quality["methods"]["amortized"]
    said = [
        f"{content['model']['name']} was judged on {content['data']['systems']} systems that it "
        f"had never seen. Going on to more data: {verdicts['week_2']}. Production: "
        f"{verdicts['week_4']}.",
        f"A study of {speed['trials']} trials takes {speed['mean_seconds']['amortized']:.3f} s; "
        f"the expert takes {speed['median_ratio']['value']:.1f} times as long on the median graph, "
        f"exact inference {speed['ratio_to_exact']:.2f} times.",
        f"Its average precision is {ours['average_precision']['value']:.3f}, the expert's "
        f"{quality['methods']['expert']['average_precision']['value']:.3f}"
        + _and_exact(quality)
        + ".",
        f"What does not hold: {', '.join(missed) or 'nothing that was measured'}.",
        f"What is undecided: {', '.join(open_ones) or 'nothing'}.",
    ]
    broken = [entry["condition"] for entry in content["transfer"] or () if entry["breaks"]]
    if content["transfer"]:
        said.append(f"Transfer breaks on: {', '.join(broken) or 'none of the conditions tried'}.")
    return " ".join(said)


def _and_exact(quality: Mapping[str, Any]) -> str:
    exact = quality["methods"].get("exact")
    return (
        "" if exact is None else f", that of exact inference {_value(exact, 'average_precision')}"
    )


def _figures(content: Mapping[str, Any]) -> dict[str, Figure]:
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
        axis.set(xlabel="variables", ylabel=_MEASURES[measure])
    if levels:
        left.legend(frameon=False)
    return figure


def _break_even(content: Mapping[str, Any]) -> Figure:
    figure, (axis,) = new_figure()
    curve = content["cost"]["curve"]
    hours = {name: np.array(curve[f"{name}_seconds"]) / 3600 for name in ("expert", "amortized")}
    axis.plot(curve["graphs"], hours["expert"], color=TRUTH, label="expert, graph by graph")
    axis.plot(curve["graphs"], hours["amortized"], color=NETWORK, label="training, then the model")
    plan = content["cost"]["plan"]
    axis.axvline(
        plan["break_even"],
        color=CHANCE,
        linestyle=":",
        label=f"the plan's guess at {plan['speedup']:g} times",
    )
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
        axis.set(xlabel="demonstrations", ylabel=_MEASURES[measure], xscale="log")
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


def _page(content: Mapping[str, Any], figures: dict[str, str]) -> str:
    verdict = content["verdicts"]["week_2"]
    sections = [
        f"<p class='verdict {verdict}'>{verdict.upper()}: {html.escape(in_words(content))}</p>",
        "<h2>Go on to more data? All must hold</h2>" + _criteria(content["week_2"]),
        "<h2>Indicators against it</h2>" + _criteria(content["no_go_indicators"]),
        "<h2>Invest in production? Most must hold</h2>" + _criteria(content["week_4"]),
        "<h2>Quality against the truth</h2>" + _quality(content["quality"]),
        image(figures["reliability"], "stated against found shares")
        + image(figures["quality_by_size"], "quality by number of variables"),
        *_factors(content["quality"]["by_factor"]),
        "<h2>Speed</h2>"
        + _speed(content["speed"])
        + image(figures["speedup"], "speed-up by graph"),
        "<h2>Resources</h2>" + _resources(content["resources"]),
    ]
    if content["transfer"]:
        sections.append(
            "<h2>Transfer</h2>"
            + image(figures["transfer"], "drop by condition")
            + _transfer_table(content["transfer"])
        )
    if content["scaling"]:
        sections.append(
            "<h2>More demonstrations</h2>" + image(figures["learning_curve"], "learning curve")
        )
    sections.append(
        "<h2>Costs</h2>" + _costs(content["cost"]) + image(figures["break_even"], "costs by graphs")
    )
    bound = content["model"]["digest"][:16], content["data"]["digest"][:16]
    sections.append(f"<p>Bound to the model {bound[0]} and the data {bound[1]}.</p>")
    name = content["model"]["name"]
    return page(f"Validation of {name}", f"Is {name} worth it?", sections)


def _criteria(criteria: list[dict[str, Any]]) -> str:
    rows = [
        [c["name"], c["requirement"], _interval(c["measured"]), c["verdict"], c["note"]]
        for c in criteria
    ]
    return table(["what", "asked", "measured", "verdict", ""], rows)


def _quality(quality: Mapping[str, Any]) -> str:
    methods = quality["methods"]
    rows = [
        [label, *(_interval(own[name]) for own in methods.values())]
        for name, label in _MEASURES.items()
    ]
    for part in ("reliability", "resolution", "uncertainty"):
        parts = quality["brier_parts"]
        rows.append([f"Brier, {part}", *(f"{parts[method][part]:.4f}" for method in methods)])
    differences = [
        [f"{label}, ours less {other}", _interval(found[name])]
        for other, found in quality["differences"].items()
        for name, label in _MEASURES.items()
    ]
    agreement = quality["agreement_with_expert_nats"]
    return (
        table(["", *methods], rows)
        + table(["paired difference", ""], differences)
        + f"<p>Agreement with the expert, which is no quality: {agreement:.3f} nats a system.</p>"
    )


def _factors(factors: Mapping[str, Any]) -> list[str]:
    sections = []
    for factor, levels in factors.items():
        methods = [name for name in next(iter(levels.values())) if name != "systems"]
        rows = [
            [level, str(own["systems"])]
            + [_interval(own[m]["average_precision"]) for m in methods]
            + [_interval(own[m]["negative_log_probability"]) for m in methods]
            for level, own in levels.items()
        ]
        head = [factor, "systems"]
        head += [f"average precision, {m}" for m in methods] + [f"nats, {m}" for m in methods]
        sections.append(f"<h3>By {html.escape(factor)}</h3>" + table(head, rows))
    return sections


def _speed(speed: Mapping[str, Any]) -> str:
    rows = [[m, f"{seconds:.4f}"] for m, seconds in speed["mean_seconds"].items()]
    rows += [
        ["speed-up on the median graph", _interval(speed["median_ratio"])],
        ["share of graphs that reach the threshold", _interval(speed["share_faster"])],
        ["exact inference, by ours", f"{speed['ratio_to_exact']:.2f}"],
        ["the public code (recorded, another machine)", f"{speed['recorded_public_seconds']:g} s"],
        ["best trial no worse than the expert's", _interval(speed["no_worse_than_expert"])],
    ]
    return table([f"seconds a study of {speed['trials']} trials, warm", ""], rows)


def _resources(resources: Mapping[str, Any]) -> str:
    rows = [
        [f"peak memory of {name}", f"{size / 2**20:.0f} MiB"]
        for name, size in resources["peak_bytes"].items()
    ]
    rows += [
        ["memory of the device", f"{resources['device_bytes'] / 2**30:.1f} GiB"],
        ["device", resources["device"]],
        ["machine", resources["machine"]],
        ["failures", str(len(resources["failures"]))],
        ["held-out keys found among those of the training", str(resources["overlap"]["shared"])],
    ]
    return table(["", ""], rows)


def _transfer_table(entries: list[dict[str, Any]]) -> str:
    rows = [
        [
            e["condition"],
            "yes" if e["unseen"] else "no",
            _interval(e["quality"]["average_precision"]),
            _interval(e["quality"]["negative_log_probability"]),
            _interval(e["drop"]),
            "breaks" if e["breaks"] else "",
        ]
        for e in entries
    ]
    return table(["condition", "unseen", "average precision", "nats", "drop", ""], rows)


def _costs(cost: Mapping[str, Any]) -> str:
    rows = [
        [f"seconds of {name}", f"{value:.0f}"]
        for name, value in cost["costs"].items()
        if name != "price_per_hour"
    ]
    rows += [
        ["money, at the configured price", f"{cost['money']:.2f}"],
        ["saved a graph", f"{cost['saved_seconds_per_graph']:.3f} s"],
        ["even after so many graphs", _interval(cost["break_even"])],
        [
            "the plan's guess",
            f"{cost['plan']['break_even']:.0f} at {cost['plan']['speedup']:g} times",
        ],
    ]
    return table(["", ""], rows)


def _interval(measured: Mapping[str, float | None] | None) -> str:
    if measured is None:
        return "not measured"
    value, low, high = (_number(measured[name]) for name in ("value", "low", "high"))
    return value if low == high else f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "∞" if value is None else f"{value:.4g}"


def _value(methods: Mapping[str, Any], name: str) -> str:
    return f"{methods[name]['value']:.3f}"
