"""The layers as sums of the samples' gradients."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, refuse_fixed_statistics
from .._problem import Problem
from .._tree import safe_norm


def representation_coefficients(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, "N C"]:
    r"""The coefficients $\alpha_n = d_n / \sum_m d_m f_m$ of the samples in the layers
    of a critical point,

    $$V_k = \sum_n \alpha_n \frac{\partial f_n}{\partial V_k}$$

    (M112 29, 38; for the square loss, with the slopes $d_n = 2 (\rho f_n - y_n)$), one
    for each sample and output. $\sum_n \alpha_n f_n = 1$ everywhere.

    **Returns:** infinite or NaN where $\sum_m d_m f_m = 0$: at the equilibrium of
    $\rho$ without weight decay, and at an interpolating network.
    """
    outputs = problem.outputs(network)
    slopes = _slopes(problem, outputs)
    return slopes / _total(slopes, outputs, network)


def representation_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""$\| V_k - \sum_n \alpha_n \, \partial f_n / \partial V_k \|$ for every layer
    $k$, with the [`gradflow.analysis.representation_coefficients`][] $\alpha_n$. Layers
    that are normalised over the batch, whose scale does not matter, have 0 in place of
    $V_k$.

    Equal to [`gradflow.analysis.stationarity_residual`][] over $|\sum_n d_n f_n|$: it
    vanishes where the directions are stationary, and is infinite or NaN where that sum
    vanishes, or a layer.

    **Raises:** `ValueError` for batch normalisation with fixed statistics.
    """
    refuse_fixed_statistics("a critical point", network)
    norms = network.norms
    rho = network.scale_of(norms)
    outputs, pull = jax.vjp(
        lambda weights: problem.outputs(network.with_weights(weights)), network.weights
    )
    slopes = _slopes(problem, outputs)
    total = _total(slopes, outputs, network)

    def residual(weight, gradient, norm, degree):
        # ∂g/∂W_k = (ρ/ρ_k) ∂f/∂V_k, by homogeneity.
        return safe_norm(degree * weight / norm - (norm / rho) / total * gradient)

    (gradients,) = pull(slopes)
    layers = zip(network.weights, gradients, norms, network.degrees, strict=True)
    return jnp.stack([residual(*layer) for layer in layers])


def _slopes(problem: Problem, outputs: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """The slopes in a unit of their own, in which they do not underflow."""
    if problem.loss.attains_infimum:
        return problem.slopes(outputs)
    return problem.slopes(outputs, problem.log_value_of(outputs))


def _total(
    slopes: Float[Array, "N C"],
    outputs: Float[Array, "N C"],
    network: AbstractNetwork,
) -> Float[Array, ""]:
    r"""$\sum_n d_n f_n$."""
    return jnp.sum(slopes * (outputs / network.scale))
