"""Batch normalisation absorbed into the weights."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._tree import safe_norm
from .base import AbstractNetwork


class Absorbed(eqx.Module):
    r"""A network with shifts instead of batch normalisation; see `BatchNorm.absorbed`.

    $W_L \sigma(W_{L-1} \cdots \sigma(W_1 x + b_1) \cdots + b_{L-1})$, or with
    $\sigma(W_k h) + b_k$ for a normalisation after the activation. It is called on one
    example, and is for evaluation: with shifts it is not homogeneous.

    **Attributes:**

    - `network`: the network without batch normalisation, with the absorbed weights.
        `absorbed.network.norms` are their norms, and `absorbed.network.scale` is the
        product of these.
    - `shifts`: $b_k$ of each hidden layer, one for each unit or channel.
    - `after_activation`: whether the shifts are added to what the activation hands on.
    """

    network: AbstractNetwork
    shifts: tuple[Float[Array, " _"], ...]
    after_activation: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " outputs"]:
        """The output for one example `x` of shape `in_shape`."""
        shifts = iter(self.shifts)

        def hand_on(z, scale, skip=None):
            shift = of_units(next(shifts), z)
            if self.after_activation:
                return self.network.hand_on(z, scale, skip) + shift
            scale = safe_norm(jnp.stack(jnp.broadcast_arrays(scale, shift)), axis=0)
            return self.network.hand_on(z + shift, scale, skip)

        return self.network.forward(x, hand_on)[1]

    def __repr__(self) -> str:
        after = ", after the activation" if self.after_activation else ""
        return f"Absorbed({self.network}{after})"


def absorb(
    network: AbstractNetwork,
    factors: tuple[Float[Array, " _"], ...],
    shifts: tuple[Float[Array, " _"], ...],
    after_activation: bool,
) -> Absorbed:
    """The network with what each hidden unit is given, or hands on, multiplied by its
    factor, and then shifted."""
    *hidden, last = network.weights
    signs = [jnp.where(f < 0, -1, 1).astype(f.dtype) for f in factors]
    if after_activation:
        # A rectifier lets a factor through without its sign, which is left to what the
        # next layer receives, and that of a shift with it.
        factors = tuple(jnp.abs(f) for f in factors)
        shifts = tuple(s * b for s, b in zip(signs, shifts, strict=True))
    weights = [of_units(f, w) * w for f, w in zip(factors, hidden, strict=True)] + [
        last
    ]
    if after_activation:
        for (k, w), sign in zip(enumerate(weights[1:], 1), signs, strict=True):
            weights[k] = network.scale_fan_in(k, w, sign)
    return Absorbed(network.with_weights(tuple(weights)), shifts, after_activation)


def of_units(
    values: Float[Array, " units"], z: Float[Array, "units ..."]
) -> Float[Array, "units ..."]:
    """One number for each unit, shaped to broadcast over the other axes."""
    return jnp.reshape(values, (-1, *(1,) * (z.ndim - 1)))
