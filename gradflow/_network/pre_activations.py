"""What the activations of a network are given, and what they make of it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .activation import AbstractActivation
from .base import AbstractNetwork


class _Recorder(AbstractActivation):
    """Notes what an activation is called with."""

    activation: AbstractActivation
    # Static, or the list would be copied with the network.
    record: Callable[[Any], None] = eqx.field(static=True)
    gain = 1.0

    def __call__(
        self, pre_activation: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        self.record((pre_activation, scale))
        return self.activation(pre_activation, scale)


def pre_activations(
    network: AbstractNetwork, x: Float[Array, "..."]
) -> tuple[tuple[Float[Array, "..."], Float[Array, "..."]], ...]:
    """The pre-activations of the hidden layers for one example, each with its scale,
    the largest modulus that it could have (see `AbstractActivation`)."""
    calls = []
    network.with_activation(_Recorder(network.activation, calls.append))(x)
    return tuple(calls)


def features(
    network: AbstractNetwork, x: Float[Array, "..."]
) -> tuple[Float[Array, " units"], ...]:
    """What the hidden layers hand on for one example, each as a vector."""
    handed_on, _ = network.forward(x, network.hand_on)
    return tuple(map(jnp.ravel, handed_on))
