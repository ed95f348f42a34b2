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
    problem.check(network)

    def both_sides(x):
        outputs, pullback = jax.vjp(
            lambda w: network.with_weights(w)(x), network.weights
        )
        basis = jnp.eye(outputs.shape[0], dtype=outputs.dtype)
        (gradients,) = jax.vmap(pullback)(basis)
        sides = [
            jnp.einsum("c...,...->c", gradient, weight)
            for gradient, weight in zip(gradients, network.weights, strict=True)
        ]
        return jnp.stack(sides), outputs

    sides, outputs = jax.lax.map(both_sides, problem.dataset.inputs, batch_size=_BATCH)
    differences = jnp.max(jnp.abs(sides - outputs[:, None, :]), axis=-1)
    return differences.T / jnp.max(jnp.abs(outputs))


# Samples whose gradients are in memory at a time.
_BATCH = 32
