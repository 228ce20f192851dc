"""Does it read variances? The linear network beside the baselines that do nothing else.

``python -m benchmarks.sortability [--systems N] [--out FILE]`` prints a table and writes it. Linear
systems with observational rows alone: as drawn, the same in other units, and standardised as they
are generated (iSCM; Ormaniec et al. 2025). Var- and R²-sortability say how far an order by
variances, or by how much the others explain of a variable, is the causal one: 1/2 says nothing
(Reisach et al. 2021, 2023). SortnRegress regresses every variable on those before it in that order.
Average precision is that of all edges of a cell. Seeds are those of no training step.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import jax
import numpy as np

from benchmarks.intervals import ends_told, precision_interval
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.surrogate.network import DEFAULT_MODEL
from causal_bayes_opt.surrogate.protocol import Surrogate, all_posteriors
from causal_bayes_opt.surrogate.router import surrogate_named
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution, simulate

SIZES = (5, 8, 12)
N_OBS = 500
SEED = 70_707
SCALINGS = {"as drawn": "none", "in other units": "after", "iSCM": "iscm"}
OURS = {DEFAULT_MODEL: DEFAULT_MODEL, "exact": "exact"}
BASELINES = ("Var-SortnRegress", "R²-SortnRegress", "Random-SortnRegress")


def data_of(scaling: str, n_vars: int, systems: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``[n_systems, N_OBS, n_vars]`` and graphs, the same for all scalings; [i, j]: i -> j."""
    distribution = SystemDistribution(n_vars=(n_vars, n_vars), scaling=SCALINGS[scaling])
    design = DesignDistribution(n_obs=(N_OBS, N_OBS), max_experiments=1, observational=1.0)
    key = jax.random.key(SEED + n_vars)
    batch = simulate(key, systems, TrainingDistribution((distribution,), design))
    graphs = np.swapaxes(np.asarray(batch.parents), 1, 2)
    return np.asarray(batch.rows.obs_data, dtype=np.float64), graphs


def edges_by(surrogate: Surrogate, rows: np.ndarray) -> np.ndarray:
    """Marginals of all edges ``[n_vars, n_vars]``, [i, j]: of i -> j."""
    posteriors = all_posteriors(surrogate, ExperienceBuffer.from_arrays(rows))
    return np.stack([posteriors[name].marginal_vector() for name in posteriors], axis=1)


def edges_by_order(name: str, rows: np.ndarray, number: int) -> np.ndarray:
    """Sizes of the weights that a baseline finds, on standardised columns in its order."""
    from CausalDisco.analytics import r2coeff
    from CausalDisco.baselines import sort_regress

    orders = {
        "Var-SortnRegress": rows.var(axis=0),
        "R²-SortnRegress": r2coeff(rows.T),
        "Random-SortnRegress": np.random.default_rng(number).permutation(rows.shape[1]),
    }
    unit: np.ndarray = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    with warnings.catch_warnings():
        # Its regression warns where a path of the lasso is cut short.
        warnings.simplefilter("ignore")
        weights = np.asarray(sort_regress(unit, orders[name]), dtype=np.float64)
    return np.abs(weights)


def cell(scaling: str, n_vars: int, systems: int) -> list[str]:
    """A line of the table: both sortabilities, and the average precision of every method."""
    from CausalDisco.analytics import r2_sortability, var_sortability

    rows, graphs = data_of(scaling, n_vars, systems)
    with_edges = [i for i in range(systems) if graphs[i].any()]
    sortable = [
        np.mean([measure(rows[i], graphs[i].astype(float)) for i in with_edges])
        for measure in (var_sortability, r2_sortability)
    ]
    off = ~np.eye(n_vars, dtype=bool)
    truth = [graph[off] for graph in graphs]
    found = [f"{value:.2f}" for value in sortable]
    for name in OURS.values():
        surrogate = surrogate_named(name)
        found.append(
            ends_told(precision_interval([edges_by(surrogate, x)[off] for x in rows], truth))
        )
    for name in BASELINES:
        scores = [edges_by_order(name, x, i)[off] for i, x in enumerate(rows)]
        found.append(ends_told(precision_interval(scores, truth)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=200, help="systems a cell")
    parser.add_argument("--out", type=Path, default=Path("docs/sortability.md"))
    options = parser.parse_args()
    named = " | ".join(["data", "d", "Var-sortability", "R²-sortability", *OURS, *BASELINES])
    lines = [f"| {named} |", "|" + "---|" * (4 + len(OURS) + len(BASELINES))]
    for scaling in SCALINGS:
        for n_vars in SIZES:
            found = cell(scaling, n_vars, options.systems)
            lines.append(f"| {scaling} | {n_vars} | {' | '.join(found)} |")
            print(lines[-1], flush=True)
    options.out.write_text(_page(lines, options.systems))


def _page(lines: list[str], systems: int) -> str:
    return f"""# Does it read variances?

Made by `python -m benchmarks.sortability --systems {systems}`: {systems} linear systems a line,
weights ±U(.5, 2), {N_OBS} observational rows and no experiments; average precision of all edges
with 95 % bootstrap intervals. Var- and R²-sortability say how far an order by variances, or by
how much the other variables explain of each, is the causal one: 0.5 says nothing (Reisach et al.
2021, 2023). SortnRegress (package CausalDisco) regresses every variable on those before it in that
order.

{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
