"""Fitting a model's temperature on fresh systems of its own training distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from causal_bayes_opt.errors import ConfigError
from causal_bayes_opt.surrogate.encoding import Rows
from causal_bayes_opt.surrogate.joint import JointPosteriors, Network
from causal_bayes_opt.surrogate.metrics import calibration_error
from causal_bayes_opt.surrogate.network import TrainedModel
from causal_bayes_opt.surrogate.temperature import (
    N_COEFFICIENTS,
    Tempered,
    features,
    tempered_loss,
)
from causal_bayes_opt.surrogate.training import TrainingDistribution, simulate

_SEED = 2**31 - 13  # of no training run and of no benchmark
_CHUNK = 64
_WORTH = 1e-3  # nats a variable


class Judged(NamedTuple):
    """A model on fresh systems, all variables as targets."""

    negative_log_probability: float  # of the true set, nats a variable
    calibration_error: float  # of the marginals


@dataclass(frozen=True)
class Calibration:
    """A model with its temperature, and what that did to systems that it was not fitted on.

    Attributes:
        model: the tempered model.
        temperatures: lowest and highest over those systems.
        before: the network as it was trained.
        after: the tempered model.
    """

    model: TrainedModel
    temperatures: tuple[float, float]
    before: Judged
    after: Judged

    @property
    def helps(self) -> bool:
        """Whether it gains more than the choice of systems may give by chance."""
        gain = self.before.negative_log_probability - self.after.negative_log_probability
        return gain > _WORTH


def calibrate(
    trained: TrainedModel, distribution: TrainingDistribution, systems: int = 4000
) -> Calibration:
    """Fit the temperature by maximum likelihood, and judge it on a quarter as many other systems.

    Args:
        trained: the model; a temperature that it has is fitted anew.
        distribution: what it was trained on.
        systems: number of systems to fit on.

    Raises:
        ConfigError: less than one system.
    """
    if systems < 1:
        raise ConfigError(f"{systems} systems; a temperature needs at least 1 to be fitted on")
    network = trained.model.network if isinstance(trained.model, Tempered) else trained.model
    learned = list(_answers(network, trained.params, distribution, systems, 0))
    found = _fit(learned)
    model = Tempered(network, found)
    spared = max(systems // 4, 1)
    judged = [_judge(m, trained.params, distribution, spared) for m in (network, model)]
    log_t = np.concatenate([jax.vmap(features)(part.rows) @ jnp.asarray(found) for part in learned])
    low, high = np.exp(log_t.min()), np.exp(log_t.max())
    return Calibration(replace(trained, model=model), (float(low), float(high)), *judged)


class _Part(NamedTuple):
    """Answers to a number of systems, leading axis ``[n_systems]``."""

    joint: JointPosteriors
    rows: Rows  # the masks alone count
    parents: jax.Array


def _answers(
    model: Network,
    params: hk.Params,
    distribution: TrainingDistribution,
    systems: int,
    stream: int,
) -> Iterator[_Part]:
    ask = jax.jit(jax.vmap(partial(model.joint, params)))
    own = jax.random.fold_in(jax.random.key(_SEED), stream)
    for number in range(-(-systems // _CHUNK)):
        batch = simulate(jax.random.fold_in(own, number), _CHUNK, distribution)
        nothing = batch.rows.present[:, :0]
        masks = batch.rows._replace(obs_data=nothing, int_data=nothing)
        yield _Part(ask(batch.rows), masks, batch.parents)


def _fit(parts: list[_Part]) -> tuple[float, ...]:
    @jax.jit
    @jax.value_and_grad
    def loss(coefficients: jax.Array, part: _Part) -> jax.Array:
        return jax.vmap(partial(tempered_loss, coefficients))(*part).sum()

    variables = sum(int(part.rows.present.sum()) for part in parts)

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        asked = jnp.asarray(coefficients, jnp.float32)
        values, slopes = zip(*(loss(asked, part) for part in parts), strict=True)
        total = np.sum(np.asarray(slopes, np.float64), axis=0)
        return float(np.sum(np.asarray(values, np.float64))) / variables, total / variables

    found: Any = minimize(
        objective, np.zeros(N_COEFFICIENTS), jac=True, method="BFGS", options={"gtol": 1e-4}
    )
    return tuple(round(float(value), 4) for value in found.x)


def _judge(
    model: Network, params: hk.Params, distribution: TrainingDistribution, systems: int
) -> Judged:
    losses = jax.jit(jax.vmap(partial(tempered_loss, jnp.zeros(N_COEFFICIENTS))))
    loss, variables, stated, edges = 0.0, 0, [], []
    for joint, rows, parents in _answers(model, params, distribution, systems, 1):
        loss += float(losses(joint, rows, parents).sum())
        variables += int(rows.present.sum())
        pairs = np.array(rows.present[:, :, None] & rows.present[:, None, :])
        pairs &= ~np.eye(pairs.shape[1], dtype=bool)
        stated.append(np.asarray(joint.marginals)[pairs])
        edges.append(np.asarray(parents)[pairs])
    error = calibration_error(np.concatenate(stated), np.concatenate(edges))
    return Judged(loss / variables, error)
