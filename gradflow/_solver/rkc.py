"""The second-order stabilised explicit solver."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import RealScalarLike
from .chebyshev import Scheme
from .stabilised import AbstractStabilised

DAMPING = 2 / 13
"""How far the point at which the polynomials are taken lies beyond 1, times the square
of the stages. Between its ends the stability polynomial then stays between 1/3 and 0.95
in modulus, at the price of 2 % of the stability interval."""


def num_stages(stiffness: RealScalarLike) -> Float[Array, ""]:
    r"""The fewest stages, at least two, at which a step of size $h$ is stable for real
    eigenvalues down to $-\varrho$, where `stiffness` is $h \varrho$."""
    return jnp.maximum(2.0, 1 + jnp.floor(jnp.sqrt(1.54 * stiffness + 1)))


def largest_stiffness(stages: RealScalarLike) -> Float[Array, ""]:
    """The inverse of `num_stages`: what is stable with `stages` stages."""
    return (jnp.square(jnp.asarray(stages) - 1.0) - 1) / 1.54


def second_order(stages: Int[Array, ""], dtype) -> Scheme:
    """RKC's scalars for two stages or more."""
    s = stages.astype(dtype)
    # By itself, since little of it would be left in w0 = 1 + delta.
    delta = DAMPING / jnp.square(s)
    w0 = 1 + delta
    angle = jnp.log1p(delta + jnp.sqrt(delta * (2 + delta)))
    first = s * jnp.sinh(s * angle) / jnp.sinh(angle)
    second = jnp.square(s) * jnp.cosh(s * angle) - w0 * first
    second = second / jnp.square(jnp.sinh(angle))
    b = 1 / (4 * jnp.square(w0))
    return Scheme(
        stages=stages,
        w0=w0,
        w1=first / second,
        b1=b,
        b2=b,
        previous_weight=jnp.zeros_like(w0),
        last_weight=jnp.ones_like(w0),
        error_weights=jnp.asarray([0.8, 0, 0.4, 0.4], w0.dtype),
    )


class RKC(AbstractStabilised):
    r"""The second-order Runge–Kutta–Chebyshev method, for stiff problems whose Jacobian
    has eigenvalues near the negative real axis: gradient flows.

    A step of $s$ stages is stable up to $h \varrho = 0.65\, (s^2 - 1)$, where $\varrho$
    is the spectral radius: its length grows with the square of its cost. The error
    alone decides how long a step is, and the stages follow. $\varrho$ comes from power
    iteration with Jacobian-vector products, each of which costs about two evaluations
    of the field.

    First same as last, embedded error estimate of third order, dense output by cubic
    Hermite interpolation.

    ??? cite "Reference"

        B. P. Sommeijer, L. F. Shampine, J. G. Verwer: RKC, an explicit solver for
        parabolic PDEs. Journal of Computational and Applied Mathematics 88 (1998)
        315-326.
    """

    max_stages: int = eqx.field(static=True, default=10_000)
    scan_kind: Literal["lax", "checkpointed", "bounded"] | None = eqx.field(
        static=True, default=None
    )

    fewest_stages: ClassVar = 2

    def order(self, terms) -> int:
        del terms
        return 2

    def error_order(self, terms) -> int:
        del terms
        return 3

    def num_stages(self, stiffness, ratio):
        del ratio
        return num_stages(stiffness)

    def largest_stiffness(self, stages):
        return largest_stiffness(stages)

    def scheme(self, stages, ratio):
        return second_order(stages, ratio.dtype)


RKC.__init__.__doc__ = """**Arguments:**

- `max_stages`: the most stages of a step; a step that would need more is rejected. In
    float32 rounding errors, which grow with the square of the stages, set the limit at
    28 if that is less.
- `scan_kind`: the loop over the stages, as for diffrax's own solvers: `"checkpointed"`
    (the default) for reverse-mode, `"lax"` for forward-mode differentiation,
    `"bounded"` for both. `gradflow.solve` chooses it by itself.

**Raises:** `ValueError` for fewer than two stages.
"""
