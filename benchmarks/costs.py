"""Time of one posterior against numbers of rows and of variables, for every method.

``python -m benchmarks.costs`` prints the times and draws docs/figures/costs.png.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.table import print_table
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.expert.parent_posterior import parent_scale_surrogate
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.router import surrogate_named

ROWS = (20, 50, 100, 200, 500, 1000, 2000)
VARIABLES = (3, 5, 8, 12, 16, 20, 30, 50, 100)
AT_VARIABLES, AT_ROWS = 8, 120
REPEATS = 9
METHODS: Mapping[str, tuple[Surrogate, int]] = {
    "linear-gaussian-v1": (surrogate_named("linear-gaussian-v1"), 100),
    "mixed-v1": (surrogate_named("mixed-v1"), 100),
    "exact": (exact_posterior, 20),
    "PARENT_SCALE": (parent_scale_surrogate(), 12),
}
"""Each with the most variables that it is asked about."""


def milliseconds(surrogate: Surrogate, n_vars: int, n_rows: int) -> float:
    """Median time of one posterior, warm."""
    frame = sample(random_scm(0, n_vars, SystemDistribution()), n_rows)
    buffer = ExperienceBuffer.from_dataframe(frame)
    surrogate(buffer, "X1")
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        surrogate(buffer, "X1")
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def main() -> None:
    figure = Figure(figsize=(9, 3.6))
    by_rows, by_variables = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    rows: list[dict[str, object]] = []
    for name, (surrogate, most) in METHODS.items():
        sizes = [d for d in VARIABLES if d <= most]
        against_rows = [milliseconds(surrogate, AT_VARIABLES, n) for n in ROWS]
        against_variables = [milliseconds(surrogate, d, AT_ROWS) for d in sizes]
        by_rows.plot(ROWS, against_rows, "o-", ms=3, label=name)
        by_variables.plot(sizes, against_variables, "o-", ms=3, label=name)
        rows += [
            _row(name, f"d={AT_VARIABLES}, n = {_listed(ROWS)}", against_rows),
            _row(name, f"n={AT_ROWS}, d = {_listed(sizes)}", against_variables),
        ]
    by_rows.set_xlabel(f"observations, {AT_VARIABLES} variables")
    by_variables.set_xlabel(f"variables, {AT_ROWS} observations")
    for axes in (by_rows, by_variables):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel("milliseconds a posterior")
    by_rows.legend(fontsize=7)
    figure.tight_layout()
    path = Path("docs/figures/costs.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print_table(rows)


def _row(name: str, at: str, times: list[float]) -> dict[str, object]:
    return {"what": f"{name}: {at}", "measured": f"{_listed(f'{t:.3g}' for t in times)} ms"}


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


if __name__ == "__main__":
    main()
