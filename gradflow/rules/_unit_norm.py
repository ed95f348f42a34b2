"""The four techniques that keep unit norms (T3 §6.2)."""

import jax.numpy as jnp
import optax
from jaxtyping import Array

from ._spheres import SphereStep, on_spheres


def lagrange_multiplier(
    optimiser: optax.GradientTransformation, *, per_row: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""The Lagrange multiplier method: the multiple of $V$ that puts the step $\delta$
    back on the sphere is taken away from it,

    $$V \to V + \delta - \lambda V, \qquad \lambda = 1 - \sqrt{1 - \|\delta\|^2 +
    \langle V, \delta \rangle^2} + \langle V, \delta \rangle$$

    (T3 15, where the last term is printed inside of the root). There is no such
    $\lambda$ for $\|S \delta\| > 1$, with $S = I - V V^\top$: the update is NaN.

    For parameters of norm $r$ it is $W = r V$ that moves, with $\delta$ the
    optimiser's update divided by $r$. Norms are those of the parameters at each step:
    any norms, kept to rounding.

    **Arguments:**

    - `optimiser`: any optax optimiser.
    - `per_row`: whether each row of an array, that is each unit's incoming weights, has
        a sphere of its own; otherwise each array has one.

    **Returns:** an optax optimiser. Its `update` needs `params`.

    **Raises:** `ValueError` for `per_row` with an array that has no rows.

    ??? cite "Reference"

        S. C. Douglas, S. Amari, S.-Y. Kung: On gradient adaptation with unit-norm
        constraints. IEEE Transactions on Signal Processing 48 (2000).
    """

    def move(step: SphereStep) -> Array:
        squared = jnp.square(step.length)
        # 1 - sqrt(1 - x) without cancellation.
        drop = squared / (1 + jnp.sqrt(1 - squared))
        return step.tangent - drop * step.point

    return on_spheres(optimiser, move, per_row)


def coefficient_normalisation(
    optimiser: optax.GradientTransformation, *, per_row: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Coefficient normalisation: a step, then a division by the norm,

    $$V \to \frac{V + \delta}{\|V + \delta\|}.$$

    Norms, arguments and source are those of
    [`gradflow.rules.lagrange_multiplier`][].
    """

    def move(step: SphereStep) -> Array:
        along = 1 + step.radial
        norm = jnp.hypot(along, step.length)
        return (step.tangent + (along - norm) * step.point) / norm

    return on_spheres(optimiser, move, per_row)


def tangent_gradient(
    optimiser: optax.GradientTransformation, *, per_row: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""The tangent gradient method: a step along the tangent,

    $$V \to V + S \delta, \qquad S = I - V V^\top.$$

    It leaves the sphere at second order: $\|W\|^2$ grows by $\|S \delta\|^2$ times
    itself in every step, and the steps turn $V$ by ever less. Norms, arguments and
    source are those of [`gradflow.rules.lagrange_multiplier`][].
    """
    return on_spheres(optimiser, lambda step: step.tangent, per_row)


def natural_gradient(
    optimiser: optax.GradientTransformation, *, per_row: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""The true, or natural, gradient on the sphere: a step along the geodesic,

    $$V \to V \cos \|S \delta\| + \frac{S \delta}{\|S \delta\|} \sin \|S \delta\|,
    \qquad S = I - V V^\top.$$

    Norms, arguments and source are those of
    [`gradflow.rules.lagrange_multiplier`][].
    """

    def move(step: SphereStep) -> Array:
        ratio = jnp.sinc(step.length / jnp.pi)
        drop = 2 * jnp.square(jnp.sin(step.length / 2))
        return ratio * step.tangent - drop * step.point

    return on_spheres(optimiser, move, per_row)
