"""Whether the scale goes to its equilibrium all the time."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._check import check_nonnegative
from .._types import RealScalarLike


def growth_violations(
    rho: Float[Array, " T"],
    rho_eq: Float[Array, " T"],
    *,
    rtol: RealScalarLike = 1e-6,
) -> Bool[Array, " intervals"]:
    r"""Where $\rho$ moved away from its equilibrium: it fell from one time to the next
    while below $\rho_{eq}$ at both, or rose while above at both.

    In the flows of one norm it does so nowhere: from a small start $\rho$ grows
    monotonically until it meets its equilibrium (M112 §1.2, §3.1), by the law of signs
    of [`gradflow.analysis.rho_dot`][]. Of more norms that holds without weight decay.
    Between two times $\rho$ may cross an equilibrium that moves, there and back, so
    save many.

    **Arguments:**

    - `rho`, `rho_eq`: of shape `(T,)`, such as the observables of these names.
    - `rtol`: the change, relative to the larger $|\rho|$, that is left to rounding and
        to the errors of the integration.

    **Returns:** an array of shape `(T - 1,)`. False where a number is NaN.

    **Raises:** `ValueError` for a negative `rtol`.
    """
    check_nonnegative("rtol", rtol)
    before, after = rho[:-1], rho[1:]
    allowed = rtol * jnp.maximum(jnp.abs(before), jnp.abs(after))
    below, above = rho < rho_eq, rho > rho_eq
    fell = (before - after > allowed) & below[:-1] & below[1:]
    rose = (after - before > allowed) & above[:-1] & above[1:]
    return fell | rose
