"""From the end of a flow to the critical point next to it."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._check import check_instance, check_positive, check_precision, is_concrete
from ._critical_point import CriticalPoint
from ._flow import AbstractFlow
from ._lanczos import lanczos
from ._network import AbstractNetwork
from ._newton import newton
from ._problem import Problem
from ._restricted import Restricted
from ._results import RESULTS, PolishError, explain, is_okay
from ._run import numbers_to_arrays
from ._types import RealScalarLike


def polish(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    *,
    rtol: RealScalarLike | None = None,
    max_distance: RealScalarLike = 0.2,
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

    The gradient has to be smooth: that of a network with exact rectifiers is not, but
    that of `trajectory.final` is, since [`gradflow.solve`][] smooths them. Near enough
    to a critical point a few steps are enough; a flow that still creeps along a valley
    is better integrated further.

    **Main arguments:**

    - `problem`, `flow`: as for [`gradflow.solve`][].
    - `network`: such as `trajectory.final`.

    **Other arguments:**

    - `rtol`: how small [`gradflow.Stationarity`][] has to be. Not given: a thousand
        times the floating-point precision, `2e-13` in float64.
    - `max_distance`: how far the point may be, as the largest change of a layer's
        weights relative to their norm. What lies farther away is not next to the
        network, and is not called critical.
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
    problem.check_start(network)
    dtype = network.weights[0].dtype
    rtol = 1e3 * float(jnp.finfo(dtype).eps) if rtol is None else rtol
    check_precision(dtype, rtol)
    check_positive("rtol", rtol)
    check_positive("max_distance", max_distance)
    for name, number in (("max_steps", max_steps), ("subspace", subspace)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    point = _polish(
        problem,
        numbers_to_arrays(flow, dtype),
        network,
        jnp.asarray(rtol, dtype),
        jnp.asarray(max_distance, dtype),
        jnp.asarray(max_steps),
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
            f"{explain(point.result)} After {point.num_steps} steps its relative norm "
            f"is {point.stationarity:.3g}, {point.distance:.3g} away from the start "
            f"(`max_distance` is {max_distance}).",
            point,
        )
    return point


@eqx.filter_jit
def _polish(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    rtol: Float[Array, ""],
    max_distance: Float[Array, ""],
    max_steps: Int[Array, ""],
    subspace: int,
    key: PRNGKeyArray,
) -> CriticalPoint:
    restricted, x = Restricted.at(problem, flow, network)
    flow = restricted.flow
    # No space is larger than that of all coordinates.
    subspace = min(subspace, x.size)
    start, end = newton(restricted, x, rtol, max_distance, max_steps, subspace)
    start_key, key = jax.random.split(key)
    random = jax.random.normal(start_key, x.shape, x.dtype)
    _, hessian = restricted.linearized(end.x)
    sharp, restrict = restricted.sharp(end.x), restricted.restrict(end.x)
    krylov = lanczos(hessian, sharp, restrict, random, subspace, key)
    values, errors, _ = krylov.ritz()
    size = jnp.max(jnp.abs(jnp.where(jnp.isfinite(values), values, 0)))
    zero = jnp.sqrt(jnp.finfo(x.dtype).eps) * size
    state = restricted.unravel(end.x)
    is_critical = (end.stationarity <= rtol) & (end.distance <= max_distance)
    is_finite = jnp.isfinite(end.stationarity)
    okay, not_critical, nonfinite = _ENDS
    result = RESULTS.where(is_critical, okay, not_critical)
    return CriticalPoint(
        network=network.with_weights(flow.weights(state)),
        state=state,
        stationarity=end.stationarity,
        stationarity_before=start.stationarity,
        distance=end.distance,
        eigenvalues=values,
        errors=errors,
        zero=zero,
        is_saddle=restricted.falls_along_one(end.x, krylov, zero),
        result=RESULTS.where(is_finite, result, nonfinite),
        num_steps=end.num_steps,
        num_hvps=end.num_hvps + krylov.size,
    )


# They are there, whatever the declared type says.
_ENDS: Any = (RESULTS.successful, RESULTS.not_critical, RESULTS.nonfinite_state)
