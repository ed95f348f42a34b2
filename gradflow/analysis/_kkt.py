"""The optimality conditions of the minimum-norm problem."""

from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_nonnegative
from .._loss import SquareLoss
from .._network import AbstractNetwork, refuse_other_degrees
from .._problem import Problem
from .._tree import safe_norm, tree_inner
from .._types import RealScalarLike
from ._margin_constraints import (
    are_constraints,
    best_multipliers,
    constraints,
    slopes_of_constraints,
)
from ._unit_layers import unit_layers

Multipliers: TypeAlias = Literal["least_squares", "slopes"]


class KKT(eqx.Module):
    r"""How far a network is from a point of Karush, Kuhn and Tucker of

    $$\min \tfrac12 \sum_k \|W_k\|^2 \quad \text{subject to} \quad q_n \ge 1
    \text{ for all } n$$

    (T3 21), where $q_n = y_n g_n$; for classes $q_{nj} = g_{n y_n} - g_{nj}$ for all
    $n$ and $j \ne y_n$. By homogeneity that is asked of its layers with unit norms
    $V_k$ and the constraints $q_n \ge \gamma$, with their smallest margin $\gamma$:

    $$V_k = \sum_n \alpha_n \frac{\partial q_n}{\partial V_k} \text{ for all } k, \qquad
    \alpha_n \ge 0, \qquad \alpha_n (q_n - \gamma) = 0.$$

    **Attributes:**

    - `stationarity`: $\| V_k - \sum_n \alpha_n \, \partial q_n / \partial V_k \|$ for
        every layer.
    - `complementarity`: $\sum_n \alpha_n (q_n - \gamma) / \sum_n \alpha_n q_n$.
    - `multipliers`: $\alpha_n$; for classes $\alpha_{nj}$, which is 0 for $j = y_n$.
    """

    stationarity: Float[Array, " layers"]
    complementarity: Float[Array, ""]
    multipliers: Float[Array, " N"] | Float[Array, "N C"]


def kkt_residual(
    problem: Problem,
    network: AbstractNetwork,
    *,
    rtol: RealScalarLike = 0.1,
    multipliers: Multipliers = "least_squares",
) -> KKT:
    r"""How far the directions of a network are from a point of Karush, Kuhn and Tucker
    of the minimum-norm problem, to which the limits of flows under exponential-type
    losses belong.

    The slopes of the loss are multipliers, too, in the limit of a flow. But their
    ratios are $e^{-\rho (q_n - q_m)}$: they fit only where the differences of the
    margins are right to one part in $\log(1/L)$, and not at the exact point, where they
    are all the same. Those that fit best tell whether the directions are there.

    **Arguments:**

    - `problem`: with labels $\pm 1$ or classes.
    - `network`: of any scale.
    - `rtol`: constraints with $q_n > (1 + r) \gamma$ for this $r$ count as inactive,
        with $\alpha_n = 0$. Not used for `"slopes"`.
    - `multipliers`: `"least_squares"` for the $\alpha_n \ge 0$ with the least $\sum_k
        \| V_k - \sum_n \alpha_n \, \partial q_n / \partial V_k \|^2$, by an active-set
        method on the CPU, without derivatives, and with the gradients of all
        constraints in memory. They are not unique where the gradients of the active
        ones depend on each other linearly, and then need not be those with the smallest
        `complementarity`; a smaller `rtol` bounds it, to $r / (1 + r)$. `"slopes"` for
        $\alpha_n \propto -\partial L / \partial q_n$, at the network's own scale, with
        the best factor.

    **Returns:** a [`gradflow.analysis.KKT`][]. All of it is NaN where $\gamma \le 0$,
    so that there is no margin, and where the active-set method runs out of iterations.

    **Raises:** `ValueError` for regression data, a negative `rtol`, other
    `multipliers`, `"slopes"` of the square loss, which do not have one sign, and batch
    normalisation.

    ??? cite "References"

        K. Lyu, J. Li: Gradient descent maximizes the margin of homogeneous neural
        networks. ICLR, 2020, section 4.

        C. Lawson, R. Hanson: Solving least squares problems. SIAM, 1995, chapter 23.
    """
    check_nonnegative("rtol", rtol)
    _check(problem, multipliers)
    refuse_other_degrees("the minimum of norms", network)
    unit = unit_layers(network)

    def of_weights(weights):
        return constraints(problem, problem.outputs(unit.with_weights(weights)))

    q, pull = jax.vjp(of_weights, unit.weights)
    exists = are_constraints(problem)
    smallest = jnp.min(jnp.where(exists, q, jnp.inf))
    if multipliers == "slopes":
        slopes = slopes_of_constraints(problem, network)
        (sums,) = pull(slopes)
        alpha = slopes * (tree_inner(unit.weights, sums) / tree_inner(sums, sums))
    else:
        limit = (1 + jnp.asarray(rtol, q.dtype)) * smallest
        alpha = best_multipliers(problem, unit, exists & (q <= limit))
    alpha = jnp.where(smallest > 0, alpha, jnp.nan)
    (sums,) = pull(alpha)
    excess = jnp.where(exists, q - smallest, 0)
    return KKT(
        stationarity=jnp.stack(
            [safe_norm(v - s) for v, s in zip(unit.weights, sums, strict=True)]
        ),
        complementarity=jnp.sum(alpha * excess) / jnp.sum(alpha * q),
        multipliers=alpha,
    )


def _check(problem: Problem, multipliers: str) -> None:
    if problem.dataset.regression:
        raise ValueError("`problem`: regression data have no margins.")
    if multipliers not in ("least_squares", "slopes"):
        raise ValueError(
            f'`multipliers` must be "least_squares" or "slopes", got {multipliers!r}.'
        )
    if multipliers == "slopes" and isinstance(problem.loss, SquareLoss):
        raise ValueError(
            "`multipliers`: the slopes of the square loss do not have one sign. Use "
            '"least_squares".'
        )
