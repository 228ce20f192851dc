"""Random systems on the device: the distributions that networks are trained on and judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from causal_bayes_opt.core.graphs import topological_order
from causal_bayes_opt.core.mechanisms import (
    ACTIVATION_CODES,
    NOISE_FAMILIES,
    Mechanism,
    Noise,
)
from causal_bayes_opt.core.sample import SystemArrays
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.core.standardised_systems import change_units, standardise
from causal_bayes_opt.errors import ConfigError, GraphError, check_name

MECHANISM_FAMILIES = ("linear", "polynomial", "sigmoid", "neural", "random_feature_gp")
SCALINGS = ("none", "after", "iscm")
PARAMETERS = ("uniform", "bge")
_UNITS = 8
# Means saturate, as real quantities do: a chain of polynomials would else overflow in its tails.
_BOUND = 1e3


@dataclass(frozen=True)
class SystemDistribution:
    """A distribution over random systems.

    The order of the variables is uniform and each edge that it allows is there independently.

    Attributes:
        n_vars: smallest and largest number of variables, each as likely.
        edge_probability: of an edge; None takes ``min(0.5, 2 / (n_vars - 1))``.
        mechanisms: families, drawn for each variable; keys of `MECHANISM_FAMILIES`.
        noises: families, drawn for each variable.
        parameters: ``"uniform"``: weights and noise from the ranges below; ``"bge"``: from the
            prior that the BGe score assumes (linear Gaussian only).
        weights: smallest and largest size of a weight; signs are even.
        noise_scale: smallest and largest standard deviation of the noise.
        scaling: ``"none"``; ``"after"``: the finished system is brought to mean 0 and deviation 1,
            by a change of units alone; ``"iscm"``: every variable is, as it is generated, so that
            neither scales nor shares of explained variance say anything about order (Ormaniec et
            al., 2025).

    Means saturate at 1,000 of the generator's units, under iSCM at 5 standard deviations.
    """

    n_vars: tuple[int, int] = (3, 8)
    edge_probability: float | None = None
    mechanisms: tuple[str, ...] = ("linear",)
    noises: tuple[str, ...] = ("gaussian",)
    parameters: str = "uniform"
    weights: tuple[float, float] = (0.5, 2.0)
    noise_scale: tuple[float, float] = (0.2, 2.0)
    scaling: str = "none"

    def __post_init__(self) -> None:
        low, high = self.n_vars
        if not 1 <= low <= high:
            raise ConfigError(f"n_vars is {self.n_vars}; expected 1 <= smallest <= largest")
        p = self.edge_probability
        if p is not None and not 0 <= p <= 1:
            raise ConfigError(f"edge_probability is {p}; it must lie between 0 and 1")
        for name, known, chosen in (
            ("mechanism family", MECHANISM_FAMILIES, self.mechanisms),
            ("noise family", NOISE_FAMILIES, self.noises),
            ("scaling", SCALINGS, (self.scaling,)),
            ("source of parameters", PARAMETERS, (self.parameters,)),
        ):
            for choice in chosen:
                check_name(choice, known, name)
        if not self.mechanisms or not self.noises:
            raise ConfigError("at least one mechanism family and one noise family are needed")
        for name in ("weights", "noise_scale"):
            small, large = getattr(self, name)
            if not 0 <= small <= large:
                raise ConfigError(f"{name} is ({small:g}, {large:g}); expected 0 <= low <= high")
        if self.parameters == "bge" and (
            self.mechanisms != ("linear",) or self.noises != ("gaussian",)
        ):
            raise ConfigError("parameters='bge' is a prior of linear Gaussian systems only")


@partial(jax.jit, static_argnames=("n_systems", "distribution"))
def draw_systems(key: jax.Array, n_systems: int, distribution: SystemDistribution) -> SystemArrays:
    """Draw systems ``[n_systems]``, padded to the distribution's largest number of variables."""
    keys = jax.random.split(key, n_systems)
    return jax.vmap(lambda k: _draw_system(k, distribution))(keys)


