"""Products of matrices in full single precision, on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(function: F) -> F:
    """Have a function that is traced multiply float32 matrices as they are.

    GPUs would else round what enters a product to ten bits of mantissa, which is right for layers
    of a network, and wrong where small differences of large sums matter. CPUs do not.
    """
    return cast(F, jax.default_matmul_precision("highest")(function))
