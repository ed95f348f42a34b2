"""Arrays in units of their largest entry."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def scaled(x: Float[Array, "*axes"]) -> tuple[Float[Array, "*axes"], Float[Array, ""]]:
    """An array divided by its largest entry in absolute value, and that entry, or 1 for
    an array of zeros: squares of the entries could under- or overflow.

    The scale is a constant to derivatives. What is computed from the array must not
    depend on it, or be multiplied by it again.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    largest = jnp.where(largest > 0, largest, 1)
    return x / largest, largest
