"""The flow of a weight decay that vanishes in time."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_finite, check_instance, check_nonnegative, is_concrete
from .._types import RealScalarLike, State
from .base import AbstractPhysicalFlow
from .gradient import GradientFlow
from .wrapper import AbstractWrapperFlow


class PowerDecay(eqx.Module):
    r"""$\lambda(t) = (1 + t)^{-a}$, which vanishes so slowly that $\int \lambda =
    \infty$: what the start leaves in directions that the loss does not depend on is
    divided by $1 + t$ for $a = 1$.
    """

    exponent: RealScalarLike = 1.0

    def __check_init__(self):
        check_finite("exponent", self.exponent)
        if is_concrete(self.exponent) and not 0 < self.exponent <= 1:
            raise ValueError(
                f"`exponent` must be in (0, 1], got {self.exponent}: a larger one "
                "stops before the start is forgotten."
            )

    def __call__(self, t: RealScalarLike) -> Float[Array, ""]:
        t = jnp.asarray(t)
        if not jnp.issubdtype(t.dtype, jnp.floating):  # or the exponent is cut to 0
            t = t.astype(jnp.result_type(float))
        return (1 + t) ** -jnp.asarray(self.exponent, t.dtype)


class HalpernFlow(AbstractWrapperFlow, AbstractPhysicalFlow[State]):  # pyright: ignore
    r"""Another flow with a decay $\lambda(t)$ that vanishes, in the weights

    $$\dot W_k = -\frac{\partial L}{\partial W_k} - \lambda(t) W_k, \qquad \lambda(t)
    \to 0, \quad \int \lambda\,dt = \infty:$$

    the limit for small steps of norm-minimising gradient descent (T3 9, 26), and of
    Halpern's iteration with the anchor 0 (T3 25). Among the minima of a convex loss it
    finds the one of least norm, from any start, where the flow without decay keeps the
    start's part in the null space. That part decays as $e^{-\int \lambda}$, and the
    rest lags behind by $O(\lambda(t))$.

    In other coordinates it is the flow's weight decay that is larger by $\lambda(t) /
    2$, which there multiplies $\sum_k \rho_k^2$ or $\rho^2$. State: that of the flow.

    ??? cite "Reference"

        B. Halpern: Fixed points of nonexpanding maps. Bulletin of the American
        Mathematical Society 73 (1967) 957-961.
    """

    decay: Callable[[RealScalarLike], RealScalarLike] = PowerDecay()
    flow: AbstractPhysicalFlow = GradientFlow()

    def __check_init__(self):
        check_instance("flow", self.flow, AbstractPhysicalFlow)
        if not callable(self.decay):
            raise ValueError(
                "`decay` must be a function of time, such as `PowerDecay()`, got "
                f"{self.decay!r}. For a constant one give the flow a `weight_decay`."
            )
        check_nonnegative("decay", jnp.asarray(self.decay(0.0)))

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t) + self.decay(t) / 2


HalpernFlow.__init__.__doc__ = r"""**Arguments:**

- `decay`: $\lambda(t) \ge 0$, a function of time.
- `flow`: any flow without a clock, with or without a weight decay of its own.

**Raises:** `ValueError` for a `flow` with a clock, and a `decay` that is no function or
negative at time 0.
"""
PowerDecay.__init__.__doc__ = r"""**Arguments:**

- `exponent`: $0 < a \le 1$.
"""
