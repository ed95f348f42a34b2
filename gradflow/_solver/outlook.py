"""Whether a run is going to arrive."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import RealScalarLike

_PATIENCE = 300
"""So many steps without relief, and a run is given up. Where the weights become
infinite at a finite time, the step size mostly collapses before."""


class Outlook(eqx.Module):
    """How long the prospects of a run have been bleak: the way that is left would take
    more evaluations than its budget, however well they are used.

    Stiffness may pass. So it is compared with what it was at the beginning of that
    time.
    """

    end: Float[Array, ""]
    budget: Float[Array, ""]
    num_bleak: Int[Array, ""]
    evaluations_per_time_before: Float[Array, ""]

    def is_hopeless(self) -> Bool[Array, ""]:
        return self.num_bleak > _PATIENCE

    def after(
        self, t: RealScalarLike, evaluations_per_time: Float[Array, ""]
    ) -> "Outlook":
        """The outlook after another step, at time `t`, where the stiffness asks for so
        many evaluations at least."""
        is_bleak = (self.end - t) * evaluations_per_time > self.budget
        num_bleak = jnp.where(is_bleak, self.num_bleak + 1, 0)
        has_eased = evaluations_per_time < self.evaluations_per_time_before
        num_bleak = jnp.where((num_bleak > _PATIENCE) & has_eased, 1, num_bleak)
        before = jnp.where(
            num_bleak == 1, evaluations_per_time, self.evaluations_per_time_before
        )
        return Outlook(self.end, self.budget, num_bleak, before)


def first_outlook(end: Float[Array, ""], budget: Float[Array, ""]) -> Outlook:
    """That of a run to the time `end` before its first step."""
    return Outlook(end, budget, jnp.asarray(0, jnp.int32), jnp.zeros_like(end))
