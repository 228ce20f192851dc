"""The judge's report: JSON for machines, figures, one self-contained page for people."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causal_bayes_opt.pages import image, page, save_figures, table
from causal_bayes_opt.training.validation import ValidationReport
from causal_bayes_opt.training.validation_figures import MEASURES, draw_figures

_METHODS = {
    "amortized": "the model",
    "expert": "the expert, its better option",
    "expert_votes": "the expert, its fastest option",
    "exact": "exact inference",
}


def write_validation_report(report: ValidationReport, out: Path) -> Path:
    """Write report.json, the figures and report.html; return the path of the last."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    embedded = save_figures(draw_figures(report.content), out)
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


def _page(content: Mapping[str, Any], figures: dict[str, str]) -> str:
    verdict = content["verdicts"]["week_2"]
    level = f"{content['criteria']['confidence']:.0%}"
    sections = [
        f"<p class='verdict {verdict}'>{verdict.upper()}: {html.escape(in_words(content))}</p>",
        "<h2>Go on to more data? All must hold</h2>" + _criteria(content["week_2"]),
        "<h2>Indicators against it</h2>" + _criteria(content["no_go_indicators"]),
        "<h2>Invest in production? Most must hold</h2>" + _criteria(content["week_4"]),
        "<h2>Quality against the truth</h2>" + _quality(content["quality"]),
        image(
            figures["reliability"],
            "Reliability: the share of candidates that are causes, by the probability stated for "
            "them, in ten bins of as many candidates; on the line the two agree.",
        )
        + image(
            figures["quality_by_size"],
            f"Quality by number of variables; bands are {level} intervals.",
        ),
        *_factors(content["quality"]["by_factor"]),
        "<h2>Speed</h2>"
        + _speed(content["speed"])
        + image(
            figures["speedup"], "Speed-up of each graph, all decisions of one study, both warm."
        ),
        "<h2>Resources</h2>" + _resources(content["resources"]),
    ]
    if content["transfer"]:
        sections.append(
            "<h2>Transfer</h2>"
            + image(
                figures["transfer"],
                "How much lower the average precision is than on the systems above, as a share, "
                f"with {level} intervals; unseen: not in the training.",
            )
            + _transfer_table(content["transfer"])
        )
    if content["scaling"]:
        sections.append(
            "<h2>More demonstrations</h2>"
            + _scaling_table(content["scaling"])
            + image(
                figures["learning_curve"],
                "Learning curve: the same network on growing parts of one set of demonstrations, "
                f"judged on the systems above; bands are {level} intervals.",
            )
        )
    sections.append(
        "<h2>Costs</h2>"
        + _costs(content["cost"])
        + image(
            figures["break_even"],
            "Break-even: time spent after so many graphs, by the fastest option of the expert and "
            "by the model, its training included.",
        )
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
        for name, label in MEASURES.items()
    ]
    for part in ("reliability", "resolution", "uncertainty"):
        parts = quality["brier_parts"]
        rows.append([f"Brier, {part}", *(f"{parts[method][part]:.4f}" for method in methods)])
    differences = [
        [f"{label}, ours less {other}", _interval(found[name])]
        for other, found in quality["differences"].items()
        for name, label in MEASURES.items()
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
            + [_precision(factor, level, own[m]["average_precision"]) for m in methods]
            + [_interval(own[m]["negative_log_probability"]) for m in methods]
            for level, own in levels.items()
        ]
        head = [factor, "systems"]
        head += [f"average precision, {m}" for m in methods] + [f"nats, {m}" for m in methods]
        sections.append(f"<h3>By {html.escape(factor)}</h3>" + table(head, rows))
    return sections


def _precision(factor: str, level: str, measured: Mapping[str, float | None]) -> str:
    # Where nothing is to be found there is no precision.
    return "none to find" if (factor, level) == ("parents", "0") else _interval(measured)


def _speed(speed: Mapping[str, Any]) -> str:
    rows = [[_METHODS[m], f"{seconds:.4f}"] for m, seconds in speed["mean_seconds"].items()]
    rows += [
        ["speed-up on the median graph", _interval(speed["median_ratio"])],
        ["share of graphs on which ours is faster", _interval(speed["share_faster"])],
        ["share that reaches the threshold", _interval(speed["share_at_threshold"])],
        ["exact inference, by ours", f"{speed['ratio_to_exact']:.2f}"],
        [
            "the public code, as long a study (recorded on another machine)",
            f"{speed['recorded_public_seconds']:.0f} s",
        ],
        ["best trial no worse than the expert's", _interval(speed["no_worse_than_expert"])],
    ]
    return table([f"seconds a study of {speed['trials']} trials, warm", ""], rows)


def _resources(resources: Mapping[str, Any]) -> str:
    overlap = resources["overlap"]
    rows = [
        [f"peak memory of {name}", f"{size / 2**20:.0f} MiB"]
        for name, size in resources["peak_bytes"].items()
    ]
    rows += [
        ["memory of the device", f"{resources['device_bytes'] / 2**30:.1f} GiB"],
        ["device", resources["device"]],
        ["machine", resources["machine"]],
        ["failures", str(len(resources["failures"]))],
        [
            f"held-out keys among those of {overlap['keys']} training steps",
            str(overlap["shared_keys"]),
        ],
        [
            f"held-out systems among {overlap['systems']} of the training, drawn again",
            str(overlap["shared_systems"]),
        ],
    ]
    return table(["", ""], rows)


def _scaling_table(scaling: Mapping[str, Any]) -> str:
    rows = [
        [
            str(entry["demonstrations"]),
            str(entry["steps"]),
            *(_interval(entry[m]) for m in ("average_precision", "negative_log_probability")),
        ]
        for entry in scaling["curve"]
    ]
    fewer, more = scaling["compared"]
    return (
        table(["demonstrations", "steps", "average precision", "nats on the true set"], rows)
        + f"<p>{more} less {fewer}, in nats (below 0 is better): {_interval(scaling['gain'])}. "
        f"Held-out systems among the demonstrations: {scaling['shared_systems']}.</p>"
    )


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
        [f"seconds of {name}", "not recorded" if cost["costs"][name] is None else f"{value:.0f}"]
        for name, value in cost["costs"].items()
        if name != "price_per_hour"
    ]
    rows += [
        [f"money, at {cost['costs']['price_per_hour']:g} an hour", f"{cost['money']:.2f}"],
        [
            f"saved a graph against {_METHODS[cost['against']]}",
            f"{cost['saved_seconds_per_graph']:.3f} s, {cost['saved_money_per_graph']:.2g} money",
        ],
        ["even after so many graphs", _interval(cost["break_even"])],
        [
            "the design target",
            f"{cost['plan']['break_even']:.0f} graphs at {cost['plan']['speedup']:g} times",
        ],
    ]
    return table(["", ""], rows)


def _interval(measured: Mapping[str, float | None] | None) -> str:
    if measured is None:
        return "not measured"
    value, low, high = (_number(measured[name]) for name in ("value", "low", "high"))
    # The interval stays on one line.
    return value if low == high else f"{value} ({low}\u00a0to\u00a0{high})"


def _number(value: float | None) -> str:
    if value is None:
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _value(methods: Mapping[str, Any], name: str) -> str:
    return f"{methods[name]['value']:.3f}"
