"""What follows from the judge's measurements: the criteria of both verdicts, and bad omens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from causal_bayes_opt.training.criteria import (
    Criterion,
    Measured,
    ValidationCriteria,
    at_least,
    at_most,
    below,
)
from causal_bayes_opt.training.transfer import size_drop

_FEWEST = 20  # systems; fewer decide nothing about quality


def week_2(
    asked: ValidationCriteria,
    quality: Mapping[str, Any],
    speed: Mapping[str, Any],
    resources: Mapping[str, Any],
) -> list[Criterion]:
    """Whether to go on to more data; all must hold."""
    failures, order = resources["failures"], resources["order_change"]
    return [
        at_least(
            f"share of graphs with a speed-up of {asked.min_speedup:g}",
            asked.min_share,
            Measured(**speed["share_at_threshold"]),
            f"{speed['systems']} graphs, median {speed['median_ratio']['value']:.1f}",
        ),
        *_drops(asked.max_drop, quality, below),
        at_most(
            "failures",
            asked.max_failures,
            Measured.exactly(len(failures)),
            failures[0] if failures else "",
        ),
        at_most(
            "change of a probability with the order of the variables",
            asked.max_order_change,
            None if order is None else Measured.exactly(order),
            "not measured, as not all questions were answered" if order is None else "",
        ),
        _overlap(resources["overlap"]),
        _memory(asked, resources),
    ]


def no_go_indicators(
    asked: ValidationCriteria,
    quality: Mapping[str, Any],
    speed: Mapping[str, Any],
    resources: Mapping[str, Any],
) -> list[Criterion]:
    """Indicators against going on: each is a criterion whose no-go is the bad news."""
    return [
        at_least("median speed-up", asked.no_go_speedup, Measured(**speed["median_ratio"])),
        *_drops(asked.no_go_drop, quality, at_most),
        _memory(asked, resources),
    ]


def week_4(
    asked: ValidationCriteria,
    transfer: Sequence[Mapping[str, Any]] | None,
    scaling: Mapping[str, Any] | None,
    speed: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> list[Criterion]:
    """Whether to invest in production; most must hold."""
    return [
        _transfer(asked, transfer),
        below(
            "nats on the true set, more demonstrations less fewer",
            0.0,
            None if scaling is None else Measured(**scaling["gain"]),
            "not measured" if scaling is None else _scaled(scaling),
        ),
        at_most(
            "studies that did not end",
            0,
            Measured.exactly(len(speed["failures"]["amortized"])),
            f"{speed['systems']} studies of {speed['trials']} trials",
        ),
        at_most(
            "graphs after which training has paid",
            asked.max_break_even,
            Measured(**cost["break_even"]),
            _paid(cost),
        ),
    ]


def _drops(threshold: float, quality: Mapping[str, Any], rule: Any) -> list[Criterion]:
    systems = quality["systems"]
    few = systems < _FEWEST
    told = f"{systems} systems decide nothing; {_FEWEST} are the least"
    return [
        rule(
            f"drop of {name} below the expert",
            threshold,
            None if few else Measured(**quality["drops"]["expert"][measure]),
            told if few else f"measured on {systems} systems",
        )
        for measure, name in (("f1", "F1"), ("average_precision", "average precision"))
    ]


def _overlap(overlap: Mapping[str, int]) -> Criterion:
    name = "held-out systems that were trained on"
    if not overlap["keys"]:
        told = "the model does not say what it was trained on, so nothing could be compared"
        return at_most(name, 0, None, told)
    shared = overlap["shared_keys"] + overlap["shared_systems"]
    told = (
        f"compared with the keys of all {overlap['keys']} training steps and with "
        f"{overlap['systems']} systems of them, drawn again"
    )
    return at_most(name, 0, Measured.exactly(shared), told)


def _memory(asked: ValidationCriteria, resources: Mapping[str, Any]) -> Criterion:
    most = asked.max_memory or resources["device_bytes"]
    peaks = resources["peak_bytes"]
    if not peaks:
        return at_most("peak memory, bytes", most, None, "not measured")
    measured = None if min(peaks.values()) < 0 else Measured.exactly(max(peaks.values()))
    told = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in peaks.items())
    return at_most("peak memory, bytes", most, measured, told)


def _transfer(asked: ValidationCriteria, transfer: Sequence[Mapping[str, Any]] | None) -> Criterion:
    larger = None if transfer is None else size_drop(transfer)
    breaks = [entry["condition"] for entry in transfer or () if entry["breaks"]]
    told = f"breaks on: {', '.join(breaks)}" if breaks else "breaks nowhere"
    return below(
        "drop of average precision on larger systems",
        asked.max_transfer_drop,
        None if larger is None else larger[1],
        "not measured" if larger is None else f"{larger[0]}; {told}",
    )


def _scaled(scaling: Mapping[str, Any]) -> str:
    fewer, more = scaling["compared"]
    steps = {entry["demonstrations"]: entry["steps"] for entry in scaling["curve"]}
    return f"{more} demonstrations less {fewer}, {steps[more]} and {steps[fewer]} steps"


def _paid(cost: Mapping[str, Any]) -> str:
    told = f"{cost['seconds']:.0f} s spent, {cost['saved_seconds_per_graph']:.3f} s saved a graph"
    unknown = cost["not_recorded"]
    return f"{told}; nobody recorded what {', '.join(unknown)} took" if unknown else told
