"""Return to a constraint set after every step of any solver."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._tree import tree_isfinite
from .wrapped import AbstractWrapper


class Projected(AbstractWrapper):
    """Wraps a diffrax solver so that each step ends on a constraint set.

    diffrax has no projection of its own. Doing it inside `step` puts it before the next
    evaluation of the field. For a solver that hands the field's value at the end of a
    step on to the next one, that value is exact as long as the field does not
    distinguish a point from its projection.

    A step to an infinite or NaN state has an infinite error, so that the controller
    tries a shorter one. If it cannot, the result is `RESULTS.nonfinite`.
    """

    solver: diffrax.AbstractSolver  # pyright: ignore
    project: Callable[[PyTree], PyTree]
    defect: Callable[[PyTree], Float[Array, ""]]

    def init(self, terms, t0, t1, y0, args) -> tuple[Any, Float[Array, ""]]:
        inner = self.solver.init(terms, t0, t1, y0, args)
        return inner, jnp.zeros_like(self.defect(y0))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        inner, largest_drift = solver_state
        y1, error, dense_info, inner, result = self.solver.step(
            terms, t0, t1, y0, args, inner, made_jump
        )
        drift = jnp.maximum(largest_drift, self.defect(y1))
        y1 = self.project(y1)
        # A controller at its smallest step, or of constant steps, would accept a step
        # to NaN. The last good state is kept instead, and the solve ends.
        is_finite = tree_isfinite(y1)
        y1 = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), y1, y0)
        error = jax.tree.map(lambda e: jnp.where(is_finite, e, jnp.inf), error)
        nonfinite: Any = diffrax.RESULTS.nonfinite
        result = diffrax.RESULTS.where(is_finite, result, nonfinite)
        return y1, error, dense_info, (inner, drift), result


Projected.__init__.__doc__ = """**Arguments:**

- `solver`: the solver to wrap.
- `project`: takes a state to the constraint set.
- `defect`: how far a state is off it. The largest value before a projection is kept as
    the second entry of the solver's state.
"""
