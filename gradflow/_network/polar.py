"""The polar parametrization of a network."""

import equinox as eqx
from jaxtyping import Array, Float

from .base import AbstractNetwork


class Polar(eqx.Module):
    r"""A network as norms and directions: $W_k = \rho_k V_k$ with $\|V_k\|_F = 1$.

    By homogeneity $g = \rho f$, with $\rho = \prod_k \rho_k$ and $f$ the network of the
    $V_k$ (M112 §2, T3 §2). With batch normalisation $\rho$ is the product of the norms
    of the other layers, those whose scale matters.
    """

    rho: Float[Array, " layers"]
    directions: AbstractNetwork

    @classmethod
    def from_network(cls, network: AbstractNetwork) -> "Polar":
        """Splits every layer into its Frobenius norm and its direction.

        **Raises:** an error where a layer is zero and so has no direction.
        """
        norms = eqx.error_if(
            network.norms,
            network.norms == 0,
            "`network` has a layer whose weights are all zero: it has no direction, so "
            "no polar form. Start from other weights.",
        )
        directions = network.with_weights(
            tuple(w / n for w, n in zip(network.weights, norms, strict=True))
        )
        return cls(norms, directions)

    @property
    def scale(self) -> Float[Array, ""]:
        r"""$\rho = \prod_k \rho_k$, of the layers whose scale matters."""
        return self.directions.scale_of(self.rho)

    def to_network(self) -> AbstractNetwork:
        """The network with weights `rho[k] * directions.weights[k]`."""
        return self.directions.with_weights(
            tuple(n * v for n, v in zip(self.rho, self.directions.weights, strict=True))
        )


Polar.__init__.__doc__ = """**Arguments:**

- `rho`: the norms, of shape `(L,)`.
- `directions`: a network whose layers have unit Frobenius norm.
"""
