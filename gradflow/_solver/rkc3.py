"""The third-order stabilised explicit solver."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import RealScalarLike
from . import rkc
from .chebyshev import Scheme
from .stabilised import AbstractStabilised

LEAST_RATIO = 0.49
"""The smallest ratio of the last step to this one: a step may double, and there is room
for rounding. Earlier errors are multiplied by the weight $g$ of the state before, whose
modulus is 0.82 here, and 1 at a ratio of 0.42, for three stages; it is less for
more."""

_VALUE = 5 / 4
"""Of $T_s$ at $w_0$."""
_ANGLE = math.log(2)  # cosh is 5/4, and sinh 3/4

# Limits of the derivatives of T_s at w0, over s^2, s^4, s^6.
_FIRST = 3 / 4 / _ANGLE
_SECOND = (_VALUE - _FIRST) / _ANGLE**2
_THIRD = ((3 + _ANGLE**2) * _FIRST - 3 * _VALUE) / _ANGLE**4


def _inverse_interval(ratio: RealScalarLike) -> Float[Array, ""]:
    r"""The limit of $s^2$ over the length of the stability interval."""
    q = jnp.asarray(ratio)
    middle = 4 * _FIRST * _THIRD / _SECOND**2 - 2
    root = jnp.sqrt(1 + middle * q + jnp.square(q))
    return _SECOND / (4 * _THIRD) * (1 - q + root)


def num_stages(stiffness: RealScalarLike, ratio: RealScalarLike) -> Float[Array, ""]:
    """The fewest stages, at least three, at which a step is stable for real eigenvalues
    down to minus `stiffness`."""
    x = stiffness * _inverse_interval(ratio)
    return jnp.maximum(3.0, 1 + jnp.floor(jnp.sqrt(4 + x)))


def largest_stiffness(stages: RealScalarLike, ratio: RealScalarLike):
    """The inverse of `num_stages`: what is stable with `stages` stages."""
    return (jnp.square(jnp.asarray(stages)) - 4.0) / _inverse_interval(ratio)


def third_order(stages: Int[Array, ""], ratio: Float[Array, ""]) -> Scheme:
    """TSRKC3's scalars for three stages or more."""
    s, q = stages.astype(ratio.dtype), ratio
    angle = _ANGLE / s
    u2 = jnp.square(jnp.sinh(angle))
    w0 = 1 + 2 * jnp.square(jnp.sinh(angle / 2))
    # The derivatives at w0, the later ones by Chebyshev's equation.
    first = 3 / 4 * s / jnp.sinh(angle)
    second = (_VALUE * jnp.square(s) - w0 * first) / u2
    third = ((jnp.square(s) - 1) * first - 3 * w0 * second) / u2
    # Three conditions, for z, z² and z³ in the exponential, on a, g and w1. The root of
    # the quadratic equation for w1 is written so that it does not cancel at large q.
    linear = (q - 1) * second
    root = jnp.sqrt(jnp.square(linear) + 4 * q * first * third)
    w1 = 2 * q * first / (linear + root)
    a = (1 + q) / (q * first + w1 * second)
    b_last = second / jnp.square(first)
    # The fourth condition, with the products of the coefficients: the defects of the
    # first two stages cancel.
    b1 = jnp.sinh((s - 2) * angle) / jnp.sinh((s - 1) * angle) / 4
    by_step = (2 + q) / jnp.square(1 + q)
    by_last_step = 1 / (q * jnp.square(1 + q))
    by_f1 = 1 / (1 + q)
    return Scheme(
        stages=stages,
        w0=w0,
        w1=w1,
        b1=b1,
        b2=15 / (64 * jnp.square(w0)),
        previous_weight=(a * first - 1) / q,
        last_weight=a / (w1 * b_last),
        error_weights=0.6
        * jnp.stack([by_step, by_last_step, jnp.zeros_like(q), by_f1]),
    )


class RKC3(AbstractStabilised):
    r"""The third-order two-step Runge–Kutta–Chebyshev method TSRKC3, for the same
    problems as [`gradflow.RKC`][] at higher accuracy.

    A step of $s$ stages is stable up to about $h \varrho = 0.5\, s^2$, for which RKC
    takes 12 % fewer. The local error is estimated at the third order, as RKC's is, so
    that the steps are about as long at the same tolerance; but the global error is
    proportional to the tolerance.

    It pays where a relative error below about $5 \cdot 10^{-4}$ is asked for. On
    digits, with two hidden layers of 16 units, its gradients over RKC's at equal errors
    were

    | relative error | $10^{-3}$ | $10^{-4}$ | $10^{-5}$ |
    | --- | --- | --- | --- |
    | deep linear network, to time 200 | 1.15 | 0.81 | 0.60 |
    | deep linear network, to time 20 | | 0.48 | 0.44 |
    | `ReLU(smoothing=0.1)`, to time 20 | | 0.45 | 0.39 |

    At equal tolerances they were 1.0 to 1.25, and its error 4 (`rtol=1e-3`) to 130
    (`rtol=1e-8`) times smaller; on the ReLU network, whose field has kinks of its own
    where the smoothing ends, 5 to 12 times throughout.

    A step that is more than twice as long as the last one, the first step, and one
    after a jump are RKC's. First same as last, dense output by cubic Hermite
    interpolation.

    ??? cite "Reference"

        A. Moisa: Third order two-step Runge–Kutta–Chebyshev methods. Journal of
        Computational and Applied Mathematics (2025).
        doi:10.1016/j.cam.2024.116291.
    """

    max_stages: int = eqx.field(static=True, default=10_000)
    scan_kind: Literal["lax", "checkpointed", "bounded"] | None = eqx.field(
        static=True, default=None
    )

    fewest_stages: ClassVar = 3

    def order(self, terms) -> int:
        del terms
        return 3

    def error_order(self, terms) -> int:
        del terms
        return 3

    def num_stages(self, stiffness, ratio):
        return jnp.where(
            ratio >= LEAST_RATIO,
            num_stages(stiffness, ratio),
            rkc.num_stages(stiffness),
        )

    def largest_stiffness(self, stages):
        return jnp.minimum(
            largest_stiffness(stages, LEAST_RATIO), rkc.largest_stiffness(stages)
        )

    def scheme(self, stages, ratio):
        has_two_steps = ratio >= LEAST_RATIO
        # What is not selected must be finite, for the sake of derivatives.
        third = third_order(
            jnp.where(has_two_steps, stages, 3), jnp.where(has_two_steps, ratio, 1)
        )
        second = rkc.second_order(stages, ratio.dtype)
        return jax.tree.map(lambda a, b: jnp.where(has_two_steps, a, b), third, second)


RKC3.__init__.__doc__ = """**Arguments:**

- `max_stages`, `scan_kind`: as for [`gradflow.RKC`][].

**Raises:** `ValueError` for fewer than three stages.
"""
