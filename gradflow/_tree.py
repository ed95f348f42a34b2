"""Inner products and norms of pytrees."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def tree_inner(a: Any, b: Any) -> Float[Array, ""]:
    """The Euclidean inner product of two pytrees of the same structure."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return jax.tree.reduce(jnp.add, products)


def tree_norm(a: Any) -> Float[Array, ""]:
    """The Euclidean norm of a pytree."""
    return jnp.sqrt(tree_inner(a, a))


def tree_isfinite(a: Any) -> Bool[Array, ""]:
    """Whether every entry is finite."""
    return jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), a)
    )


def scaled(x: Float[Array, "*axes"]) -> tuple[Float[Array, "*axes"], Float[Array, ""]]:
    """An array in units of about its largest entry in absolute value, and that unit, or
    1 for an array of zeros: squares of the entries could under- or overflow.

    The unit is a power of two, so that nothing is rounded, and a constant to
    derivatives. What is computed from the array must not depend on it, or be multiplied
    by it again.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    _, exponent = jnp.frexp(jnp.where(largest > 0, largest, 1))
    # The inverse of the unit has to be a number, too.
    most = -jnp.finfo(x.dtype).minexp
    unit = jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent - 1, -most, most))
    return x / unit, unit


def scaled_norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    """`safe_norm` of all entries, of any size."""
    x, size = scaled(x)
    return size * safe_norm(x)


def safe_norm(
    x: Float[Array, "..."],
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """The Euclidean norm with derivative 0, instead of NaN, at the origin."""
    return safe_sqrt(jnp.sum(jnp.square(x), axis=axis, keepdims=keepdims))


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root with derivative 0, instead of infinity, at 0.

    Numbers so small that a sum of squares has lost its precision count as 0.
    """
    # The inner `where` keeps the infinite derivative out of the branch not taken,
    # where it would turn into NaN on being multiplied by zero.
    info = jnp.finfo(x.dtype)
    is_zero = x < info.tiny / info.eps
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))
