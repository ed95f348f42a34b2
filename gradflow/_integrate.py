"""The compiled part of `solve`."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ._end_of_path import end_of_path, may_rest, stands_still
from ._flow import AbstractClock, AbstractFlow, AbstractStochasticFlow
from ._network import AbstractNetwork, has_kinks, scale_kinks, smoothing_of
from ._network.pre_activations import pre_activations
from ._noise import noise_term
from ._observables import Point, measure
from ._problem import Problem
from ._results import RESULTS
from ._run import Run, measure_row
from ._solver import (
    AbstractStabilised,
    BlockNorms,
    DyadicSteps,
    OnSteps,
    Projected,
    Reporting,
    Tallying,
    Watched,
    num_evaluations,
)
from ._tree import tree_norm
from ._types import BoolScalarLike, State

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

_PROPORTIONAL_BELOW = 1e-4
"""From here down, steps of solvers whose estimates are of higher order than they are
themselves are held to more than `rtol`."""

_AT_FIRST = 0.01
"""Before a layer has moved its errors are measured by this fraction of its norm."""
_AT_FIRST_WITH_NOISE = 1.0
"""Noise takes norms through zero, where nothing depends on their signs."""

_EVALUATIONS_PER_STEP = 100
"""A run that takes more of them, for each of its `max_steps`, does not arrive."""


class Settings(eqx.Module):
    """How to integrate. Arrays can change without a new compilation."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    ts: Float[Array, " T"]
    dt0: Float[Array, ""] | None
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    max_defect: Float[Array, ""]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController | None
    adjoint: diffrax.AbstractAdjoint
    max_steps: int
    progress: bool
    save_networks: bool
    noise_steps: DyadicSteps | None


@eqx.filter_jit
def integrate(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    observables: dict[str, Any],
    conditions: tuple[Any, ...],
    settings: Settings,
) -> Run:
    """Integrates `flow` from `network`; the arguments are those of `solve`, checked."""

    state = flow.init(network)
    if isinstance(flow, AbstractClock):
        state = flow.start(settings.t0, state, problem, network)
    # One long vector compiles and runs faster than many arrays.
    vector, unravel = ravel_pytree(state)

    def ravel(tree: State) -> Float[Array, " P"]:
        return ravel_pytree(tree)[0]

    velocity = flow.vector_field(
        settings.t0, flow.project(state), problem, scale_kinks(network, _NARROWEST)
    )
    # Not to be differentiated: it only sets the pace, and may be 0.
    size, speed = jax.lax.stop_gradient((tree_norm(state), tree_norm(velocity)))
    timescale = size / jnp.where(speed > 0, speed, 1)
    starts_finite = jnp.isfinite(speed)

    def network_at(t) -> AbstractNetwork:
        age = (t - settings.t0) / (_WIDENING * timescale)
        return scale_kinks(network, jnp.clip(age, _NARROWEST, 1))

    # Used in many places below: `jit` makes that one trace and not many.
    @jax.jit
    def field(t, state, args):
        # Of the projected point, so that a value taken before a projection is also
        # right after it (see `Projected`).
        del args
        y = flow.project(unravel(state))
        return ravel(flow.vector_field(t, y, problem, network_at(t)))

    def measure_all(t, state, args):
        del args
        return measure_row(
            problem,
            flow,
            network_at(t),
            observables,
            settings.save_networks,
            t,
            unravel(state),
        )

    def cannot_start(t, y, args, **kwargs) -> Bool[Array, ""]:
        del t, y, args, kwargs
        return ~starts_finite

    def off_spheres(t, y, args, **kwargs) -> Bool[Array, ""]:
        del t, args, kwargs
        return flow.defect(unravel(y)) > settings.max_defect

    def point_at(t, state: State) -> Point:
        return Point(problem, flow, t, state, flow.to_network(state, network_at(t)))

    def at_end_of_path(t, y, args, **kwargs) -> Bool[Array, ""]:
        del args, kwargs
        if isinstance(flow, AbstractClock) and flow.stands_still_at_rest:
            return stands_still(point_at(t, unravel(y)))
        return jnp.asarray(False)

    def user_condition(condition):
        def is_met(t, y, args, **kwargs) -> Bool[Array, ""]:
            del args, kwargs
            return jnp.asarray(measure(condition, point_at(t, unravel(y))), bool)

        return is_met

    width = smoothing_of(network)

    def distances_from_kinks(y) -> Float[Array, " pairs"]:
        at_y = flow.to_network(unravel(y), network)

        def of_one(x):
            return [
                z - jnp.clip(z, -width * s, width * s)
                for z, s in pre_activations(at_y, x)
            ]

        return ravel_pytree(jax.vmap(of_one)(problem.dataset.inputs))[0]

    terms: diffrax.AbstractTerm = diffrax.ODETerm(field)
    if isinstance(flow, AbstractStochasticFlow):
        assert settings.noise_steps is not None
        noise = noise_term(flow, problem, network_at, state, settings.noise_steps)
        terms = diffrax.MultiTerm(terms, noise)
    solver = Projected(
        settings.solver,
        lambda y: ravel(flow.project(unravel(y))),
        lambda y: flow.defect(unravel(y)),
    )
    controller = settings.controller or _default_controller(settings, terms, unravel)
    dt0 = settings.dt0
    if settings.controller is None and dt0 is None:
        dt0 = _first_step(settings, timescale)
    reports = isinstance(settings.solver, AbstractStabilised)
    if reports:
        solver = Reporting(solver)
        budget = _budget(settings, problem, flow, can_stop=len(conditions) > 0)
        controller = Tallying(controller, budget)
    # Stabilised solvers do not step over kinks that are smooth.
    is_smoothed = not isinstance(width, float) or width > 0
    watches = has_kinks(network) or (is_smoothed and not reports)
    if settings.noise_steps is not None:
        controller = OnSteps(controller, settings.noise_steps)
        # Noise comes back to kinks again and again.
        watches = False
    if watches:
        solver = Watched(solver, distances_from_kinks)

    solution = diffrax.diffeqsolve(
        terms,
        solver,
        settings.t0,
        settings.t1,
        dt0,
        vector,
        saveat=diffrax.SaveAt(
            subs={
                "end": diffrax.SubSaveAt(t1=True),
                "saved": diffrax.SubSaveAt(ts=settings.ts, fn=measure_all),
            },
            solver_state=True,
            controller_state=True,
        ),
        stepsize_controller=controller,
        adjoint=settings.adjoint,
        event=diffrax.Event(
            (
                cannot_start,
                off_spheres,
                at_end_of_path,
                *map(user_condition, conditions),
            )
        ),
        max_steps=settings.max_steps,
        throw=False,
        progress_meter=diffrax.TqdmProgressMeter()
        if settings.progress
        else diffrax.NoProgressMeter(),
    )
    # The fields that were asked for above are there, whatever their declared types say.
    event_mask: Any = solution.event_mask
    saved_ts: Any = solution.ts
    saved: Any = solution.ys
    solver_state: Any = solution.solver_state
    no_start, is_off_spheres, stopped, *conditions_met = event_mask
    result = RESULTS.promote(solution.result)
    is_nonfinite = no_start | (result == RESULTS.nonfinite)
    result = RESULTS.where(is_nonfinite, RESULTS.nonfinite_state, result)
    result = RESULTS.where(is_off_spheres, RESULTS.left_spheres, result)
    if watches:
        solver_state, watch = solver_state
        is_chattering = watch.is_chattering() & (result == RESULTS.internal_error)
        result = RESULTS.where(is_chattering, RESULTS.chattering, result)
    tally: Any = None
    if reports:
        controller_state: Any = solution.controller_state
        _, tally = controller_state
        is_hopeless = tally.outlook.is_hopeless() & (result == RESULTS.internal_error)
        result = RESULTS.where(is_hopeless, RESULTS.too_stiff, result)
    log_ts, weights, values = saved["saved"]
    end: State = flow.project(unravel(saved["end"][0]))
    if isinstance(flow, AbstractClock):
        result = end_of_path(point_at(saved_ts["end"][0], end), result, stopped)
    num_steps = solution.stats["num_steps"]
    stats: dict[str, Any] = {
        "num_steps": num_steps,
        "num_accepted_steps": solution.stats["num_accepted_steps"],
        "num_rejected_steps": solution.stats["num_rejected_steps"],
        "max_drift": solver_state[1],
        "smoothing": jnp.asarray(smoothing_of(network), settings.t0.dtype),
    }
    if reports:
        stats["num_jvps"] = tally.num_jvps
        # A Jacobian-vector product takes about as long as two gradients.
        stats["num_gradients"] = tally.num_evaluations + 2 * tally.num_jvps
        stats["spectral_radius"] = solver_state[0].radius.value
    else:
        stats["num_gradients"] = num_evaluations(settings.solver, num_steps)
    return Run(
        t_end=saved_ts["end"][0],
        ts=saved_ts["saved"],
        log_ts=log_ts,
        weights=weights,
        observables=values,
        end=end,
        final=flow.weights(end),
        result=result,
        conditions_met=tuple(conditions_met),
        stats=stats,
    )


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


