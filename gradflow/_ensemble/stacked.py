"""Many pytrees of one structure as one."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

T = TypeVar("T")


class Stacked(eqx.Module, Generic[T]):
    """Pytrees that differ in the values of some arrays. Only these are stacked."""

    varying: PyTree[Array]
    common: PyTree

    def take(self, index: int | Int[Array, ""]) -> T:
        """One of the pytrees."""
        own = jax.tree.map(lambda x: x[index], self.varying)
        return eqx.combine(own, self.common)


def stack(trees: Sequence[T]) -> Stacked[T]:
    """The pytrees, which have to be `alike`."""
    leaves, treedef = zip(*map(jax.tree.flatten, trees), strict=True)
    varying, common = [], []
    for group in zip(*leaves, strict=True):
        is_common = all(_is_same(leaf, group[0]) for leaf in group)
        varying.append(None if is_common else jnp.stack(group))
        common.append(group[0] if is_common else None)
    return Stacked(treedef[0].unflatten(varying), treedef[0].unflatten(common))


def alike(tree: Any, other: Any) -> bool:
    """Whether two pytrees differ in nothing but the values of arrays."""
    leaves, treedef = jax.tree.flatten(tree)
    other_leaves, other_treedef = jax.tree.flatten(other)
    return treedef == other_treedef and all(
        _have_same_form(a, b) for a, b in zip(leaves, other_leaves, strict=True)
    )


def _have_same_form(a: Any, b: Any) -> bool:
    if eqx.is_array(a) and eqx.is_array(b):
        return a.shape == b.shape and a.dtype == b.dtype
    return _is_same(a, b)


def _is_same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if eqx.is_array(a) and eqx.is_array(b):
        return np.array_equal(_values(a), _values(b))
    return type(a) is type(b) and bool(a == b)


def _values(x: Array) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)
