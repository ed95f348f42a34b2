"""How the scale of a network grows under an exponential loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from .._check import check_positive
from .._types import RealScalarLike

# Enough for rounding errors in float64.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_REACH = 60.0
"""What lies further than this below the end of the integral is less than rounding."""


def log_time_of_rho(
    rho: RealScalarLike,
    rho_0: RealScalarLike,
    *,
    margin: RealScalarLike = 1.0,
    layers: int = 1,
) -> Float[Array, ""]:
    r"""The logarithm of the time at which the scale of a network has grown to `rho`.

    For one sample with the normalised margin $f$, fixed directions, the exponential
    loss and $K$ layers of equal norms, $u = \rho f$ obeys

    $$K f^{2/K} t = \int_{u_0}^{u} e^v v^{2/K - 2} \, dv$$

    (T3 99–103, where (101)–(103) carry one factor $K$ too many). For one layer it is
    $e^u - e^{u_0}$, for two a difference of logarithmic integrals
    $\operatorname{li}(e^u) - \operatorname{li}(e^{u_0})$.

    **Arguments:**

    - `rho`: the product $\rho$ of the layers' norms; at least `rho_0`.
    - `rho_0`: $\rho$ at time 0, positive.
    - `margin`: $f$, positive.
    - `layers`: $K$.

    **Returns:** $\log t$, minus infinity for `rho` = `rho_0` and NaN below: times
    themselves overflow at $\rho f$ of about 700.

    **Raises:** `ValueError` for numbers that are not positive.
    """
    for name, value in (("rho", rho), ("rho_0", rho_0), ("margin", margin)):
        check_positive(name, value)
    if layers < 1:
        raise ValueError(f"`layers` must be at least 1, got {layers}.")
    u, u_0, f = (jnp.asarray(x, float) for x in (rho * margin, rho_0 * margin, margin))
    return _log_integral(u, u_0, layers) - jnp.log(layers) - 2 / layers * jnp.log(f)


def rho_of_log_time(
    log_t: RealScalarLike,
    rho_0: RealScalarLike,
    *,
    margin: RealScalarLike = 1.0,
    layers: int = 1,
) -> Float[Array, ""]:
    r"""The scale to which a network has grown: the inverse of
    [`gradflow.analysis.log_time_of_rho`][], with the same arguments.

    For one layer it is $\log(e^{\rho_0 f} + f^2 t) / f$, for two the inverse of a
    logarithmic integral. By bisection, to rounding.

    **Returns:** $\rho$ at the time whose logarithm, of any size, is `log_t`, minus
    infinity for time 0; NaN where an argument is.
    """
    log_t, start, f = (jnp.asarray(x, float) for x in (log_t, rho_0, margin))
    is_start = log_t == -jnp.inf
    rho = _inverse(jnp.where(is_start, 0, log_t), start, f, layers)
    return jnp.where(is_start, start, rho)


def _excess(rho, log_t, start, margin, layers: int) -> Float[Array, ""]:
    return log_time_of_rho(rho, start, margin=margin, layers=layers) - log_t


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _inverse(log_t, start, margin, layers: int) -> Float[Array, ""]:
    # The integral grows almost like e^u.
    late = jnp.maximum(log_t + jnp.log(layers) + 2 / layers * jnp.log(margin), 0)
    rho = optx.root_find(
        lambda rho, _: _excess(rho, log_t, start, margin, layers),
        optx.Bisection(rtol=1e-14, atol=0.0, flip=False),
        start,
        options={"lower": start, "upper": start + (10 + 2 * late) / margin},
        max_steps=200,
        throw=False,
    ).value
    unknown = jnp.isnan(_excess(rho, log_t, start, margin, layers))
    return jnp.where(unknown, jnp.nan, rho)


@_inverse.defjvp
def _inverse_jvp(layers, primals, tangents):
    """By the theorem of implicit functions, which at the start says nothing."""
    rho = _inverse(*primals, layers)
    of_primals = functools.partial(_excess, rho, layers=layers)
    _, rest = jax.jvp(of_primals, primals, tangents)
    slope = jax.grad(_excess)(rho, *primals, layers)
    at_start = rho == primals[1]
    change = -rest / jnp.where(at_start, 1, slope)
    return rho, jnp.where(at_start, tangents[1], change)


def _log_integral(u, u_0, layers: int) -> Float[Array, ""]:
    r"""$\log \int_{u_0}^u e^v v^{-p} dv$ with $p = 2 - 2/K$."""
    power = 2 - 2 / layers

    def quadrature(function, lower, upper):
        half = (upper - lower) / 2
        return half * jnp.sum(_WEIGHTS * function(lower + half * (1 + _NODES)))

    # Up to 1 in the logarithm of v, in which what is singular at 0 is smooth.
    low = quadrature(
        lambda w: jnp.exp(jnp.exp(w) + (1 - power) * w),
        jnp.log(jnp.minimum(u_0, 1)),
        jnp.log(jnp.minimum(u, 1)),
    )
    # From there on in the distance from the end, without a number as large as e^u.
    reach = jnp.minimum(u - jnp.clip(1.0, u_0, u), _REACH)
    high = quadrature(lambda s: jnp.exp(-s) * (u - s) ** -power, 0.0, reach)
    return jnp.logaddexp(_safe_log(low), u + _safe_log(high))


def _safe_log(x: Float[Array, ""]) -> Float[Array, ""]:
    """The logarithm with derivative 0, instead of NaN, of a part that is not there."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
