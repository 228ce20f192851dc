"""Kinds of experiments: what was set, and what came out of all that set it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from causal_bayes_opt.acquisition.outcome import Candidates
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling

_MOST, _MOST_ALONE = 128, 1024  # kinds of experiments, those with most outcomes


class Experiments(NamedTuple):
    """Kinds of experiments with what came out of them; outcomes in standardised units."""

    candidates: Candidates
    means: np.ndarray  # [n]
    counts: np.ndarray  # [n]

    @classmethod
    def of(
        cls, buffer: ExperienceBuffer, target: str, scaling: Scaling, *, alone: bool = False
    ) -> Experiments:
        """Outcomes of equal experiments are averaged; those that set the target are left out.

        To set nothing is one of them. Of very many kinds those with most outcomes are kept, among
        equals the latest: 128, or with `alone` 1,024 of the rows in which the target was measured
        and something else was not.
        """
        values, mask = buffer.all_rows()
        t = buffer.get_variable_names().index(target)
        used = np.isfinite(values[:, t]) & ~mask[:, t]
        if alone:
            used &= np.isnan(values).any(axis=1)
        values, mask = values[used], mask[used]
        rows = np.hstack([mask, np.where(mask, values, 0.0)])
        kinds, first, kind, counts = np.unique(
            rows, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        total = np.bincount(kind.ravel(), weights=scaling.apply(values)[:, t], minlength=len(kinds))
        kept = np.sort(np.lexsort((-first, -counts))[: _MOST_ALONE if alone else _MOST])
        d = len(scaling.means)
        candidates = Candidates.of_rows(kinds[kept, d:], kinds[kept, :d] > 0)
        return cls(candidates, total[kept] / counts[kept], counts[kept])