def random_scm(
    seed: int,
    n_vars: int,
    distribution: SystemDistribution | None = None,
    adjacency: np.ndarray | None = None,
) -> SCM:
    """Draw one named system, X1 to Xd, with the same generator as `draw_systems`; no target.

    Args:
        seed: of everything that is drawn.
        n_vars: number of variables.
        distribution: of its parameters, and of its graph unless that is given.
        adjacency: the graph, bool ``[n_vars, n_vars]``; None draws it.

    Raises:
        GraphError: the graph has another size or a cycle.
    """
    chosen = replace(distribution or SystemDistribution(), n_vars=(n_vars, n_vars))
    key = jax.random.key(seed)
    if adjacency is None:
        systems = draw_systems(key, 1, chosen)
        return to_scm(SystemArrays(*(np.asarray(leaf)[0] for leaf in systems)))
    if adjacency.shape != (n_vars, n_vars):
        raise GraphError(f"a graph of shape {adjacency.shape} was given for {n_vars} variables")
    systems = systems_on_graphs(key[None], adjacency[None], chosen)
    return to_scm(SystemArrays(*(np.asarray(leaf)[0] for leaf in systems)))


def systems_on_graphs(
    keys: jax.Array,
    adjacency: np.ndarray,
    distribution: SystemDistribution,
    n_vars: int | None = None,
) -> SystemArrays:
    """Draw the parameters of systems whose graphs are given.

    Args:
        keys: one for each system ``[n_systems]``.
        adjacency: bool ``[n_systems, n_nodes, n_nodes]``.
        distribution: its sizes and density are not used.
        n_vars: variables to pad to; None: no padding.

    Raises:
        GraphError: a graph has a cycle.
    """
    n_nodes = adjacency.shape[-1]
    spare = (n_vars or n_nodes) - n_nodes
    padded = np.pad(np.asarray(adjacency, bool), ((0, 0), (0, spare), (0, spare)))
    orders = np.stack([topological_order(graph) for graph in padded]).astype(np.int32)
    present = jnp.arange(n_nodes + spare) < n_nodes
    systems: SystemArrays = _draw_on_graphs(
        keys, jnp.asarray(padded), jnp.asarray(orders), present, distribution
    )
    return systems


def to_scm(system: SystemArrays, names: tuple[str, ...] | None = None) -> SCM:
    """Turn arrays of one system (no leading axis) into a named system; padding is dropped."""
    arrays = {name: np.asarray(leaf) for name, leaf in system._asdict().items()}
    kept = np.flatnonzero(arrays["present"])
    names = names or tuple(f"X{i + 1}" for i in range(len(kept)))
    name_of = dict(zip(kept.tolist(), names, strict=True))
    activations = list(ACTIVATION_CODES)

    def mechanism(j: int) -> Mechanism:
        parents = np.flatnonzero(arrays["adjacency"][:, j])
        used = np.flatnonzero(arrays["readout"][j])
        return Mechanism(
            tuple(name_of[i] for i in parents.tolist()),
            arrays["weights"][parents, j],
            float(arrays["bias"][j]),
            hidden=arrays["hidden"][j][np.ix_(used, parents)],
            offsets=arrays["offsets"][j][used],
            readout=arrays["readout"][j][used],
            activations=tuple(activations[c] for c in arrays["activation"][j][used]),
            bound=float(arrays["bound"][j]),
            noise=Noise(
                NOISE_FAMILIES[int(arrays["noise_family"][j])],
                float(arrays["noise_scale"][j]),
                float(arrays["noise_df"][j]),
            ),
        )

    return SCM(names, {name_of[j]: mechanism(j) for j in kept.tolist()})


def _draw_system(key: jax.Array, distribution: SystemDistribution) -> SystemArrays:
    k_size, k_graph, k_parameters, k_units, k_noise, k_pilot = jax.random.split(key, 6)
    low, d = distribution.n_vars
    n_vars = jax.random.randint(k_size, (), low, d + 1)
    present = jnp.arange(d) < n_vars
    adjacency, order = _draw_graph(k_graph, n_vars, present, distribution.edge_probability)
    keys = k_parameters, k_units, k_noise, k_pilot
    return _draw_parameters(keys, adjacency, order, present, distribution)


