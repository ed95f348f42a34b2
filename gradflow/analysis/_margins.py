"""The normalised margins of the samples, together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._check import check_nonnegative, is_concrete
from .._loss import SquareLoss
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike


def average_separability(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, ""]:
    r"""$\sum_n \langle y_n, f_n \rangle$ of the network with unit layer norms and the
    labels $\pm 1$, one-hot vectors of classes, or real targets.

    The data are averagely separable where it is positive (M112 §2.1): then $\rho$ grows
    from a small start under the square loss, and with labels $\pm 1$ under all losses.
    """
    outputs = problem.outputs(network)
    return jnp.sum(_targets(problem, outputs) * outputs) / network.scale


def margin_histogram(
    problem: Problem, network: AbstractNetwork, edges: Any
) -> Float[Array, " bins"]:
    r"""How many samples have a normalised margin within each bin.

    Bins are half-open, $[e_i, e_{i+1})$, but for the last, which has both ends, as with
    NumPy. Samples outside of all bins are not counted.

    **Arguments:**

    - `problem`: with labels $\pm 1$ or classes.
    - `network`: of any scale.
    - `edges`: of the bins, of shape `(bins + 1,)`, increasing.

    **Raises:** `ValueError` for regression data, and `edges` of another kind.
    """
    margins = problem.margins(network)
    edges = jnp.asarray(edges, margins.dtype)
    if edges.ndim != 1 or edges.shape[0] < 2:
        raise ValueError(
            f"`edges` must be a vector of two or more numbers, got shape {edges.shape}."
        )
    if is_concrete(edges) and not np.all(np.diff(edges) > 0):
        raise ValueError("`edges` must be increasing.")
    return jnp.histogram(margins, edges)[0]


def support(
    problem: Problem, network: AbstractNetwork, *, rtol: RealScalarLike = 0.1
) -> Bool[Array, " N"]:
    r"""Which samples have about the smallest margin $m$: those up to $m + r |m|$ with
    the relative tolerance $r$. For a positive $m$ that is $(1 + r) m$; where some
    samples are classified wrongly, it is the worst of them.

    **Arguments:**

    - `problem`: with labels $\pm 1$ or classes.
    - `network`: of any scale.
    - `rtol`: $r$.

    **Raises:** `ValueError` for regression data, and a negative `rtol`.
    """
    check_nonnegative("rtol", rtol)
    margins = problem.margins(network)
    smallest = jnp.min(margins)
    return margins <= smallest + rtol * jnp.abs(smallest)


def equal_margin_defect(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    r"""How far the margins of all samples are from being equal: their standard
    deviation over the mean of their absolute values.

    0 at an exact interpolation, where all margins are $1 / \rho$ (M112 §1.2,
    Proposition 1.4), for classes too: the margin is then the difference of an output 1
    and an output 0. NaN where all margins are 0.

    **Raises:** `ValueError` for regression data.
    """
    margins = problem.margins(network)
    return jnp.std(margins) / jnp.mean(jnp.abs(margins))


def interpolation_defect(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, ""]:
    r"""$\max_n \|\rho f_n - y_n\|_\infty$: how far the outputs are from the labels
    $\pm 1$, the one-hot vectors of the classes, or the real targets.

    For labels $\pm 1$ it is $\max_n |\rho \, y_n f_n - 1|$, the largest distance of a
    margin from $1/\rho$ in units of $1/\rho$. For classes that distance is up to twice
    as large, and 0 also where the outputs are off by a number that they share.
    """
    outputs = problem.outputs(network)
    return jnp.max(jnp.abs(outputs - _targets(problem, outputs)))


def _targets(problem: Problem, outputs: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """What the square loss compares the outputs with."""
    # Its slope is 2(g - y).
    slope = jax.vmap(SquareLoss().slope)
    return -slope(jnp.zeros_like(outputs), problem.dataset.labels) / 2
