"""Inputs that nothing sets apart: orthonormal ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from ._arrays import as_floating


def whiten(inputs: Shaped[ArrayLike, "..."]) -> Float[Array, "samples ..."]:
    r"""The orthonormal samples that are nearest to the given ones.

    With the samples as the rows of $X$ they are the orthonormal factor $U$ of its polar
    decomposition $X = H U$, where $H = (X X^\top)^{1/2}$: no other orthonormal set has
    a smaller $\sum_n \| u_n - x_n \|^2$. No order among the samples matters. Nothing is
    centred, and a component that was the same for all samples, such as the one that
    plays the bias, does not stay so.

    Linearly independent samples span the same space as before. Where they depend on
    each other, as raw images often do, the nearest set is not unique: one of them is
    returned, in directions of which some have nothing to do with the samples.

    **Arguments:**

    - `inputs`: vectors `(N, d)`, or `(N, ...)`, seen as vectors; integers are
        converted.

    **Returns:** an array of the same shape. For a dataset take the labels along:
    `Dataset(whiten(dataset.inputs), dataset.labels)`.

    **Raises:** `ValueError` if there are more samples than each has entries: so many
    cannot be orthonormal.

    ??? cite

        N. J. Higham, *Computing the polar decomposition, with applications*, SIAM
        Journal on Scientific and Statistical Computing 7 (1986).
    """
    shape = np.shape(inputs)
    if len(shape) < 2:
        raise ValueError(
            f"`inputs` must have shape (N, ...), not {shape}; give a single sample as "
            "`inputs[None]`"
        )
    count, size = shape[0], math.prod(shape[1:])
    if count == 0:
        raise ValueError("`inputs` holds no sample; give at least one")
    if count > size:
        raise ValueError(
            f"`inputs` holds {count} samples of {size} entries each, of which at most "
            f"{size} can be orthonormal; take fewer samples"
        )
    inputs = as_floating(inputs, "inputs")
    return _polar_factor(inputs.reshape(count, size)).reshape(shape)


@jax.jit
def _polar_factor(x: Float[Array, "N d"]) -> Float[Array, "N d"]:
    u, _, vt = jnp.linalg.svd(x, full_matrices=False)
    # Accelerators would round the factors first.
    return jnp.matmul(u, vt, precision="highest")
