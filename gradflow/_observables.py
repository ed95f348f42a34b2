"""What is measured along a run."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._check import check_positive
from ._flow import AbstractFlow, MomentumFlow, steepest_descent
from ._network import AbstractNetwork
from ._problem import Problem
from ._solver.spectral_radius import refine, unknown_spectral_radius
from ._tree import tree_inner, tree_norm
from ._types import Observable, RealScalarLike, State


class Point(eqx.Module):
    """A point of a run: everything that an observable may want to look at."""

    problem: Problem
    flow: AbstractFlow
    t: RealScalarLike
    state: State
    network: AbstractNetwork


class AbstractObservable(eqx.Module):
    """An observable of the flow and its state, and not of the network alone."""

    @abc.abstractmethod
    def __call__(self, point: Point) -> Any:
        """The value at one point of the run."""


def measure(observable: Observable | AbstractObservable, point: Point) -> Any:
    """The value of an observable of either kind."""
    if isinstance(observable, AbstractObservable):
        return observable(point)
    return observable(point.problem, point.network)


def check_observables(name: str, observables: Any) -> None:
    """Raises a `ValueError` for anything but a dictionary of functions, with the name
    of the argument."""
    if not isinstance(observables, Mapping) or not all(
        callable(o) and not isinstance(o, type) for o in observables.values()
    ):
        raise ValueError(
            f"`{name}` must be a dictionary from names to functions "
            f"`fn(problem, network)`, got {observables!r}."
        )


def check_measured(argument: str, values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` where an observable has returned no array."""
    for name, value in values.items():
        if not jax.tree.leaves(value):
            raise ValueError(f"`{argument}`: {name!r} returns {value!r}, not an array.")


class Stationarity(AbstractObservable):
    r"""How stationary the state is: the speed of the flow relative to the scale of what
    cancels in it,

    $$\frac{\|\dot s\|}{\max(\|\nabla_d\|, \|\nabla_{|d|}\|) + \|\nabla_s \lambda P\|},
    \qquad \nabla_d = \Pi_s \sum_n d_n \nabla_s g_n,$$

    all norms in the flow's metric. For a loss that attains its infimum, $d_n$ are the
    slopes at output zero, so that an interpolating network, whose own slopes all
    vanish, counts as stationary. For exponential-type losses they are the present
    slopes: that all gradients are small does not mean that the directions have settled.
    Their absolute values keep the scale where the samples' gradients cancel each other.
    """

    def __call__(self, point: Point) -> Float[Array, ""]:
        problem, flow, state = point.problem, point.flow, point.state
        outputs = problem.outputs(flow.to_network(state, point.network))
        log_unit = _log_unit(point, outputs)
        slopes = problem.slopes(outputs, log_unit)
        kinds = [slopes, jnp.abs(slopes)]
        if problem.loss.attains_infimum:
            reference = problem.slopes(jnp.zeros_like(outputs))
            kinds = [slopes, reference, jnp.abs(reference)]

        def gradient(slopes: Float[Array, "N C"]) -> State:
            return flow.gradient(problem, state, point.network, slopes)

        # Pullbacks through one network, which then has to be compiled once.
        gradients = jax.vmap(gradient)(jnp.stack(kinds))
        decay = flow.penalty_gradient(point.t, state, log_unit)
        terms = jax.tree.map(
            lambda g, d: jnp.stack([g[0] + d, g[-2], g[-1], d]), gradients, decay
        )
        norms = jax.vmap(lambda term: _norm(flow, state, term))(terms)
        speed, scale = norms[0], jnp.maximum(norms[1], norms[2]) + norms[3]
        if isinstance(flow, MomentumFlow):
            # At a turning point there is no speed, on the way through a minimum no
            # other force.
            speed = jnp.hypot(speed, tree_norm(flow.friction_force(state)))
        return jnp.where(speed == 0, 0, speed / jnp.where(scale > 0, scale, 1))


class NormDefect(AbstractObservable):
    r"""The largest $|\|V\| - 1|$ over the flow's spheres."""

    def __call__(self, point: Point) -> Float[Array, ""]:
        return point.flow.defect(point.state)


class WholeState(AbstractObservable):
    """The state itself, from which everything else can be measured later."""

    def __call__(self, point: Point) -> State:
        return point.state


class Sharpness(AbstractObservable):
    r"""The largest eigenvalue of the Hessian of $L + \lambda P$, in the flow's metric
    and on its constraint set: of minus the Jacobian of the field.

    By power iteration with Jacobian-vector products, up to `rtol` of the spectral
    radius. It is what limits the step of an explicit method, to $2$ over the sharpness.
    """

    rtol: RealScalarLike = 1e-3
    max_iterations: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        check_positive("rtol", self.rtol)

    def __call__(self, point: Point) -> Float[Array, ""]:
        flow, start = steepest_descent(point.flow, point.state)

        def field(state: State) -> State:
            return flow.vector_field(
                point.t, flow.project(state), point.problem, point.network
            )

        def radius(of: Callable[[State], State]) -> Float[Array, ""]:
            return refine(
                of,
                start,
                unknown_spectral_radius(start),
                when=jnp.asarray(True),
                rtol=self.rtol,
                max_iterations=self.max_iterations,
            ).value

        either_end = radius(field)

        # Shifted by its radius, the spectrum has but one far end, the contracting one.
        def shifted(state: State) -> State:
            return jax.tree.map(lambda f, s: f - either_end * s, field(state), state)

        return radius(shifted) - either_end


def _log_unit(point: Point, outputs: Float[Array, "N C"]) -> Float[Array, ""]:
    """Of the larger one of loss and decay, where the loss may be next to nothing; in
    such units neither is, nor overflows."""
    problem, flow = point.problem, point.flow
    if problem.loss.attains_infimum:
        return jnp.zeros((), point.network.weights[0].dtype)
    log_loss = problem.log_value_of(outputs)
    weight_decay = jnp.asarray(flow.weight_decay_at(point.t), log_loss.dtype)
    log_decay = jnp.log(weight_decay * flow.penalty(point.state))
    return jax.lax.stop_gradient(jnp.maximum(log_loss, log_decay))


def _norm(flow: AbstractFlow, state: State, gradient: State) -> Float[Array, ""]:
    """The norm, in the flow's metric, of the velocity that a gradient makes."""
    # That velocity is the projected gradient, so its squared norm is its product with
    # the gradient, in whatever metric. The product is with what the projection leaves
    # of the gradient: the rest is large, and the velocity orthogonal to it only up to
    # rounding, of which the root would be taken.
    velocity = flow.tangent(state, flow.sharp(state, gradient))
    transpose = jax.linear_transpose(lambda v: flow.tangent(state, v), velocity)
    (along,) = transpose(gradient)
    return jnp.sqrt(jnp.abs(tree_inner(along, velocity)))
