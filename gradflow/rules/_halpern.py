"""Halpern iterations of an optimiser, which end at the fixed point of least norm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from .._check import check_positive, check_scalar, is_concrete
from .._types import RealScalarLike, Schedule
from ._wrap import wrap


def halpern(
    optimiser: optax.GradientTransformation,
    decay: RealScalarLike | Schedule,
    anchor: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Draws every step of an optimiser towards an anchor $u$, ever more weakly:

    $$w_{n+1} = \lambda_n u + (1 - \lambda_n) (w_n + \Delta_n),$$

    where $\Delta_n$ is the optimiser's update (T3 9, 25, 26).

    If $w \mapsto w + \Delta$ is non-expansive and has fixed points, and $\lambda_n$ is
    a [`gradflow.rules.power_decay`][], the limit is the fixed point nearest to the
    anchor, from any start. Without an anchor that is the one of least norm.

    **Arguments:**

    - `optimiser`: any optax optimiser.
    - `decay`: $\lambda_n$ between 0 and 1, an optax schedule or a number.
    - `anchor`: $u$, a pytree like the parameters. Not given: zero.

    **Returns:** an optax optimiser. Its `update` needs `params`.

    **Raises:** `ValueError` for a decay out of range, or an anchor unlike the
    parameters.

    ??? cite "References"

        B. Halpern: Fixed points of nonexpanding maps. Bulletin of the AMS 73 (1967).

        R. Wittmann: Approximation of fixed points of nonexpansive mappings. Archiv der
        Mathematik 58 (1992); for the exponent 1.
    """
    decay = as_decay(decay)

    def change(updates: Any, params: Any, count: Int[Array, ""]) -> Any:
        weight = decay(count)

        def towards(u: Array, w: Array, step: Array) -> Array:
            part = jnp.asarray(weight, step.dtype)
            return part * (u - w) + (1 - part) * step

        return jax.tree.map(towards, as_anchor(anchor, params), params, updates)

    return wrap(optimiser, change)


def nmgd(
    learning_rate: RealScalarLike | Schedule,
    decay: RealScalarLike | Schedule,
) -> optax.GradientTransformationExtraArgs:
    r"""Norm-minimising gradient descent,

    $$w_{n+1} = (1 - \lambda_n) \left( w_n - \gamma_n \nabla L(w_n) \right)$$

    (T3 9, 26): [`gradflow.rules.halpern`][] of plain gradient descent.

    For least squares the limit is the solution of least norm, the pseudo-inverse's,
    from any start, where plain gradient descent keeps the part of the start in the null
    space. The error falls as $\lambda_n$: of an eigenvalue $h$ of the Hessian,
    $\lambda_n / (\gamma h)$ of the solution's part is missing.

    **Arguments:**

    - `learning_rate`: $\gamma_n$, a number or an optax schedule.
    - `decay`: $\lambda_n$ between 0 and 1, such as [`gradflow.rules.power_decay`][].

    **Returns:** an optax optimiser. Its `update` needs `params`.
    """
    if not callable(learning_rate):
        check_scalar("learning_rate", learning_rate)
        check_positive("learning_rate", learning_rate)
    return halpern(optax.sgd(learning_rate), decay)


def as_decay(decay: RealScalarLike | Schedule) -> Schedule:
    if callable(decay):
        return decay
    check_scalar("decay", decay)
    if is_concrete(decay) and not 0 <= float(np.asarray(decay)) <= 1:
        raise ValueError(f"`decay` must lie between 0 and 1, got {decay}.")
    return lambda count: jnp.asarray(decay, jnp.result_type(float))


def as_anchor(anchor: Any, params: Any) -> Any:
    """The anchor, zero where none is given, once it is known to fit."""
    if anchor is None:
        return jax.tree.map(jnp.zeros_like, params)
    if jax.tree.structure(anchor) != jax.tree.structure(params):
        raise ValueError(
            "`anchor` must be a pytree like the parameters, "
            f"{jax.tree.structure(params)}, got {jax.tree.structure(anchor)}."
        )
    return jax.tree.map(_fit, anchor, params)


def _fit(anchor: Any, param: Array) -> Float[Array, "..."]:
    if np.shape(anchor) != np.shape(param):
        raise ValueError(
            f"`anchor` has an array of shape {np.shape(anchor)} where the parameters "
            f"have {np.shape(param)}."
        )
    return jnp.asarray(anchor, param.dtype)
