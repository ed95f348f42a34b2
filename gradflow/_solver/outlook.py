"""Whether a run is going to arrive."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import RealScalarLike

_EVALUATIONS_PER_STEP = 100
"""A run may take so many evaluations for each of its `max_steps`."""
_PATIENCE = 300
"""So many steps without relief, and a run is given up. Where the weights become
infinite at a finite time, the step size mostly collapses before."""


class Outlook(eqx.Module):
    """How long the prospects of a run have been bleak: the way that is left would take
    too many evaluations, however well they are used.

    Stiffness may pass. So it is compared with what it was at the beginning of that
    time.
    """

    end: Float[Array, ""]
    num_steps: Int[Array, ""]
    num_bleak: Int[Array, ""]
    evaluations_per_time_before: Float[Array, ""]

    def is_hopeless(self) -> Bool[Array, ""]:
        return self.num_bleak > _PATIENCE

    def after(
        self,
        t: RealScalarLike,
        evaluations_per_time: Float[Array, ""],
        max_steps: int,
    ) -> "Outlook":
        """The outlook after another step, at time `t`, where the stiffness asks for so
        many evaluations at least."""
        num_steps = self.num_steps + 1
        affordable = _EVALUATIONS_PER_STEP * jnp.asarray(
            max_steps - num_steps, evaluations_per_time.dtype
        )
        is_bleak = (self.end - t) * evaluations_per_time > affordable
        num_bleak = jnp.where(is_bleak, self.num_bleak + 1, 0)
        has_eased = evaluations_per_time < self.evaluations_per_time_before
        num_bleak = jnp.where((num_bleak > _PATIENCE) & has_eased, 1, num_bleak)
        before = jnp.where(
            num_bleak == 1, evaluations_per_time, self.evaluations_per_time_before
        )
        return Outlook(self.end, num_steps, num_bleak, before)


def first_outlook(end: Float[Array, ""]) -> Outlook:
    """That of a run to the time `end` before its first step."""
    zero = jnp.asarray(0, jnp.int32)
    return Outlook(end, zero, zero, jnp.zeros_like(end))
