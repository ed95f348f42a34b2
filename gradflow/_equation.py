"""What diffrax is asked to solve."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ._end_of_path import may_rest, stands_still
from ._flow import AbstractClock, AbstractFlow, AbstractStochasticFlow
from ._network import (
    AbstractNetwork,
    has_kinks,
    over_batch,
    scale_kinks,
    smoothing_of,
)
from ._network.pre_activations import pre_activations
from ._noise import noise_term
from ._observables import Point, measure
from ._problem import Problem
from ._settings import Settings, default_controller, first_step
from ._solver import (
    AbstractStabilised,
    OnSteps,
    Projected,
    Reporting,
    Tallying,
    Watched,
)
from ._tree import tree_norm
from ._types import BoolScalarLike, RealScalarLike, State

# A unit may start so near to a kink that it lies within the kink's width. Where the
# field pushes away from the kink, the smoothed field may then push to the wrong side,
# and the flow takes another course for good. So the width starts at almost nothing and
# grows to its full size while the units move away: kinks that attract come to be smooth
# in time, and those that repel are left behind.
_NARROWEST = 1e-3
"""The width at the start, as a fraction of the full one."""
_WIDENING = 0.3
"""How long the widening takes, as a fraction of the time in which the flow, at its
initial speed, would change the weights by their own size."""

_EVALUATIONS_PER_STEP = 100
"""A run that takes more of them, for each of its `max_steps`, does not arrive."""


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """A flow's state as one long vector, which compiles and runs faster than many
    arrays, and how the kinks of the network widen."""

    flow: AbstractFlow
    network: AbstractNetwork
    t0: Float[Array, ""]
    timescale: Float[Array, ""]
    """In which the flow, at its initial speed, would change the weights by their own
    size."""
    unravel: Callable[[Float[Array, " P"]], State]

    @staticmethod
    def ravel(state: State) -> Float[Array, " P"]:
        return ravel_pytree(state)[0]

    def network_at(self, t: RealScalarLike) -> AbstractNetwork:
        """The network whose kinks are as wide as at time `t`."""
        age = (t - self.t0) / (_WIDENING * self.timescale)
        return scale_kinks(self.network, jnp.clip(age, _NARROWEST, 1))

    def point_at(self, problem: Problem, t: RealScalarLike, state: State) -> Point:
        network = self.flow.to_network(state, self.network_at(t))
        return Point(problem, self.flow, t, state, network)


def initial(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    t0: Float[Array, ""],
) -> tuple[Float[Array, " P"], Float[Array, ""], Bool[Array, ""]]:
    """The vector from which a run starts, its timescale, and whether the field is
    finite there."""
    state = flow.init(network)
    if isinstance(flow, AbstractClock):
        state = flow.start(t0, state, problem, network)
    velocity = flow.vector_field(
        t0, flow.project(state), problem, scale_kinks(network, _NARROWEST)
    )
    # Not to be differentiated: it only sets the pace, and may be 0.
    size, speed = jax.lax.stop_gradient((tree_norm(state), tree_norm(velocity)))
    timescale = size / jnp.where(speed > 0, speed, 1)
    return Coordinates.ravel(state), timescale, jnp.isfinite(speed)


def coordinates(
    flow: AbstractFlow,
    network: AbstractNetwork,
    t0: Float[Array, ""],
    timescale: Float[Array, ""],
) -> Coordinates:
    _, unravel = ravel_pytree(flow.init(network))
    return Coordinates(flow, network, t0, timescale, unravel)


@dataclasses.dataclass(frozen=True)
class Equation:
    """The arguments of `diffrax.diffeqsolve`."""

    terms: diffrax.AbstractTerm
    solver: Any
    controller: diffrax.AbstractStepSizeController
    dt0: Float[Array, ""] | None


def reports(settings: Settings) -> bool:
    """Whether the solver reports what its steps cost."""
    return isinstance(settings.solver, AbstractStabilised)


def watches(network: AbstractNetwork, settings: Settings) -> bool:
    """Whether the solver looks out for chattering."""
    if settings.noise_steps is not None:
        # Noise comes back to kinks again and again.
        return False
    # Stabilised solvers do not step over kinks that are smooth.
    width = smoothing_of(network)
    is_smoothed = not isinstance(width, float) or width > 0
    return has_kinks(network) or (is_smoothed and not reports(settings))


def equation(
    problem: Problem,
    at: Coordinates,
    settings: Settings,
    *,
    can_stop: bool,
) -> Equation:
    """The equation of a flow; `can_stop` says whether conditions may end the run."""
    flow, network, unravel = at.flow, at.network, at.unravel

    # Used in many places below: `jit` makes that one trace and not many.
    @jax.jit
    def field(t, vector, args):
        # Of the projected point, so that a value taken before a projection is also
        # right after it (see `Projected`).
        del args
        state = flow.project(unravel(vector))
        return at.ravel(flow.vector_field(t, state, problem, at.network_at(t)))

    terms: diffrax.AbstractTerm = diffrax.ODETerm(field)
    if isinstance(flow, AbstractStochasticFlow):
        assert settings.noise_steps is not None
        state = flow.init(network)
        noise = noise_term(flow, problem, at.network_at, state, settings.noise_steps)
        terms = diffrax.MultiTerm(terms, noise)
    solver: Any = Projected(
        settings.solver,
        lambda y: at.ravel(flow.project(unravel(y))),
        lambda y: flow.defect(unravel(y)),
    )
    controller: Any = settings.controller
    dt0 = settings.dt0
    if controller is None:
        controller = default_controller(settings, terms, unravel)
        dt0 = first_step(settings, at.timescale) if dt0 is None else dt0
    if reports(settings):
        solver = Reporting(solver)
        controller = Tallying(
            controller, _budget(settings, problem, flow, can_stop=can_stop)
        )
    if settings.noise_steps is not None:
        controller = OnSteps(controller, settings.noise_steps)
    if watches(network, settings):
        solver = Watched(solver, _distances_from_kinks(problem, at))
    return Equation(terms, solver, controller, dt0)


def events(
    problem: Problem,
    at: Coordinates,
    conditions: tuple[Any, ...],
    max_defect: Float[Array, ""],
) -> tuple[Callable[..., Bool[Array, ""]], ...]:
    """What ends a run: leaving the spheres, the end of the path, and `conditions`."""
    flow, unravel = at.flow, at.unravel

    def off_spheres(t, y, args, **kwargs) -> Bool[Array, ""]:
        del t, args, kwargs
        return flow.defect(unravel(y)) > max_defect

    def at_end_of_path(t, y, args, **kwargs) -> Bool[Array, ""]:
        del args, kwargs
        if isinstance(flow, AbstractClock) and flow.stands_still_at_rest:
            return stands_still(at.point_at(problem, t, unravel(y)))
        return jnp.asarray(False)

    def user_condition(condition):
        def is_met(t, y, args, **kwargs) -> Bool[Array, ""]:
            del args, kwargs
            point = at.point_at(problem, t, unravel(y))
            return jnp.asarray(measure(condition, point), bool)

        return is_met

    return (off_spheres, at_end_of_path, *map(user_condition, conditions))


def _distances_from_kinks(problem: Problem, at: Coordinates):
    width = smoothing_of(at.network)

    def distances(y) -> Float[Array, " pairs"]:
        network = at.flow.to_network(at.unravel(y), at.network)

        def of_one(x):
            return [
                z - jnp.clip(z, -width * s, width * s)
                for z, s in pre_activations(network, x)
            ]

        return ravel_pytree(over_batch(of_one)(problem.dataset.inputs))[0]

    return distances


def _budget(
    settings: Settings,
    problem: Problem,
    flow: AbstractFlow,
    *,
    can_stop: BoolScalarLike,
) -> Float[Array, ""]:
    """How many evaluations the way to `t1` may take. Runs that can stop before have all
    that their steps can use."""
    budget = jnp.asarray(_EVALUATIONS_PER_STEP * settings.max_steps, settings.t1.dtype)
    stops_at_rest = isinstance(flow, AbstractClock) and flow.stands_still_at_rest
    if stops_at_rest:
        can_stop = can_stop | may_rest(problem, flow)
    return jnp.where(can_stop, jnp.inf, budget)
