"""Which width the kinks of a network are integrated with."""

from typing import TypeVar

import jax.numpy as jnp

from .._check import check_nonnegative, is_concrete
from .._types import RealScalarLike
from .activation import AdjustableReLU, ReLU
from .base import AbstractNetwork

Network = TypeVar("Network", bound=AbstractNetwork)


def has_kinks(network: AbstractNetwork) -> bool:
    """Whether the network has exact rectifiers."""
    return isinstance(network.activation, ReLU) and network.activation.smoothing == 0


def regularise(
    network: Network, smoothing: RealScalarLike | None, default: RealScalarLike
) -> tuple[Network, Network]:
    """The same network twice, with its kinks smoothed: with a width that can change
    without a new compilation, and with one that is written into the network.

    Only exact ReLU networks are touched.

    **Arguments:**

    - `network`: any network.
    - `smoothing`: the width, 0 for none.
    - `default`: the width if `smoothing` is `None`.

    **Raises:** `ValueError` where a width is given for a network that has its own or no
    kinks, is negative, or is being traced.
    """
    is_exact = (
        isinstance(network.activation, ReLU) and network.activation.smoothing == 0
    )
    if smoothing is not None:
        check_nonnegative("smoothing", smoothing)
        if not is_exact:
            raise ValueError(
                "`smoothing` is for networks with exact rectifiers; this one has "
                f"{network.activation}, which is left as it is."
            )
    width = default if smoothing is None else smoothing
    if not is_exact or (is_concrete(width) and width == 0):
        return network, network
    if not is_concrete(width):
        raise ValueError(
            "The width of the smoothed kinks has to be known in advance, and is being "
            "traced. Give a number as `smoothing`, 0 for none."
        )
    dtype = network.weights[0].dtype
    adjustable = network.with_activation(AdjustableReLU(jnp.asarray(width, dtype)))
    return adjustable, network.with_activation(ReLU(float(width)))


def scale_kinks(network: Network, factor: RealScalarLike) -> Network:
    """The same network with the width of its kinks multiplied, if that can change."""
    activation = network.activation
    if not isinstance(activation, AdjustableReLU):
        return network
    return network.with_activation(AdjustableReLU(factor * activation.smoothing))


def smoothing_of(network: AbstractNetwork) -> RealScalarLike:
    """The relative width of a network's kinks; 0 without kinks or without smoothing."""
    return getattr(network.activation, "smoothing", 0.0)
