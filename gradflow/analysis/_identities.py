"""Identities of homogeneous networks, and how exactly they hold."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._problem import Problem


def structural_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, "layers N"]:
    r"""How far the structural lemma is from holding,

    $$\left\langle W_k, \frac{\partial g_n}{\partial W_k} \right\rangle = g_n$$

    for every layer $k$ and sample $n$ (T3 3, M112 1).

    **Returns:** the absolute difference of the two sides (the largest over the
    outputs), divided by the largest output in absolute value over all samples.
    """
    outputs = problem.outputs(network)

    def derivative_along(layer: int) -> Float[Array, "N C"]:
        def along(weight):
            weights = list(network.weights)
            weights[layer] = weight
            return problem.outputs(network.with_weights(tuple(weights)))

        weight = network.weights[layer]
        return jax.jvp(along, (weight,), (weight,))[1]

    sides = jnp.stack([derivative_along(k) for k in range(len(network.weights))])
    differences = jnp.max(jnp.abs(sides - outputs[None]), axis=-1)
    return differences / jnp.max(jnp.abs(outputs))
