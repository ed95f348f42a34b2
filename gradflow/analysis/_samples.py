"""Functions of one sample's gradients, for all samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from .._network import AbstractNetwork, needs_batch
from .._problem import Problem

# Samples whose gradients are in memory at a time, as long as these are no more numbers
# than those of `_NUMBERS`.
_BATCH = 32
_NUMBERS = 2**22


def of_samples(
    problem: Problem, network: AbstractNetwork, measure: Callable
) -> Num[Array, "N ..."]:
    """A function of the gradients of a sample's outputs by the weights, and of the
    outputs, for all samples. With batch normalisation all samples go through the
    network for the gradients of each."""
    problem.check(network)
    if not needs_batch(network):
        return of_examples(network, problem.dataset.inputs, measure)
    outputs, pull = jax.vjp(
        lambda w: problem.outputs(network.with_weights(w)), network.weights
    )
    basis = jnp.eye(network.out_size, dtype=outputs.dtype)

    def of_sample(n):
        at_sample = jnp.zeros((len(basis), *outputs.shape), basis.dtype)
        (gradients,) = jax.vmap(pull)(at_sample.at[:, n].set(basis))
        return measure(gradients, outputs[n])

    return jax.lax.map(of_sample, jnp.arange(len(outputs)))


def of_examples(
    network: AbstractNetwork, inputs: Float[Array, "N ..."], measure: Callable
) -> Num[Array, "N ..."]:
    """The same for any examples, each on its own."""

    def of_example(x):
        outputs, pull = jax.vjp(lambda w: network.with_weights(w)(x), network.weights)
        (gradients,) = jax.vmap(pull)(jnp.eye(outputs.shape[0], dtype=outputs.dtype))
        return measure(gradients, outputs)

    numbers = network.out_size * sum(w.size for w in network.weights)
    batch = max(1, min(_BATCH, _NUMBERS // numbers))
    return jax.lax.map(of_example, inputs, batch_size=batch)
