"""What the causes that members get are worth, where mechanisms are not linear.

``python -m benchmarks.causes [--systems N] [--many N]``. On random systems of four families of
mechanisms, each with a target that has a cause, 100 rows and two experiments on every other
variable, of one outcome or of many, prints a
Markdown table of nats on the target's true set, by the posterior and as members get their causes
(`acquisition.causes`), and of what members foretell of interventions on any number of variables,
with causes by the posterior, as they get them, and with the true graph: the error of their mean, in
deviations of the true outcomes, and the log-score of a normal with their mean and deviation.
Differences are paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.intervals import mean_told
from causal_bayes_opt.acquisition.causes import Causes
from causal_bayes_opt.acquisition.graph_samples import listed_sets, sample_graphs
from causal_bayes_opt.acquisition.linearity import is_linear
from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.acquisition.policy import causes_of
from causal_bayes_opt.acquisition.smooth_outcome import N_MEMBERS, SmoothOutcomeModel
from causal_bayes_opt.acquisition.state import N_GRAPHS, AcquisitionState
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.graphs import random_graph
from causal_bayes_opt.core.intervention import Problem, make_intervention
from causal_bayes_opt.core.random_systems import SystemDistribution, random_scm
from causal_bayes_opt.core.sample import sample
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.surrogate.router import auto_posterior

MECHANISMS = ("polynomial", "sigmoid", "neural", "random_feature_gp")
FIRST = 20_000  # number of the first system
COLUMNS = (
    "mechanisms",
    "n",
    "nats on the true set",
    "difference",
    "error of the mean",
    "log-score",
    "both, with the true graph",
)
N_OBS, N_ASKED, N_TRUTH = 100, 40, 2000
LEAST = 1e-6  # a probability below counts as this
WIDER = 0.05  # added to members' deviations: outcomes are known to so much


class Scores(NamedTuple):
    """Of one system."""

    nats: tuple[float, float]  # on the true set: posterior, as members get it
    errors: tuple[float, float, float]  # of means: posterior, as members get it, the truth
    log_scores: tuple[float, float, float]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=60, metavar="N", help="of each family")
    parser.add_argument("--many", type=int, default=1, metavar="N", help="outcomes an experiment")
    options = parser.parse_args(arguments)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    every: list[Scores] = []
    for mechanism in MECHANISMS:
        numbers = range(FIRST, FIRST + options.systems)
        found = [scores_of(mechanism, number, options.many) for number in numbers]
        kept = [own for own in found if own is not None]
        _print_row(mechanism, kept)
        every += kept
    _print_row("all", every)


def _print_row(name: str, kept: list[Scores]) -> None:
    nats, errors, scores = (np.array(column) for column in zip(*kept, strict=True))
    cells = (
        name,
        str(len(kept)),
        f"{nats[:, 0].mean():.3f} → {nats[:, 1].mean():.3f}",
        mean_told(nats[:, 1] - nats[:, 0], "+.3f"),
        f"{errors[:, 0].mean():.3f}, {mean_told(errors[:, 1] - errors[:, 0], '+.3f')}",
        f"{scores[:, 0].mean():.3f}, {mean_told(scores[:, 1] - scores[:, 0], '+.3f')}",
        f"{errors[:, 2].mean():.3f}, {scores[:, 2].mean():.3f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


def scores_of(mechanism: str, number: int, many: int = 1) -> Scores | None:
    """One system's scores; None where the outcome model takes it for linear."""
    rng = np.random.default_rng(number)
    scm, graph = _system(mechanism, number, rng)
    names, target = scm.variables, scm.target
    assert target is not None
    t = names.index(target)
    observed = sample(scm, N_OBS, seed=number)
    others = [name for name in names if name != target]
    ranges = {name: (float(observed[name].min()), float(observed[name].max())) for name in others}
    buffer = ExperienceBuffer.from_dataframe(observed)
    for trial, name in enumerate(others * 2):
        done = make_intervention({name: float(rng.uniform(*ranges[name]))})
        rows = sample(scm, many, intervention=done, seed=number * 100 + trial)
        for _, row in rows.iterrows():
            buffer.add_intervention(done, {other: float(row[other]) for other in names})
    problem = Problem(names, target, ranges=ranges)
    key = jax.random.key(number)
    state = AcquisitionState.start(buffer, problem, auto_posterior, key=key)
    if is_linear(state):
        return None
    posterior = Causes(*listed_sets(state.posteriors, target, names))
    ours = causes_of(state, ranges)
    asked = [_asked(rng, ranges) for _ in range(N_ASKED)]
    truth = [
        float(sample(scm, N_TRUTH, intervention=one, seed=number)[target].mean()) for one in asked
    ]
    told = []
    for graphs in (
        sample_graphs(state.posteriors, names, N_GRAPHS, key, {target: posterior}),
        sample_graphs(state.posteriors, names, N_GRAPHS, key, {target: ours}),
        np.repeat(graph[None], N_MEMBERS, axis=0),
    ):
        model = SmoothOutcomeModel.fit(buffer, graphs, target, key, ranges)
        means = model.means(target, Candidates.of(asked, names))
        told.append(
            _judge(means, (np.array(truth) - model.scaling.means[t]) / model.scaling.stds[t])
        )
    errors, log_scores = zip(*told, strict=True)
    nats = _nats(posterior, graph[:, t]), _nats(ours, graph[:, t])
    return Scores(nats, errors, log_scores)


def _system(mechanism: str, number: int, rng: np.random.Generator) -> tuple[SCM, np.ndarray]:
    """A system of 3 to 8 variables, and its graph; the target is any variable that has a cause."""
    caused = np.zeros(0, dtype=int)
    while not len(caused):
        d = int(rng.integers(3, 9))
        graph = random_graph("erdos_renyi", rng, d)
        caused = np.flatnonzero(graph.any(axis=0))
    scm = random_scm(number, d, SystemDistribution(mechanisms=(mechanism,), scaling="iscm"), graph)
    return scm.with_target(scm.variables[int(rng.choice(caused))]), graph


def _asked(rng: np.random.Generator, ranges: dict[str, tuple[float, float]]) -> dict[str, float]:
    """An intervention on any number of variables; half of the values are ends."""
    names = list(ranges)
    chosen = rng.choice(names, int(rng.integers(1, len(names) + 1)), replace=False)
    place = rng.random(len(chosen))
    place = np.where(rng.random(len(chosen)) < 0.5, np.round(place), place)
    return {
        str(name): ranges[name][0] + float(share) * (ranges[name][1] - ranges[name][0])
        for name, share in zip(chosen, place, strict=True)
    }


def _judge(means: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Error of the mean in deviations of the truth, and mean log-score."""
    mean, deviation = means.mean(axis=1), means.std(axis=1) + WIDER
    off = truth - mean
    score = -0.5 * (off / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    return float(np.sqrt((off**2).mean()) / max(truth.std(), 0.1)), float(score.mean())


def _nats(causes: Causes, parents: np.ndarray) -> float:
    equal = (causes.sets == parents).all(axis=1)
    return float(-np.log(max(causes.probs[equal].sum(), LEAST)))


if __name__ == "__main__":
    main()
