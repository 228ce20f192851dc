"""Sampling: observations and experiments, of one named system or of a padded batch of systems.

Every draw is keyed by (system, row, variable), never by the shape of an array, so that one system
gives the same rows alone, in a batch, and under any padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from causal_bayes_opt.core import table
from causal_bayes_opt.core.intervention import Intervention, make_intervention
from causal_bayes_opt.core.mechanisms import ACTIVATION_CODES, NOISE_FAMILIES
from causal_bayes_opt.core.padding import bucket
from causal_bayes_opt.core.precision import full_precision
from causal_bayes_opt.core.scm import SCM
from causal_bayes_opt.errors import DataError, GraphError, MethodLimitError, check_name

Simulator: TypeAlias = Callable[[Intervention | None, int, int], pd.DataFrame]


class SystemArrays(NamedTuple):
    """Systems as arrays, padded in variables and units. Leading axes ``[...]`` may be systems.

    A padded variable has ``present`` False, no parents and no noise, and is 0 in every row.
    """

    adjacency: jax.Array  # bool [..., n_vars, n_vars], [i, j]: i causes j
    weights: jax.Array  # [..., n_vars, n_vars], weight of i in j
    bias: jax.Array  # [..., n_vars]
    hidden: jax.Array  # [..., n_vars, n_units, n_vars], the units of j over all variables
    offsets: jax.Array  # [..., n_vars, n_units]
    readout: jax.Array  # [..., n_vars, n_units], 0 where padded
    activation: jax.Array  # int [..., n_vars, n_units], codes of mechanisms.ACTIVATIONS
    bound: jax.Array  # [..., n_vars], the mean saturates at plus and minus this
    noise_family: jax.Array  # int [..., n_vars], position in mechanisms.NOISE_FAMILIES
    noise_scale: jax.Array  # [..., n_vars], standard deviation
    noise_df: jax.Array  # [..., n_vars]
    order: jax.Array  # int [..., n_vars], causes before effects
    present: jax.Array  # bool [..., n_vars]


def sample(
    scm: SCM, n: int, *, intervention: Mapping[str, float] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Draw rows of a system, observed or under a perfect intervention.

    Args:
        scm: the system.
        n: number of rows.
        intervention: what is set, and to which values; None observes.
        seed: the same seed gives the same noise, whatever is set.

    Returns:
        DataFrame in the data-file layout; a column ``do`` where something was set.

    Raises:
        DataError: a negative number of rows, or a mechanism that gave values that are not finite.
        UnknownNameError: the intervention names a variable that does not exist.
    """
    if n < 0:
        raise DataError(f"{n} rows were asked for; the number cannot be negative")
    done = make_intervention(intervention or {})
    for name in done:
        check_name(name, scm.variables, "variable")
    noise = _named_noise(scm, n, seed)
    index = {name: i for i, name in enumerate(scm.variables)}
    values = np.zeros((n, len(index)))
    for name in scm.order:
        column = index[name]
        if name in done:
            values[:, column] = done[name]
            continue
        mechanism = scm.mechanisms[name]
        parents = values[:, [index[parent] for parent in mechanism.parents]]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # told apart below
            values[:, column] = mechanism.mean(parents) + noise[:, column]
        if not np.isfinite(values[:, column]).all():
            raise DataError(f"the mechanism of {name!r} gave a value that is not finite")
    mask = np.zeros(values.shape, dtype=bool)
    mask[:, [index[name] for name in done]] = True
    return table.to_frame(scm.variables, values, mask)


def simulator(scm: SCM) -> Simulator:
    """The system as a function ``(intervention or None, n, seed) -> DataFrame``."""

    def simulate(intervention: Intervention | None, n: int, seed: int) -> pd.DataFrame:
        return sample(scm, n, intervention=intervention, seed=seed)

    return simulate


