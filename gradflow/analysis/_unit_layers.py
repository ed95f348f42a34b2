"""The network of the directions."""

from .._network import AbstractNetwork


def unit_layers(network: AbstractNetwork) -> AbstractNetwork:
    """The network of the $V_k$, whose layers have unit norms; NaN where a layer is 0,
    which has no direction."""
    pairs = zip(network.weights, network.norms, strict=True)
    return network.with_weights(tuple(w / norm for w, norm in pairs))
