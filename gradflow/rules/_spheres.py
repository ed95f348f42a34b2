"""Steps on the spheres of all parameters of the same norms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .._tree import safe_norm
from ._wrap import wrap


class SphereStep(NamedTuple):
    r"""A step $\delta$ from a point $V$ of a unit sphere, in two parts."""

    point: Float[Array, "..."]
    tangent: Float[Array, "..."]
    r"""$S \delta$, with $S = I - V V^T$."""
    radial: Float[Array, "..."]
    r"""$\langle V, \delta \rangle$."""
    length: Float[Array, "..."]
    r"""$\|S \delta\|$."""


def on_spheres(
    optimiser: optax.GradientTransformation,
    move: Callable[[SphereStep], Array],
    per_row: bool,
) -> optax.GradientTransformationExtraArgs:
    r"""Takes the steps of an optimiser on spheres.

    `move` gives the change of the point on a unit sphere. An array of norm $r$ moves
    as $r V$ with the step $\delta / r$; one that is 0 has no direction, and stays.
    """

    def change_array(step: Array, w: Array) -> Array:
        if per_row and w.ndim < 2:
            raise ValueError(
                f"`per_row` needs arrays with rows, got one of shape {w.shape}, whose "
                "every entry would be frozen. Give it another rule by "
                "`optax.multi_transform`."
            )
        axes = tuple(range(1 if per_row else 0, w.ndim))
        norm = safe_norm(w, axes, keepdims=True)
        is_zero = norm == 0
        divisor = jnp.where(is_zero, 1, norm)
        point = w / divisor
        step = jnp.where(is_zero, 0, step / divisor)
        radial = jnp.sum(point * step, axis=axes, keepdims=True)
        tangent = step - point * radial
        length = safe_norm(tangent, axes, keepdims=True)
        return norm * move(SphereStep(point, tangent, radial, length))

    def change(updates: Any, params: Any, count: Int[Array, ""]) -> Any:
        del count
        return jax.tree.map(change_array, updates, params)

    return wrap(optimiser, change)
