"""Distances between networks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._tree import tree_norm


def relative_distance(
    network: AbstractNetwork, other: AbstractNetwork
) -> Float[Array, ""]:
    r"""$\|W - W'\| / \|W'\|$ over the weights of all layers taken together.

    **Arguments:**

    - `network`, `other`: networks of the same shapes.

    **Returns:** a number; use `jax.vmap` for the networks of two trajectories.
    """
    network.check_single()
    other.check_single()
    difference = jax.tree.map(jnp.subtract, network.weights, other.weights)
    return tree_norm(difference) / tree_norm(other.weights)
