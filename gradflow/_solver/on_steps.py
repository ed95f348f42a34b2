"""A step size controller whose steps are dyadic."""

from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .dyadic import DyadicSteps


class OnSteps(diffrax.AbstractStepSizeController):
    """Takes the steps that another controller proposes to dyadic ones, which are no
    longer.

    A step that is rejected is followed by its first half, or a half of that, so that no
    part of a noisy path is chosen for being quiet (Gaines and Lyons, 1997).
    """

    controller: diffrax.AbstractStepSizeController
    steps: DyadicSteps

    def wrap(self, direction):
        return OnSteps(self.controller.wrap(direction), self.steps)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t_next, state = self.controller.init(
            terms, t0, t1, y0, dt0, args, func, error_order
        )
        return self._next(t0, t_next, t1), (state, t1)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        state, last = controller_state
        accept, t0_next, t1_next, made_jump, state, result = (
            self.controller.adapt_step_size(
                t0, t1, y0, y1_candidate, args, y_error, error_order, state
            )
        )
        t1_next = self._next(t0_next, t1_next, last)
        return accept, t0_next, t1_next, made_jump, (state, last), result

    def _next(self, t0: Any, proposed: Any, last: Any) -> Float[Array, ""]:
        return self.steps.end_of_next(t0, jnp.minimum(proposed, last) - t0)
