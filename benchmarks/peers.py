"""Nonlinear systems: the shipped networks beside PARENT_SCALE, GIES, PC and DirectLiNGAM.

``python -m benchmarks.peers [--systems N] [--out FILE]`` prints the tables and writes them; with
``--axial MODEL``, the header of a model on raw rows that is not shipped, it sets that one beside
`mixed-v1` on the same systems, in a section of the page, and makes nothing else anew.
Average precision of the parents of one target a system, pooled over candidate edges. PC and LiNGAM
cannot use experiments and get the observational rows alone. Seeds are those of no training step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.intervals import ends_told, precision_interval
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.expert.parent_posterior import parent_scale_surrogate
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.network import NetworkSurrogate, load_pretrained
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.router import surrogate_named
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.cases import Case, held_out_cases

MECHANISMS = ("polynomial", "sigmoid", "neural")
SIZES = (5, 8, 12)
N_OBS, N_TRIED = 200, 3
SEED = 90_210
AXIAL_HEAD = "## The axial model on raw rows\n\n"

Scores = Callable[[Case], np.ndarray]


def rows(systems: int = 10) -> list[dict[str, object]]:
    """A short form for `python -m benchmarks`: five variables, few systems."""
    result: list[dict[str, object]] = []
    for mechanism in MECHANISMS:
        found = cell(mechanism, 5, systems)
        best = max((name for name in found if name not in OURS), key=lambda name: found[name][0])
        ours = max(OURS, key=lambda name: found[name][0])
        result.append(
            {
                "what": f"average precision, {mechanism}, d=5, n={N_OBS}, m={N_TRIED}",
                "measured": f"{ours} {ends_told(found[ours])}",
                "bar": "ahead",
                "note": f"best other: {best} {ends_told(found[best])}; {systems} systems",
            }
        )
    return result


def cell(
    mechanism: str, n_vars: int, systems: int, methods: Mapping[str, Scores] | None = None
) -> dict[str, tuple[float, float, float]]:
    """Average precision of every method with the ends of a 95 % interval (bootstrap)."""
    cases = cases_of(mechanism, n_vars, systems)
    truth = [np.array([name in case.parents for name in _others(case)]) for case in cases]
    found = {}
    for name, method in (methods or METHODS).items():
        scores = [method(case) for case in cases]
        found[name] = precision_interval(scores, truth)
    return found


def cases_of(mechanism: str, n_vars: int, systems: int) -> list[Case]:
    """The systems of a cell with their data."""
    design = DesignDistribution(
        n_obs=(N_OBS, N_OBS),
        rows_per_variable=(N_TRIED, N_TRIED),
        max_experiments=(n_vars - 1) * N_TRIED,
        spread=(2.0, 2.0),
        observational=0.0,
        partial=0.0,
        joint=0.0,
    )
    system = SystemDistribution(n_vars=(n_vars, n_vars), mechanisms=(mechanism,))
    return held_out_cases(systems, SEED, TrainingDistribution((system,), design))


def of_surrogate(surrogate: Surrogate) -> Scores:
    def scores(case: Case) -> np.ndarray:
        posterior = surrogate(case.buffer, case.target)
        return np.array([posterior.marginals[name] for name in _others(case)])

    return scores


def gies_scores(case: Case) -> np.ndarray:
    """Edges of the estimated essential graph into the target: 1, half where undirected."""
    import gies
    from gies.scores import GaussIntL0Pen

    values, mask = _standardised(case.buffer)
    kinds, place = np.unique(mask, axis=0, return_inverse=True)
    data = [values[place.ravel() == i] for i in range(len(kinds))]
    targets = [np.flatnonzero(kind).tolist() for kind in kinds]
    graph, _ = gies.fit(GaussIntL0Pen(data, targets))
    return _into_target(np.asarray(graph) != 0, case)


def pc_scores(case: Case) -> np.ndarray:
    """The same of PC's graph on the observational rows (Fisher's z, 0.05)."""
    from causallearn.search.ConstraintBased.PC import pc

    values, mask = _standardised(case.buffer)
    found = pc(values[~mask.any(axis=1)], 0.05, "fisherz", show_progress=False).G.graph
    # graph[i, j] = -1 and graph[j, i] = 1: i -> j; both -1: undirected.
    leaves = (found == -1) & ((found.T == 1) | (found.T == -1))
    return _into_target(leaves, case)


def lingam_scores(case: Case) -> np.ndarray:
    """Sizes of DirectLiNGAM's weights into the target, on the observational rows."""
    import lingam

    values, mask = _standardised(case.buffer)
    model = lingam.DirectLiNGAM()
    model.fit(values[~mask.any(axis=1)])
    names = case.buffer.get_variable_names()
    weights = np.abs(model.adjacency_matrix_[names.index(case.target)])
    return np.delete(weights, names.index(case.target))


OURS = ("mixed-v1", "linear-gaussian-v1")
METHODS: dict[str, Scores] = {
    **{name: of_surrogate(surrogate_named(name)) for name in OURS},
    "exact (linear)": of_surrogate(exact_posterior),
    "PARENT_SCALE": of_surrogate(parent_scale_surrogate()),
    "GIES": gies_scores,
    "PC": pc_scores,
    "LiNGAM": lingam_scores,
}

