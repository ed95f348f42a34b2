"""The Hessian of what a flow descends, on its constraint set."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._check import check_nonnegative
from .._flow import AbstractFlow, GradientFlow
from .._lanczos import lanczos
from .._network import AbstractNetwork
from .._problem import Problem
from .._restricted import Restricted
from .._types import RealScalarLike, State


def hessian_product(
    problem: Problem,
    network: AbstractNetwork,
    vector: State,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
) -> State:
    r"""The Hessian of $L + \lambda P$ along a flow's constraint set, applied to a
    vector: in the flow's metric, minus the Jacobian of its field on tangent vectors of
    a critical point.

    **Arguments:**

    - `problem`: data and loss.
    - `network`: the point; its activation must be smooth for the Hessian to see the
        kinks, as that of the networks that `solve` returns.
    - `vector`: like a state of the flow: for `GradientFlow` a tuple like
        `network.weights`. Its part normal to the constraint set does not count.
    - `flow`: whose coordinates, spheres, metric and weight decay are meant.

    **Returns:** a tangent vector, like a state.

    **Raises:** `ValueError` for a `vector` that is not like a state.
    """
    problem.check(network)
    hessian = Hessian.at(problem, network, flow)
    restricted = hessian.restricted
    shapes = jax.tree.map(jnp.shape, (vector, restricted.unravel(hessian.x)))
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`vector` must be like a state of the flow, {shapes[1]}, got {shapes[0]}."
        )
    flat, _ = ravel_pytree(vector)
    _, tangent = jax.jvp(restricted.project, (hessian.x,), (flat,))
    return restricted.unravel(hessian.sharp(hessian.form(tangent)))


def hessian_eigenvalues(
    problem: Problem,
    network: AbstractNetwork,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
) -> Float[Array, " P"]:
    r"""All eigenvalues of the Hessian of $L + \lambda P$ along a flow's constraint set.

    Dense: $P \times P$ numbers for $P$ coordinates. At a critical point they are the
    rates at which the flow comes back to it.

    **Arguments:** as for [`gradflow.analysis.hessian_product`][].

    **Returns:** the eigenvalues in increasing order, then `inf` for each direction that
    is normal to the constraint set: one for each sphere.
    """
    problem.check(network)
    hessian = Hessian.at(problem, network, flow)
    identity = jnp.eye(hessian.x.size, dtype=hessian.x.dtype)
    # In coordinates in which the metric is the identity.
    roots = jnp.sqrt(hessian.inverse_metric)
    tangents = jax.vmap(hessian.restrict)(identity)
    form = tangents @ jax.vmap(hessian.form)(tangents) @ tangents.T
    scaled = roots[:, None] * form * roots[None, :]
    # Gershgorin's bound puts the normal directions above all others. It is in the units
    # of the others, whose rounding errors are relative to it.
    size = jnp.max(jnp.sum(jnp.abs(scaled), axis=1))
    bound = 3 * jnp.where(size > 0, size, 1)
    eigenvalues = jnp.linalg.eigvalsh(scaled + bound * (identity - tangents))
    return jnp.where(eigenvalues > bound / 2, jnp.inf, eigenvalues)


def num_near_zero(
    eigenvalues: Float[Array, " P"], *, rtol: RealScalarLike | None = None
) -> Int[Array, ""]:
    """How many eigenvalues are at most `rtol` times the largest in absolute value,
    without those that are `inf`.

    **Arguments:**

    - `eigenvalues`: for instance from [`gradflow.analysis.hessian_eigenvalues`][].
    - `rtol`: the threshold; the root of the floating-point precision if not given.

    **Raises:** `ValueError` for a negative `rtol`.
    """
    rtol = default_threshold(eigenvalues.dtype) if rtol is None else rtol
    check_nonnegative("rtol", rtol)
    sizes = jnp.abs(eigenvalues)
    largest = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0))
    return jnp.sum(sizes <= rtol * largest)


def default_threshold(dtype) -> float:
    """What is zero, relative to the largest eigenvalue."""
    return float(jnp.sqrt(jnp.finfo(dtype).eps))


class ExtremeEigenvalues(eqx.Module):
    """The ends of a spectrum.

    **Attributes:**

    - `smallest`, `largest`: Ritz values, which lie inside of the spectrum.
    - `smallest_error`, `largest_error`: a distance within which there is an eigenvalue.
        Once the values have settled, their own error is of the order of the square of
        that, divided by the distance to the next eigenvalue.
    """

    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    smallest_error: Float[Array, ""]
    largest_error: Float[Array, ""]


def extreme_eigenvalues(
    problem: Problem,
    network: AbstractNetwork,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
    subspace: int = 100,
    key: PRNGKeyArray | None = None,
) -> ExtremeEigenvalues:
    r"""The smallest and the largest eigenvalue of the Hessian of $L + \lambda P$ along
    a flow's constraint set: how unstable a point is, and how sharp.

    By Lanczos' method with full orthogonalisation.

    **Arguments:** as for [`gradflow.analysis.hessian_product`][], and

    - `subspace`: the dimension of the Krylov space: how many products with the Hessian
        it takes, and the memory of how many gradients.
    - `key`: for the vector from which the search starts; `jax.random.key(0)` if not
        given.

    **Returns:** a [`gradflow.analysis.ExtremeEigenvalues`][].

    **Raises:** `ValueError` for a `subspace` below 1.
    """
    problem.check(network)
    if subspace < 1:
        raise ValueError(f"`subspace` must be at least 1, got {subspace}.")
    hessian = Hessian.at(problem, network, flow)
    size = hessian.x.size
    start_key, key = jax.random.split(jax.random.key(0) if key is None else key)
    krylov = lanczos(
        hessian.form,
        hessian.sharp,
        hessian.restrict,
        hessian.random_covector(start_key),
        min(subspace, size),
        key,
    )
    values, errors, _ = krylov.ritz()
    last = krylov.size - 1
    return ExtremeEigenvalues(values[0], values[last], errors[0], errors[last])


class Hessian(eqx.Module):
    """The Hessian at one point, in flat coordinates `x`."""

    restricted: Restricted
    x: Float[Array, " P"]
    inverse_metric: Float[Array, " P"]
    form: Callable
    sharp: Callable
    restrict: Callable

    @classmethod
    def at(
        cls, problem: Problem, network: AbstractNetwork, flow: AbstractFlow
    ) -> "Hessian":
        restricted, x = Restricted.at(problem, flow, network)
        state = restricted.unravel(x)
        # The metrics are diagonal.
        ones = jax.tree.map(jnp.ones_like, state)
        inverse, _ = ravel_pytree(restricted.flow.sharp(state, ones))
        return cls(
            restricted,
            x,
            inverse,
            restricted.linearized(x)[1],
            restricted.sharp(x),
            restricted.restrict(x),
        )

    def random_covector(self, key: PRNGKeyArray) -> Float[Array, " P"]:
        """Whose components in an orthonormal basis of the tangent space are
        uncorrelated, with mean 0 and variance 1."""
        signs = jax.random.rademacher(key, self.x.shape, self.x.dtype)
        return self.restrict(signs / jnp.sqrt(self.inverse_metric))
