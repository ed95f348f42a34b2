"""The recurrence that the Runge–Kutta–Chebyshev methods have in common."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import State


class Scheme(eqx.Module):
    r"""The scalars of one step of a Runge–Kutta–Chebyshev method.

    Its $s$ stages follow from Chebyshev's polynomials at $w_0$; it ends with

    $$y_{n+1} = (1 - g - c)\, y_n + g\, y_{n-1} + c\, Y_s,$$

    and its local error is about

    $$e (y_n - y_{n+1}) + e_- (y_n - y_{n-1}) + h (d_0 f_n + d_1 f_{n+1}).$$

    As scalars, the schemes of different methods can take turns in one compiled loop.
    """

    stages: Int[Array, ""]
    w0: Float[Array, ""]
    w1: Float[Array, ""]
    # Those that come after are T_j'' / T_j'^2.
    b1: Float[Array, ""]
    b2: Float[Array, ""]
    # g, c.
    previous_weight: Float[Array, ""]
    last_weight: Float[Array, ""]
    # e, e_-, d_0, d_1.
    error_weights: Float[Array, "4"]

    def local_error(
        self,
        h: Float[Array, ""],
        previous: State,
        y0: State,
        y1: State,
        f0: State,
        f1: State,
    ) -> State:
        """The estimate; `f0` and `f1` are the field at the ends of the step."""
        e, e_previous, d0, d1 = self.error_weights

        def estimate(previous, y0, y1, f0, f1):
            slopes = d0 * f0 + d1 * f1
            return e * (y0 - y1) + e_previous * (y0 - previous) + h * slopes

        return jax.tree.map(estimate, previous, y0, y1, f0, f1)


class Stage(eqx.Module):
    r"""The coefficients that lead from one stage to the next:

    $$Y_{j+1} = (1 - \mu - \nu - g) Y_0 + \mu Y_j + \nu Y_{j-1} + g\, y_{n-1}
    + \tilde\mu h F_j + \tilde\gamma h F_0.$$
    """

    mu: Float[Array, ""]
    nu: Float[Array, ""]
    mu_tilde: Float[Array, ""]
    gamma_tilde: Float[Array, ""]
    previous: Float[Array, ""]


class Chebyshev(eqx.Module):
    r"""The polynomials $T_{j-1}, T_j$ and their first two derivatives at the point
    $w_0 > 1$ of a step, from which its coefficients follow.

    The recurrence in $j$ is stable outside of $[-1, 1]$; closed forms by hyperbolic
    functions would cancel for $j \ll s$.
    """

    scheme: Scheme
    # One row for each degree, j - 1 and j; one column for each derivative.
    polynomials: Float[Array, "2 3"]
    b_before: Float[Array, ""]
    b: Float[Array, ""]

    @classmethod
    def of_degree_zero(cls, scheme: Scheme) -> "Chebyshev":
        """The start of the recurrence, at $j = 0$."""
        one, zero = jnp.ones_like(scheme.w0), jnp.zeros_like(scheme.w0)
        # T_{-1} = T_1.
        rows = [jnp.stack([scheme.w0, one, zero]), jnp.stack([one, zero, zero])]
        return cls(scheme, jnp.stack(rows), b_before=scheme.b1, b=scheme.b1)

    def next(self, j: Int[Array, ""]) -> tuple["Chebyshev", Stage]:
        """From degree `j` to `j + 1`, and the coefficients of that stage; the last one
        takes to the end of the step at once."""
        scheme = self.scheme
        before, now = self.polynomials
        inhomogeneity = jnp.stack([jnp.zeros_like(scheme.w0), now[0], 2 * now[1]])
        after = 2 * (scheme.w0 * now + inhomogeneity) - before
        first = j == 0
        after = jnp.where(first, before, after)
        b = jnp.where(j == 1, scheme.b2, after[2] / jnp.square(after[1]))
        b = jnp.where(first, scheme.b1, b)
        mu = 2 * b * scheme.w0 / self.b
        mu_tilde = 2 * b * scheme.w1 / self.b
        is_last = j + 1 == scheme.stages
        weight = jnp.where(is_last, scheme.last_weight, 1)
        stage = Stage(
            mu=weight * jnp.where(first, 1, mu),
            nu=weight * jnp.where(first, 0, -b / self.b_before),
            mu_tilde=weight * jnp.where(first, b * scheme.w1, mu_tilde),
            gamma_tilde=weight * jnp.where(first, 0, (self.b * now[0] - 1) * mu_tilde),
            previous=jnp.where(is_last, scheme.previous_weight, 0),
        )
        return Chebyshev(scheme, jnp.stack([now, after]), self.b, b), stage

    def node(self, j: Int[Array, ""]) -> Float[Array, ""]:
        """The time of stage `j` as a fraction of the step."""
        _, (_, first, _) = self.polynomials
        return jnp.where(j == self.scheme.stages, 1, self.b * self.scheme.w1 * first)
