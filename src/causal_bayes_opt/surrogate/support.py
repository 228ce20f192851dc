"""Whether data lie inside what a model was trained on, and whether they look linear Gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling, only_set
from causal_bayes_opt.surrogate.linearity import log_odds_of_linear
from causal_bayes_opt.surrogate.training import TrainingDistribution, simulate, varies

# What each number is called in a warning.
SUMMARIES = {
    "n_vars": "variables",
    "n_obs": "observational rows",
    "n_int": "experiments",
    "set_at_once": "variables set at once",
    "only_set": "variables that vary only where they were set",
    "largest": "largest value, in standard deviations",
    "skewness": "largest skewness",
    "tails": "largest excess kurtosis",
    "correlation": "largest correlation",
    "unexplained": "smallest share of a variable that the others do not explain",
    "curvature": "evidence against linear mechanisms, nats",
    "residual_tails": "evidence against Gaussian noise, -log10 p",
}
_AT_MOST = ("skewness", "correlation")  # of which less than in training is not strange
COUNTS = ("n_vars", "n_obs", "n_int", "set_at_once")
_NONE = {"only_set": (0.0, 0.0)}  # what a model saw that says nothing of it
_REFUSED_AT = 3.0  # -log10 p: residuals of one in 1,000 Gaussian systems are taken for others
_FEWEST_ROWS = 20  # below, kurtosis says nothing
_INNER = (0.005, 0.995)
_SYSTEMS = 1000
_FLOOR = 1e-12


class Support(NamedTuple):
    """How far data lie inside a model's training distribution."""

    score: float  # 1 inside, falling to 0 with the distance
    outside: tuple[str, ...]  # one sentence for each number that lies outside
    names: tuple[str, ...]  # of these numbers


def summarise(values: np.ndarray) -> dict[str, float]:
    """Numbers that describe observational rows ``[n_obs, n_vars]``, whatever their units.

    The last few answers are kept: the observed rows of a study are the same at every trial.
    """
    rows = np.ascontiguousarray(values, dtype=np.float64)
    return dict(_summarised(rows.tobytes(), rows.shape))


def forget() -> None:
    """Forget all answers, so that what is timed next is not read from memory."""
    _summarised.cache_clear()


@lru_cache(maxsize=16)
def _summarised(rows: bytes, shape: tuple[int, int]) -> dict[str, float]:
    values = np.frombuffer(rows).reshape(shape)
    n, d = shape
    deviation = values.std(axis=0)
    z = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    correlation = z.T @ z / n
    ridge = correlation + np.eye(d) / (n + 1.0)
    precision = np.linalg.inv(ridge)
    unexplained = 1.0 / np.diag(precision)
    residual = z @ precision / np.diag(precision)
    return {
        "n_vars": float(d),
        "n_obs": float(n),
        "largest": float(np.abs(z).max()),
        "skewness": float(np.abs((z**3).mean(axis=0)).max()),
        "tails": float(_excess(z).max()),
        "correlation": float(np.abs(correlation - np.eye(d)).max()),
        "unexplained": float(unexplained.min()),
        "curvature": max(-log_odds_of_linear(z), 0.0) if d > 1 else 0.0,
        "residual_tails": _not_gaussian(residual),
    }


def measure_support(
    distribution: TrainingDistribution, seed: int = 0, systems: int = _SYSTEMS
) -> dict[str, list[float]]:
    """Lowest and highest of each number over simulated systems, but for 5 in 1,000 at each end."""
    found = []
    chunk = 250
    for number in range(0, systems, chunk):
        key = jax.random.fold_in(jax.random.key(seed), number)
        rows = jax.tree.map(np.asarray, simulate(key, chunk, distribution).rows)
        free = np.asarray(varies(rows))
        for i in range(chunk):
            observed = rows.obs_data[i][rows.obs_rows[i]][:, free[i]]
            found.append(summarise(observed.astype(np.float64)))
    ranges = {
        name: np.quantile([summary[name] for summary in found], _INNER).tolist()
        for name in found[0]
    }
    sizes = [part.n_vars for part in distribution.systems]
    ranges["n_vars"] = [min(low for low, _ in sizes), max(high for _, high in sizes)]
    design = distribution.design
    ranges["n_obs"] = list(design.n_obs)
    ranges["n_int"] = [0, design.max_experiments]
    ranges["set_at_once"] = [0, design.at_once if design.joint else 1]
    ranges["only_set"] = [0, ranges["n_vars"][1] - 1 if design.held else 0]
    return ranges


