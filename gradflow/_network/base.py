"""What every network is."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._tree import scaled_norm
from .._types import StackedWeights, Weights
from .activation import AbstractActivation

Network = TypeVar("Network", bound="AbstractNetwork")

HandOn: TypeAlias = Callable[..., Float[Array, "..."]]
"""Takes the pre-activations of a hidden layer, the largest moduli that they could have,
and what goes past the layer and is added to them, if anything does, to what is handed
on: see `AbstractNetwork.hand_on`."""


class AbstractNetwork(eqx.Module):
    r"""A positively homogeneous network without biases, called on one example.

    $g(x) = W_L \sigma(W_{L-1} \cdots \sigma(W_1 x))$ for layers of any kind: scaling
    one layer's weights by $\alpha \ge 0$ scales the output by $\alpha$, or leaves it as
    it is, as `degrees` says.
    """

    weights: eqx.AbstractVar[Weights]
    activation: eqx.AbstractVar[AbstractActivation]

    @abc.abstractmethod
    def forward(
        self, x: Float[Array, "..."], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        """What each hidden layer hands on for one example `x` of shape `in_shape`, and
        the output, with another function than `hand_on` between the layers."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " outputs"]:
        """The output for one example `x` of shape `in_shape`."""
        return self.forward(x, self.hand_on)[1]

    def hand_on(
        self,
        z: Float[Array, "..."],
        scale: Float[Array, "..."],
        skip: Float[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """The activation of a hidden layer's pre-activations and what is added to
        them."""
        if skip is None:
            return self.activation(z, scale)
        return self.activation(z + skip, scale + jnp.abs(skip))

    @property
    @abc.abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one example."""

    @property
    @abc.abstractmethod
    def out_size(self) -> int:
        """The number of outputs."""

    @property
    @abc.abstractmethod
    def weight_ndims(self) -> tuple[int, ...]:
        """The number of axes of each layer's weights."""

    @property
    @abc.abstractmethod
    def degrees(self) -> tuple[int, ...]:
        """The degree of homogeneity of the output in each layer's weights: 1, or 0 for
        a layer whose scale does not matter."""

    @property
    @abc.abstractmethod
    def matrices(self) -> tuple[Float[Array, "out in"], ...]:
        """Each layer's weights as the matrix that the theory speaks of."""

    @abc.abstractmethod
    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        """Multiplies what `layer` receives from each unit of the layer below, unless
        what it receives does not depend on the scale of the unit's weights.

        **Arguments:**

        - `layer`: index of the layer, at least 1.
        - `weight`: that layer's weights.
        - `factors`: one factor for each unit (or channel) of layer `layer - 1`.

        **Returns:**

        Weights of the same shape. Dividing the rows of layer `layer - 1` by `factors`
        at the same time leaves an exact ReLU network's function as it is.
        """

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """What the class's `from_weights` needs besides the weights, by name."""

    @property
    def norms(self) -> Float[Array, " layers"]:
        r"""The Frobenius norms $\|W_k\|$ of the layers."""
        self.check_single()
        return jnp.stack([scaled_norm(w) for w in self.weights])

    @property
    def scale(self) -> Float[Array, ""]:
        r"""$\rho$: the product of the norms of the layers whose scale matters, all of
        them but for batch normalisation. $g = \rho f$ for the network $f$ of unit
        norms."""
        return self.scale_of(self.norms)

    def scale_of(self, norms: Float[Array, " layers"]) -> Float[Array, ""]:
        """What `scale` is for layers of these norms."""
        return jnp.prod(norms, where=np.asarray(self.degrees) > 0)

    @property
    def scaling_layers(self) -> Int[np.ndarray, " some"]:
        """The indices of the layers whose scale matters."""
        return np.flatnonzero(self.degrees)

    def with_weights(self: Network, weights: Weights | StackedWeights) -> Network:
        """The same network with other weights.

        **Raises:** `ValueError` where their number is not that of the layers.
        """
        if len(weights) != len(self.weights):
            raise ValueError(
                f"`weights` must hold {len(self.weights)} arrays, one for each layer; "
                f"got {len(weights)}."
            )
        return eqx.tree_at(lambda network: network.weights, self, weights)

    def with_activation(self: Network, activation: AbstractActivation) -> Network:
        """The same network with another activation."""
        return eqx.tree_at(
            lambda network: network.activation,
            self,
            activation,
            is_leaf=lambda node: isinstance(node, AbstractActivation),
        )

    def check_single(self) -> None:
        """Raises a `ValueError` where this is a stack of networks."""
        if tuple(w.ndim for w in self.weights) != self.weight_ndims:
            raise ValueError(
                "`network` has weights of shapes "
                f"{[w.shape for w in self.weights]}: it seems to be several networks "
                "along a leading axis. Use `jax.vmap`, or take one of them, such as "
                "`trajectory[-1]`."
            )
