"""The equations of published systems, each as an SCM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from causal_bayes_opt.core.mechanisms import (
    Mechanism,
    Noise,
    from_function,
    gaussian,
    linear,
    uniform,
)
from causal_bayes_opt.core.scm import SCM

_NONE = Noise(scale=0.0)


def toy(shift: float) -> SCM:
    """``X = e; Z = shift + exp(-X) + e; Y = cos Z - exp(-Z/20) + e`` with e ~ N(0, 1).

    Aglietti et al. (2020) with shift 0; Branchini et al. (2023) with shift 4.
    """
    mechanisms = {
        "X": linear([], []),
        "Z": from_function(["X"], lambda x: shift + np.exp(-x)),
        "Y": from_function(["Z"], lambda z: np.cos(z) - np.exp(-z / 20)),
    }
    return SCM(("X", "Z", "Y"), mechanisms, "Y")


def health(bmi_weight: float) -> SCM:
    """Prostate-specific antigen (PSA) under aspirin and statin (Aglietti et al. 2020).

    The papers give `bmi_weight` as -0.15; the code of Branchini et al. (2023) and of Durand et al.
    (2025) has +0.15.
    """
    mechanisms = {
        "age": linear([], [], 65.0, uniform(10 / math.sqrt(3))),
        "bmi": linear(["age"], [-0.01], 27.0, gaussian(0.7)),
        "aspirin": _logistic(["age", "bmi"], [0.10, 0.03], -8.0),
        "statin": _logistic(["age", "bmi"], [0.10, 0.20], -13.0),
        "cancer": _logistic(["age", "bmi", "statin", "aspirin"], [-0.05, 0.01, -0.04, 0.02], 2.2),
        "psa": linear(
            ["age", "bmi", "statin", "aspirin", "cancer"],
            [0.04, bmi_weight, -0.60, 0.55, 1.00],
            6.8,
            gaussian(0.4),
        ),
    }
    return SCM(tuple(mechanisms), mechanisms, "psa")


def epidemiology() -> SCM:
    """Treatment, load and response under an exposure B (Branchini et al. 2023)."""
    mechanisms = {
        "B": linear([], [], 0.0, uniform(1 / math.sqrt(3))),
        "T": linear([], [], 6.0, uniform(2 / math.sqrt(3))),
        "L": _logistic(["T", "B"], [0.5, 1.0], 0.0),
        "R": from_function(["T", "L"], lambda t, load: 4 + load * t, _NONE),
        "Y": from_function(
            ["B", "T", "L", "R"],
            lambda b, t, load, r: 0.5 + np.cos(4 * t) + np.sin(2 * r - load) + b,
        ),
    }
    return SCM(tuple(mechanisms), mechanisms, "Y")


def complete() -> SCM:
    """Seven variables and two hidden confounders, U1 and U2 (Aglietti et al. 2020)."""
    mechanisms = {
        "U1": linear([], []),
        "U2": linear([], []),
        "F": linear([], []),
        "A": from_function(["F", "U1"], lambda f, u1: f**2 + u1),
        "B": linear(["U2"], [1.0]),
        "C": from_function(["B"], lambda b: np.exp(-b)),
        "D": from_function(["C"], lambda c: np.exp(-c) / 10),
        "E": from_function(["A", "C"], lambda a, c: np.cos(a) + c / 10),
        "Y": from_function(
            ["D", "E", "U1", "U2"],
            lambda d, e, u1, u2: np.cos(d) - d / 5 + np.sin(e) - e / 4 + u1 + np.exp(-u2),
        ),
    }
    return SCM(tuple(mechanisms), mechanisms, "Y")


def linear_system(
    variables: Sequence[str],
    edges: Sequence[tuple[str, str, float]],
    noise: float,
    target: str,
) -> SCM:
    """A linear system from (cause, effect, weight) triples, with equal Gaussian noise."""
    weights: Mapping[tuple[str, str], float] = {(cause, e): w for cause, e, w in edges}
    return SCM.linear(variables, weights, noise=gaussian(noise), target=target)


def _logistic(parents: Sequence[str], slopes: Sequence[float], offset: float) -> Mechanism:
    """``1 / (1 + exp(-(offset + slopes . x)))`` without noise."""
    return Mechanism(
        tuple(parents),
        np.zeros(len(parents)),
        hidden=np.array([slopes]),
        offsets=np.array([offset]),
        readout=np.ones(1),
        activations=("sigmoid",),
        noise=_NONE,
    )
