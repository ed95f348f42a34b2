"""Identities of homogeneous networks, and how exactly they hold."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, refuse_fixed_statistics
from .._problem import Problem
from ._samples import of_samples
from ._unit_layers import unit_layers


def structural_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, "layers N"]:
    r"""How far the structural lemma is from holding,

    $$\left\langle W_k, \frac{\partial g_n}{\partial W_k} \right\rangle = g_n$$

    for every layer $k$ and sample $n$ (T3 3, M112 1); for layers that are normalised
    over the batch, whose degree of homogeneity is 0, with 0 on the right.

    **Returns:** the absolute difference of the two sides (the largest over the
    outputs), divided by the largest output in absolute value over all samples; NaN
    where that is 0.
    """

    def difference(gradients, outputs):
        layers = zip(gradients, network.weights, network.degrees, strict=True)
        return jnp.stack(
            [
                jnp.max(jnp.abs(jnp.einsum("c...,...->c", dg, w) - degree * outputs))
                for dg, w, degree in layers
            ]
        )

    largest = jnp.max(jnp.abs(problem.outputs(network)))
    return of_samples(problem, network, difference).T / largest


def euler_residual(problem: Problem, network: AbstractNetwork) -> Float[Array, " N"]:
    r"""How far Euler's identity for the degree of homogeneity $L$ is from holding,

    $$\sum_k \left\langle W_k, \frac{\partial g_n}{\partial W_k} \right\rangle = L g_n$$

    for every sample $n$: the sum of the structural lemma over the layers, of one
    Jacobian-vector product for all of them. $L$ is the number of layers whose scale
    matters.

    **Returns:** the absolute difference of the two sides (the largest over the
    outputs), divided by the largest output in absolute value over all samples; NaN
    where that is 0.
    """
    outputs, along = jax.jvp(
        lambda weights: problem.outputs(network.with_weights(weights)),
        (network.weights,),
        (network.weights,),
    )
    difference = jnp.max(jnp.abs(along - sum(network.degrees) * outputs), axis=1)
    return difference / jnp.max(jnp.abs(outputs))


def sample_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, "layers N"]:
    r"""How far each sample on its own is from being stationary,

    $$\left\| \frac{\partial f_n}{\partial V_k} - V_k f_n \right\| \Big/ \left\|
    \frac{\partial f_n}{\partial V_k} \right\|$$

    for every layer $k$ and sample $n$ (M112 40), the largest over the outputs. It is
    the sine of the angle between the two matrices, from 0 to 1.

    With one output, that it vanishes is the condition for SGD to rest on every
    minibatch. For the flow of all samples it is sufficient and not necessary: there
    only the sums that `stationarity_residual` looks at vanish. In dense layers it is 0
    only where $V_k$ has rank one (M112 Lemma 6).

    Layers that are normalised over the batch have 1: the gradient is orthogonal to
    them.

    With several outputs it does not vanish in the last layer: the gradients of two
    outputs by it are orthogonal. SGD rests where their sum, weighted with the slopes of
    the sample, is along $V_k$.

    **Returns:** NaN where the output does not depend on the layer, as for a sample that
    no unit sees, and where a layer is 0.

    **Raises:** `ValueError` for batch normalisation with fixed statistics.
    """
    refuse_fixed_statistics("whether a sample is stationary", network)
    # It does not depend on the norms, and squares of small gradients would underflow.
    network = unit_layers(network)

    def residual(gradients, outputs):
        def of(gradient, weight, degree):
            axes = tuple(range(1, gradient.ndim))
            along = degree * jnp.multiply.outer(outputs, weight)
            norms = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=axes))
            rests = jnp.sqrt(jnp.sum(jnp.square(gradient - along), axis=axes))
            return jnp.max(rests / norms)

        layers = zip(gradients, network.weights, network.degrees, strict=True)
        return jnp.stack([of(*layer) for layer in layers])

    return of_samples(problem, network, residual).T
