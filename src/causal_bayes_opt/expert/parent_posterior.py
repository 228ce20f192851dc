"""Steps 1 to 3 of PARENT_SCALE: from rows to a posterior over the target's parent sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core import padding
from causal_bayes_opt.core.buffer import ExperienceBuffer
from causal_bayes_opt.core.scaling import Scaling
from causal_bayes_opt.errors import check_name
from causal_bayes_opt.expert import parent_update
from causal_bayes_opt.expert.candidates import candidate_sets
from causal_bayes_opt.expert.doubly_robust import bootstrap_votes
from causal_bayes_opt.expert.options import ParentScaleOptions
from causal_bayes_opt.surrogate.posterior import ParentSetPosterior
from causal_bayes_opt.surrogate.protocol import EdgePrior, Surrogate

# Sets below this weight are dropped for good before a trial's row is scored, as published.
DROP_BELOW = 1e-4


def parent_scale_posterior(
    buffer: ExperienceBuffer,
    target: str,
    *,
    prior: EdgePrior | None = None,
    key: jax.Array | None = None,
) -> ParentSetPosterior:
    """PARENT_SCALE's posterior with its default options; see `parent_scale_surrogate`."""
    return _posterior(buffer, target, prior, key, ParentScaleOptions())


def parent_scale_surrogate(**options: Any) -> Surrogate:
    """PARENT_SCALE's posterior as a surrogate.

    The votes of the observational rows give the prior, the experiments in their order the
    posterior; those on the target say nothing about its parents and are left out.

    Args:
        **options: see `ParentScaleOptions`.

    Raises:
        ConfigError: an unknown option or an impossible value.
    """
    chosen = ParentScaleOptions.of(options)

    def surrogate(
        buffer: ExperienceBuffer,
        target: str,
        *,
        prior: EdgePrior | None = None,
        key: jax.Array | None = None,
    ) -> ParentSetPosterior:
        return _posterior(buffer, target, prior, key, chosen)

    return surrogate


@dataclass(frozen=True)
class Beliefs:
    """The posterior of one target, and what is needed to update it.

    Attributes:
        variables: names, in the user's order.
        target: the target.
        scaling: of the observational rows.
        options: see there.
        members: the candidate sets, bool ``[n_sets, n_vars]``.
        state: padded weights and regressions; their columns are the variables without the target.
        warnings: sentences for the user.
    """

    variables: tuple[str, ...]
    target: str
    scaling: Scaling
    options: ParentScaleOptions
    members: np.ndarray
    state: parent_update.SetPosterior
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        buffer: ExperienceBuffer,
        target: str,
        options: ParentScaleOptions,
        seed: Sequence[int],
        prior: EdgePrior | None = None,
    ) -> Beliefs:
        """Return what the observational rows say (steps 1 and 2).

        Raises:
            UnknownNameError: the target is not among the variables.
            DataError: fewer than 2 observational rows or a constant column.
            GraphError: known edges that contradict each other.
        """
        variables = tuple(buffer.get_variable_names())
        check_name(target, variables, "target")
        scaling = Scaling.of(buffer)
        t = variables.index(target)
        others = [name for name in variables if name != target]
        x, y = _columns(buffer.get_observations_as_array(), scaling, t, options)
        regressor = options.regressor
        if regressor is None:
            regressor = "least_squares" if options.mechanism == "linear" else "mlp"
        votes = bootstrap_votes(
            x, y, others, seed, n_bootstraps=options.n_bootstraps, regressor=regressor
        )
        candidates = candidate_sets(
            np.insert(votes, t, False, axis=1), variables, target, options, prior
        )
        with padding.double():
            state = parent_update.start(
                np.delete(candidates.members, t, axis=1),
                candidates.weights,
                noise=options.noise,
                names=others,
                seed=seed,
                nonlinear=options.mechanism == "nonlinear",
            )
            state = parent_update.condition(
                state, *parent_update.padded_rows(x, y, padding.ROWS, 2)
            )
        return cls(
            variables, target, scaling, options, candidates.members, state, candidates.warnings
        )

    def after(self, values: np.ndarray, mask: np.ndarray, drop: bool = False) -> Beliefs:
        """Return the beliefs after experiments, in their order.

        Args:
            values: ``[n_rows, n_vars]``, user's units.
            mask: bool, the same shape; rows in which the target was set are left out.
            drop: whether sets that have become improbable are dropped before (``"votes"`` alone).
        """
        t = self.variables.index(self.target)
        values = values[~mask[:, t]]
        if not len(values):
            return self
        x, y = _columns(values, self.scaling, t, self.options)
        floor = DROP_BELOW if drop and self.options.support == "votes" else 0.0
        with padding.double():
            rows, outcomes, present = parent_update.padded_rows(x, y, 1, 4)
            state, _ = parent_update.absorb(
                self.state,
                rows,
                outcomes,
                present,
                np.where(present, floor, 0.0),
                predictive=self.options.predictive,
                noise=self.options.noise,
            )
        return replace(self, state=state)

    def log_weights(self) -> np.ndarray:
        """Log-probability of each candidate ``[n_sets]``."""
        return np.asarray(self.state.log_weights)[: len(self.members)]

    def posterior(self) -> ParentSetPosterior:
        """The posterior as every surrogate gives it."""
        return ParentSetPosterior.from_log_probs(
            self.variables,
            self.target,
            self.members,
            self.log_weights(),
            {"method": "parent_scale", "warnings": self.warnings},
        )


def seed_of(key: jax.Array | None) -> tuple[int, ...]:
    """The numbers of a key, as a seed of draws that do not depend on padded shapes."""
    if key is None:
        return (0,)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return tuple(int(word) for word in np.ravel(jax.random.key_data(key) if typed else key))


def _posterior(
    buffer: ExperienceBuffer,
    target: str,
    prior: EdgePrior | None,
    key: jax.Array | None,
    options: ParentScaleOptions,
) -> ParentSetPosterior:
    values, mask = buffer.rows()
    tried = mask.any(axis=1)
    beliefs = Beliefs.of(buffer, target, options, seed_of(key), prior)
    return beliefs.after(values[tried], mask[tried]).posterior()


def _columns(
    values: np.ndarray, scaling: Scaling, target: int, options: ParentScaleOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows without the target, and the target: in its own units for unit noise."""
    scaled = scaling.apply(values)
    y = values[:, target] if options.noise == "unit" else scaled[:, target]
    return np.delete(scaled, target, axis=1), y
