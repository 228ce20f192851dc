"""Which method is the better teacher: quality of posteriors on fresh systems.

``python -m benchmarks.teachers [--systems N]`` prints the table. Linear Gaussian systems of 3 to 8
variables, standardised, 100 observations and 2, 5 or 10 experiments on each variable but the
target, which is drawn at random.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from rich.progress import track

from benchmarks.intervals import ends_told, mean_told, precision_interval
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.random_systems import SystemDistribution
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.expert.parent_posterior import parent_scale_surrogate
from causal_bayes_opt.surrogate.exact import exact_posterior
from causal_bayes_opt.surrogate.metrics import set_loss
from causal_bayes_opt.surrogate.network import NetworkSurrogate
from causal_bayes_opt.surrogate.posterior import ParentSet, ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import Surrogate
from causal_bayes_opt.surrogate.training import DesignDistribution, TrainingDistribution
from causal_bayes_opt.training.cases import Case, held_out_cases

SEED = 11
TRIED = (2, 5, 10)
NETWORKS = "PARENT_SCALE as public (networks)"
N_WITH_NETWORKS = 10  # its votes train some hundred networks a system


def surrogates() -> dict[str, Surrogate]:
    published = vars(ParentScaleOptions.published())
    closed = vars(ParentScaleOptions.published(regressor="least_squares"))
    return {
        "exact inference": exact_posterior,
        NETWORKS: parent_scale_surrogate(**published),
        "PARENT_SCALE as public (least squares)": parent_scale_surrogate(**closed),
        "PARENT_SCALE corrected": parent_scale_surrogate(),
        "shipped network": NetworkSurrogate(),
    }


def rows(systems: int = 200) -> list[dict[str, object]]:
    result: list[dict[str, object]] = []
    for tried in TRIED:
        whole = cases_of(systems, tried)
        for name, surrogate in surrogates().items():
            cases = whole[:N_WITH_NETWORKS] if name == NETWORKS else whole
            label = f"{name}, {tried} experiments a variable, {len(cases)} systems"
            posteriors = [
                surrogate(case.buffer, case.target) for case in track(cases, label, transient=True)
            ]
            result.append({"what": label, "measured": describe(posteriors, cases)})
    return result


def cases_of(systems: int, tried: int) -> list[Case]:
    """Fresh systems, standardised by their observational rows."""
    design = DesignDistribution(
        n_obs=(100, 100),
        rows_per_variable=(tried, tried),
        max_experiments=7 * tried,
        spread=(2.0, 2.0),
        observational=0.0,
        partial=0.0,
        joint=0.0,
    )
    distribution = TrainingDistribution((SystemDistribution(noise_scale=(0.5, 2.0)),), design)
    return [
        Case(_standardised(case.buffer), case.target, case.parents)
        for case in held_out_cases(systems, SEED, distribution)
    ]


def describe(posteriors: Sequence[ParentSetPosterior], cases: Sequence[Case]) -> str:
    """Mean and half a 95 % interval of each measure over systems; average precision pooled."""
    pairs = list(zip(posteriors, (case.parents for case in cases), strict=True))
    weighted = [sum(p * _f1(s, t) for s, p in q.posterior_probs.items()) for q, t in pairs]
    best = [_f1(q.top_sets(1)[0][0], t) for q, t in pairs]
    losses = [set_loss(q, t) for q, t in pairs]
    scores = [np.array([q.marginals[name] for name in q.candidates]) for q, _ in pairs]
    edges = [np.array([name in t for name in q.candidates]) for q, t in pairs]
    return (
        f"posterior-weighted F1 {mean_told(weighted)}, F1 of the best set {mean_told(best)}, "
        f"AP {ends_told(precision_interval(scores, edges))}, nats {mean_told(losses)}"
    )


def _standardised(buffer: ExperienceBuffer) -> ExperienceBuffer:
    values, mask = buffer.rows()
    scaled = Scaling.of(buffer).apply(values)
    return ExperienceBuffer.from_arrays(scaled, mask, buffer.get_variable_names())


def _f1(found: ParentSet, truth: ParentSet) -> float:
    """F1 of one set; 1 where both are empty."""
    total = len(found) + len(truth)
    return 2 * len(found & truth) / total if total else 1.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=200)
    for row in rows(parser.parse_args().systems):
        print(f"{row['what']}: {row['measured']}", flush=True)
