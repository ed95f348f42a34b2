"""How close the layers are to orthogonal matrices and to projections."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, Conv, refuse_other_degrees
from .._problem import Problem
from .._tree import safe_norm, scaled


def orthogonality_defect(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\| G_k / \|G_k\|_F - I / \sqrt{m} \|_F$ for each layer, with the Gram matrix
    $G_k$ of the $m$ rows of $W_k$ or of its $m$ columns, whichever are fewer.

    From $\sqrt{2 - 2 / \sqrt{m}}$ where the rank is one down to 0 where $W_k$ is a
    multiple of a matrix with orthonormal rows or columns, a point of a Stiefel manifold
    (M112 App. I.2). A single row or column always is: it has 0. NaN for a layer of
    zeros. A convolution counts as the matrix with one row for each output channel.
    """
    del problem
    network.check_single()

    def defect(m):
        m, _ = scaled(m)
        gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
        size = gram.shape[0]
        unit = jnp.eye(size, dtype=m.dtype) / jnp.sqrt(jnp.asarray(size, m.dtype))
        return safe_norm(gram / jnp.linalg.norm(gram) - unit)

    return jnp.stack([defect(m) for m in network.matrices])


def projection_defect(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""The sine of the angle between $W_k$ and $W_k^2$ for each layer, from 0 to 1.

    0 where $W_k$ is a multiple of a projection, $P^2 = P$ (M112 App. I.1). The
    projection is orthogonal where `asymmetry` vanishes too. NaN for a layer that is not
    square, and where $W_k^2 = 0$.

    **Raises:** `ValueError` for convolutions, whose matrices do not follow one another,
    for batch normalisation, and for residual networks.
    """
    del problem

    def defect(m):
        m, _ = scaled(m)
        unit, square = m / jnp.linalg.norm(m), m @ m
        square = square / jnp.linalg.norm(square)
        return jnp.linalg.norm(square - jnp.sum(unit * square) * unit)

    return _of_square_layers(network, defect)


def asymmetry(problem: Problem, network: AbstractNetwork) -> Float[Array, " layers"]:
    r"""$\|W_k - W_k^\top\|_F / (2 \|W_k\|_F)$ for each layer, from 0 for a symmetric
    matrix to 1 for an antisymmetric one. NaN for a layer that is not square or is 0.

    **Raises:** `ValueError` for convolutions, as `projection_defect`.
    """
    del problem

    def part(m):
        m, _ = scaled(m)
        return jnp.linalg.norm((m - m.T) / 2) / jnp.linalg.norm(m)

    return _of_square_layers(network, part)


def _of_square_layers(network, measure) -> Float[Array, " layers"]:
    network.check_single()
    refuse_other_degrees("a product of layers", network)
    if isinstance(network, Conv):
        raise ValueError(
            "`network`: the matrices of a convolution do not follow one another; "
            "`orthogonality_defect` is defined."
        )
    nan = jnp.asarray(jnp.nan, network.weights[0].dtype)
    return jnp.stack(
        [measure(m) if m.shape[0] == m.shape[1] else nan for m in network.matrices]
    )
