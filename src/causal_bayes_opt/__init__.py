"""Amortized causal Bayesian optimization with an unknown graph."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("causal-bayes-opt")
