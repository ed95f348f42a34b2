"""What the hidden layers hand on, for all samples."""

from jaxtyping import Array, Float

from .._network import AbstractNetwork, over_batch
from .._network.pre_activations import features
from .._problem import Problem


def hidden_features(
    problem: Problem, network: AbstractNetwork
) -> tuple[Float[Array, "N units"], ...]:
    """The features of each hidden layer.

    **Raises:** `ValueError` for a network that does not fit or has no hidden layer.
    """
    problem.check(network)
    if len(network.weights) < 2:
        raise ValueError(
            "`network` has no hidden layer, whose features could collapse."
        )
    return over_batch(lambda x: features(network, x))(problem.dataset.inputs)