@partial(jax.jit, static_argnames=("distribution",))
def _draw_on_graphs(
    keys: jax.Array,
    adjacency: jax.Array,
    orders: jax.Array,
    present: jax.Array,
    distribution: SystemDistribution,
) -> SystemArrays:
    def draw(key: jax.Array, graph: jax.Array, order: jax.Array) -> SystemArrays:
        parts = tuple(jax.random.split(key, 4))
        return _draw_parameters(parts, graph, order, present, distribution)

    return jax.vmap(draw)(keys, adjacency, orders)


def _draw_parameters(
    keys: tuple[jax.Array, ...],
    adjacency: jax.Array,
    order: jax.Array,
    present: jax.Array,
    distribution: SystemDistribution,
) -> SystemArrays:
    k_parameters, k_units, k_noise, k_pilot = keys
    d = adjacency.shape[0]
    weights, bias, scale = _draw_linear(k_parameters, adjacency, distribution)
    readout_scale, units = _draw_units(k_units, adjacency, distribution)
    family = jax.random.choice(
        k_noise, jnp.asarray([NOISE_FAMILIES.index(f) for f in distribution.noises]), (d,)
    )
    hidden, offsets, readout, activation = units
    system = SystemArrays(
        adjacency=adjacency,
        weights=weights * readout_scale[None, :],
        bias=jnp.where(present, bias, 0.0),
        hidden=hidden,
        offsets=offsets,
        readout=readout,
        activation=activation,
        bound=jnp.full(d, _BOUND),
        noise_family=family.astype(jnp.int32),
        noise_scale=jnp.where(present, scale, 0.0),
        noise_df=jnp.full(d, 5.0),
        order=order,
        present=present,
    )
    if distribution.scaling == "iscm":
        return standardise(k_pilot, system)
    return change_units(k_pilot, system) if distribution.scaling == "after" else system


def _draw_graph(
    key: jax.Array, n_vars: jax.Array, present: jax.Array, edge_probability: float | None
) -> tuple[jax.Array, jax.Array]:
    k_order, k_edges = jax.random.split(key)
    d = present.shape[0]
    rank = jax.random.permutation(k_order, d)
    order = jnp.argsort(jnp.where(present, rank, d + rank)).astype(jnp.int32)
    if edge_probability is None:
        probability = jnp.minimum(0.5, 2.0 / jnp.maximum(n_vars - 1, 1))
    else:
        probability = jnp.asarray(edge_probability)
    allowed = (rank[:, None] < rank[None, :]) & present[:, None] & present[None, :]
    return allowed & (jax.random.uniform(k_edges, (d, d)) < probability), order


