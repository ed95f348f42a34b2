"""Checks of arguments whose values are known before a computation is traced."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
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


def check_positive_integer(name: str, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


def check_instance(name: str, value: Any, kind: type) -> None:
    """Raises a `ValueError` for anything but an instance: for a class too, where its
    brackets were forgotten."""
    if not isinstance(value, kind):
        noun = kind.__name__.removeprefix("Abstract")
        article = "an" if noun[0] in "AEIOU" else "a"
        raise ValueError(f"`{name}` must be {article} `{noun}`, got {value!r}.")


def check_scalar(name: str, value: Any) -> None:
    if np.ndim(value) != 0:
        raise ValueError(
            f"`{name}` must be a single number, got shape {np.shape(value)}. Use "
            "`jax.vmap` for several."
        )


def check_precision(dtype: Any, rtol: PerLayer | None = None) -> None:
    """Warns of single precision that was not asked for, and raises a `ValueError` for
    an `rtol` that the floating-point type cannot resolve."""
    eps = np.finfo(dtype).eps
    if np.dtype(dtype) != np.float64 and jnp.result_type(float) != np.float64:
        warnings.warn(
            f"gradflow runs in {np.dtype(dtype)}: conserved quantities, stationarity "
            "and small tolerances need float64. Put "
            '`jax.config.update("jax_enable_x64", True)` at the top of the program.',
            stacklevel=3,
        )
    if rtol is not None and is_concrete(rtol) and np.any(np.asarray(rtol) < 10 * eps):
        raise ValueError(
            f"`rtol` of {rtol} is finer than {np.dtype(dtype)} resolves: 10 × {eps}."
        )
