"""Weight decay in the convention of the papers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._check import check_nonnegative, check_scalar
from .._types import RealScalarLike
from ._wrap import check_params


def weight_decay(decay: RealScalarLike) -> optax.GradientTransformation:
    r"""Adds $2 \lambda W$ to the gradient: that of $\lambda \sum_k \|W_k\|^2$.

    To be chained before the optimiser, `optax.chain(weight_decay(0.01),
    optax.sgd(0.1))`. With plain gradient descent this is what
    `GradientFlow(weight_decay=0.01)` adds; with Adam the penalty is a part of the loss,
    unlike in `optax.adamw`. T3 prints $\lambda W$ in several places (T3 32, 40, 50),
    for half of the decay.

    **Arguments:**

    - `decay`: $\lambda \ge 0$.

    **Returns:** an optax gradient transformation. Its `update` needs `params`.

    **Raises:** `ValueError` for a negative decay.
    """
    check_scalar("decay", decay)
    check_nonnegative("decay", decay)

    def add(gradient: Array, w: Array) -> Array:
        return gradient + 2 * jnp.asarray(decay, w.dtype) * w

    def update(updates: Any, params: Any) -> Any:
        check_params(params)
        return jax.tree.map(add, updates, params)

    return optax.stateless(update)
