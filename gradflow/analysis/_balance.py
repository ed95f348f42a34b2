"""How the layers' sizes are balanced, which a gradient flow conserves."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork, Conv, refuse_other_degrees
from .._problem import Problem


def layer_balance(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers_less_one"]:
    r"""$\|W_{k+1}\|^2 - \|W_k\|^2$ of successive layers.

    Conserved by the gradient flow without weight decay (T3 18, M112 Lemma 3), and
    decaying as $e^{-4 \lambda t}$ with it.

    **Raises:** `ValueError` for batch normalisation: the norms of layers whose scale
    does not matter are conserved one by one. For residual networks: nothing is.
    """
    del problem
    refuse_other_degrees("the balance of layers", network)
    return jnp.diff(network.norms**2)


def unit_balance(
    problem: Problem, network: AbstractNetwork
) -> tuple[Float[Array, " units"], ...]:
    r"""What leaves a unit less what enters it, $\|w_{\text{out}}\|^2 -
    \|w_{\text{in}}\|^2$, for the units (or channels) of each hidden layer.

    Conserved by the gradient flow of ReLU networks without weight decay: the diagonals
    of `matrix_balance`. Smoothed kinks, whose width depends on all units below, keep it
    up to the smoothing, and exactly in the last hidden layer only. What leaves a unit
    that is normalised over the batch counts as 0: its own norm is conserved.

    ??? cite "Reference"

        S. Du, W. Hu, J. Lee: Algorithmic regularization in learning deep homogeneous
        models: layers are automatically balanced. NeurIPS, 2018.
    """
    del problem
    network.check_single()

    def of(layer: int) -> Float[Array, " units"]:
        below, above = network.weights[layer - 1], network.weights[layer]

        def half_of_squares(factors):
            scaled = network.scale_fan_in(layer, above, factors)
            return jnp.sum(jnp.square(scaled)) / 2

        # The derivative by a unit's factor is the square of what leaves it.
        units = jnp.ones(below.shape[0], below.dtype)
        entering = jnp.sum(jnp.square(below.reshape(below.shape[0], -1)), axis=1)
        return jax.grad(half_of_squares)(units) - entering

    return tuple(of(layer) for layer in range(1, len(network.weights)))


def matrix_balance(
    problem: Problem, network: AbstractNetwork
) -> tuple[Float[Array, "units units"], ...]:
    r"""$W_{k+1}^\top W_{k+1} - W_k W_k^\top$ for each hidden layer.

    Conserved by the gradient flow of deep linear networks without weight decay.

    **Raises:** `ValueError` for convolutions, whose units have many outputs, for batch
    normalisation, and for residual networks.

    ??? cite "Reference"

        S. Arora, N. Cohen, E. Hazan: On the optimization of deep networks: implicit
        acceleration by overparameterization. ICML, 2018.
    """
    del problem
    network.check_single()
    refuse_other_degrees("the balance of matrices", network)
    if isinstance(network, Conv):
        raise ValueError(
            "`network`: the matrices of a convolution do not meet in its units; "
            "`unit_balance` is defined."
        )
    matrices = network.matrices
    return tuple(
        above.T @ above - below @ below.T
        for below, above in zip(matrices[:-1], matrices[1:], strict=True)
    )
