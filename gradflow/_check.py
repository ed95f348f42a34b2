"""Checks of arguments whose values are known before a computation is traced."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ._types import PerLayer


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of `tree` is being traced, so that values can be looked at."""
    return not any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def check_finite(name: str, value: PerLayer) -> None:
    if is_concrete(value) and not np.all(np.isfinite(np.asarray(value))):
        raise ValueError(f"`{name}` must be finite, got {value}.")


def check_positive(name: str, value: PerLayer) -> None:
    check_finite(name, value)
    if is_concrete(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"`{name}` must be positive, got {value}.")


def check_nonnegative(name: str, value: PerLayer) -> None:
    check_finite(name, value)
    if is_concrete(value) and not np.all(np.asarray(value) >= 0):
        raise ValueError(f"`{name}` must not be negative, got {value}.")
