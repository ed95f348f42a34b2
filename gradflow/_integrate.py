"""The compiled part of `solve`."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._flow import AbstractFlow
from ._network import AbstractNetwork
from ._observables import Point, measure
from ._problem import Problem
from ._results import RESULTS
from ._run import Run, measure_row
from ._solver import Projected, num_evaluations
from ._tree import tree_isfinite
from ._types import State


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

    # Used in many places below: `jit` makes that one trace and not many.
    @jax.jit
    def field(t, state, args):
        # Of the projected point, so that a value taken before a projection is also
        # right after it (see `Projected`).
        del args
        return flow.vector_field(t, flow.project(state), problem, network)

    def measure_all(t, state, args):
        del args
        return measure_row(
            problem, flow, network, observables, settings.save_networks, t, state
        )

    state = flow.init(network)
    starts_finite = tree_isfinite(field(settings.t0, state, None))

    def cannot_start(t, y, args, **kwargs) -> Bool[Array, ""]:
        del t, y, args, kwargs
        return ~starts_finite

    def off_spheres(t, y, args, **kwargs) -> Bool[Array, ""]:
        del t, args, kwargs
        return flow.defect(y) > settings.max_defect

    def user_condition(condition):
        def is_met(t, y, args, **kwargs) -> Bool[Array, ""]:
            del args, kwargs
            point = Point(problem, flow, t, y, flow.to_network(y, network))
            return jnp.asarray(measure(condition, point), bool)

        return is_met

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        Projected(settings.solver, flow.project, flow.defect),
        settings.t0,
        settings.t1,
        settings.dt0,
        state,
        saveat=diffrax.SaveAt(
            subs={
                "end": diffrax.SubSaveAt(t1=True),
                "saved": diffrax.SubSaveAt(ts=settings.ts, fn=measure_all),
            },
            solver_state=True,
        ),
        stepsize_controller=_controller(settings),
        adjoint=settings.adjoint,
        event=diffrax.Event(
            (cannot_start, off_spheres, *map(user_condition, conditions))
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
    no_start, is_off_spheres, *conditions_met = event_mask
    result = RESULTS.promote(solution.result)
    is_nonfinite = no_start | (result == RESULTS.nonfinite)
    result = RESULTS.where(is_nonfinite, RESULTS.nonfinite_state, result)
    result = RESULTS.where(is_off_spheres, RESULTS.left_spheres, result)
    weights, values = saved["saved"]
    end: State = flow.project(jax.tree.map(lambda y: y[0], saved["end"]))
    num_steps = solution.stats["num_steps"]
    return Run(
        t_end=saved_ts["end"][0],
        ts=saved_ts["saved"],
        weights=weights,
        observables=values,
        end=end,
        final=flow.weights(end),
        result=result,
        conditions_met=tuple(conditions_met),
        stats={
            "num_steps": num_steps,
            "num_accepted_steps": solution.stats["num_accepted_steps"],
            "num_rejected_steps": solution.stats["num_rejected_steps"],
            "num_gradients": num_evaluations(settings.solver, num_steps),
            "max_drift": solver_state[1],
        },
    )


def _controller(settings: Settings) -> diffrax.AbstractStepSizeController:
    if settings.controller is not None:
        return settings.controller
    # A step shorter than this cannot be told from rounding in the time.
    span = settings.t1 - settings.t0
    largest = jnp.maximum(jnp.abs(settings.t0), jnp.abs(settings.t1))
    smallest_step = 100 * jnp.finfo(span.dtype).eps * largest
    return diffrax.PIDController(
        rtol=settings.rtol,
        atol=settings.atol,
        pcoeff=0.3,
        icoeff=0.4,
        dtmin=jnp.minimum(smallest_step, span / 10),
        # Or steps of any error would be accepted at the smallest size.
        force_dtmin=False,
    )
