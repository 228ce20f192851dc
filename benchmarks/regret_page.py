"""The page of the regret benchmark: tables with intervals, and the plot."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from causal_bayes_opt.benchmarks.problems import PROBLEMS
from causal_bayes_opt.benchmarks.runner import CHECKPOINTS
from causal_bayes_opt.training.speed import RECORDED_TRIAL_SECONDS

# Of a problem, with so many outcomes a trial: the studies of each method.
Group: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]

_RESAMPLES = 2000
_MEAN = re.compile(r"mean (\S+) \((\S+) to (\S+)\)")  # as `_reached` writes it
_LEAST = 5e-4  # regret is printed to three digits; less is drawn there
_PACED = 8  # variables
_FAMILIES = ("linear", "polynomial", "sigmoid", "neural")
_COMPARED_AFTER = 10  # trials
_ORDER = (
    "expected improvement",
    "expected improvement, graph known",
    "Thompson sampling",
    "GRPO network",
    "PARENT_SCALE",
    "PARENT_SCALE, 3 variables",
    "Bayesian optimisation",
    "random over parents",
    "random",
    "oracle",
)
_AFTER = ("value", "mean Y", "noisy", "GAP", "ms", "commit")
_PACE = f"A decision by {_ORDER[0]}"
_HEAD = """# Regret

Made by `python -m benchmarks.regret` (`make bench-regret`). Nobody but the oracle knows a
system; "graph known" is told all edges and no mechanism, which is the price of the graph.
Each method gets the same rows to begin with (100 observations for random systems, 200 for named
problems, and two experiments on each variable that may be set, at uniform values), the same noise,
and one noisy outcome a trial unless a table says 1,000. PARENT_SCALE takes the mean of a trial's
outcomes for its choice and sets one variable at a time, as published, unless its row says 3, where
random choice and the oracle set up to three and expected improvement as many as help; what it does
after an outcome is not in its ms. Bayesian optimisation takes at most 100 of the observed rows.
Each method gets 30 studies, on linear systems 90; one with less was stopped there.

**Regret** is of the intervention that a method recommends after T trials, divided
by the span between the system's best and its observed mean: 0 is the optimum, 1 is doing nothing;
below 0 a method beat the best that a search of a nonlinear system had found.
Those with a model recommend by it, the others (PARENT_SCALE, both random ones) their best trial.
Median and mean over studies with 95 % bootstrap intervals, and where all studies have one system
the median expected outcome of what is recommended. **value** is the mean expected outcome of the
last recommendation, **mean Y** that of all trials, **noisy** the mean of what came out. **GAP** is
that of Branchini et al. (2023) for the trials' expected outcomes (1 is best); both are over a
method's own trials, 20 where T=20 stands in its row and 10 elsewhere. **ms** is the median
time of a decision, posterior included, on one core beside other work. **commit** is that of the
code that made a row, of older ones that which brought it here: `git log COMMIT..` says what has
changed since. Mechanisms that saturate came with cee616f: rows from before are by another outcome
model.
"""


class Section(NamedTuple):
    """A table of the page.

    Attributes:
        columns: its head.
        rows: of each method the cells, its name first.
    """

    columns: list[str]
    rows: dict[str, list[str]]


def write_page(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write ``regret.md`` and its figure into a folder.

    Rows of a page that is there stay, but for those of which the results have as many studies.
    """
    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for line in results:
        methods = groups[line["problem"], line["many"]]
        methods.setdefault(line["method"], []).append(line)
    page = folder / "regret.md"
    before = page.read_text() if page.exists() else ""
    pace = _pace(groups.get(("linear", 1), {})) or _line_with(before, _PACE)
    sections = read_sections(before)
    for (problem, many), methods in groups.items():
        title, section = _section(problem, many, methods)
        sections[title] = _merged(sections.get(title), section)
    picture = "![Mean regret by trial](figures/policies.png)\n"
    parts = [_HEAD, picture, f"{pace}\n", f"{_over_families(sections)}\n"]
    for title, section in sections.items():
        lines = [section.columns, ["---"] * len(section.columns), *section.rows.values()]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"\n{title}\n\n{table.replace(' --- ', '---')}")
    page.write_text("\n".join(parts) + "\n")
    _plot({title: own for title, own in sections.items() if f", {_outcomes(1)}" in title}, folder)


def read_sections(page: str) -> dict[str, Section]:
    """The tables of a page by their titles."""
    sections: dict[str, Section] = {}
    title = ""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("## "):
            title = line
        elif line.startswith("| ") and title not in sections:
            sections[title] = Section(cells, {})
        elif line.startswith("| "):
            sections[title].rows[cells[0]] = cells
    return sections


def _merged(before: Section | None, now: Section) -> Section:
    """Rows of both, in the order of methods; of two of a method the one with more studies.

    A method with fewer trials than others leaves the later columns empty.
    """
    if before is None:
        return now
    fuller = {
        name: cells
        for name, cells in now.rows.items()
        if name not in before.rows or int(cells[1]) >= int(before.rows[name][1])
    }
    columns = max(before.columns, now.columns, key=len)
    rows = _under(columns, before) | _under(columns, Section(now.columns, fuller))
    return Section(columns, {name: rows[name] for name in _ORDER if name in rows})


