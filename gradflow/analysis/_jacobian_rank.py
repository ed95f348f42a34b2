"""The ranks of one sample's gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._check import check_nonnegative
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike
from ._samples import of_samples


def jacobian_rank(
    problem: Problem, network: AbstractNetwork, *, rtol: RealScalarLike | None = None
) -> Int[Array, "layers N"]:
    r"""The numerical rank of $\partial g_n / \partial W_k$ for every layer $k$ and
    sample $n$, as the matrix that the layer itself is taken for; the largest over the
    outputs.

    For a dense layer of an exact ReLU network it is $a b^\top$ and its rank 1 (M112
    Lemma 6), or 0 where no unit sees the sample. A convolution uses its kernel at many
    positions, and its rank is as large as their number allows. A diagonal layer counts
    the units that the output depends on. With batch normalisation the output also
    depends on what the layer is given of the other samples, and the rank is as large as
    their number allows. Within the width of a smoothed kink a unit
    adds a multiple of its own weights, whose size goes by the smoothing.

    **Arguments:**

    - `problem`: the data.
    - `network`: the network.
    - `rtol`: singular values up to this part of the largest count as 0. Not given: the
        larger side of the matrix times the rounding unit, as in
        `numpy.linalg.matrix_rank`.

    **Raises:** `ValueError` for a negative `rtol`.
    """
    if rtol is not None:
        check_nonnegative("rtol", rtol)

    def rank(gradients):
        values = jnp.linalg.svd(gradients, compute_uv=False)
        if rtol is None:
            part = max(gradients.shape[-2:]) * jnp.finfo(values.dtype).eps
        else:
            part = jnp.asarray(rtol, values.dtype)
        return jnp.max(jnp.sum(values > part * values[:, :1], axis=1))

    def ranks(gradients, outputs):
        del outputs
        matrices = jax.vmap(lambda w: network.with_weights(w).matrices)(gradients)
        return jnp.stack([rank(m) for m in matrices])

    return of_samples(problem, network, ranks).T
