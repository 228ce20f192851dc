"""Losses of parent-set predictions, all in nats and all differentiable."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SMALLEST = 1e-6
_BINS = 10


def compute_kl_divergence(predictions: jax.Array, posteriors: jax.Array) -> jax.Array:
    """KL divergence of predicted from given marginals, summed over variables, mean over the rest.

    Args:
        predictions: probabilities ``[..., n_vars]``.
        posteriors: probabilities ``[..., n_vars]``, of the teacher. Where both are 0, as at the
            target and at absent variables, nothing is added.

    Returns:
        A scalar, 0 where both agree.
    """
    p = jnp.clip(posteriors, 0.0, 1.0)
    q = jnp.clip(predictions, _SMALLEST, 1.0 - _SMALLEST)
    # An entry that cannot be a parent has probability 0 on both sides.
    q = jnp.where((predictions <= 0.0) & (posteriors <= 0.0), 0.0, q)
    inside = _entropy_terms(p, q) + _entropy_terms(1.0 - p, 1.0 - q)
    return inside.sum(axis=-1).mean()


def compute_calibration_loss(predictions: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared gap between mean prediction and mean label, over ten overlapping bins.

    Bins are triangles of half-width 1/9, so that the loss has slopes; each counts by its share of
    the entries (a smooth form of the expected calibration error; Karandikar et al. 2021).

    Args:
        predictions: probabilities, any shape. Exact zeros, which no network gives for a possible
            parent, are left out.
        labels: 0 and 1, or a teacher's probabilities, of the same shape.

    Returns:
        A scalar from 0 to 1.
    """
    p, y = predictions.ravel(), labels.ravel().astype(predictions.dtype)
    centres = jnp.linspace(0.0, 1.0, _BINS)
    weight = jnp.maximum(1.0 - jnp.abs(p[:, None] - centres) * (_BINS - 1), 0.0)
    weight = weight * (p > 0.0)[:, None]
    total = weight.sum(axis=0)
    gap = (weight * (p - y)[:, None]).sum(axis=0) / jnp.maximum(total, _SMALLEST)
    return (total * gap**2).sum() / jnp.maximum(total.sum(), _SMALLEST)


def compute_entropy(marginals: jax.Array) -> jax.Array:
    """Entropy in nats of independent marginals ``[..., n_vars]``, summed over variables."""
    p = jnp.clip(marginals, 0.0, 1.0)
    return -(_plogp(p) + _plogp(1.0 - p)).sum(axis=-1)


def _entropy_terms(p: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.where(p > 0.0, _plogp(p) - p * jnp.log(jnp.maximum(q, _SMALLEST)), 0.0)


def _plogp(p: jax.Array) -> jax.Array:
    safe = jnp.where(p > 0.0, p, 1.0)
    return p * jnp.log(safe)
