"""The demonstration's report: a summary in words, PNG figures, one self-contained HTML page."""

from __future__ import annotations

import html
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


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write the figures as PNG files and report.html, in which they are embedded."""
    figures = {
        "training": _training(report),
        "agreement": _agreement(report),
        "parents": _parents(report),
        "regret": _regret(report),
    }
    embedded = save_figures(figures, out)
    (out / "report.html").write_text(_page(report, embedded), encoding="utf-8")


def summary(report: dict[str, Any], out: Path) -> str:
    """What a newcomer should take away, in words."""
    judged, file = report["judged"], report["file"]
    network, exact = judged["network"], judged["exact"]
    lines = [
        "",
        f"1. A network was trained on simulated systems in {report['training']['seconds']:.0f} s.",
        f"2. It was judged on {network['n_systems']} systems that it had never seen:",
        f"   {'':<34} network    exact",
        *(f"   {label:<34} {network[key]:7.3f}  {exact[key]:7.3f}" for label, key in _QUALITIES),
        f"   {judged['verdict'].upper()}: {judged['verdict_reason']}",
        f"3. What causes {file['target']} directly? Read from {file['path']}:",
        f"   {'':<34} network    exact",
    ]
    for name, p in file["network"]["marginals"].items():
        label = name + (" (truly a cause)" if name in file["true_parents"] else "")
        lines.append(f"   {label:<34} {p:7.3f}  {file['exact']['marginals'][name]:7.3f}")
    lines.append(f"   They differ most on {file['largest_disagreement']}.")
    for method in ("network", "exact"):
        s = file[method]["suggestion"]
        values = ", ".join(f"{name} = {value:.3g}" for name, value in s["intervention"].items())
        lines.append(
            f"   Next experiment by {method}: set {values}; expect {file['target']} = "
            f"{s['predicted_mean']:.2f} ± {s['predicted_std']:.2f}"
        )
    lines.append(
        f"4. Regret of the choice after {report['config']['trials']} trials (0: the optimum,"
    )
    lines.append(f"   {'1: doing nothing)':<34} network    exact   random")
    for study in report["studies"]:
        finals = [study["regret"][m][-1] for m in ("network", "exact", "random")]
        lines.append(f"   {study['name']:<34} " + "  ".join(f"{value:7.3f}" for value in finals))
    lines += [f"5. All of it with figures: {out / 'report.html'} ({report['seconds']:.0f} s)", ""]
    return "\n".join(lines)


_QUALITIES = (
    ("F1 of the causes found", "f1"),
    ("average precision", "average_precision"),
    ("nats lost on the true set", "negative_log_probability"),
    ("share of true sets ranked first", "exact_match"),
    ("milliseconds a system, warm", "milliseconds"),
)


def _training(report: dict[str, Any]) -> Figure:
    figure, (axis,) = new_figure()
    losses = np.array(report["training"]["losses"])
    axis.plot(losses[:, 0], losses[:, 1], color=NETWORK, label="network, training systems")
    exact = report["judged"]["exact"]["negative_log_probability"]
    axis.axhline(exact, color=EXACT, linestyle="--", label="exact inference, held-out systems")
    axis.set(xlabel="training step", ylabel="nats lost on the true parent set")
    axis.set_ylim(0, float(np.quantile(losses[:, 1], 0.9)) * 1.3)
    axis.legend(frameon=False)
    return figure


def _agreement(report: dict[str, Any]) -> Figure:
    """Network against exact, edge by edge; and how often an edge of probability p is one."""
    figure, (left, right) = new_figure(9.0, 4.0, 2)
    judged = report["judged"]
    edges = np.array(judged["edges"], dtype=bool)
    found = {name: np.array(judged[name]["marginals"]) for name in ("network", "exact")}
    for is_edge, colour, label in ((True, TRUTH, "is a cause"), (False, CHANCE, "is none")):
        chosen = edges == is_edge
        left.scatter(
            found["exact"][chosen], found["network"][chosen], s=9, alpha=0.6, c=colour, label=label
        )
    left.plot([0, 1], [0, 1], color="#cccccc", zorder=0)
    left.set(xlabel="probability by exact inference", ylabel="by the network", aspect="equal")
    left.legend(frameon=False, loc="upper left")
    right.plot([0, 1], [0, 1], color="#cccccc", zorder=0)
    for name, colour in (("network", NETWORK), ("exact", EXACT)):
        groups = np.array_split(np.argsort(found[name]), 8)
        predicted = [found[name][group].mean() for group in groups]
        right.plot(predicted, [edges[group].mean() for group in groups], "o-", c=colour, label=name)
    right.set(xlabel="stated probability", ylabel="share that are causes", aspect="equal")
    right.legend(frameon=False, loc="upper left")
    return figure


def _parents(report: dict[str, Any]) -> Figure:
    figure, (axis,) = new_figure()
    file = report["file"]
    names = list(file["network"]["marginals"])
    place = np.arange(len(names))
    for shift, method, colour in ((0.2, "network", NETWORK), (-0.2, "exact", EXACT)):
        values = [file[method]["marginals"][name] for name in names]
        axis.barh(place + shift, values, height=0.36, color=colour, label=method)
    labels = [f"{name} (a cause)" if name in file["true_parents"] else name for name in names]
    axis.set_yticks(place, labels)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel=f"probability of being a direct cause of {file['target']}")
    axis.legend(frameon=False, loc="lower right")
    return figure


def _regret(report: dict[str, Any]) -> Figure:
    studies = report["studies"]
    figure, axes = new_figure(9.0, 3.6, len(studies))
    for axis, study in zip(axes, studies, strict=True):
        for name, colour in (("network", NETWORK), ("exact", EXACT), ("random", CHANCE)):
            curve = study["regret"][name]
            style = "--" if name == "exact" else "-"
            label = "random choice" if name == "random" else f"expected improvement, {name}"
            axis.plot(range(1, len(curve) + 1), curve, style, color=colour, label=label)
        axis.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axis.set(
            title=study["name"], xlabel="trial", ylabel="regret (0: optimum, 1: doing nothing)"
        )
    axes[-1].legend(frameon=False)
    return figure


def _page(report: dict[str, Any], figures: dict[str, str]) -> str:
    judged, file = report["judged"], report["file"]
    quality = [
        [label, f"{judged['network'][key]:.3f}", f"{judged['exact'][key]:.3f}"]
        for label, key in _QUALITIES
    ]
    marginals = [
        [
            name,
            f"{p:.3f}",
            f"{file['exact']['marginals'][name]:.3f}",
            "a cause" if name in file["true_parents"] else "",
        ]
        for name, p in file["network"]["marginals"].items()
    ]
    suggestions = []
    for method in ("network", "exact"):
        s = file[method]["suggestion"]
        values = ", ".join(f"{name} = {value:.4g}" for name, value in s["intervention"].items())
        outcome = f"{s['predicted_mean']:.2f} ± {s['predicted_std']:.2f}"
        suggestions.append([method, values, outcome, s["reason"]])
    regret = [
        [study["name"], *(f"{study['regret'][m][-1]:.3f}" for m in ("network", "exact", "random"))]
        for study in report["studies"]
    ]
    target = file["target"]
    sections = [
        f"<p class='verdict {judged['verdict']}'>{judged['verdict'].upper()}: "
        f"{html.escape(judged['verdict_reason'])}</p>",
        "<h2>1. Training</h2>" + image(figures["training"], "loss by training step"),
        f"<h2>2. The network judged on {judged['network']['n_systems']} held-out systems</h2>"
        + table(["", "network", "exact inference"], quality)
        + image(figures["agreement"], "network against exact inference, and calibration"),
        f"<h2>3. {html.escape(file['path'])}: what causes {html.escape(target)} directly?</h2>"
        + table(["variable", "network", "exact inference", "truth"], marginals)
        + image(figures["parents"], "probability of each variable")
        + f"<h3>The next experiment, to make {html.escape(target)} small</h3>"
        + table(["by", "set", f"expected {target}", "why"], suggestions),
        "<h2>4. Trials</h2>"
        + table(["system", "network", "exact inference", "random choice"], regret)
        + "<p>Regret of what is recommended after the last trial: 0 is the best possible, 1 is "
        "doing nothing. Random choice recommends its best single outcome; its mean over several "
        "runs is shown.</p>" + image(figures["regret"], "regret by trial"),
    ]
    heading = "Causal Bayesian optimization with an unknown graph: a demonstration"
    return page("Demonstration report", heading, sections)