@jax.jit
def sample_batch(
    key: jax.Array, systems: SystemArrays, values: jax.Array, mask: jax.Array
) -> jax.Array:
    """Draw rows of many systems at once.

    Args:
        key: system number s draws with ``fold_in(key, s)``.
        systems: leading axis ``[n_systems]``.
        values: ``[n_systems, n_rows, n_vars]``, what to set where `mask` is True.
        mask: bool, the same shape.

    Returns:
        ``[n_systems, n_rows, n_vars]`` float32; 0 for absent variables.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(systems.bias.shape[0]))
    return jax.vmap(sample_system)(keys, systems, values, mask)


@full_precision
def sample_system(
    key: jax.Array, system: SystemArrays, values: jax.Array, mask: jax.Array
) -> jax.Array:
    """Draw rows ``[n_rows, n_vars]`` of one padded system (to be used under `jit` and `vmap`)."""
    n_vars = system.bias.shape[-1]
    noise = _noise(key, values.shape[0], system.noise_family, system.noise_scale, system.noise_df)
    columns = jnp.arange(n_vars)

    def step(rows: jax.Array, node: jax.Array) -> tuple[jax.Array, None]:
        mean = system.bias[node] + rows @ system.weights[:, node]
        if system.readout.shape[-1]:
            inner = rows @ system.hidden[node].T + system.offsets[node]
            mean = mean + _activate(inner, system.activation[node]) @ system.readout[node]
        # One-hot selection in place of a scatter: under vmap on a CPU it is several times faster.
        chosen = columns == node
        mean = jnp.clip(mean, -system.bound[node], system.bound[node])
        drawn = jnp.where(mask, values, mean[:, None] + noise)
        return jnp.where(chosen & system.present, drawn, rows), None

    rows, _ = jax.lax.scan(step, jnp.zeros_like(values), system.order)
    return rows


def to_arrays(scm: SCM, n_vars: int | None = None, n_units: int | None = None) -> SystemArrays:
    """Return a named system as arrays (no leading axis), padded to `n_vars` and `n_units`.

    Raises:
        GraphError: a mechanism is a user's function.
        MethodLimitError: the system is larger than the padding.
    """
    d = len(scm.variables)
    units = max(len(scm.mechanisms[name].activations) for name in scm.variables)
    n_vars = d if n_vars is None else n_vars
    n_units = units if n_units is None else n_units
    if n_vars < d or n_units < units:
        raise MethodLimitError(
            f"a system of {d} variables and {units} units does not fit into {n_vars} and {n_units}"
        )
    index = {name: i for i, name in enumerate(scm.variables)}
    out = _empty(n_vars, n_units)
    for name, j in index.items():
        mechanism = scm.mechanisms[name]
        if mechanism.function is not None:
            raise GraphError(f"the mechanism of {name!r} is a function and has no array form")
        parents = [index[parent] for parent in mechanism.parents]
        count = len(mechanism.activations)
        out["adjacency"][parents, j] = True
        out["weights"][parents, j] = mechanism.weights
        out["bias"][j] = mechanism.bias
        out["hidden"][j, :count, parents] = mechanism.hidden.T
        out["offsets"][j, :count] = mechanism.offsets
        out["readout"][j, :count] = mechanism.readout
        out["activation"][j, :count] = [ACTIVATION_CODES[a] for a in mechanism.activations]
        out["bound"][j] = mechanism.bound
        out["noise_family"][j] = NOISE_FAMILIES.index(mechanism.noise.family)
        out["noise_scale"][j] = mechanism.noise.scale
        out["noise_df"][j] = mechanism.noise.df
        out["present"][j] = True
    out["order"][:d] = [index[name] for name in scm.order]
    return SystemArrays(**{name: jnp.asarray(array) for name, array in out.items()})


def stack_systems(scms: Sequence[SCM], n_vars: int | None = None) -> SystemArrays:
    """Stack named systems, padded to the largest (or to `n_vars`): leading axis ``[n_systems]``."""
    d = max(len(scm.variables) for scm in scms) if n_vars is None else n_vars
    units = max(len(scm.mechanisms[v].activations) for scm in scms for v in scm.variables)
    arrays = [to_arrays(scm, d, units) for scm in scms]
    return SystemArrays(*(jnp.stack(leaves) for leaves in zip(*arrays, strict=True)))


def _empty(d: int, units: int) -> dict[str, np.ndarray]:
    f = np.float32
    return {
        "adjacency": np.zeros((d, d), bool),
        "weights": np.zeros((d, d), f),
        "bias": np.zeros(d, f),
        "hidden": np.zeros((d, units, d), f),
        "offsets": np.zeros((d, units), f),
        "readout": np.zeros((d, units), f),
        "activation": np.zeros((d, units), np.int32),
        "bound": np.full(d, np.inf, f),
        "noise_family": np.zeros(d, np.int32),
        "noise_scale": np.zeros(d, f),
        "noise_df": np.full(d, 5.0, f),
        "order": np.arange(d, dtype=np.int32),
        "present": np.zeros(d, bool),
    }


def _activate(inner: jax.Array, codes: jax.Array) -> jax.Array:
    """Apply to each unit (last axis) the activation of its code; order of `ACTIVATION_CODES`."""
    forms = [inner**2, inner**3, jax.nn.sigmoid(inner), jnp.tanh(inner), jnp.cos(inner)]
    return jnp.select([codes == code for code in range(len(forms))], forms)


def _noise(
    key: jax.Array, n_rows: int, family: jax.Array, scale: jax.Array, df: jax.Array
) -> jax.Array:
    """Draw noise ``[n_rows, n_vars]``, each cell from its own key.

    Normal and Student draws are polar, R cos(2 pi v), with R² = -2 log u or df (u^(-2/df) - 1)
    (Box and Muller 1958; Bailey 1994); the latter needs no rejection, so all families take the
    same two uniforms.
    """
    row_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(n_rows))
    columns = jnp.arange(scale.shape[-1])
    keys = jax.vmap(lambda k: jax.vmap(partial(jax.random.fold_in, k))(columns))(row_keys)
    bits = jax.vmap(jax.vmap(lambda k: jax.random.bits(k, (2,), jnp.uint32)))(keys)
    # 24 bits each, moved off 0 and 1 by half a step so that every logarithm is finite.
    u, v = jnp.moveaxis((jnp.right_shift(bits, 8).astype(jnp.float32) + 0.5) / 2**24, -1, 0)
    angle = jnp.cos(2 * jnp.pi * v)
    log_u = jnp.log(u)
    normal = jnp.sqrt(-2 * log_u) * angle
    student = jnp.sqrt((df - 2) * jnp.expm1(-2 / df * log_u)) * angle
    # Tails of the Laplace take u near 0, where float32 is finest, and the sign from v.
    laplace = -log_u * jnp.where(v < 0.5, -1.0, 1.0) / jnp.sqrt(2.0)
    flat = (2 * u - 1) * jnp.sqrt(3.0)
    forms = {"gaussian": normal, "laplace": laplace, "uniform": flat, "student": student}
    codes = [family == code for code in range(len(NOISE_FAMILIES))]
    return scale * jnp.select(codes, [forms[name] for name in NOISE_FAMILIES])


_jitted_noise = jax.jit(_noise, static_argnums=1)


def _named_noise(scm: SCM, n: int, seed: int) -> np.ndarray:
    """Noise ``[n, n_vars]`` of a named system: that of system 0 in a batch with the same key."""
    d = len(scm.variables)
    room_d, room_n = bucket(d, 8), bucket(n, 64)
    family, scale, df = np.zeros(room_d, np.int32), np.zeros(room_d), np.full(room_d, 5.0)
    for j, name in enumerate(scm.variables):
        own = scm.mechanisms[name].noise
        family[j], scale[j], df[j] = NOISE_FAMILIES.index(own.family), own.scale, own.df
    key = jax.random.fold_in(jax.random.key(seed), 0)
    # Unit scale on the device and the scale outside: a scale of 1e30 stays exact.
    unit = _jitted_noise(
        key,
        room_n,
        jnp.asarray(family),
        jnp.ones(room_d, jnp.float32),
        jnp.asarray(df, jnp.float32),
    )
    return np.asarray(unit, dtype=np.float64)[:n, :d] * scale[:d]
