"""Pieces of a report: figures as PNG, and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

NETWORK, EXACT, CHANCE, TRUTH = "#1f6f8b", "#c8553d", "#8d99ae", "#2b2d42"


def new_figure(
    width: float = 6.4, height: float = 3.6, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, in the house's looks."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save_figures(figures: Mapping[str, Figure], out: Path) -> dict[str, str]:
    """Write each as ``NAME.png``; return them in base 64."""
    embedded = {}
    for name, figure in figures.items():
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=130, bbox_inches="tight")
        (out / f"{name}.png").write_bytes(data.getvalue())
        embedded[name] = base64.b64encode(data.getvalue()).decode()
    return embedded


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of escaped cells."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return (
        f"<table><thead>{line(head, 'th')}</thead><tbody>"
        + "".join(line(row, "td") for row in rows)
        + "</tbody></table>"
    )


def image(data: str, description: str) -> str:
    """An embedded PNG with its caption."""
    said = html.escape(description, quote=True)
    return (
        f"<figure><img alt='{said}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{said}</figcaption></figure>"
    )


def page(title: str, heading: str, sections: Sequence[str]) -> str:
    """The whole page; it needs no network."""
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title>\n{_STYLE}</head><body><main>\n"
        f"<h1>{html.escape(heading)}</h1>\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


_STYLE = """<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #2b2d42; margin: 0; background: #fafafa; }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; }
th, td { border-bottom: 1px solid #ddd; font-size: .875rem; }
figure { margin: 1rem 0; } img { max-width: 100%; }
figcaption { font-size: .875rem; color: #5c6070; }
.verdict { padding: .8rem 1rem; border-left: 6px solid #8d99ae; background: #fff; }
.go { border-color: #2a9d8f; } .no-go { border-color: #c8553d; }
</style>
"""
