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
    # XLA's convolutions are tens of times slower on CPUs within a loop, as all runs
    # are, than outside of one: https://github.com/jax-ml/jax/issues/12868
    convolve = by_patches if jax.default_backend() == "cpu" else by_xla
    z = convolve(h, kernel, stride, padding)
    ones = jnp.ones((1, 1, *kernel.shape[2:]), h.dtype)
    energy = jnp.sum(jnp.square(h), axis=0, keepdims=True)
    patch_norm = safe_sqrt(convolve(energy, ones, stride, padding))
    kernel_norm = safe_norm(kernel, axis=(1, 2, 3))[:, None, None]
    return z, kernel_norm * patch_norm


def by_xla(
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


def by_patches(
    image: Float[Array, "in height width"],
    kernel: Float[Array, "out in size size"],
    stride: int,
    padding: int,
) -> Float[Array, "out new_height new_width"]:
    """The same as a product of matrices."""
    size = kernel.shape[-1]
    padded = jnp.pad(image, [(0, 0), (padding, padding), (padding, padding)])
    ends = [n - size + 1 for n in padded.shape[1:]]
    patches = [
        padded[:, i : ends[0] + i : stride, j : ends[1] + j : stride]
        for i in range(size)
        for j in range(size)
    ]
    flat = jnp.reshape(kernel, (*kernel.shape[:2], -1))
    return jnp.einsum("ocp,cphw->ohw", flat, jnp.stack(patches, axis=1))
