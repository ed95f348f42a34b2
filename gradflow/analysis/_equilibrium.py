"""The equilibrium of the scale of a network."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._loss import SquareLoss
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike


def rho_eq(
    problem: Problem, network: AbstractNetwork, weight_decay: RealScalarLike = 0.0
) -> Float[Array, ""]:
    r"""The scale at which $\dot\rho = 0$ for the directions as they are,

    $$\rho_{eq} = \frac{\sum_n y_n f_n}{\lambda + \sum_n f_n^2}$$

    for the square loss (SQ 5, M112 7), where $f = g/\rho$ is the network with unit
    layer norms. With several outputs $y_n$ and $f_n$ are vectors; with
    `reduction="mean"` the sums are means.

    **Arguments:**

    - `problem`: with the square loss.
    - `network`: of any scale.
    - `weight_decay`: $\lambda$, which multiplies $\rho^2$.

    **Raises:** `ValueError` for other losses.
    """
    if not isinstance(problem.loss, SquareLoss):
        raise ValueError(
            "`problem`: `rho_eq` has this closed form for the square loss only, got "
            f"{problem.loss}."
        )
    # The slope of the square loss is 2(g - y): at g = 0 it hands over the targets.
    f = problem.outputs(network) / jnp.prod(network.norms)
    slopes_at_zero = problem.slopes(jnp.zeros_like(f))
    sum_yf = -jnp.sum(slopes_at_zero * f) / 2
    sum_ff = jnp.sum((problem.slopes(f) - slopes_at_zero) * f) / 2
    return sum_yf / (jnp.asarray(weight_decay, f.dtype) + sum_ff)
