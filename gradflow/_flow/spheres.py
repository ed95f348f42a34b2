"""Products of unit spheres on which the directions of the layers live."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, Diagonal, Polar
from .._types import Weights


class AbstractSpheres(eqx.Module):
    """A unit sphere for each layer, or several of them."""

    @abc.abstractmethod
    def split(
        self, network: AbstractNetwork
    ) -> tuple[Float[Array, " layers"], Weights]:
        r"""Norms $\rho_k$ and directions $V_k$ on the spheres, such that the network of
        the $\rho_k V_k$ is the same function as `network`."""

    @abc.abstractmethod
    def axes(self, layer: int, directions: Weights) -> tuple[int, ...]:
        """The axes of a layer's array over which the squares sum to one."""

    def inner(self, a: Weights, b: Weights) -> Weights:
        """Inner products sphere by sphere, shaped to broadcast over the layer."""
        return tuple(
            jnp.sum(x * y, axis=self.axes(k, a), keepdims=True)
            for k, (x, y) in enumerate(zip(a, b, strict=True))
        )

    def project(self, directions: Weights) -> Weights:
        """Divides by the norms."""
        squares = self.inner(directions, directions)
        return tuple(
            v / jnp.sqrt(square) for v, square in zip(directions, squares, strict=True)
        )

    def tangent(self, directions: Weights, velocity: Weights) -> Weights:
        """The part of a velocity orthogonal to the directions, also off the spheres."""
        radial = self.inner(directions, velocity)
        squares = self.inner(directions, directions)
        return tuple(
            u - v * (r / square)
            for u, v, r, square in zip(
                velocity, directions, radial, squares, strict=True
            )
        )

    def with_multiplier(self, directions: Weights, velocity: Weights) -> Weights:
        r"""Adds the Lagrange term $-2\nu V$ with the multiplier that the papers solve
        for under the assumption $\|V\| = 1$: $2\nu = \langle V, u \rangle$."""
        radial = self.inner(directions, velocity)
        return tuple(
            u - v * r for u, v, r in zip(velocity, directions, radial, strict=True)
        )

    def defect(self, directions: Weights) -> Float[Array, ""]:
        """The largest distance of a norm from 1."""
        squares = self.inner(directions, directions)
        return jnp.max(jnp.stack([jnp.max(jnp.abs(jnp.sqrt(s) - 1)) for s in squares]))


class MatrixSpheres(AbstractSpheres):
    r"""One sphere for each layer: $\|V_k\|_F = 1$ (SQ 1, M112 3)."""

    def split(
        self, network: AbstractNetwork
    ) -> tuple[Float[Array, " layers"], Weights]:
        polar = Polar.from_network(network)
        return polar.rho, polar.directions.weights

    def axes(self, layer: int, directions: Weights) -> tuple[int, ...]:
        return tuple(range(directions[layer].ndim))


class RowSpheres(AbstractSpheres):
    r"""One sphere for each unit of the hidden layers, and one for the last layer: what
    the papers take batch normalisation for (M112 §2.3, App. A.2).

    `split` hands the norm of each unit on to the layer above. With a smoothed ReLU the
    widths of the kinks change on the way, and with them the function, by a relative
    error of the order of the smoothing.
    """

    def split(
        self, network: AbstractNetwork
    ) -> tuple[Float[Array, " layers"], Weights]:
        if isinstance(network, Diagonal):
            raise ValueError(
                "`spheres`: a unit of a diagonal network has a single weight, which "
                "`RowSpheres()` would freeze. Use `MatrixSpheres()`."
            )
        *hidden, last = network.weights
        directions = []
        above = [*hidden[1:], last]
        weight = network.weights[0]
        for k in range(len(hidden)):
            axes = tuple(range(1, weight.ndim))
            norms = jnp.sqrt(jnp.sum(jnp.square(weight), axis=axes, keepdims=True))
            norms = eqx.error_if(
                norms,
                norms == 0,
                f"`network`: a unit of layer {k} has weights that are all zero, so it "
                "has no direction. Use `MatrixSpheres()` or other weights.",
            )
            directions.append(weight / norms)
            weight = network.scale_fan_in(k + 1, above[k], jnp.ravel(norms))
        norm = jnp.linalg.norm(weight)
        norm = eqx.error_if(
            norm, norm == 0, "`network`: the last layer's weights are all zero."
        )
        ones = jnp.ones((len(hidden),), norm.dtype)
        return jnp.append(ones, norm), (*directions, weight / norm)

    def axes(self, layer: int, directions: Weights) -> tuple[int, ...]:
        first = 0 if layer == len(directions) - 1 else 1
        return tuple(range(first, directions[layer].ndim))
