"""What a solver of varying cost tells its step size controller."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import State
from .outlook import Outlook, first_outlook
from .projected import Projected
from .wrapped import AbstractWrapper


class Report(eqx.Module):
    """The outcome of one step, accepted or not. All of it in floating-point numbers,
    which is what diffrax takes an error to be made of."""

    error: State
    num_evaluations: Float[Array, ""]
    num_jvps: Float[Array, ""]
    largest_step: Float[Array, ""]
    evaluations_per_time: Float[Array, ""]


class Reporting(AbstractWrapper):
    """Makes a stabilised solver hand a `Report` to the controller in the error's
    place.

    diffrax forgets what a solver learnt in a step that is rejected; only the controller
    remembers. Without a report, rejected steps could not be counted, and steps beyond
    the stage limit would be found by trial and error.
    """

    solver: Projected  # pyright: ignore

    def init(self, terms, t0, t1, y0, args):
        return self.solver.init(terms, t0, t1, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y1, error, dense_info, new_state, result = self.solver.step(
            terms, t0, t1, y0, args, solver_state, made_jump
        )
        stabilised: Any = self.solver.solver
        (before, _), (after, _) = solver_state, new_state
        largest_step = stabilised.largest_step(after)
        dtype = largest_step.dtype
        report = Report(
            error,
            (after.num_evaluations - before.num_evaluations).astype(dtype),
            (after.radius.num_jvps - before.radius.num_jvps).astype(dtype),
            largest_step,
            stabilised.stage_limit(dtype) / largest_step,
        )
        return y1, report, dense_info, new_state, result


class Tally(eqx.Module):
    """The cost of all steps so far, and what is to be expected."""

    num_evaluations: Int[Array, ""]
    num_jvps: Int[Array, ""]
    outlook: Outlook


class Tallying(diffrax.AbstractStepSizeController):
    """Lets another controller choose the steps, adds up the reports, and keeps to the
    largest step that the solver can take. Where the field is too stiff to arrive with a
    `budget` of evaluations, the solve ends with `RESULTS.internal_error` and an outlook
    that `is_hopeless`."""

    controller: diffrax.AbstractStepSizeController
    budget: Float[Array, ""]

    def wrap(self, direction):
        return Tallying(self.controller.wrap(direction), self.budget)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t_next, inner = self.controller.init(
            terms, t0, t1, y0, dt0, args, func, error_order
        )
        zero = jnp.asarray(0, jnp.int32)
        outlook = first_outlook(jnp.asarray(t1), self.budget)
        return t_next, (inner, Tally(zero, zero, outlook))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        report: Any = y_error
        inner, tally = controller_state
        accept, t0_next, t1_next, made_jump, inner, result = (
            self.controller.adapt_step_size(
                t0, t1, y0, y1_candidate, args, report.error, error_order, inner
            )
        )
        t1_next = jnp.minimum(t1_next, t0_next + report.largest_step)
        tally = Tally(
            tally.num_evaluations + report.num_evaluations.astype(jnp.int32),
            tally.num_jvps + report.num_jvps.astype(jnp.int32),
            tally.outlook.after(t0_next, report.evaluations_per_time),
        )
        is_hopeless = tally.outlook.is_hopeless() & (
            result == diffrax.RESULTS.successful
        )
        failure: Any = diffrax.RESULTS.internal_error
        result = diffrax.RESULTS.where(is_hopeless, failure, result)
        return accept, t0_next, t1_next, made_jump, (inner, tally), result
