"""One convolutional layer."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._tree import safe_norm, safe_sqrt


def convolution(
    h: Float[Array, "in height width"],
    kernel: Float[Array, "out in size size"],
    stride: int,
    padding: int,
) -> tuple[
    Float[Array, "out new_height new_width"], Float[Array, "out new_height new_width"]
]:
    """The pre-activations, and the norms of kernels and patches that bound them."""
    z = _convolve(h, kernel, stride, padding)
    ones = jnp.ones((1, 1, *kernel.shape[2:]), h.dtype)
    energy = jnp.sum(jnp.square(h), axis=0, keepdims=True)
    patch_norm = safe_sqrt(_convolve(energy, ones, stride, padding))
    kernel_norm = safe_norm(kernel, axis=(1, 2, 3))[:, None, None]
    return z, kernel_norm * patch_norm


def _convolve(
    image: Float[Array, "in height width"],
    kernel: Float[Array, "out in size size"],
    stride: int,
    padding: int,
) -> Float[Array, "out new_height new_width"]:
    return jax.lax.conv_general_dilated(
        image[None],
        kernel,
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
    )[0]
