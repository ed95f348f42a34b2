"""What networks of convolutions and a dense last layer have in common."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractNetwork


class AbstractConvolutional(AbstractNetwork):
    """Kernels `(out, in, size, size)`, then a matrix `(outputs, features)`."""

    image_shape: eqx.AbstractVar[tuple[int, int, int]]

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.image_shape

    @property
    def out_size(self) -> int:
        return self.weights[-1].shape[0]

    @property
    def weight_ndims(self) -> tuple[int, ...]:
        return (4,) * (len(self.weights) - 1) + (2,)

    @property
    def matrices(self) -> tuple[Float[Array, "out in"], ...]:
        """Kernels with one row for each output channel, then the last layer."""
        return tuple(jnp.reshape(w, (w.shape[0], -1)) for w in self.weights)
