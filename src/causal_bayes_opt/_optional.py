"""The one place that copes with an optional dependency that is not installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from causal_bayes_opt.errors import OptionalDependencyError


def optional(name: str, extra: str) -> ModuleType:
    """Import the module `name`, which the extra `extra` of this package installs.

    Args:
        name: the module's full name, such as ``"zarr"`` or ``"ray.data"``.
        extra: the extra that brings it, such as ``"scale"``.

    Raises:
        OptionalDependencyError: the module's package is not installed.
        ImportError: it is installed and fails to import; that is its own fault and stays visible.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing != name and not name.startswith(f"{missing}."):
            raise
        raise OptionalDependencyError(
            f"{name!r} is needed here and not installed: "
            f"run pip install 'causal-bayes-opt[{extra}]'"
        ) from error
