"""Noise in the weights: Langevin dynamics and kicks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from .._check import (
    check_nonnegative,
    check_positive,
    check_positive_integer,
    check_scalar,
)
from .._types import RealScalarLike
from ._wrap import check_params, is_bare


class _Noise(NamedTuple):
    """The number of updates so far, and the key of those to come."""

    num_updates: Int[Array, ""]
    key: PRNGKeyArray


def kicks(
    every: int,
    sigma: RealScalarLike,
    key: PRNGKeyArray,
    *,
    relative: bool = False,
    last: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds $\sigma \xi$ with $\xi \sim N(0, I)$ to all weights in every $k$-th step.

    To be chained after the optimiser, `optax.chain(optax.sgd(0.2), kicks(1000, 0.45,
    key))`. The update of step $k$ is the first that has a kick, then that of $2 k$.
    Such kicks show where minima are degenerate: along flat directions gradient descent
    does not bring the weights back, and the kicks accumulate (T3, figures 6 to 8).

    **Main arguments:**

    - `every`: $k$, the number of steps from one kick to the next.
    - `sigma`: $\sigma \ge 0$.
    - `key`: the random key. The same key gives the same kicks.

    **Other arguments:**

    - `relative`: whether $\sigma$ is in units of the standard deviation of each array's
        entries before the step (T3, figure 8); then `update` needs `params`.
    - `last`: no kicks after this step. Not given: for ever.

    **Returns:** an optax gradient transformation, whose state holds the key.

    **Raises:** `ValueError` for arguments that do not fit.
    """
    check_positive_integer("every", every)
    if last is not None and not isinstance(last, (int, np.integer)):
        raise ValueError(f"`last` must be an integer or `None`, got {last!r}.")
    check_scalar("sigma", sigma)
    check_nonnegative("sigma", sigma)

    def init(params: Any) -> _Noise:
        del params
        return _Noise(jnp.zeros((), jnp.int32), key)

    def kick(key: PRNGKeyArray, updates: Any, scales: Any) -> Any:
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))

        def add(update: Array, scale: Array, key: PRNGKeyArray) -> Array:
            noise = jax.random.normal(key, update.shape, update.dtype)
            size = jnp.asarray(sigma, update.dtype) * scale.astype(update.dtype)
            return update + size * noise

        return jax.tree.map(add, updates, scales, keys)

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, _Noise]:
        if is_bare(extra_args):
            return updates, state
        if relative:
            check_params(params)
            scales = jax.tree.map(jnp.std, params)
        else:
            scales = jax.tree.map(lambda u: jnp.ones((), u.dtype), updates)
        count = jnp.asarray(optax.safe_increment(state.num_updates))
        is_kick = count % every == 0
        if last is not None:
            is_kick = is_kick & (count <= last)
        key, use = jax.random.split(state.key)
        updates = jax.lax.cond(
            is_kick, kick, lambda key, updates, scales: updates, use, updates, scales
        )
        return updates, _Noise(count, key)

    return optax.GradientTransformationExtraArgs(init, update)


def langevin(
    learning_rate: RealScalarLike, temperature: RealScalarLike, key: PRNGKeyArray
) -> optax.GradientTransformationExtraArgs:
    r"""The Langevin equation $dw = -\nabla L\,dt + \sqrt{2 T}\,dB$ (T3 7) in Euler
    steps,

    $$w_{n+1} = w_n - \eta \nabla L(w_n) + \sqrt{2 \eta T}\, \xi_n, \qquad \xi_n \sim
    N(0, I).$$

    For $\eta \to 0$ the stationary density is Boltzmann's, proportional to $e^{-L/T}$.
    At a finite step it is wider: on $L = a w^2 / 2$ the variance is $T / (a (1 - \eta
    a / 2))$ in place of $T / a$.

    **Arguments:**

    - `learning_rate`: $\eta > 0$.
    - `temperature`: $T \ge 0$.
    - `key`: the random key. The same key gives the same path.

    **Returns:** an optax optimiser, whose state holds the key: plain gradient descent
    and [`gradflow.rules.kicks`][] in every step.

    **Raises:** `ValueError` for a learning rate or a temperature out of range.
    """
    check_scalar("learning_rate", learning_rate)
    check_positive("learning_rate", learning_rate)
    check_scalar("temperature", temperature)
    check_nonnegative("temperature", temperature)
    sigma = jnp.sqrt(
        2 * jnp.asarray(learning_rate, float) * jnp.asarray(temperature, float)
    )
    return optax.chain(optax.sgd(learning_rate), kicks(1, sigma, key))
