"""The spectral radius of the Jacobian of a vector field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._tree import tree_norm
from .._types import RealScalarLike, State


class SpectralRadius(eqx.Module):
    """An estimate, the vector that it came from, and what it has cost so far."""

    value: Float[Array, ""]
    direction: State
    num_jvps: Int[Array, ""]


def unknown_spectral_radius(like: State) -> SpectralRadius:
    """Nothing known yet: a direction with a part in every eigenvector."""
    leaves, treedef = jax.tree.flatten(like)

    def chirp(k: int, leaf: Float[Array, "..."]) -> Float[Array, "..."]:
        # Without a pattern, and without compiling a random number generator.
        phase = jnp.square(jnp.arange(1, leaf.size + 1, dtype=leaf.dtype)) + k
        return jnp.cos(phase).reshape(leaf.shape)

    direction = treedef.unflatten([chirp(k, leaf) for k, leaf in enumerate(leaves)])
    zero = jnp.zeros((), leaves[0].dtype)
    return SpectralRadius(zero, direction, jnp.asarray(0, jnp.int32))


def refine(
    field: Callable[[State], State],
    point: State,
    estimate: SpectralRadius,
    *,
    when: Bool[Array, ""],
    rtol: RealScalarLike = 0.02,
    max_iterations: int = 50,
) -> SpectralRadius:
    """Power iteration with exact Jacobian-vector products, from an earlier estimate and
    until two estimates in a row agree; `when` it is to be refined at all.

    Each is a lower bound, up to what is not symmetric in the Jacobian. Along a flow the
    earlier direction is good, and one product is the rule. The largest eigenvalue in
    modulus is found whatever its sign: where growth dominates, it is an upper bound of
    the stiffness.
    """
    # The number of stages is an integer, so that no derivative goes through here; nor
    # could it in reverse mode, through a loop without a known end.
    field = jax.tree.map(_stop_gradient, eqx.filter_closure_convert(field, point))
    point, estimate = jax.tree.map(_stop_gradient, (point, estimate))
    tiny = jnp.finfo(estimate.value.dtype).tiny

    def is_unsettled(carry: Any):
        i, change, now = carry
        return (i < max_iterations) & (change > rtol * now.value)

    def iterate(carry: Any):
        i, _, now = carry
        size = jnp.maximum(tree_norm(now.direction), tiny)
        unit = jax.tree.map(lambda x: x / size, now.direction)
        _, image = jax.jvp(field, (point,), (unit,))
        value = tree_norm(image)
        # A direction that the Jacobian takes to zero says nothing and is kept.
        is_lost = value <= tiny
        direction = jax.tree.map(
            lambda new, old: jnp.where(is_lost, old, new), image, unit
        )
        change = jnp.where(is_lost, 0, jnp.abs(value - now.value))
        return i + 1, change, SpectralRadius(value, direction, now.num_jvps + 1)

    start = (0, jnp.where(when, jnp.inf, 0).astype(estimate.value.dtype), estimate)
    _, _, refined = jax.lax.while_loop(is_unsettled, iterate, start)
    return refined


def _stop_gradient(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if eqx.is_array(x) else x
