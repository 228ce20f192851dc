"""Accuracy of the shipped network against exact inference, cell by cell.

``python -m benchmarks.accuracy [--systems N] [--model NAME] [--out FILE] [--card]`` prints the
table and writes it as Markdown; with ``--card`` also into the shipped model's card, by which the
router chooses. Cells are pairs of a source of systems and a design; one target a system,
never set. The seeds are those of no training step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.intervals import half_width
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.surrogate.bge import Statistics
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.exact import set_posteriors
from causal_bayes_opt.surrogate.joint import Network, joint_of_many
from causal_bayes_opt.surrogate.metrics import average_precision, calibration_error, f1_score
from causal_bayes_opt.surrogate.network import TrainedModel, load_pretrained, save_model
from causal_bayes_opt.surrogate.posterior import all_subsets
from causal_bayes_opt.surrogate.training import (
    DesignDistribution,
    SimulatedBatch,
    TrainingDistribution,
    simulate,
)

RESAMPLES = 200
CHUNK = 200  # a multiple of those that are asked at once
SHIPPED = Path("src/causal_bayes_opt/surrogate/pretrained")
SOURCES = {
    "BGe prior": {"parameters": "bge"},
    "weights ±U(.5, 2), noise U(.2, 2)": {},
    "iSCM, weights ±U(.25, 2)": {"weights": (0.25, 2.0), "scaling": "iscm"},
}
SIZES, OBSERVED, TRIED = (3, 5, 8), (20, 100, 500), (0, 3, 10)


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    source: str
    n_vars: int
    n_obs: int
    n_tried: int

    def distribution(self) -> TrainingDistribution:
        d, options = self.n_vars, SOURCES[self.source]
        systems = SystemDistribution(n_vars=(d, d), **options)  # type: ignore[arg-type]
        design = DesignDistribution(
            n_obs=(self.n_obs, self.n_obs),
            rows_per_variable=(max(self.n_tried, 1),) * 2,
            max_experiments=max((d - 1) * self.n_tried, 1),
            spread=(2.0, 2.0),
            observational=0.0 if self.n_tried else 1.0,
            partial=0.0,
            joint=0.0,
        )
        return TrainingDistribution((systems,), design)


@dataclass(frozen=True)
class Answers:
    """What a method said: losses ``[n]``; marginals and likeliest sets ``[n, d - 1]``."""

    losses: np.ndarray
    marginals: np.ndarray
    best: np.ndarray

    def scores(self, truth: np.ndarray, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """F1 of the best sets and average precision, of some of the systems."""
        edges = truth[chosen].ravel()
        return np.array(
            [
                f1_score(self.best[chosen].ravel(), edges),
                average_precision(self.marginals[chosen].ravel(), edges),
            ]
        )


def rows(systems: int = 200, model: str | None = None) -> list[dict[str, object]]:
    """A short form for `python -m benchmarks`: two cells a source."""
    trained = load_pretrained() if model is None else load_pretrained(model)
    result: list[dict[str, object]] = []
    for source in SOURCES:
        for cell in (Cell(source, 5, 100, 0), Cell(source, 8, 100, 3)):
            network, exact, _, _ = answer(cell, trained, systems)
            gap = network.losses - exact.losses
            result.append(
                {
                    "what": f"network minus exact, {cell.source}, d={cell.n_vars}, n={cell.n_obs}, "
                    f"m={cell.n_tried}",
                    "measured": f"{gap.mean():+.3f} ± {half_width(gap):.3f} nats",
                    "bar": "+0.05" if source == "BGe prior" else "0",
                    "note": f"{systems} systems; exact {exact.losses.mean():.3f}",
                }
            )
    return result


def answer(
    cell: Cell, trained: TrainedModel, systems: int
) -> tuple[Answers, Answers, Answers, np.ndarray]:
    """Answers by network, by exact inference on standardised and on raw rows, and the truth."""
    parts = []
    for number, size in enumerate(_chunks(systems)):
        key = jax.random.fold_in(jax.random.key(2**31 - 7), number)
        batch = simulate(key, size, cell.distribution())
        parts.append(_answer(batch, trained))
    methods = [
        Answers(
            *(np.concatenate(arrays) for arrays in zip(*(part[i] for part in parts), strict=True))
        )
        for i in range(3)
    ]
    return methods[0], methods[1], methods[2], np.concatenate([part[3] for part in parts])


def _answer(
    batch: SimulatedBatch, trained: TrainedModel
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
    joint = _asked(trained.model)(trained.params, _padded(batch.rows))
    found = jax.tree.map(np.asarray, joint)
    rows_, parents = jax.tree.map(np.asarray, batch.rows), np.asarray(batch.parents)
    standardised, raw, targets = [], [], []
    for i in range(len(parents)):
        observed = rows_.obs_data[i][rows_.obs_rows[i]].astype(np.float64)
        tried = rows_.int_data[i][rows_.int_rows[i]].astype(np.float64)
        values = np.concatenate([observed, tried[..., 0]])
        mask = np.concatenate([np.zeros(observed.shape, bool), tried[..., 1] > 0])
        raw.append(Statistics.of(values, mask))
        scaled = (values - observed.mean(axis=0)) / observed.std(axis=0)
        standardised.append(Statistics.of(scaled, mask))
        free = np.flatnonzero(~mask.any(axis=0))
        targets.append(int(free[i % len(free)]))
    exact = [_exact(Statistics.stack(part), targets, parents) for part in (standardised, raw)]
    own = np.arange(len(parents)), np.array(targets)
    truth = np.stack([np.delete(parents[i, t], t) for i, t in enumerate(targets)])
    marginals = np.stack([np.delete(found.marginals[i, t], t) for i, t in enumerate(targets)])
    slots, log_probs = found.candidates[own], found.log_probs[own].astype(np.float64)
    member = np.stack([parents[i, t][slots[i]] for i, t in enumerate(targets)])
    row = (member << np.arange(member.shape[1])).sum(axis=1)
    losses = -log_probs[np.arange(len(row)), row]
    likeliest = all_subsets(slots.shape[1])[log_probs.argmax(axis=1)]
    best = np.zeros((len(targets), parents.shape[1]), dtype=bool)
    np.put_along_axis(best, slots, likeliest, axis=1)
    best = np.stack([np.delete(best[i], t) for i, t in enumerate(targets)])
    network = losses, marginals, best
    return network, exact[0], exact[1], truth


@lru_cache(maxsize=2)
def _asked(model: Network) -> Any:
    return jax.jit(partial(joint_of_many, model))


def _padded(rows_: Rows) -> Rows:
    """Rows padded to those of the largest cell, so that a number of variables compiles once."""
    n_vars = rows_.present.shape[1]
    spare = max(OBSERVED) - rows_.obs_rows.shape[1]
    more = max(TRIED) * (n_vars - 1) - rows_.int_rows.shape[1]
    return Rows(
        jnp.pad(rows_.obs_data, ((0, 0), (0, spare), (0, 0))),
        jnp.pad(rows_.int_data, ((0, 0), (0, more), (0, 0), (0, 0))),
        jnp.pad(rows_.obs_rows, ((0, 0), (0, spare))),
        jnp.pad(rows_.int_rows, ((0, 0), (0, more))),
        rows_.present,
    )


def _exact(
    statistics: Statistics, targets: list[int], parents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = statistics.count.shape[-1]
    losses, marginals, best = [], [], []
    posteriors = set_posteriors(statistics, range(d))
    for i, t in enumerate(targets):
        members, log_probs = posteriors[t].members, posteriors[t].log_probs[i]
        row = int((members == parents[i, t]).all(axis=1).argmax())
        losses.append(-log_probs[row])
        marginals.append(np.delete(np.exp(log_probs) @ members, t))
        best.append(np.delete(members[log_probs.argmax()], t))
    return np.array(losses), np.array(marginals), np.array(best)


def _chunks(systems: int) -> Iterator[int]:
    for start in range(0, systems, CHUNK):
        yield min(CHUNK, systems - start)


def _spread(network: Answers, exact: Answers, truth: np.ndarray) -> np.ndarray:
    """Half the widths of 95 % intervals of the differences in `scores`, by bootstrap of systems."""
    rng, n = np.random.default_rng(0), len(truth)
    found = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(n, size=n)
        found.append(network.scores(truth, chosen) - exact.scores(truth, chosen))
    return np.asarray(1.96 * np.std(found, axis=0))


HEAD = (
    "| systems | d | n | m | network | exact | network - exact | exact, raw rows | F1 network | "
    "network - exact | AP network | network - exact |\n" + "|---" * 12 + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=1000, help="systems a cell")
    parser.add_argument("--model", default=None, help="name or path; the default model otherwise")
    parser.add_argument("--out", type=Path, default=Path("docs/accuracy.md"))
    parser.add_argument("--card", action="store_true", help="put the gaps into the model's card")
    options = parser.parse_args()
    trained = load_pretrained() if options.model is None else load_pretrained(options.model)
    lines, pooled, gaps = [HEAD], {}, []
    for source in SOURCES:
        stated, edges = [], []
        for d in SIZES:
            for n in OBSERVED:
                for m in TRIED:
                    cell = Cell(source, d, n, m)
                    network, exact, raw, truth = answer(cell, trained, options.systems)
                    gap = network.losses - exact.losses
                    scores = network.scores(truth)
                    ahead = scores - exact.scores(truth)
                    wide = _spread(network, exact, truth)
                    lines.append(
                        f"| {source} | {d} | {n} | {m} | {network.losses.mean():.3f} | "
                        f"{exact.losses.mean():.3f} | {gap.mean():+.3f} ± {half_width(gap):.3f} | "
                        f"{raw.losses.mean():.3f} | {scores[0]:.3f} | {ahead[0]:+.3f} ± "
                        f"{wide[0]:.3f} | {scores[1]:.3f} | {ahead[1]:+.3f} ± {wide[1]:.3f} |"
                    )
                    print(lines[-1], flush=True)
                    place = {"source": source, "d": d, "n": n, "m": m}
                    gaps.append({**place, "gap": round(float(gap.mean()), 4)})
                    stated.append(network.marginals.ravel())
                    edges.append(truth.ravel())
        pooled[source] = calibration_error(np.concatenate(stated), np.concatenate(edges))
    text = _page(trained, options.systems, lines, pooled)
    options.out.write_text(text, encoding="utf-8")
    if options.card:
        save_model(
            replace(trained, card={**trained.card, "accuracy": gaps}), SHIPPED / trained.name
        )
    print(text.rsplit("\n\n", 1)[-1])


def _page(trained: TrainedModel, systems: int, lines: list[str], pooled: dict[str, float]) -> str:
    calibration = "\n".join(f"- {source}: {error:.4f}" for source, error in pooled.items())
    return f"""# Accuracy of {trained.name}

Made by `make bench-accuracy`. Negative log-probability of the true parent set in nats, mean over
{systems} fresh systems a cell, one target each that was never set; d variables, n observations, m
experiments on each other variable, over a range two observational deviations to either side of its
centre. Exact inference (BGe) sees the same standardised rows; on raw rows it also sees the scales,
which is the bound for the BGe prior. Intervals are 95 %. F1 is of the likeliest sets, AP the
average precision of the marginals, both pooled over candidate edges.

{chr(10).join(lines)}

Calibration error of the network (debiased, L1, 10 bins of equal mass, all cells of a source):

{calibration}
"""


if __name__ == "__main__":
    main()
