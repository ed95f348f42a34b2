"""How far the directions of a network are from a critical point."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, Polar
from .._problem import Problem


def stationarity_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\| S_k \sum_n d_n \, \partial f_n / \partial V_k \|$ for every layer $k$.

    It vanishes where the directions are stationary, $\sum_n d_n \partial f_n / \partial
    V_k = V_k \sum_n d_n f_n$ (SQ 6, M112 8), whatever the scale $\rho$; the slopes
    $d_n$ are those at the network's own outputs $g_n = \rho f_n$, and
    $S_k = I - V_k V_k^\top$.
    """
    polar = Polar.from_network(network)
    # ∂g/∂W_k = (ρ/ρ_k) ∂f/∂V_k, by homogeneity.
    by_direction = [
        (rho_k / polar.scale) * gradient
        for rho_k, gradient in zip(polar.rho, problem.gradient(network), strict=True)
    ]
    tangent = [
        gradient - v * jnp.sum(v * gradient)
        for v, gradient in zip(polar.directions.weights, by_direction, strict=True)
    ]
    return jnp.stack([jnp.linalg.norm(t) for t in tangent])
