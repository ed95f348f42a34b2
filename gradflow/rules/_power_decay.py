"""The schedule by which the Halpern term vanishes."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_scalar, is_concrete
from .._types import RealScalarLike, Schedule


def power_decay(
    exponent: RealScalarLike = 1.0, *, first: RealScalarLike = 2
) -> Schedule:
    r"""$\lambda_n = n^{-a}$ for $n = n_1, n_1 + 1, \ldots$ (T3 9, 26).

    It vanishes, and its sum is infinite: both are needed for the limit to have the
    smallest norm and not to depend on the start. A larger exponent ends nearer to the
    limit and takes longer to forget the start, of which $\prod_n (1 - \lambda_n)$
    remains; with $a = 1$ that is $(n_1 - 1) / n$.

    T3 does not say where $n$ begins. At $n_1 = 1$ the first step has $\lambda = 1$: it
    puts the weights to the anchor, and the start is lost. So the default is 2, and
    with $a = 1$ this is $1 / (k + 2)$ for steps counted from $k = 0$: the schedule for
    which Lieder's bound holds, see [`gradflow.rules.halpern_iteration`][].

    **Arguments:**

    - `exponent`: $0 < a \le 1$.
    - `first`: $n_1 \ge 1$, the value of $n$ in the first step.

    **Returns:** an optax schedule: a function of the number of steps taken so far.

    **Raises:** `ValueError` for an exponent or a first $n$ out of range.
    """
    check_scalar("exponent", exponent)
    check_scalar("first", first)
    if is_concrete(exponent) and not 0 < float(exponent) <= 1:
        raise ValueError(
            f"`exponent` must lie in (0, 1], got {exponent}. A larger one has a finite "
            "sum, and the limit depends on the start."
        )
    if is_concrete(first) and not float(first) >= 1:
        raise ValueError(f"`first` must be at least 1, got {first}.")

    def schedule(count: Any) -> Float[Array, "..."]:
        dtype = jnp.result_type(float)
        n = jnp.asarray(count, dtype) + jnp.asarray(first, dtype)
        return n ** -jnp.asarray(exponent, dtype)

    return schedule
