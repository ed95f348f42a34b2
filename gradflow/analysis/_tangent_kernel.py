"""The neural tangent kernel and the Gauss-Newton matrix."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .._network import AbstractNetwork, needs_batch
from .._problem import Problem
from ._samples import of_examples, of_samples


def tangent_kernel(
    problem: Problem,
    network: AbstractNetwork,
    *,
    inputs: Float[ArrayLike, "M ..."] | None = None,
) -> Float[Array, "M outputs N outputs"]:
    r"""The neural tangent kernel of a network at its weights,

    $$K_{mc,nd} = \left\langle \frac{\partial g_c(x_m)}{\partial W},
    \frac{\partial g_d(x_n)}{\partial W} \right\rangle$$

    over the weights of all layers, without a Jacobian in memory.

    **Arguments:**

    - `problem`: whose samples are the $x_n$.
    - `network`: the point.
    - `inputs`: the $x_m$; those of the problem if not given.

    **Raises:** `ValueError` for `inputs` of another shape, and for any with batch
    normalisation, whose statistics are those of the samples.

    ??? cite "Reference"

        A. Jacot, F. Gabriel, C. Hongler: Neural tangent kernel: convergence and
        generalization in neural networks. NeurIPS, 2018.
    """
    problem.check(network)
    _, push = jax.linearize(
        lambda w: problem.outputs(network.with_weights(w)), network.weights
    )

    def products(gradients, outputs):
        del outputs
        return jax.vmap(push)(gradients)

    if inputs is None:
        return of_samples(problem, network, products)
    inputs = jnp.asarray(inputs, problem.dataset.inputs.dtype)
    if needs_batch(network):
        raise ValueError(
            "`inputs`: a network with batch normalisation has no outputs for them "
            "without the samples."
        )
    if inputs.shape[1:] != network.in_shape:
        raise ValueError(
            f"`inputs` must be of shape (M, *{network.in_shape}), got {inputs.shape}."
        )
    return of_examples(network, inputs, products)


def gauss_newton_eigenvalues(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " NC"]:
    r"""The eigenvalues of the Gauss-Newton matrix $\sum_n \nabla g_n \ell_n''
    \nabla g_n^\top$ of the loss, in increasing order: those that are not 0 for want of
    samples.

    They are the eigenvalues of the tangent kernel between the samples, with the roots
    of the second derivatives $\ell_n''$ by the outputs on both sides. Where the square
    loss is interpolated, $\ell'' = 2$ and the Hessian is this matrix, with a rank of at
    most $N C$ (T3 46, Theorem 6).

    **Returns:** $N C$ numbers for $N$ samples and $C$ outputs.
    """
    outputs = problem.outputs(network)
    n, c = outputs.shape
    # A sample's slopes depend on its own outputs only.
    columns = [
        jax.jvp(problem.slopes, (outputs,), (jnp.broadcast_to(e, outputs.shape),))[1]
        for e in jnp.eye(c, dtype=outputs.dtype)
    ]
    values, vectors = jnp.linalg.eigh(jnp.stack(columns, axis=-1))
    # Convex losses have no negative ones but by rounding.
    roots = jnp.einsum(
        "nij,nj,nkj->nik", vectors, jnp.sqrt(jnp.maximum(values, 0)), vectors
    )
    kernel = tangent_kernel(problem, network)
    scaled = jnp.einsum("nij,njmk,mkl->niml", roots, kernel, roots)
    return jnp.linalg.eigvalsh(scaled.reshape(n * c, n * c))
