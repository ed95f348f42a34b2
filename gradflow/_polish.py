"""From the end of a flow to the critical point next to it."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ._check import check_instance, check_positive, check_precision, is_concrete
from ._critical_point import CriticalPoint
from ._flow import AbstractFlow, LagrangeFlow
from ._lanczos import lanczos
from ._network import AbstractNetwork
from ._newton import Restricted, newton
from ._problem import Problem
from ._results import RESULTS, PolishError, explain, is_okay
from ._run import numbers_to_arrays
from ._tree import tree_norm
from ._types import RealScalarLike


def polish(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    *,
    rtol: RealScalarLike | None = None,
    max_steps: int = 100,
    subspace: int = 100,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> CriticalPoint:
    r"""Moves a network to the critical point of a flow next to it, and says of what
    kind that is.

    Newton's method, regularised after Levenberg and Marquardt, with products of the
    Hessian with vectors only. It lessens the norm of the gradient and not the loss, so
    from next to a saddle it goes to the saddle. Directions in which the Hessian
    vanishes are left alone.

    The gradient has to be smooth: use `ReLU(smoothing=...)`. Near enough to a critical
    point a few steps are enough; a flow that still creeps along a valley is better
    integrated further.

    **Main arguments:**

    - `problem`, `flow`: as for [`gradflow.solve`][].
    - `network`: such as `trajectory.final`.

    **Other arguments:**

    - `rtol`: how small [`gradflow.Stationarity`][] has to be. Not given: a thousand
        times the floating-point precision, `2e-13` in float64.
    - `max_steps`: the number of Newton steps after which to give up.
    - `subspace`: the largest dimension of the Krylov spaces, in which steps and
        eigenvalues are searched. It takes as many products with the Hessian for each
        step, and the memory of as many gradients. From the number of parameters on, all
        eigenvalues are found, exactly and with their multiplicity.
    - `key`: a `jax.random.key` for the vector that the search for eigenvalues starts
        from; `jax.random.key(0)` if not given.
    - `throw`: whether a failure raises a `PolishError`, which carries the point that
        was reached, or is to be found in the point's `result`.

    **Returns:** a [`gradflow.CriticalPoint`][]. The derivative of a polished network
    cannot be taken in reverse.

    **Raises:** `ValueError` for arguments that do not fit; `PolishError` as above.
    """
    check_instance("problem", problem, Problem)
    check_instance("flow", flow, AbstractFlow)
    problem.check(network)
    dtype = network.weights[0].dtype
    rtol = 1e3 * float(jnp.finfo(dtype).eps) if rtol is None else rtol
    check_precision(dtype, rtol)
    check_positive("rtol", rtol)
    for name, number in (("max_steps", max_steps), ("subspace", subspace)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if isinstance(flow, LagrangeFlow):
        # On the spheres the raw form is the same, but it cannot be projected on them.
        flow = dataclasses.replace(flow, raw=False)
    point = _polish(
        problem,
        numbers_to_arrays(flow, dtype),
        network,
        jnp.asarray(rtol, dtype),
        max_steps,
        subspace,
        jax.random.key(0) if key is None else key,
    )
    is_failed = ~is_okay(point.result)
    if not throw:
        return point
    if not is_concrete(point):
        stationarity = point.result.error_if(point.stationarity, is_failed)
        return dataclasses.replace(point, stationarity=stationarity)
    if is_failed:
        raise PolishError(
            f"{explain(point.result)} Its relative norm is {point.stationarity:.3g} "
            f"after {point.num_steps} steps.",
            point,
        )
    return point


@eqx.filter_jit
def _polish(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    rtol: Float[Array, ""],
    max_steps: int,
    subspace: int,
    key: PRNGKeyArray,
) -> CriticalPoint:
    x, unravel = ravel_pytree(flow.project(flow.init(network)))
    restricted = Restricted(problem, flow, network, unravel)
    # No space is larger than that of all coordinates.
    subspace = min(subspace, x.size)
    start, end = newton(restricted, x, rtol, max_steps, subspace)
    start_key, key = jax.random.split(key)
    random = jax.random.normal(start_key, x.shape, x.dtype)
    _, hessian = restricted.linearized(end.x)
    sharp, restrict = restricted.sharp(end.x), restricted.restrict(end.x)
    krylov = lanczos(hessian, sharp, restrict, random, subspace, key)
    values, errors = krylov.eigenvalues()
    size = jnp.max(jnp.abs(jnp.where(jnp.isfinite(values), values, 0)))
    state = unravel(end.x)
    weights = flow.weights(state)
    moved = jax.tree.map(jnp.subtract, weights, flow.weights(unravel(x)))
    is_critical = end.stationarity <= rtol
    is_finite = jnp.isfinite(end.stationarity)
    okay, not_critical, nonfinite = _ENDS
    result = RESULTS.where(is_critical, okay, not_critical)
    return CriticalPoint(
        network=network.with_weights(weights),
        state=state,
        stationarity=end.stationarity,
        stationarity_before=start.stationarity,
        distance=tree_norm(moved),
        eigenvalues=values,
        errors=errors,
        zero=jnp.sqrt(jnp.finfo(x.dtype).eps) * size,
        result=RESULTS.where(is_finite, result, nonfinite),
        num_steps=end.num_steps,
        num_hvps=end.num_hvps + krylov.size,
    )


# They are there, whatever the declared type says.
_ENDS: Any = (RESULTS.successful, RESULTS.not_critical, RESULTS.nonfinite_state)
