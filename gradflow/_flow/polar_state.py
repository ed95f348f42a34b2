"""Norms and directions as the state of a flow."""

import equinox as eqx
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._types import Weights


class PolarState(eqx.Module):
    r"""Norms $\rho$ and directions $V_k$, with $W_k = \rho_k V_k$.

    `rho` has one entry for each layer, or is a single number: then it is the norm of
    the last layer, and the others' are 1.
    """

    rho: Float[Array, " layers"] | Float[Array, ""]
    directions: Weights

    def weights(self) -> Weights:
        *hidden, last = self.directions
        if self.rho.ndim == 0:
            return (*hidden, self.rho * last)
        return tuple(r * v for r, v in zip(self.rho, self.directions, strict=True))


def free_norms(
    norms: Float[Array, " layers"], network: AbstractNetwork, all_norms: bool
) -> Float[Array, " layers"] | Float[Array, ""]:
    """All norms, or the scale that they make of a network like `network`, as the norm
    of the last layer."""
    return norms if all_norms else network.scale_of(norms)
