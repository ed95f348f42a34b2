"""A step size controller that pauses, so that a solve can go on later as if it had
not."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class AbstractPausing(diffrax.AbstractStepSizeController):
    """Lets another controller choose the steps, and ends the solve with
    `RESULTS.event_occurred` after `num_steps` steps, accepted or not, or where it comes
    to `end`, of which no step goes beyond. After a jump there is at least one accepted
    step before a pause, unless `most_steps` are made.

    diffrax does not say how long the next step would have been, so that a solve that
    goes on from its result takes another course. Here the controller's state says it:
    `(inner state, end of the next step, number of steps made, whether none was accepted
    since a jump)`. A solve that is given the inner state and `t_next` makes the same
    steps as if it had not been paused.
    """

    controller: eqx.AbstractVar[Any]
    t_next: eqx.AbstractVar[Float[Array, ""]]
    end: eqx.AbstractVar[Float[Array, ""]]
    num_steps: eqx.AbstractVar[Int[Array, ""]]
    most_steps: eqx.AbstractVar[Int[Array, ""]]

    def first_state(
        self, inner: Any
    ) -> tuple[Any, Float[Array, ""], Int[Array, ""], Bool[Array, ""]]:
        """The state of this controller at the beginning of a solve, from that of the
        one inside."""
        return inner, self.t_next, jnp.zeros_like(self.num_steps), jnp.asarray(False)

    def wrap(self, direction):
        return dataclasses.replace(self, controller=self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        # diffrax has the state, and asks for the end of the first step.
        accepted = jnp.asarray(True)
        return _clip(t0, self.t_next, self.end, accepted), None

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        inner, _, num_steps, jumped = controller_state
        accept, t0_next, t1_next, made_jump, inner, result = (
            self.controller.adapt_step_size(
                t0, t1, y0, y1_candidate, args, y_error, error_order, inner
            )
        )
        num_steps = num_steps + 1
        arrived = t0_next >= self.end
        # From the end on, the next step is for others to clip.
        clipped = _clip(t0_next, t1_next, self.end, accept)
        t1_next = jnp.where(arrived, t1_next, clipped)
        # Times to save may lie between the end of the step before a jump and the
        # beginning of the one after it, which is the one that saves them.
        jumped = jnp.where(accept, made_jump, jumped)
        is_due = (num_steps >= self.num_steps) & ~jumped
        pauses = arrived | is_due | (num_steps >= self.most_steps)
        pauses = pauses & (result == diffrax.RESULTS.successful)
        pause: Any = diffrax.RESULTS.event_occurred
        result = diffrax.RESULTS.where(pauses, pause, result)
        state = inner, t1_next, num_steps, jumped
        return accept, t0_next, t1_next, made_jump, state, result


class Pausing(AbstractPausing):
    controller: diffrax.AbstractStepSizeController
    t_next: Float[Array, ""]
    end: Float[Array, ""]
    num_steps: Int[Array, ""]
    most_steps: Int[Array, ""]


class PausingAdaptive(
    AbstractPausing,
    diffrax.AbstractAdaptiveStepSizeController,  # pyright: ignore
):
    """The same for a controller that has the tolerances for the root finders of
    implicit solvers."""

    controller: diffrax.AbstractAdaptiveStepSizeController
    t_next: Float[Array, ""]
    end: Float[Array, ""]
    num_steps: Int[Array, ""]
    most_steps: Int[Array, ""]

    @property
    def rtol(self):  # pyright: ignore
        return self.controller.rtol

    @property
    def atol(self):  # pyright: ignore
        return self.controller.atol

    @property
    def norm(self):  # pyright: ignore
        return self.controller.norm


def pausing(
    controller: diffrax.AbstractStepSizeController,
    t_next: Float[Array, ""],
    *,
    end: Float[Array, ""],
    num_steps: Int[Array, ""],
    most_steps: Int[Array, ""],
) -> AbstractPausing:
    """A controller that pauses, of the same kind as `controller`."""
    is_adaptive = isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    kind: Any = PausingAdaptive if is_adaptive else Pausing
    return kind(
        controller=controller,
        t_next=t_next,
        end=end,
        num_steps=num_steps,
        most_steps=most_steps,
    )


def _clip(t0: Any, t1: Any, end: Float[Array, ""], accepted: Any) -> Float[Array, ""]:
    """The end of the next step, from `t0`, where it may not go beyond `end`; the rules
    are diffrax's."""
    # What would be left is shorter than times can tell.
    floor = end - 100 * jnp.finfo(end.dtype).eps * jnp.abs(end)
    clipped = jnp.where(accepted, end, t0 + 0.5 * (end - t0))
    return jnp.where(t1 > floor, clipped, t1)
