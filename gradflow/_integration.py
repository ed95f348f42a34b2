"""Integration of a flow, step by step."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._end_of_path import end_of_path
from ._equation import (
    Coordinates,
    Equation,
    coordinates,
    equation,
    events,
    initial,
    reports,
    watches,
)
from ._flow import AbstractClock, AbstractFlow
from ._network import AbstractNetwork, smoothing_of
from ._observables import WholeState
from ._problem import Problem
from ._process import AbstractPosition, AbstractProcess, End, Rows, as_arrays
from ._results import RESULTS
from ._run import measure_row
from ._settings import Settings
from ._solver import num_evaluations, pausing
from ._types import State


class IntegrationPosition(AbstractPosition):
    """Where an integration is: what diffrax has in its loop, and counts."""

    t: Float[Array, ""]
    t_next: Float[Array, ""]
    vector: Float[Array, " P"]
    solver_state: Any
    controller_state: Any
    made_jump: bool | Bool[Array, ""]
    timescale: Float[Array, ""]
    num_rows: Int[Array, ""]
    num_steps: Int[Array, ""]
    num_accepted_steps: Int[Array, ""]
    result: RESULTS
    events: tuple[Bool[Array, ""], ...]
    has_ended: Bool[Array, ""]


class Integration(AbstractProcess[IntegrationPosition]):
    """The integration of `flow` from `network`."""

    problem: Problem
    flow: AbstractFlow
    network: AbstractNetwork
    observables: dict[str, Any]
    conditions: tuple[Any, ...]
    settings: Settings

    @property
    def total_rows(self) -> int:
        return self.settings.ts.shape[0]

    @property
    def total_steps(self) -> Int[Array, ""]:
        return jnp.asarray(self.settings.max_steps, jnp.int32)

    def start(self) -> IntegrationPosition:
        position, _, _ = self._start()
        return position

    def _start(self) -> tuple[IntegrationPosition, Coordinates, Equation]:
        t0, t1 = self.settings.t0, self.settings.t1
        vector, timescale, is_finite = initial(
            self.problem, self.flow, self.network, t0
        )
        at = self._coordinates(timescale)
        parts = self._equation(at)
        controller = parts.controller.wrap(jnp.asarray(1))
        t_next, controller_state = controller.init(
            parts.terms,
            t0,
            t1,
            vector,
            parts.dt0,
            None,
            parts.solver.func,
            parts.solver.error_order(parts.terms),
        )
        t_next = jnp.minimum(jnp.asarray(t_next, t1.dtype), t1)
        solver_state = parts.solver.init(parts.terms, t0, t_next, vector, None)
        zero, never = jnp.asarray(0, jnp.int32), jnp.asarray(False)
        result = RESULTS.where(
            is_finite,
            RESULTS.successful,  # pyright: ignore[reportArgumentType]
            RESULTS.nonfinite_state,
        )
        position = IntegrationPosition(
            t=t0,
            t_next=t_next,
            vector=vector,
            solver_state=as_arrays(solver_state),
            controller_state=as_arrays(controller_state),
            made_jump=never if self._may_jump(parts, vector) else False,
            timescale=timescale,
            num_rows=zero,
            num_steps=zero,
            num_accepted_steps=zero,
            result=result,
            events=(never,) * (2 + len(self.conditions)),
            has_ended=~is_finite,
        )
        return position, at, parts

    def advance(
        self, position: IntegrationPosition, num_rows: int, num_steps: Int[Array, ""]
    ) -> tuple[IntegrationPosition, Rows]:
        at = self._coordinates(position.timescale)
        return self._advance(position, num_rows, num_steps, at, self._equation(at))

    def run(self) -> tuple[IntegrationPosition, Rows]:
        # With one equation for all, which then is compiled once.
        position, at, parts = self._start()
        return self._advance(position, self.total_rows, self.total_steps, at, parts)

    def _advance(
        self,
        position: IntegrationPosition,
        num_rows: int,
        num_steps: Int[Array, ""],
        at: Coordinates,
        parts: Equation,
    ) -> tuple[IntegrationPosition, Rows]:
        settings = self.settings
        # diffrax believes in a time that is never reached, of which there are as many
        # as are missing to `num_rows`.
        never = _later_than(settings)
        padded = jnp.append(settings.ts, jnp.full(num_rows, never))
        start = position.num_rows
        ts = jax.lax.dynamic_slice_in_dim(padded, start, num_rows)
        # No step goes beyond the last row. So the rows come in blocks that are the same
        # wherever there are pauses.
        stop = (start // num_rows + 1) * num_rows
        is_last = stop >= self.total_rows
        ts = jnp.where(
            start + jnp.arange(num_rows, dtype=start.dtype) < stop, ts, never
        )
        controller = pausing(
            parts.controller,
            position.t_next,
            end=jnp.where(is_last, settings.t1, padded[stop - 1]),
            num_steps=num_steps,
            most_steps=self.total_steps - position.num_steps,
        )

        def has_ended(t, y, args, **kwargs) -> Bool[Array, ""]:
            del t, y, args, kwargs
            return position.has_ended

        def measure(t, vector, args):
            del args
            return self.row_along(position, t, at.unravel(vector))

        solution = diffrax.diffeqsolve(
            parts.terms,
            parts.solver,
            position.t,
            never,
            None,
            position.vector,
            saveat=diffrax.SaveAt(
                subs={
                    "end": diffrax.SubSaveAt(t1=True),
                    "saved": diffrax.SubSaveAt(ts=ts, fn=measure),
                },
                solver_state=True,
                controller_state=True,
                made_jump=True,
            ),
            stepsize_controller=controller,
            adjoint=settings.adjoint,
            event=diffrax.Event(
                (
                    has_ended,
                    *events(self.problem, at, self.conditions, settings.max_defect),
                )
            ),
            max_steps=settings.max_steps,
            throw=False,
            progress_meter=diffrax.TqdmProgressMeter()
            if settings.progress
            else diffrax.NoProgressMeter(),
            solver_state=position.solver_state,
            controller_state=controller.first_state(position.controller_state),
            made_jump=position.made_jump,
        )
        # The fields that were asked for above are there, whatever their declared types
        # say.
        saved_ts: Any = solution.ts
        saved: Any = solution.ys
        controller_state: Any = solution.controller_state
        made_jump: Any = solution.made_jump
        event_mask: Any = solution.event_mask
        inner_state, t_next, _, _ = controller_state
        t = saved_ts["end"][0]
        rows = Rows(saved_ts["saved"], *saved["saved"])

        def add(count: Int[Array, ""], name: str) -> Int[Array, ""]:
            return count + jnp.asarray(solution.stats[name], count.dtype)

        num_steps = add(position.num_steps, "num_steps")
        happened = tuple(
            before | now
            for before, now in zip(position.events, event_mask[1:], strict=True)
        )
        result = RESULTS.promote(solution.result)
        paused = (result == RESULTS.event_occurred) & ~jnp.any(jnp.stack(event_mask))
        arrived = paused & (t >= settings.t1)
        exhausted = paused & ~arrived & (num_steps >= self.total_steps)
        good, gave_up = RESULTS.successful, RESULTS.max_steps_reached
        result = RESULTS.where(paused, good, result)  # pyright: ignore
        result = RESULTS.where(exhausted, gave_up, result)  # pyright: ignore
        result = RESULTS.where(position.has_ended, position.result, result)
        return IntegrationPosition(
            t=t,
            t_next=t_next,
            vector=saved["end"][0],
            solver_state=solution.solver_state,
            controller_state=inner_state,
            made_jump=made_jump,
            timescale=position.timescale,
            num_rows=start + rows.num_reached().astype(jnp.int32),
            num_steps=num_steps,
            num_accepted_steps=add(position.num_accepted_steps, "num_accepted_steps"),
            result=result,
            events=happened,
            has_ended=~paused | arrived | exhausted,
        ), rows

    def conclude(self, position: IntegrationPosition) -> End:
        at = self._coordinates(position.timescale)
        solver_state = position.solver_state
        is_off_spheres, stopped, *conditions_met = position.events
        result = position.result
        result = RESULTS.where(
            result == RESULTS.nonfinite, RESULTS.nonfinite_state, result
        )
        result = RESULTS.where(is_off_spheres, RESULTS.left_spheres, result)
        if watches(self.network, self.settings):
            solver_state, watch = solver_state
            chatters = watch.is_chattering() & (result == RESULTS.internal_error)
            result = RESULTS.where(chatters, RESULTS.chattering, result)
        tally: Any = None
        if reports(self.settings):
            _, tally = position.controller_state
            hopeless = tally.outlook.is_hopeless() & (result == RESULTS.internal_error)
            result = RESULTS.where(hopeless, RESULTS.too_stiff, result)
        state: State = self.flow.project(at.unravel(position.vector))
        if isinstance(self.flow, AbstractClock):
            point = at.point_at(self.problem, position.t, state)
            result = end_of_path(point, result, stopped)
        num_steps = position.num_steps
        stats: dict[str, Any] = {
            "num_steps": num_steps,
            "num_accepted_steps": position.num_accepted_steps,
            "num_rejected_steps": num_steps - position.num_accepted_steps,
            "max_drift": solver_state[1],
            "smoothing": jnp.asarray(
                smoothing_of(self.network), self.settings.t0.dtype
            ),
        }
        if reports(self.settings):
            stats["num_jvps"] = tally.num_jvps
            # A Jacobian-vector product takes about as long as two gradients.
            stats["num_gradients"] = tally.num_evaluations + 2 * tally.num_jvps
            stats["spectral_radius"] = solver_state[0].radius.value
        else:
            stats["num_gradients"] = num_evaluations(self.settings.solver, num_steps)
        return End(
            t=position.t,
            state=state,
            weights=self.flow.weights(state),
            result=result,
            conditions_met=tuple(conditions_met),
            stats=stats,
        )

    def fraction(self, position: IntegrationPosition) -> Float[Array, ""]:
        t0, t1 = self.settings.t0, self.settings.t1
        return (position.t - t0) / (t1 - t0)

    def saving_states(self) -> "Integration":
        return dataclasses.replace(
            self,
            observables={"state": WholeState()},
            settings=dataclasses.replace(self.settings, save_networks=False),
        )

    def row_along(
        self, position: IntegrationPosition, t: Float[Array, ""], state: State
    ) -> tuple[Any, Any, Any]:
        widening = self._coordinates(position.timescale).network_at(t)
        return dataclasses.replace(self, network=widening).row(t, state)

    def row(self, t: Float[Array, ""], state: State) -> tuple[Any, Any, Any]:
        return measure_row(
            self.problem,
            self.flow,
            self.network,
            self.observables,
            self.settings.save_networks,
            t,
            state,
        )

    def _may_jump(self, parts: Any, vector: Float[Array, " P"]) -> bool:
        """Whether the controller says in an array if it has jumped, and not `False`."""
        given = self.settings.controller
        if given is None:
            return False
        order = parts.solver.error_order(parts.terms)

        def made_jump(t: Float[Array, ""], vector: Float[Array, " P"]) -> Any:
            controller = given.wrap(jnp.asarray(1))
            _, state = controller.init(
                parts.terms, t, t, vector, parts.dt0, None, parts.solver.func, order
            )
            return controller.adapt_step_size(
                t, t, vector, vector, None, vector, order, state
            )[3]

        return eqx.filter_eval_shape(made_jump, self.settings.t0, vector) is not False

    def _coordinates(self, timescale: Float[Array, ""]) -> Coordinates:
        return coordinates(self.flow, self.network, self.settings.t0, timescale)

    def _equation(self, at: Coordinates) -> Equation:
        return equation(
            self.problem, at, self.settings, can_stop=len(self.conditions) > 0
        )


def _later_than(settings: Settings) -> Float[Array, ""]:
    """A time after the run's end, so shortly that progress can be told by it, and so
    late that diffrax does not take one for the other."""
    span = settings.t1 - settings.t0
    shortest = 1000 * jnp.finfo(span.dtype).eps * jnp.abs(settings.t1)
    return settings.t1 + jnp.maximum(1e-3 * span, shortest)
