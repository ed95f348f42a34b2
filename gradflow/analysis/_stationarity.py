"""How far the directions of a network are from a critical point."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, refuse_fixed_statistics
from .._problem import Problem
from .._tree import safe_norm


def stationarity_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\| S_k \sum_n d_n \, \partial f_n / \partial V_k \|$ for every layer $k$.

    It vanishes where the directions are stationary, $\sum_n d_n \partial f_n / \partial
    V_k = V_k \sum_n d_n f_n$ (SQ 6, M112 8), whatever the scale $\rho$; the slopes
    $d_n$ are those at the network's own outputs $g_n = \rho f_n$, and
    $S_k = I - V_k V_k^\top$.

    **Returns:** NaN where a layer is 0 and has no direction.

    **Raises:** `ValueError` for batch normalisation with fixed statistics.
    """
    refuse_fixed_statistics("a critical point", network)
    norms = network.norms
    rho = network.scale_of(norms)

    def residual(weight, gradient, norm):
        # ∂g/∂W_k = (ρ/ρ_k) ∂f/∂V_k, by homogeneity.
        v, by_direction = weight / norm, (norm / rho) * gradient
        return safe_norm(by_direction - v * jnp.sum(v * by_direction))

    gradients = problem.gradient(network)
    return jnp.stack(list(map(residual, network.weights, gradients, norms)))