SLOW_SYSTEMS = 10
SLOW: dict[str, Scores] = {
    "mixed-v1": METHODS["mixed-v1"],
    "PARENT_SCALE, GP": of_surrogate(parent_scale_surrogate(mechanism="nonlinear")),
}


def _into_target(directed: np.ndarray, case: Case) -> np.ndarray:
    """Scores of a graph with both arrows where it is undirected."""
    names = case.buffer.get_variable_names()
    t = names.index(case.target)
    into, out = directed[:, t], directed[t]
    return np.delete(np.where(into, np.where(out, 0.5, 1.0), 0.0), t)


def _standardised(buffer: ExperienceBuffer) -> tuple[np.ndarray, np.ndarray]:
    values, mask = buffer.rows()
    observed = values[~mask.any(axis=1)]
    return (values - observed.mean(axis=0)) / observed.std(axis=0), mask


def _others(case: Case) -> list[str]:
    return [name for name in case.buffer.get_variable_names() if name != case.target]


def _page(lines: list[str], slow: list[str], systems: int) -> str:
    return f"""# Nonlinear systems, beside other methods

Made by `python -m benchmarks.peers --systems {systems}`. Average precision of the parents of one
target a system that was never set, pooled over candidate edges, with 95 % bootstrap intervals;
{systems} fresh systems a cell, d variables, {N_OBS} observations, {N_TRIED} experiments on each
other variable, Gaussian noise. PC and DirectLiNGAM cannot use the experiments and get the
observational rows alone. GIES and PC give graphs: an undirected edge counts half.

{chr(10).join(lines)}

PARENT_SCALE with its Gaussian process in place of linear regression takes seconds a system, and was
run on {SLOW_SYSTEMS} systems of five variables:

{chr(10).join(slow)}
"""


def _axial_section(header: Path, systems: int) -> str:
    axial = load_pretrained(header)
    surrogates = {"mixed-v1": surrogate_named("mixed-v1"), axial.name: NetworkSurrogate(axial)}
    methods = {name: of_surrogate(surrogate) for name, surrogate in surrogates.items()}
    lines = ["| mechanism | d | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for mechanism in MECHANISMS:
        for n_vars in SIZES:
            found = cell(mechanism, n_vars, systems, methods)
            lines.append(
                f"| {mechanism} | {n_vars} | {' | '.join(map(ends_told, found.values()))} |"
            )
            print(lines[-1], flush=True)
    times = [
        f"{_milliseconds(surrogate):.1f} ms by {name}" for name, surrogate in surrogates.items()
    ]
    loop, seconds = axial.card["loop"], axial.card["training_seconds"]
    path = f"runs/{axial.name}/{header.name}"
    return f"""Made by `python -m benchmarks.peers --systems {systems} --axial {path}` on the
systems of the first table. {axial.name} was trained on the same mixture of systems for
{seconds / 60:.0f} minutes: {loop["steps"]} steps of {loop["batch_size"]} systems. One posterior at
{SIZES[1]} variables takes {" and ".join(times)}.

{chr(10).join(lines)}
"""


def _milliseconds(surrogate: Surrogate) -> float:
    """Median time of one posterior, warm."""
    case = cases_of(MECHANISMS[0], SIZES[1], 1)[0]
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        surrogate(case.buffer, case.target)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=50, help="systems a cell")
    parser.add_argument("--out", type=Path, default=Path("docs/peers.md"))
    parser.add_argument("--axial", type=Path, help="header of a trained axial model")
    options = parser.parse_args()
    if options.axial is not None:
        before, _, after = options.out.read_text(encoding="utf-8").partition(AXIAL_HEAD)
        section = _axial_section(options.axial, options.systems)
        page = f"{before.rstrip()}\n\n{AXIAL_HEAD}{section}\n{_further(after)}".rstrip()
        options.out.write_text(f"{page}\n", encoding="utf-8")
        print(section)
        return
    lines = [
        "| mechanism | d | " + " | ".join(METHODS) + " |",
        "|---|---|" + "---|" * len(METHODS),
    ]
    for mechanism in MECHANISMS:
        for n_vars in SIZES:
            found = cell(mechanism, n_vars, options.systems)
            columns = [ends_told(found[name]) for name in METHODS]
            lines.append(f"| {mechanism} | {n_vars} | " + " | ".join(columns) + " |")
            print(lines[-1], flush=True)
    slow = ["| mechanism | d | " + " | ".join(SLOW) + " |", "|---|---|" + "---|" * len(SLOW)]
    for mechanism in MECHANISMS:
        found = cell(mechanism, SIZES[0], SLOW_SYSTEMS, SLOW)
        slow.append(f"| {mechanism} | {SIZES[0]} | {' | '.join(map(ends_told, found.values()))} |")
        print(slow[-1], flush=True)
    kept = _further(options.out.read_text(encoding="utf-8")) if options.out.exists() else ""
    page = f"{_page(lines, slow, options.systems).rstrip()}\n\n{kept}".rstrip()
    options.out.write_text(f"{page}\n", encoding="utf-8")


def _further(text: str) -> str:
    """The sections from the first second-level heading on, which this does not make anew."""
    _, heading, rest = text.partition("\n## ")
    return f"## {rest}" if heading else ""


if __name__ == "__main__":
    main()
