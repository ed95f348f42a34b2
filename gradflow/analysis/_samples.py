"""Functions of one sample's gradients, for all samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from .._network import AbstractNetwork, needs_batch
from .._problem import Problem

# Samples whose gradients are in memory at a time, as long as these are no more numbers
# than those of `_NUMBERS`.
_BATCH = 32
_NUMBERS = 2**22


def of_samples(
    problem: Problem, network: AbstractNetwork, measure: Callable
) -> Num[Array, "N values"]:
    """A function of the gradients of a sample's outputs by the weights, and of the
    outputs, for all samples. With batch normalisation all samples go through the
    network for the gradients of each."""
    problem.check(network)
    basis = jnp.eye(network.out_size, dtype=network.weights[0].dtype)

    def of_sample(x):
        outputs, pullback = jax.vjp(
            lambda w: network.with_weights(w)(x), network.weights
        )
        (gradients,) = jax.vmap(pullback)(basis)
        return measure(gradients, outputs)

    if needs_batch(network):
        all_outputs, pullback = jax.vjp(
            lambda w: problem.outputs(network.with_weights(w)), network.weights
        )

        def of_sample_among_all(n):
            at_sample = jnp.zeros((len(basis), *all_outputs.shape), basis.dtype)
            (gradients,) = jax.vmap(pullback)(at_sample.at[:, n].set(basis))
            return measure(gradients, all_outputs[n])

        return jax.lax.map(of_sample_among_all, jnp.arange(len(all_outputs)))
    numbers = network.out_size * sum(w.size for w in network.weights)
    batch = max(1, min(_BATCH, _NUMBERS // numbers))
    return jax.lax.map(of_sample, problem.dataset.inputs, batch_size=batch)
