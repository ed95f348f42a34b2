"""Step size controllers that give up the error control."""

from typing import Any

import diffrax
import jax


def has_forced_floor(controller: diffrax.AbstractStepSizeController) -> bool:
    """Whether a controller, or one inside of it, accepts steps of any error at its
    smallest size."""

    def is_pid(node: Any) -> bool:
        return isinstance(node, diffrax.PIDController)

    return any(
        is_pid(node) and node.dtmin is not None and node.force_dtmin
        for node in jax.tree.leaves(controller, is_leaf=is_pid)
    )
