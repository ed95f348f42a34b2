"""The ranks of the layers."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._problem import Problem


def singular_values(
    problem: Problem, network: AbstractNetwork
) -> tuple[Float[Array, " rank"], ...]:
    """The singular values of each layer in decreasing order.

    A convolution counts as the matrix with one row for each output channel, a diagonal
    layer as a diagonal matrix.
    """
    del problem
    network.check_single()
    return tuple(jnp.linalg.svd(m, compute_uv=False) for m in network.matrices)


def stable_rank(problem: Problem, network: AbstractNetwork) -> Float[Array, " layers"]:
    r"""$\|W_k\|_F^2 / \|W_k\|_2^2$ for each layer, from 1 to its rank; NaN for a layer
    of zeros (M112 App. H)."""
    squares = _relative_squares(problem, network)
    return jnp.stack([1 / s[0] for s in squares])


def effective_rank(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\exp(-\sum_i p_i \log p_i)$ with $p_i = \sigma_i / \sum_j \sigma_j$ for each
    layer, from 1 to its rank; NaN for a layer of zeros.

    ??? cite "Reference"

        O. Roy and M. Vetterli: The effective rank: a measure of effective
        dimensionality. EUSIPCO, 2007.
    """

    def of(values):
        p = values / jnp.sum(values)
        return jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1))))

    return jnp.stack([of(values) for values in singular_values(problem, network)])


def distance_to_rank_one(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\|W_k - \sigma_1 u_1 v_1^\top\|_F / \|W_k\|_F$ for each layer: 0 where it has
    rank one, as it must where $\partial f_n / \partial V_k = V_k f_n$ (M112 Lemma 6).
    """
    squares = _relative_squares(problem, network)
    # The sum of the others, and not one less the first, which would lose the small.
    return jnp.stack([jnp.sqrt(jnp.sum(s[1:])) for s in squares])


def _relative_squares(problem, network) -> list[Float[Array, " rank"]]:
    """The squares of the singular values as parts of their sum."""
    # Scaled by the largest, since squares could under- or overflow.
    scaled = [values / values[0] for values in singular_values(problem, network)]
    return [s**2 / jnp.sum(s**2) for s in scaled]