def _default_controller(
    settings: Settings, terms: diffrax.AbstractTerm, unravel
) -> diffrax.AbstractStepSizeController:
    span = settings.t1 - settings.t0
    has_noise = settings.noise_steps is not None
    return BlockNorms(  # pyright: ignore
        diffrax.PIDController(
            rtol=_tolerance_of_steps(settings, terms),
            atol=settings.atol,
            norm=optx.max_norm,
            # Fewer steps are rejected than without the first, where kinks are crossed.
            pcoeff=0.2,
            icoeff=0.6,
            dtmin=jnp.minimum(_smallest_step(settings), span / 10),
            # Or steps of any error would be accepted at the smallest size.
            force_dtmin=False,
        ),
        unravel,
        _AT_FIRST_WITH_NOISE if has_noise else _AT_FIRST,
    )


def _tolerance_of_steps(
    settings: Settings, terms: diffrax.AbstractTerm
) -> Float[Array, ""]:
    """One by which the error of a run is proportional to `rtol`.

    An error of order q in each step that is held to a tolerance makes steps of its q-th
    root, and a method of order p with such steps an error of its power p / q.
    """
    orders: Any = settings.solver.error_order(terms), settings.solver.order(terms)
    excess = orders[0] / orders[1] - 1
    fraction = jnp.minimum(settings.rtol / _PROPORTIONAL_BELOW, 1) ** excess
    finest = 10 * jnp.finfo(settings.rtol.dtype).eps
    return jnp.maximum(settings.rtol * fraction, finest)


def _first_step(settings: Settings, timescale: Float[Array, ""]) -> Float[Array, ""]:
    """One that changes the state by little; the controller soon finds better ones."""
    span = settings.t1 - settings.t0
    little = jnp.where(jnp.isfinite(timescale), 0.01 * timescale, span)
    return jnp.clip(little, 10 * _smallest_step(settings), span)


def _smallest_step(settings: Settings) -> Float[Array, ""]:
    """A step shorter than this cannot be told from rounding in the time."""
    if settings.noise_steps is not None:
        return settings.noise_steps.shortest
    largest = jnp.maximum(jnp.abs(settings.t0), jnp.abs(settings.t1))
    return 4 * jnp.finfo(largest.dtype).eps * largest
