"""Positions of processes as named arrays, and back."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import _nested
from .._disk.npy import is_storable
from .._process import AbstractPosition

_PREFIX = "position"


def position_to_arrays(
    position: AbstractPosition,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a position by name, and which of them are random keys, of which
    kind."""
    arrays, keys = {}, {}
    for name, leaf in _leaves(position).items():
        if is_key(leaf):
            keys[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        arrays[name] = _storable(np.asarray(leaf))
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
    expected = _leaves(template)
    found = {name for name in arrays if name.startswith(f"{_PREFIX}/")}
    if found != set(expected):
        differing = sorted(found.symmetric_difference(expected))
        raise ValueError(f"the arrays {differing} are missing, or too many")

    def restore(name: str, like: Any) -> Any:
        saved = arrays[name]
        if name in keys:
            value = jax.random.wrap_key_data(jnp.asarray(saved), impl=keys[name])
        elif saved.dtype == _storable(np.empty(0, like.dtype)).dtype:
            value = jnp.asarray(saved.view(like.dtype))
        else:
            value = saved
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"the array {name!r} is {value.dtype}{list(value.shape)}, and not "
                f"{like.dtype}{list(like.shape)}"
            )
        return value

    restored = [restore(name, leaf) for name, leaf in expected.items()]
    dynamic, static = eqx.partition(template, _is_array)
    structure = jax.tree.structure(dynamic)
    return eqx.combine(jax.tree.unflatten(structure, restored), static)


def _storable(array: np.ndarray) -> np.ndarray:
    """The same bytes, of a type that NumPy gets back from a file."""
    kept = is_storable(array.dtype)
    return array if kept else array.view(f"u{array.dtype.itemsize}")


def _leaves(position: AbstractPosition) -> dict[str, Any]:
    leaves = _nested.flatten(eqx.filter(position, _is_array))
    return {"/".join([_PREFIX, *map(str, path)]): x for path, x in leaves.items()}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
