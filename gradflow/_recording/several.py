"""One program in several processes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Whether this is the process that writes, of several or as the only one."""
    return jax.process_index() == 0


def agreed(*values: int) -> tuple[int, ...]:
    """What the first process has, in all of them: each has a watch of its own."""
    if jax.process_count() == 1:
        return values
    return tuple(map(int, multihost_utils.broadcast_one_to_all(jnp.asarray(values))))


def wait_for_all(place: str) -> None:
    """Until all processes have come to this place in the program."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def whole(tree: Any) -> Any:
    """With the arrays of which other processes hold a part."""

    if jax.process_count() == 1:
        return tree

    def gather(leaf: Any) -> Any:
        if eqx.is_array(leaf) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return leaf

    return jax.tree.map(gather, tree)
