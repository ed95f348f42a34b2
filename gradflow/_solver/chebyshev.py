"""Coefficients of the second-order Runge–Kutta–Chebyshev method."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import RealScalarLike

DAMPING = 2 / 13
"""How far the point at which the polynomials are taken lies beyond 1, times the square
of the stages. Between its ends the stability polynomial then stays between 1/3 and 0.95
in modulus, at the price of 2 % of the stability interval."""


def num_stages(stiffness: RealScalarLike) -> Float[Array, ""]:
    r"""The fewest stages, at least two, at which a step of size $h$ is stable for real
    eigenvalues down to $-\varrho$, where `stiffness` is $h \varrho$.

    As a floating-point number: there are stiffnesses that no integer holds.
    """
    return jnp.maximum(2.0, 1 + jnp.floor(jnp.sqrt(1.54 * stiffness + 1)))


def largest_stiffness(stages: RealScalarLike) -> Float[Array, ""]:
    """The inverse of `num_stages`: what is stable with `stages` stages."""
    return (jnp.square(jnp.asarray(stages) - 1.0) - 1) / 1.54


class Stage(eqx.Module):
    r"""The coefficients that lead from one stage to the next:

    $$Y_{j+1} = (1 - \mu - \nu) Y_0 + \mu Y_j + \nu Y_{j-1} + \tilde\mu h F_j
    + \tilde\gamma h F_0.$$
    """

    mu: Float[Array, ""]
    nu: Float[Array, ""]
    mu_tilde: Float[Array, ""]
    gamma_tilde: Float[Array, ""]


class Chebyshev(eqx.Module):
    r"""The polynomials $T_{j-1}, T_j$ and their first two derivatives at the point
    $w_0 > 1$ of a step of $s$ stages, from which its coefficients follow.

    The recurrence in $j$ is stable outside of $[-1, 1]$; closed forms by hyperbolic
    functions would cancel for $j \ll s$.
    """

    w0: Float[Array, ""]
    w1: Float[Array, ""]
    # One row for each degree, j - 1 and j; one column for each derivative.
    polynomials: Float[Array, "2 3"]
    b_before: Float[Array, ""]
    b: Float[Array, ""]

    @classmethod
    def of_degree_zero(cls, stages: Int[Array, ""], dtype) -> "Chebyshev":
        """The start of the recurrence, at $j = 0$."""
        s = stages.astype(dtype)
        # By itself, since little of it would be left in w0 = 1 + delta.
        delta = DAMPING / jnp.square(s)
        w0 = 1 + delta
        angle = jnp.log1p(delta + jnp.sqrt(delta * (2 + delta)))
        first = s * jnp.sinh(s * angle) / jnp.sinh(angle)
        second = jnp.square(s) * jnp.cosh(s * angle) - w0 * first
        second = second / jnp.square(jnp.sinh(angle))
        b = 1 / (4 * jnp.square(w0))
        one, zero = jnp.ones_like(w0), jnp.zeros_like(w0)
        # T_{-1} = T_1.
        rows = jnp.stack([jnp.stack([w0, one, zero]), jnp.stack([one, zero, zero])])
        return cls(w0=w0, w1=first / second, polynomials=rows, b_before=b, b=b)

    def next(self, j: Int[Array, ""]) -> tuple["Chebyshev", Stage]:
        """From degree `j` to `j + 1`, and the coefficients of that stage."""
        before, now = self.polynomials
        inhomogeneity = jnp.stack([jnp.zeros_like(self.w0), now[0], 2 * now[1]])
        after = 2 * (self.w0 * now + inhomogeneity) - before
        first = j == 0
        after = jnp.where(first, before, after)
        b = jnp.where(j < 2, self.b, after[2] / jnp.square(after[1]))
        mu = 2 * b * self.w0 / self.b
        mu_tilde = 2 * b * self.w1 / self.b
        stage = Stage(
            mu=jnp.where(first, 1, mu),
            nu=jnp.where(first, 0, -b / self.b_before),
            mu_tilde=jnp.where(first, b * self.w1, mu_tilde),
            gamma_tilde=jnp.where(first, 0, (self.b * now[0] - 1) * mu_tilde),
        )
        state = Chebyshev(self.w0, self.w1, jnp.stack([now, after]), self.b, b)
        return state, stage

    def node(self, j: Int[Array, ""]) -> Float[Array, ""]:
        """The time of stage `j` as a fraction of the step."""
        _, (_, first, second) = self.polynomials
        later = self.w1 * second / jnp.where(first == 0, 1, first)
        return jnp.where(j == 0, 0, jnp.where(j == 1, self.b * self.w1, later))