def _draw_linear(
    key: jax.Array, adjacency: jax.Array, distribution: SystemDistribution
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights ``[n_vars, n_vars]``, biases and noise deviations ``[n_vars]``."""
    d = adjacency.shape[0]
    k_size, k_sign, k_scale, k_bias = jax.random.split(key, 4)
    if distribution.parameters == "bge":
        # 1/v ~ Gamma((alpha_w - d + k + 1)/2, rate t/2), b | v ~ N(0, v/t), intercept ~ N(0, v),
        # with alpha_w - d = 2 and t = 1/2: the prior for which the BGe score is the evidence.
        k = adjacency.sum(axis=0)
        precision = jax.random.gamma(k_scale, (k + 3.0) / 2, (d,)) / 0.25
        scale = 1.0 / jnp.sqrt(precision)
        weights = jax.random.normal(k_size, (d, d)) * scale[None, :] * jnp.sqrt(2.0)
        return jnp.where(adjacency, weights, 0.0), jax.random.normal(k_bias, (d,)) * scale, scale
    size = jax.random.uniform(
        k_size, (d, d), minval=distribution.weights[0], maxval=distribution.weights[1]
    )
    sign = jnp.where(jax.random.bernoulli(k_sign, 0.5, (d, d)), 1.0, -1.0)
    scale = jax.random.uniform(
        k_scale, (d,), minval=distribution.noise_scale[0], maxval=distribution.noise_scale[1]
    )
    return jnp.where(adjacency, size * sign, 0.0), jnp.zeros(d), scale


def _draw_units(
    key: jax.Array, adjacency: jax.Array, distribution: SystemDistribution
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, jax.Array]]:
    """Units of every variable's mechanism, and the factor ``[n_vars]`` on its linear part."""
    d = adjacency.shape[0]
    families = distribution.mechanisms
    if families == ("linear",):
        empty = jnp.zeros((d, 0))
        return jnp.ones(d), (jnp.zeros((d, 0, d)), empty, empty, empty.astype(jnp.int32))
    k_family, k_hidden, k_offset, k_readout = jax.random.split(key, 4)
    n_units = max(2 * d, _UNITS)
    chosen = jax.random.choice(
        k_family, jnp.asarray([MECHANISM_FAMILIES.index(f) for f in families]), (d,)
    )
    is_family = {name: chosen == i for i, name in enumerate(MECHANISM_FAMILIES)}
    parents = adjacency.T[:, None, :].astype(jnp.float32)  # [j, 1, i]
    unit = jnp.arange(n_units)
    one_parent = jax.nn.one_hot(unit % d, d)[None] * parents  # unit h looks at parent h mod d
    normal = jax.random.normal(k_hidden, (d, n_units, d))
    few = jnp.sqrt(jnp.maximum(parents.sum(-1, keepdims=True), 1.0))
    slopes = jnp.where(normal[:, :, :1] > 0, 1.0, -1.0) * (1.0 + jnp.abs(normal[:, :, :1]))
    hidden = _by_family(
        is_family,
        (d, n_units, d),
        polynomial=one_parent,
        sigmoid=one_parent * slopes * 1.5,
        neural=normal * parents * 1.5 / few,
        random_feature_gp=normal * parents,
    )
    uniform = jax.random.uniform(k_offset, (d, n_units))
    offsets = _by_family(
        is_family,
        (d, n_units),
        polynomial=jnp.zeros((d, n_units)),
        sigmoid=3.0 * (uniform - 0.5),
        neural=3.0 * (uniform - 0.5),
        random_feature_gp=2 * jnp.pi * uniform,
    )
    draw = jax.random.normal(k_readout, (d, n_units))
    size = jnp.where(draw > 0, 1.0, -1.0) * (0.5 + jnp.abs(draw))
    first = unit < d
    readout = _by_family(
        is_family,
        (d, n_units),
        polynomial=jnp.where(first, size, 0.3 * size) * (unit < 2 * d),
        sigmoid=2.0 * size * first,
        neural=2.0 * draw * (unit < _UNITS) / jnp.sqrt(_UNITS / 2),
        random_feature_gp=2.0 * draw / jnp.sqrt(n_units / 2),
    )
    readout = readout * (jnp.abs(hidden).sum(axis=-1) > 0)
    codes = _by_family(
        is_family,
        (d, n_units),
        polynomial=jnp.where(first, ACTIVATION_CODES["square"], ACTIVATION_CODES["cube"]),
        sigmoid=jnp.full(n_units, ACTIVATION_CODES["sigmoid"]),
        neural=jnp.full(n_units, ACTIVATION_CODES["tanh"]),
        random_feature_gp=jnp.full(n_units, ACTIVATION_CODES["cos"]),
    )
    linear_part = is_family["linear"] | is_family["polynomial"]
    return linear_part.astype(jnp.float32), (hidden, offsets, readout, codes.astype(jnp.int32))


def _by_family(
    is_family: dict[str, jax.Array], shape: tuple[int, ...], **forms: jax.Array
) -> jax.Array:
    """Select per variable (leading axis of `shape`) the form of its family; 0 for the linear."""
    total = jnp.zeros(shape)
    for name, form in forms.items():
        is_own = is_family[name].reshape(-1, *([1] * (len(shape) - 1)))
        total = jnp.where(is_own, form, total)
    return total
