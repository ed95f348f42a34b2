"""Distances between networks, and between their directions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._tree import safe_norm, tree_norm
from ._unit_layers import unit_layers


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


def direction_angles(
    network: AbstractNetwork, other: AbstractNetwork
) -> Float[Array, " layers"]:
    r"""The angle between the directions $V_k$ and $V_k'$ of every layer, in radians.

    Whether directions converge, while the norms grow for ever, is seen from the angles
    to the last one:
    `jax.vmap(direction_angles, in_axes=(0, None))(run.networks, run.final)`.

    **Arguments:**

    - `network`, `other`: networks of the same shapes, of any scale.

    **Returns:** angles from 0 to $\pi$, to rounding also where they are small; NaN for
    a layer that is 0.

    ??? cite "Reference"

        Z. Ji, M. Telgarsky: Directional convergence and alignment in deep learning.
        NeurIPS, 2020; there of all weights as one vector.
    """
    network.check_single()
    other.check_single()

    def angle(v: Array, w: Array) -> Float[Array, ""]:
        # The cosine would lose half of the digits.
        return 2 * jnp.arctan2(safe_norm(v - w), safe_norm(v + w))

    pairs = zip(unit_layers(network).weights, unit_layers(other).weights, strict=True)
    return jnp.stack([angle(v, w) for v, w in pairs])
