"""Flows whose metric is the Euclidean one."""

import jax

from .._types import State
from .base import AbstractFlow


def check_euclidean(what: str, flow: AbstractFlow, state: State) -> None:
    """Raises a `ValueError` for a flow that takes a gradient to another velocity than
    minus the gradient itself, for `what`."""
    gradient = jax.tree.leaves(state)
    velocity = jax.tree.leaves(flow.sharp(state, state))
    if not all(v is g for v, g in zip(velocity, gradient, strict=True)):
        raise ValueError(
            f"`flow`: {what} is that of coordinates with the Euclidean metric, whose "
            "`sharp` returns the gradient as it is. In other coordinates there are "
            "terms of curvature, which are left out here. For the gradient flow take "
            f"`GradientFlow`, got {flow}."
        )
