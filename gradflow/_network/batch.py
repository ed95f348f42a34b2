"""Functions of one example, for a batch of them that may look at each other."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Result = TypeVar("Result")

_AXIS = "gradflow: examples of a batch"


def over_batch(function: Callable[..., Result]) -> Callable[..., Result]:
    """`jax.vmap` of a function of one example, within which a network may normalise
    over the batch."""
    return jax.vmap(function, axis_name=_AXIS)


class Moments(NamedTuple):
    """Of each unit, over the batch and its positions, shaped to broadcast over them.

    **Attributes:**

    - `unit`: in which the others are: the largest modulus, or 1. A constant to
        derivatives: what is made of all three must not depend on it.
    - `mean`: the mean.
    - `deviation`: the standard deviation; 0 where it is not more than rounding.
    """

    unit: Float[Array, "units ..."]
    mean: Float[Array, "units ..."]
    deviation: Float[Array, "units ..."]


def moments(z: Float[Array, "units ..."]) -> Moments:
    """The moments of a layer's pre-activations or activations.

    **Raises:** `ValueError` outside of `over_batch`, and where there is one number only
    to take them over.
    """
    positions = tuple(range(1, z.ndim))
    try:
        batch = jax.lax.axis_size(_AXIS)
    except NameError as error:
        raise ValueError(
            "`network` has batch normalisation: it takes the statistics of a batch, "
            "and cannot be called on one example. For all samples there is "
            "`problem.outputs(network)`; `problem.with_statistics(network)` is the "
            "network with their statistics, for any example."
        ) from error
    if batch * z.size == z.shape[0]:
        raise ValueError(
            "`network` has batch normalisation, and there is nothing to normalise in a "
            "batch of one. Take larger batches."
        )

    def over_all(x: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
        return jax.lax.pmean(jnp.mean(x, axis=positions, keepdims=True), _AXIS)

    # Without a unit, squares of units that have decayed would underflow.
    modulus = jnp.abs(jax.lax.stop_gradient(z))
    largest = jax.lax.pmax(jnp.max(modulus, axis=positions, keepdims=True), _AXIS)
    unit = jnp.where(largest > 0, largest, 1)
    mean = over_all(z / unit)
    variance = over_all(jnp.square(z / unit - mean))
    varies = variance > (16 * jnp.finfo(z.dtype).eps) ** 2
    deviation = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)
    return Moments(unit, mean, deviation)


def standardised(
    z: Float[Array, "units ..."], of: Moments
) -> Float[Array, "units ..."]:
    """With mean 0 and variance 1 for each unit; 0 for units that do not vary."""
    varies = of.deviation > 0
    centred = z / of.unit - of.mean
    return jnp.where(varies, centred / jnp.where(varies, of.deviation, 1), 0)
