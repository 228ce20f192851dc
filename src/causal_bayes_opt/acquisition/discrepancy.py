"""What experiments say against an outcome model: a Gaussian process over experiments.

An outcome model follows mechanisms from what was set to the target. Where it leaves something out
(a hidden common cause, a mechanism that its basis cannot bend enough), outcomes differ from what it
expects even where they were measured a thousand times. The difference, as a function of what is
set, is a Gaussian process that is added to the model (Kennedy and O'Hagan, Journal of the Royal
Statistical Society B 63, 2001), so that what was measured counts where it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from causal_bayes_opt.acquisition.experiments import Experiments
from causal_bayes_opt.acquisition.outcome import Candidates, OnModel, OutcomeModel, in_units
from causal_bayes_opt.acquisition.smooth_outcome import SmoothOutcomeModel
from causal_bayes_opt.core.buffer import ExperienceBuffer

_LENGTH = 0.25  # of a range, over which the difference stays alike
_SHARED = 0.3  # correlation of a variable set with the same variable not set, or set far away
_SCALES = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])  # deviations that are considered
_USUAL = 0.2  # mean of the deviation's exponential prior, in standard deviations of the target


def corrected(
    model: SmoothOutcomeModel,
    buffer: ExperienceBuffer,
    ranges: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
) -> OutcomeModel:
    """Add the difference that experiments show; the model itself where they show none.

    The deviation of differences is the likeliest of a few, the members' residuals taken together
    and a prior against large ones.

    Args:
        model: what may need a correction.
        buffer: all rows.
        ranges: of the variables that may be set.
        rng: draws how far members lie off the mean difference.
    """
    done = Experiments.of(buffer, model.target, model.scaling)
    if not done.candidates.there.any():
        return model
    values, _ = buffer.all_rows()
    ends = np.stack([np.nanmin(values, axis=0), np.nanmax(values, axis=0)], axis=1)
    for name, limits in ranges.items():
        ends[model.variables.index(name)] = limits
    expected, within = model.outcomes(done.candidates)
    residuals = done.means[:, None] - expected
    correlation = _correlation(done.candidates, done.candidates, ends)
    noise = np.diag(within / done.counts)
    likely = [
        _log_evidence(residuals, scale**2 * correlation + noise) - scale / _USUAL
        for scale in _SCALES
    ]
    deviation = float(_SCALES[int(np.argmax(likely))])
    if deviation == 0.0:
        return model
    root = np.linalg.cholesky(deviation**2 * correlation + noise)
    normals = rng.normal(size=residuals.shape[1])
    normals = (normals - normals.mean()) / normals.std()
    weights = cho_solve((root, True), residuals)
    return CorrectedOutcomeModel(model, ends, done, root, weights, deviation, normals)


@dataclass(frozen=True)
class CorrectedOutcomeModel(OnModel):
    """An outcome model with the difference that experiments have shown.

    Attributes:
        model: what is corrected.
        ends: of the ranges ``[n_vars, 2]``, in the user's units.
        experiments: what has come out so far.
        root: Cholesky factor of the experiments' covariance ``[n, n]``.
        weights: of the experiments in each member's difference ``[n, n_members]``.
        deviation: standard deviation of the difference, in standard deviations of the target.
        normals: how far each member's difference lies off its mean, in deviations, everywhere
            alike; their mean is 0 and their variance 1 ``[n_members]``.
    """

    model: SmoothOutcomeModel
    ends: np.ndarray
    experiments: Experiments
    root: np.ndarray
    weights: np.ndarray
    deviation: float
    normals: np.ndarray

    def means(self, target: str, candidates: Candidates) -> np.ndarray:
        """Expected outcomes ``[n_candidates, n_members]``, in standardised units of the target."""
        return np.asarray(self.model.means(target, candidates) + self._difference(candidates))

    def predict(self, target: str, intervention: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean of the target, its standard deviation over members, and that of one outcome."""
        asked = Candidates.of([intervention], self.variables)
        expected, within = self.model.outcomes(asked)
        means = (expected + self._difference(asked))[0]
        return in_units(means, within[0], self.scaling, self.variables.index(target))

    def _difference(self, candidates: Candidates) -> np.ndarray:
        """``[n_candidates, n_members]``."""
        shared = self.deviation**2 * _correlation(
            candidates, self.experiments.candidates, self.ends
        )
        half = solve_triangular(self.root, shared.T, lower=True)
        left = np.maximum(self.deviation**2 - (half**2).sum(axis=0), 0.0)
        return np.asarray(shared @ self.weights + np.sqrt(left)[:, None] * self.normals)


def _correlation(first: Candidates, second: Candidates, ends: np.ndarray) -> np.ndarray:
    """Correlation ``[n_first, n_second]`` of differences: a product over variables.

    A variable adds a shared part, and one that is a squared exponential where both set it, 1 where
    neither does and 0 where one does.
    """
    width = ends[:, 1] - ends[:, 0]
    is_set, value = zip(
        *(own.spread(own.values, len(ends)) for own in (first, second)), strict=True
    )
    level = [(own - ends[:, 0]) / width for own in value]
    both = is_set[0][:, None] & is_set[1][None]
    neither = ~is_set[0][:, None] & ~is_set[1][None]
    near = np.exp(-0.5 * ((level[0][:, None] - level[1][None]) / _LENGTH) ** 2)
    own = np.where(both, near, neither)
    return np.asarray((_SHARED + (1.0 - _SHARED) * own).prod(axis=-1))


def _log_evidence(residuals: np.ndarray, covariance: np.ndarray) -> float:
    """Log-density of residuals ``[n, n_members]``, mean over members, without its constant."""
    root = np.linalg.cholesky(covariance)
    half = solve_triangular(root, residuals, lower=True)
    return float(-0.5 * (half**2).sum(axis=0).mean() - np.log(np.diag(root)).sum())
