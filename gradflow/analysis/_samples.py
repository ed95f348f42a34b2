"""Functions of one sample's gradients, for all samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from .._network import AbstractNetwork
from .._problem import Problem

# Samples whose gradients are in memory at a time, as long as these are no more numbers
# than those of `_NUMBERS`.
_BATCH = 32
_NUMBERS = 2**22


def of_samples(
    problem: Problem, network: AbstractNetwork, measure: Callable
) -> Num[Array, "N values"]:
    """A function of the gradients of a sample's outputs by the weights, and of the
    outputs, for all samples."""
    problem.check(network)

    def of_sample(x):
        outputs, pullback = jax.vjp(
            lambda w: network.with_weights(w)(x), network.weights
        )
        basis = jnp.eye(outputs.shape[0], dtype=outputs.dtype)
        (gradients,) = jax.vmap(pullback)(basis)
        return measure(gradients, outputs)

    numbers = network.out_size * sum(w.size for w in network.weights)
    batch = max(1, min(_BATCH, _NUMBERS // numbers))
    return jax.lax.map(of_sample, problem.dataset.inputs, batch_size=batch)