def support_of(trained_on: Mapping[str, Any], buffer: ExperienceBuffer, model: str) -> Support:
    """Compare a buffer's observational rows and experiments with the ranges in a model's card.

    Evidence grows with the number of rows, and luck falls with it. So of more rows than a model was
    trained on, as many are looked at, evenly chosen; that there are more is told by itself.

    Args:
        trained_on: lowest and highest of the numbers of `SUMMARIES`; those that are missing are
            not looked at, but for variables that vary only where they were set.
        buffer: the data.
        model: what the model is called in a sentence.
    """
    summary = summary_of(buffer, int(trained_on["n_obs"][1]) if "n_obs" in trained_on else None)
    distance, outside, names = 0.0, [], []
    seen = {**_NONE, **trained_on}
    for name, what in SUMMARIES.items():
        if name not in seen:
            continue
        low, high = seen[name]
        low = 0.0 if name in _AT_MOST else low
        beyond = _beyond(summary[name], low, high)
        if beyond > 0:
            distance = max(distance, beyond)
            names.append(name)
            found = f"{summary[name]:.4g}"
            told = f"{found} {what}" if name in COUNTS else f"{what} {found}"
            outside.append(f"{told}: the network {model} was trained on {low:.4g} to {high:.4g}")
    return Support(float(np.exp(-distance)), tuple(outside), tuple(names))


def summary_of(buffer: ExperienceBuffer, most: int | None = None) -> dict[str, float]:
    """The numbers of a buffer: of its observational rows, or `most` of them, and its experiments.

    A variable that varies only where it was set counts among them, and says nothing else.
    """
    return buffer.once(_summary) if most is None else _summary(buffer, most)


def _summary(buffer: ExperienceBuffer, most: int | None = None) -> dict[str, float]:
    values, mask = buffer.rows()
    at_once = mask.sum(axis=1)
    observed = np.asarray(values, dtype=np.float64)[at_once == 0]
    held = only_set(buffer)
    varies = [name not in held for name in buffer.get_variable_names()]
    if not (len(observed) and any(varies)):
        Scaling.of(buffer)  # says what is missing
    n = len(observed)
    chosen = slice(None) if most is None or n <= most else np.linspace(0, n - 1, most).astype(int)
    found = summarise(observed[chosen][:, varies])
    design = {
        "n_obs": float(n),
        "n_vars": float(observed.shape[1]),
        "n_int": float((at_once > 0).sum()),
        "set_at_once": float(at_once.max(initial=0)),
        "only_set": float(len(held)),
    }
    return {**found, **design}


def looks_linear_gaussian(summary: Mapping[str, float]) -> bool:
    """True where nothing in a summary speaks against a linear Gaussian system."""
    return summary["curvature"] == 0.0 and summary["residual_tails"] < _REFUSED_AT


def _beyond(value: float, low: float, high: float) -> float:
    """How far outside, as a share of the range; sizes of 0 to infinity by their logarithm."""
    if low <= value <= high:
        return 0.0
    if low > 0 and value > 0:
        value, low, high = np.log(value), np.log(low), np.log(high)
    width = max(high - low, _FLOOR)
    return float((low - value if value < low else value - high) / width)


def _excess(values: np.ndarray) -> np.ndarray:
    deviation = np.maximum(values.std(axis=0), _FLOOR)
    kurtosis = (((values - values.mean(axis=0)) / deviation) ** 4).mean(axis=0)
    return np.asarray(kurtosis - 3.0)


def _not_gaussian(residual: np.ndarray) -> float:
    """Kurtosis tests (Anscombe and Glynn 1983) of residuals, Bonferroni."""
    n, d = residual.shape
    if n < _FEWEST_ROWS:
        return 0.0
    return _evidence(float(stats.kurtosistest(residual).pvalue.min()), d)


def _evidence(least: float, tests: int) -> float:
    return float(abs(np.log10(max(min(least * tests, 1.0), 1e-300))))