def _under(columns: list[str], section: Section) -> dict[str, list[str]]:
    """Its rows under other columns."""
    cells = {
        name: dict(zip(section.columns, row, strict=True)) for name, row in section.rows.items()
    }
    return {name: [own.get(column, "") for column in columns] for name, own in cells.items()}


def _line_with(page: str, start: str) -> str:
    return next((line for line in page.splitlines() if line.startswith(start)), "")


def _outcomes(many: int) -> str:
    return f"{many:,} outcome{'s' if many > 1 else ''} a trial"


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
        f"{_PACE} on a linear system of {_PACED} variables took "
        f"{1e3 * median:.1f} ms, posterior included (median of {len(ours)}; the fastest tenth "
        f"{1e3 * np.quantile(ours, 0.1):.1f} ms). Our PARENT_SCALE takes {beside:.1f} times as "
        f"long, and a trial of the recorded public runs on as many variables ({public:g} s of one "
        f"core, another machine) {recorded:,.0f} times."
    )


def _over_families(sections: Mapping[str, Section]) -> str:
    """The mean regret of each method over linear and nonlinear families, all alike."""
    tables = [sections.get(f"## {family}, {_outcomes(1)}") for family in _FAMILIES]
    found = []
    for method in _ORDER:
        cells = [
            dict(zip(table.columns, table.rows[method], strict=True)).get(
                f"T={_COMPARED_AFTER}", ""
            )
            for table in tables
            if table is not None and method in table.rows
        ]
        means = [_MEAN.findall(cell) for cell in cells]
        if len(means) < len(_FAMILIES) or not all(means):
            continue
        mean, low, high = np.array([own[0] for own in means]).astype(np.float64).T
        # Families are drawn apart, so that the squares of what they may be off by add up.
        off = np.sqrt(((high - low) ** 2).sum()) / 2 / len(_FAMILIES)
        found.append(f"{method} {mean.mean():.3f} ± {off:.3f}")
    if not found:
        return ""
    return (
        f"Mean regret after {_COMPARED_AFTER} trials over the families {', '.join(_FAMILIES)}, "
        f"each counted alike: {'; '.join(found)}."
    )


def _section(problem: str, many: int, methods: Group) -> tuple[str, Section]:
    """Title and table of a problem."""
    trials = max(len(s["outcomes"]) for studies in methods.values() for s in studies)
    at = [k for k in CHECKPOINTS if k <= trials]
    optimum = next(s["optimum"] for studies in methods.values() for s in studies)
    known = f", optimum {optimum:.4g}" if problem in PROBLEMS else ""
    columns = ["method", "n", *(f"T={k}" for k in at), *_AFTER]
    rows = {}
    for method in (name for name in _ORDER if name in methods):
        studies = methods[method]
        cells = [_reached(studies, i, bool(known)) for i in range(len(at))]
        last = [s["values"][-1] for s in studies]
        rows[method] = [
            method,
            str(len(studies)),
            *cells,
            f"{np.mean(last):.4g}",
            _mean([float(np.mean(s["outcomes"])) for s in studies]),
            f"{np.mean([np.mean(s['noisy']) for s in studies]):.4g}",
            _mean([s["gap"] for s in studies]),
            f"{1e3 * np.median([t for s in studies for t in s['seconds'][1:]]):.0f}",
            " ".join(sorted({s.get("commit", "unknown") for s in studies})),
        ]
    return f"## {problem}, {_outcomes(many)}{known}", Section(columns, rows)


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


def _plot(sections: Mapping[str, Section], folder: Path) -> None:
    shown = {title: own for title, own in sections.items() if len(own.rows) > 1}
    width = 4
    height = -(-len(shown) // width)
    figure = Figure(figsize=(3.2 * width, 2.6 * max(height, 1)))
    for place, (title, section) in enumerate(shown.items()):
        axes = figure.add_subplot(height, width, place + 1)
        at = {i: int(name[2:]) for i, name in enumerate(section.columns) if name.startswith("T=")}
        # Ours last, so that nothing hides it.
        for number in reversed(range(len(_ORDER))):
            cells = section.rows.get(_ORDER[number])
            if cells is None:
                continue
            there = [i for i in at if cells[i]]
            trials = [at[i] for i in there]
            regret = np.array([_MEAN.findall(cells[i])[0] for i in there]).astype(np.float64)
            mean, low, high = regret.clip(_LEAST).T
            width_of = 2.0 if number == 0 else 1.0
            label = _ORDER[number]
            axes.plot(trials, mean, "o-", color=f"C{number}", label=label, ms=3, lw=width_of)
            axes.fill_between(trials, low, high, color=f"C{number}", alpha=0.1, lw=0)
        axes.set_yscale("log")
        axes.set_xscale("log")
        # 15 and 20 would touch.
        axes.set_xticks(CHECKPOINTS, ["" if k == 15 else str(k) for k in CHECKPOINTS])
        axes.minorticks_off()
        axes.set_title(title.removeprefix("## ").split(",")[0], fontsize=9)
        axes.set_ylim(0.8 * _LEAST, 3)
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
    figure.supylabel(
        f"mean normalised regret with 95 % intervals (below {_LEAST:g} drawn there)", fontsize=9
    )
    figure.tight_layout(rect=(0.02, 0.6 * inch, 1, 1))
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "figures" / "policies.png", dpi=110)
