"""Mechanisms: how a variable follows from its parents, and the noise added to it.

Every family but the user's functions is one array form, a linear part and a layer of units,

    f(x) = bias + w . x + sum_h a_h act_h(Omega_h . x + b_h)

(saturating at a bound, if one is given) so that systems of different families share one sampler
and can be stacked under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from causal_bayes_opt.errors import ConfigError, DataError, GraphError, check_name

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "square": np.square,
    "cube": lambda z: z * z * z,
    "sigmoid": lambda z: 0.5 * (1.0 + np.tanh(0.5 * z)),
    "tanh": np.tanh,
    "cos": np.cos,
}
ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
NOISE_FAMILIES = ("gaussian", "laplace", "uniform", "student")


@dataclass(frozen=True)
class Noise:
    """Additive noise with mean 0. `scale` is its standard deviation in every family.

    `df` is the degrees of freedom of the Student family, above 2 so that the deviation exists.
    """

    family: str = "gaussian"
    scale: float = 1.0
    df: float = 5.0

    def __post_init__(self) -> None:
        check_name(self.family, NOISE_FAMILIES, "noise family")
        if not (np.isfinite(self.scale) and self.scale >= 0):
            raise ConfigError(f"noise scale is {self.scale}; it must be finite and not negative")
        if self.family == "student" and not (np.isfinite(self.df) and self.df > 2):
            raise ConfigError(
                f"Student noise has {self.df} degrees of freedom; above 2 is needed, and finite"
            )


def gaussian(scale: float = 1.0) -> Noise:
    """Normal noise with standard deviation `scale`."""
    return Noise("gaussian", scale)


def laplace(scale: float = 1.0) -> Noise:
    """Laplace noise with standard deviation `scale`."""
    return Noise("laplace", scale)


def uniform(scale: float = 1.0) -> Noise:
    """Uniform noise with standard deviation `scale` (so its half-width is sqrt(3) times it)."""
    return Noise("uniform", scale)


def student(scale: float = 1.0, df: float = 5.0) -> Noise:
    """Student noise with standard deviation `scale` and `df` > 2 degrees of freedom."""
    return Noise("student", scale, df)


@dataclass(frozen=True, eq=False)
class Mechanism:
    """How one variable follows from its parents.

    Attributes:
        parents: names of the direct causes; the columns of all arrays are in their order.
        weights: linear part ``[n_parents]``.
        bias: constant.
        hidden: directions of the units ``[n_units, n_parents]``.
        offsets: ``[n_units]``.
        readout: ``[n_units]``.
        activations: names of the units' activations ``[n_units]``, keys of `ACTIVATIONS`.
        noise: the noise added.
        bound: the mean saturates at plus and minus this; infinite by default.
        function: the user's own mean function of the parents' columns ``[n]``, in place of all
            arrays.
    """

    parents: tuple[str, ...]
    weights: np.ndarray
    bias: float = 0.0
    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(0))
    readout: np.ndarray = field(default_factory=lambda: np.zeros(0))
    activations: tuple[str, ...] = ()
    noise: Noise = field(default_factory=Noise)
    bound: float = np.inf
    function: Callable[..., np.ndarray] | None = None

    def __post_init__(self) -> None:
        n_parents, n_units = len(self.parents), len(self.activations)
        shapes = {
            "weights": (n_parents,),
            "hidden": (n_units, n_parents),
            "offsets": (n_units,),
            "readout": (n_units,),
        }
        if len(set(self.parents)) != n_parents:
            raise GraphError(f"a parent is named twice in {list(self.parents)}")
        if not np.isfinite(self.bias):
            raise GraphError(f"bias of a mechanism must be finite, not {self.bias}")
        for name in self.activations:
            check_name(name, ACTIVATIONS, "activation")
        for name, shape in shapes.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if name == "hidden" and n_units == 0:
                array = np.zeros(shape)
            if array.shape != shape:
                raise GraphError(
                    f"{name} of a mechanism has shape {array.shape}; expected {shape} for "
                    f"{n_parents} parents and {n_units} units"
                )
            if not np.isfinite(array).all():
                raise GraphError(f"{name} of a mechanism must be finite, not {array.tolist()}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def mean(self, columns: np.ndarray) -> np.ndarray:
        """Return the mean ``[n]`` given the parents' values ``[n, n_parents]``.

        Raises:
            DataError: the user's function gave something else than a number or ``[n]`` numbers.
        """
        if self.function is not None:
            return self._mean_by_function(self.function, columns)
        total = self.bias + columns @ self.weights
        if self.activations:
            inner = columns @ self.hidden.T + self.offsets
            for unit, name in enumerate(self.activations):
                total = total + self.readout[unit] * ACTIVATIONS[name](inner[:, unit])
        return np.asarray(np.clip(total, -self.bound, self.bound))

    def _mean_by_function(
        self, function: Callable[..., np.ndarray], columns: np.ndarray
    ) -> np.ndarray:
        n = len(columns)
        values = function(*np.array(columns).T)  # of a copy: it may change what it is given
        try:
            return np.broadcast_to(np.asarray(values, dtype=np.float64), (n,))
        except (TypeError, ValueError) as error:
            given = f"shape {np.shape(values)}" if np.ndim(values) else repr(values)
            raise DataError(
                f"the function of the parents {list(self.parents)} gave {given}; expected one "
                f"number, or one for each of {n} rows"
            ) from error


def linear(
    parents: Sequence[str],
    weights: Sequence[float] | np.ndarray,
    bias: float = 0.0,
    noise: Noise | None = None,
) -> Mechanism:
    """``bias + weights . x + noise``; `weights` ``[n_parents]``."""
    return Mechanism(tuple(parents), np.asarray(weights, float), bias, noise=noise or Noise())


def polynomial(
    parents: Sequence[str],
    coefficients: np.ndarray,
    bias: float = 0.0,
    noise: Noise | None = None,
) -> Mechanism:
    """Sum of powers of each parent up to 3; `coefficients` ``[n_parents, degree]``, degree <= 3."""
    table = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    if table.ndim != 2 or table.shape[0] != len(parents) or not 1 <= table.shape[1] <= 3:
        raise GraphError(
            f"polynomial coefficients have shape {table.shape}; expected [{len(parents)}, 1 to 3]"
        )
    count, degree = table.shape
    powers = ("square", "cube")[: degree - 1]
    return Mechanism(
        tuple(parents),
        table[:, 0],
        bias,
        hidden=np.tile(np.eye(count), (len(powers), 1)),
        offsets=np.zeros(count * len(powers)),
        readout=table[:, 1:].T.ravel(),
        activations=tuple(power for power in powers for _ in range(count)),
        noise=noise or Noise(),
    )


def sigmoid(
    parents: Sequence[str],
    heights: Sequence[float] | np.ndarray,
    slopes: Sequence[float] | np.ndarray,
    centres: Sequence[float] | np.ndarray,
    bias: float = 0.0,
    noise: Noise | None = None,
) -> Mechanism:
    """``sum_i heights_i / (1 + exp(-slopes_i (x_i - centres_i)))``; each ``[n_parents]``."""
    slope = np.asarray(slopes, dtype=np.float64)
    return Mechanism(
        tuple(parents),
        np.zeros(len(parents)),
        bias,
        hidden=np.diag(slope),
        offsets=-slope * np.asarray(centres, dtype=np.float64),
        readout=np.asarray(heights, dtype=np.float64),
        activations=("sigmoid",) * len(parents),
        noise=noise or Noise(),
    )


def neural(
    parents: Sequence[str],
    hidden: np.ndarray,
    offsets: np.ndarray,
    readout: np.ndarray,
    bias: float = 0.0,
    noise: Noise | None = None,
) -> Mechanism:
    """One hidden layer of tanh units; `hidden` ``[n_units, n_parents]``, the rest ``[n_units]``."""
    return _layer("tanh", parents, hidden, offsets, readout, bias, noise)


def random_feature_gp(
    parents: Sequence[str],
    frequencies: np.ndarray,
    phases: np.ndarray,
    readout: np.ndarray,
    bias: float = 0.0,
    noise: Noise | None = None,
) -> Mechanism:
    """Random Fourier features of a Gaussian process (Rahimi and Recht, 2007).

    With frequencies ~ N(0, 1/length²), phases ~ U(0, 2 pi) and readout ~ sqrt(2/n_units) N(0, s²)
    this is a draw from a GP with an RBF kernel of that length scale and output scale s.
    """
    return _layer("cos", parents, frequencies, phases, readout, bias, noise)


def from_function(
    parents: Sequence[str], function: Callable[..., np.ndarray], noise: Noise | None = None
) -> Mechanism:
    """Any mean function of the parents' columns, given in the order of `parents`, each ``[n]``."""
    zeros = np.zeros(len(parents))
    return Mechanism(tuple(parents), zeros, noise=noise or Noise(), function=function)


def _layer(
    activation: str,
    parents: Sequence[str],
    hidden: np.ndarray,
    offsets: np.ndarray,
    readout: np.ndarray,
    bias: float,
    noise: Noise | None,
) -> Mechanism:
    return Mechanism(
        tuple(parents),
        np.zeros(len(parents)),
        bias,
        hidden=hidden,
        offsets=offsets,
        readout=readout,
        activations=(activation,) * len(np.asarray(readout)),
        noise=noise or Noise(),
    )
