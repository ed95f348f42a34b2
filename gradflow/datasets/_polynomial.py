"""Regression on polynomial features, where more parameters than samples is easy."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._arrays import concrete
from ._dataset import Dataset


def equispaced_nodes(num_samples: int) -> Float[Array, " samples"]:
    """Points in $[-1, 1]$ at equal distances, the ends among them."""
    return jnp.linspace(-1.0, 1.0, num_samples)


def chebyshev_nodes(num_samples: int) -> Float[Array, " samples"]:
    r"""Roots of the Chebyshev polynomial $T_N$, ascending: dense towards $\pm 1$."""
    # The sine instead of the cosine keeps them symmetric, and 0 exact, in rounding.
    steps = jnp.arange(1.0 - num_samples, num_samples, 2.0)
    return jnp.sin(math.pi / 2 / num_samples * steps)


def monomials(
    points: Float[Array, " samples"], degree: int
) -> Float[Array, "samples features"]:
    r"""$1, x, \ldots, x^p$, shape `(N, degree + 1)`."""
    return jnp.vander(points, degree + 1, increasing=True)


def chebyshev_polynomials(
    points: Float[Array, " samples"], degree: int
) -> Float[Array, "samples features"]:
    r"""$T_0(x), \ldots, T_p(x)$ for $|x| \le 1$, shape `(N, degree + 1)`."""
    degrees = jnp.arange(degree + 1, dtype=points.dtype)
    return jnp.cos(jnp.arccos(points)[:, None] * degrees[None, :])


def sine(points: Float[Array, " samples"]) -> Float[Array, " samples"]:
    r"""$\sin(2\pi\,4x)$, the target of the paper."""
    return jnp.sin(2 * math.pi * 4 * points)


def polynomial(
    num_samples: int = 9,
    *,
    degree: int = 30,
    target: Callable[[Array], Array] = sine,
    nodes: Callable[[int], Array] = chebyshev_nodes,
    basis: Callable[[Array, int], Array] = monomials,
) -> Dataset:
    r"""Values of a function on $[-1, 1]$, with polynomial features as inputs.

    Fitted by a linear network. With `degree >= num_samples` it has many interpolating
    solutions, with `degree < num_samples - 1` in general none.

    **Arguments:**

    - `num_samples`: how many points.
    - `degree`: of the features; there are `degree + 1` of them, the constant is one.
    - `target`: the function, called on the points `(N,)`. By default
        $\sin(2\pi\,4x)$.
    - `nodes`: called with `num_samples`, gives the points in $[-1, 1]$, shape `(N,)`:
        [`gradflow.datasets.chebyshev_nodes`][],
        [`gradflow.datasets.equispaced_nodes`][] or a function of your own, of random
        points for instance. Mind that the default target is zero at 9 equispaced
        points.
    - `basis`: called on points and degree, gives the features `(N, degree + 1)`:
        [`gradflow.datasets.monomials`][] or
        [`gradflow.datasets.chebyshev_polynomials`][], which are far better conditioned.

    **Returns:** a [`gradflow.Dataset`][] with `regression=True`, inputs
    `(N, degree + 1)`, not normalised, and labels `(N,)`.

    ??? cite

        A. Banburski et al., *Theory III: dynamics and generalization in deep networks*
        (2019), figures 5 (degree 30), 6 (39), 7 (4) and 10 (76 samples, up to 300).
    """
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be at least 1, not {num_samples}")
    if degree < 0:
        raise ValueError(f"`degree` must not be negative, is {degree}")
    points = nodes(num_samples)
    if jnp.shape(points) != (num_samples,):
        raise ValueError(
            f"`nodes` must give points of shape ({num_samples},), "
            f"not {jnp.shape(points)}"
        )
    values = concrete(points)
    if values is not None and not (abs(values) <= 1).all():
        raise ValueError("`nodes` must give points in [-1, 1]")
    labels = target(points)
    if jnp.shape(labels) != (num_samples,):
        raise ValueError(
            f"`target` must give one value for each of the {num_samples} points, "
            f"not shape {jnp.shape(labels)}"
        )
    return Dataset(basis(points, degree), labels, regression=True)
