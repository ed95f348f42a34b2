"""Positions of processes as named arrays, and back."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import _nested
from ._process import AbstractPosition

_PREFIX = "position"


def position_to_arrays(
    position: AbstractPosition,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a position by name, and which of them are random keys, of which
    kind."""
    arrays, keys = {}, {}
    for name, leaf in _leaves(position).items():
        if not _is_array(leaf):
            continue
        if is_key(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        arrays[name] = np.asarray(leaf)
    return arrays, keys


def position_from_arrays(
    template: AbstractPosition,
    arrays: Mapping[str, np.ndarray],
    keys: Mapping[str, str],
) -> AbstractPosition:
    """The position that `position_to_arrays` was given.

    **Arguments:**

    - `template`: one with `jax.ShapeDtypeStruct` in the places of arrays.
    - `arrays`, `keys`: as they were returned. Others are left alone.

    **Raises:** `ValueError` where they do not fit.
    """
    leaves = _leaves(template)
    found = {name for name in arrays if name.startswith(f"{_PREFIX}/")}
    expected = {name for name, leaf in leaves.items() if _is_array(leaf)}
    # What is known when a run starts may not be later.
    unknown = {name for name, leaf in leaves.items() if isinstance(leaf, bool)}
    if not expected <= found <= expected | unknown:
        differing = sorted(found.symmetric_difference(expected))
        raise ValueError(f"the arrays {differing} are missing, or too many")

    def restore(name: str, like: Any) -> Any:
        if name not in found:
            return like
        value = jnp.asarray(arrays[name])
        if name in keys:
            value = jax.random.wrap_key_data(value, impl=keys[name])
        shape, dtype = (like.shape, like.dtype) if _is_array(like) else ((), bool)
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(
                f"the array {name!r} is {value.dtype}{list(value.shape)}, and not "
                f"{dtype}{list(shape)}"
            )
        return value

    restored = [restore(name, leaf) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def _leaves(position: AbstractPosition) -> dict[str, Any]:
    leaves = _nested.flatten(position)
    return {"/".join([_PREFIX, *map(str, path)]): x for path, x in leaves.items()}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
