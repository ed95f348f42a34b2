"""The Halpern iteration of any map."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._check import check_positive_integer
from .._tree import tree_norm
from .._types import RealScalarLike, Schedule
from ._halpern import as_anchor, as_decay


class HalpernIterates(eqx.Module):
    r"""What [`gradflow.rules.halpern_iteration`][] returns.

    - `last`: $w_N$.
    - `residuals`: $\|w_n - T w_n\|$ for $n = 0, \ldots, N$.
    - `iterates`: $w_0, \ldots, w_N$ along a leading axis, or `None`.
    """

    last: PyTree[Array]
    residuals: Float[Array, " iterates"]
    iterates: PyTree[Array] | None


def halpern_iteration(
    operator: Callable[[Any], Any],
    start: Any,
    steps: int,
    decay: RealScalarLike | Schedule,
    anchor: Any = None,
    *,
    save_iterates: bool = True,
) -> HalpernIterates:
    r"""$w_{n+1} = \lambda_n u + (1 - \lambda_n) T w_n$ for any map $T$ (T3 25).

    For a non-expansive $T$ with fixed points the limit is the one nearest to $u$, also
    where $w_{n+1} = T w_n$ has none. Anchored at the start, with `power_decay(1.0)`,

    $$\|w_n - T w_n\| \le \frac{2 \|w_0 - w_*\|}{n + 1}$$

    for every fixed point $w_*$, and no better bound holds for all $T$.

    **Main arguments:**

    - `operator`: $T$, a function from a pytree to one like it.
    - `start`: $w_0$, a pytree of floating-point arrays.
    - `steps`: the number of steps $N$.
    - `decay`: $\lambda_n$ between 0 and 1, an optax schedule such as
        [`gradflow.rules.power_decay`][], or a number.
    - `anchor`: $u$, a pytree like `start`. Not given: zero.

    **Other arguments:**

    - `save_iterates`: whether to return all iterates, not the last alone.

    **Returns:** [`gradflow.rules.HalpernIterates`][]. The map is evaluated $N + 1$
    times.

    **Raises:** `ValueError` for arguments that do not fit.

    ??? cite "Reference"

        F. Lieder: On the convergence rate of the Halpern-iteration. Optimization
        Letters 15 (2021); for the bound.
    """
    check_positive_integer("steps", steps)
    decay = as_decay(decay)
    start = jax.tree.map(jnp.asarray, start)
    dtypes = {str(w.dtype) for w in jax.tree.leaves(start)}
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise ValueError(
            "`start` must be of floating-point numbers, since those between 0 and 1 "
            f"count; got {sorted(dtypes)}."
        )
    anchor = as_anchor(anchor, start)

    def residual(w: Any, image: Any) -> Float[Array, ""]:
        return tree_norm(jax.tree.map(jnp.subtract, w, image))

    def step(w: Any, count: Array) -> tuple[Any, tuple[Array, Any]]:
        image = operator(w)
        weight = decay(count)

        def mix(u: Array, x: Array) -> Array:
            part = jnp.asarray(weight, x.dtype)
            return part * u + (1 - part) * x

        saved = w if save_iterates else None
        return jax.tree.map(mix, anchor, image), (residual(w, image), saved)

    last, (residuals, iterates) = jax.lax.scan(step, start, jnp.arange(steps))
    residuals = jnp.append(residuals, residual(last, operator(last)))
    if save_iterates:
        iterates = jax.tree.map(
            lambda all, w: jnp.concatenate([all, w[None]]), iterates, last
        )
    return HalpernIterates(last, residuals, iterates)
