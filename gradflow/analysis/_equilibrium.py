"""The scale of a network: its velocity, its equilibrium, and the multiplier that takes
it out of the velocity of the directions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative
from .._loss import SquareLoss
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike
from ._scale_root import scale_root


def rho_eq(
    problem: Problem,
    network: AbstractNetwork,
    weight_decay: RealScalarLike = 0.0,
    *,
    num_norms: int = 1,
) -> Float[Array, ""]:
    r"""The scale at which $\dot\rho = 0$ for the directions as they are: the root of

    $$-\sum_n d_n(\rho f) f_n = 2 \lambda \rho^{2/K - 1}$$

    where $f = g/\rho$ is the network with unit layer norms and $d_n(\rho f)$ are the
    slopes at the outputs $\rho f$. $K$ norms evolve under a decay of the sum of their
    squares, which makes them equal, $\rho_k = \rho^{1/K}$.

    For $K = 1$ there is one root, since losses are convex. For the square loss it is

    $$\rho_{eq} = \frac{\sum_n y_n f_n}{\lambda + \sum_n f_n^2}$$

    (SQ 5, M112 7). With several outputs $y_n$ and $f_n$ are vectors; with
    `reduction="mean"` the sums are means. For any loss it is negative where that takes
    the loss down, $\sum_n d_n(0) f_n > 0$.

    For $K \ge 2$ the origin is an equilibrium too, and for $K \ge 3$ it attracts small
    scales under weight decay. Of the roots the largest is returned, which attracts the
    scales above it and those below down to the next root; 0 where there is none.

    **Arguments:**

    - `problem`: with any loss.
    - `network`: of any scale.
    - `weight_decay`: $\lambda$, which multiplies $\rho^2$, or $\sum_k \rho_k^2$.
    - `num_norms`: $K$. 1 for flows of one norm, `LagrangeFlow()` and
        `WeightNormFlow(all_norms=False)`, the number of layers whose scale matters for
        `GradientFlow` and flows with `all_norms`.

    **Returns:** $\rho_{eq}$; `inf` without weight decay where $\rho$ grows for ever, as
    it does under exponential-type losses where the directions separate the data (`-inf`
    where their negatives do and $K = 1$). NaN without weight decay where all outputs
    are 0 and any scale is an equilibrium, and where a layer is 0 and has no direction.

    **Raises:** `ValueError` for a negative `weight_decay`, and a `num_norms` that is
    not between 1 and the number of layers whose scale matters.
    """
    check_nonnegative("weight_decay", weight_decay)
    layers = sum(network.degrees)
    if not 1 <= num_norms <= layers:
        raise ValueError(
            "`num_norms` must be between 1 and the number of layers whose scale "
            f"matters, {layers}, got {num_norms}."
        )
    f = problem.outputs(network) / network.scale
    decay = jnp.asarray(weight_decay, f.dtype)
    # In units of the largest output. The equilibrium does not depend on them, so the
    # derivative must not see them.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(f)))
    largest = jnp.where(largest == 0, 1, largest)
    f = f / largest
    decay = decay * largest ** (-2 / num_norms)
    # The slope of the square loss is 2(g - y): at g = 0 it hands over the targets.
    slopes_at_zero = problem.slopes(jnp.zeros_like(f))
    at_zero = jnp.sum(slopes_at_zero * f)
    if isinstance(problem.loss, SquareLoss):
        sum_ff = jnp.sum((problem.slopes(f) - slopes_at_zero) * f) / 2
        if num_norms == 1:
            return -at_zero / 2 / (decay + sum_ff) / largest
        # Of (Σ y f - r Σ f²) r^(1 - 2/K).
        peak = (num_norms - 2) / (2 * num_norms - 2) * -at_zero / 2 / sum_ff
        root = scale_root(
            lambda r: 2 * r * sum_ff + at_zero, decay, num_norms, peak=peak
        )
        return root / largest
    # A negative root, of one norm, is that of the network with the other sign.
    sign = jnp.where((at_zero > 0) & (num_norms == 1), -1, 1).astype(f.dtype)
    f = sign * f
    root = scale_root(lambda r: jnp.sum(problem.slopes(r * f) * f), decay, num_norms)
    return sign * root / largest


def rho_dot(
    problem: Problem, network: AbstractNetwork, weight_decay: RealScalarLike = 0.0
) -> Float[Array, ""]:
    r"""$\dot\rho = -\sum_n d_n f_n - 2 \lambda \rho$, the velocity of the scale in the
    Lagrange flow (SQ 3, M112 5, with 32 corrected), at the network's own $\rho$.

    For convex losses, as all here are, $\rho$ moves towards its equilibrium:
    $\operatorname{sign} \dot\rho = \operatorname{sign}(\rho_{eq} - \rho)$ with
    [`gradflow.analysis.rho_eq`][] for one norm.

    **Arguments:**

    - `problem`: with any loss.
    - `network`: of any scale; NaN where a layer is 0.
    - `weight_decay`: $\lambda$, which multiplies $\rho^2$.

    **Raises:** `ValueError` for a negative `weight_decay`.
    """
    check_nonnegative("weight_decay", weight_decay)
    outputs, rho = problem.outputs(network), network.scale
    slope = jnp.sum(problem.slopes(outputs) * (outputs / rho))
    return -slope - 2 * jnp.asarray(weight_decay, rho.dtype) * rho


def multiplier(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""The Lagrange multiplier $\nu$ of the constraints $\|V_k\| = 1$, the same for
    every layer whose scale matters,

    $$2 \nu = -\rho \sum_n d_n f_n = -\sum_n d_n g_n$$

    (M112 6 and App. B.1; for the square loss $\nu = -\sum_n (\rho^2 f_n^2 - \rho y_n
    f_n)$): with it $\dot V_k = -\rho \sum_n d_n \partial f_n / \partial V_k - 2 \nu
    V_k$ is tangent to the spheres. It is positive while $\rho$ is below the equilibrium
    without weight decay; at the equilibrium with weight decay $\nu = \lambda \rho^2$.
    """
    outputs = problem.outputs(network)
    return -jnp.sum(problem.slopes(outputs) * outputs) / 2
