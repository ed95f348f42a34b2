"""Functions of one example, for a batch of them that may look at each other."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from .._chunks import each_chunk

Result = TypeVar("Result")
Shared = TypeVar("Shared")

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
    try:
        batch = jax.lax.axis_size(_AXIS)
    except NameError as error:
        raise ValueError(
            "`network` has batch normalisation: it takes the statistics of a batch, "
            "and cannot be called on one example. For all samples there is "
            "`problem.outputs(network)`; `problem.with_statistics(network)` is the "
            "network with their statistics, for any example."
        ) from error
    _check_number(batch, z.shape)

    def over_all(x: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
        return jax.lax.pmean(_mean(x), _AXIS)

    # Without a unit, squares of units that have decayed would underflow.
    unit = unit_of(jax.lax.pmax(_largest(z), _AXIS))
    mean = over_all(z / unit)
    return Moments(unit, mean, _root(over_all(jnp.square(z / unit - mean))))


def moments_over(
    function: Callable[[Shared, Float[Array, "..."]], Float[Array, "units ..."]],
    shared: Shared,
    inputs: Float[Array, "N ..."],
    size: int | None,
    sharding: NamedSharding | None,
) -> Moments:
    """The moments of what a function makes of all inputs, one by one, with the memory
    of `sum_over`.

    **Raises:** `ValueError` where there is one number only to take them over.
    """

    number = len(inputs)

    def of_some(shared, inputs, once):
        z = once(jax.vmap(lambda x: function(shared, x))(inputs))
        _check_number(number, z.shape[1:])
        share = once(jnp.full((len(z), *(1,) * (z.ndim - 1)), 1 / number, z.dtype))
        largest = jnp.max(jax.vmap(_largest)(z), axis=0, keepdims=True)
        z = z / unit_of(largest)
        mean = _weighted(jax.vmap(_mean)(z), share)
        variance = _weighted(jax.vmap(_mean)(jnp.square(z - mean)), share)
        return jnp.sum(share, axis=0, keepdims=True), largest, mean, variance

    of_chunks = each_chunk(of_some, shared, inputs, size, sharding)
    return _together(*jax.tree.map(lambda x: x[:, 0], of_chunks))


def _together(
    shares: Float[Array, "chunks ..."],
    largest: Float[Array, "chunks units ..."],
    means: Float[Array, "chunks units ..."],
    variances: Float[Array, "chunks units ..."],
) -> Moments:
    """The moments of all, from those of chunks in units of their `largest`."""
    unit = unit_of(jnp.max(largest, axis=0, keepdims=True))
    # A mean of zeros has derivatives, a variance of zeros has none.
    means = means * (unit_of(largest) / unit)
    mean = _weighted(means, shares)
    within = variances * jnp.square(largest / unit)
    variance = _weighted(within + jnp.square(means - mean), shares)
    return Moments(unit[0], mean[0], _root(variance[0]))


def _weighted(
    rows: Float[Array, "rows units ..."], shares: Float[Array, "rows ..."]
) -> Float[Array, "1 units ..."]:
    return jnp.sum(shares * rows, axis=0, keepdims=True) / jnp.sum(shares)


def _check_number(batch: int, shape: tuple[int, ...]) -> None:
    if batch * math.prod(shape[1:]) == 1:
        raise ValueError(
            "`network` has batch normalisation, and there is nothing to normalise in a "
            "batch of one. Take larger batches."
        )


def _positions(z: Float[Array, "units ..."]) -> tuple[int, ...]:
    return tuple(range(1, z.ndim))


def _largest(z: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
    modulus = jnp.abs(jax.lax.stop_gradient(z))
    return jnp.max(modulus, axis=_positions(z), keepdims=True)


def unit_of(largest: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
    return jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))


def _mean(x: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
    return jnp.mean(x, axis=_positions(x), keepdims=True)


def _root(variance: Float[Array, "units ..."]) -> Float[Array, "units ..."]:
    """The deviation, 0 where it would be one of rounding."""
    varies = variance > (16 * jnp.finfo(variance.dtype).eps) ** 2
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)


def standardised(
    z: Float[Array, "units ..."], of: Moments
) -> Float[Array, "units ..."]:
    """With mean 0 and variance 1 for each unit; 0 for units that do not vary."""
    varies = of.deviation > 0
    centred = z / of.unit - of.mean
    return jnp.where(varies, centred / jnp.where(varies, of.deviation, 1), 0)
