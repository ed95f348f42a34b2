"""A watch on solutions that chatter along a discontinuity of the field."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .wrapped import AbstractWrapper

_PER_RETURN = 30
"""What a return to a discontinuity counts; a step without one takes 1 off. So a
solution chatters that keeps returning in more than one step of 31."""
_LIMIT = 20 * _PER_RETURN
"""Solutions that only cross were seen to come to 13 returns at most, most of them to 2;
those that slide to hundreds."""


class Watch(eqx.Module):
    """Where a solution is with respect to each discontinuity, and how often it has come
    back there."""

    position: Float[Array, " kinks"]
    returns: Int[Array, " kinks"]

    def is_chattering(self) -> Bool[Array, ""]:
        return jnp.max(self.returns, initial=0) > _LIMIT


class Watched(AbstractWrapper):
    """Wraps a wrapped solver so that the solve ends where the solution slides along a
    discontinuity of the field, with `RESULTS.internal_error` and a state whose second
    entry `is_chattering`.

    A solution that crosses a discontinuity leaves it behind. One that slides is sent
    back from both sides, and comes to it in step after step: it crosses; or the field
    at the start of the step points across, but the step ends on the same side, and
    further away than it began. The latter is what methods of several stages do, which
    average the fields of both sides. A solution that approaches zero without crossing,
    in a step that is long beside its decay, comes nearer and does not count.

    diffrax puts the solver's state back where a step is rejected, so that only accepted
    steps count.
    """

    wrapped: AbstractWrapper
    positions: Callable[[PyTree], Float[Array, " kinks"]]

    # To see whether a solver is implicit, diffrax looks into one wrapper, no further.
    @property
    def solver(self):  # pyright: ignore
        return self.wrapped.solver

    def init(self, terms, t0, t1, y0, args) -> tuple[Any, Watch]:
        inner = self.wrapped.init(terms, t0, t1, y0, args)
        position = jax.lax.stop_gradient(self.positions(y0))
        return inner, Watch(position, jnp.zeros(position.shape, jnp.int32))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        inner, watch = solver_state
        y1, error, dense_info, inner, result = self.wrapped.step(
            terms, t0, t1, y0, args, inner, made_jump
        )
        expected = self._euler_step(t0, t1, y0, dense_info)
        watch = self._look(watch, *jax.lax.stop_gradient((y1, expected)))
        # Errors of the solver itself, such as of a root finder, come first.
        chatters = watch.is_chattering() & (result == diffrax.RESULTS.successful)
        failure: Any = diffrax.RESULTS.internal_error
        result = diffrax.RESULTS.where(chatters, failure, result)
        return y1, error, dense_info, (inner, watch), result

    def _euler_step(self, t0, t1, y0, dense_info) -> PyTree:
        """Where the field at the start of the step leads, which the interpolation of
        every solver knows."""
        t0, t1, y0, dense_info = jax.lax.stop_gradient((t0, t1, y0, dense_info))
        path = self.interpolation_cls(t0=t0, t1=t1, **dense_info)
        return jax.tree.map(lambda y, f: y + (t1 - t0) * f, y0, path.derivative(t0))

    def _look(self, watch: Watch, y1: PyTree, expected: PyTree) -> Watch:
        # In one call, which takes half as long to compile as two.
        both = jax.tree.map(lambda *ends: jnp.stack(ends), y1, expected)
        position, expected_position = jax.vmap(self.positions)(both)
        # Within the width of a discontinuity it is where it last was outside.
        position = jnp.where(position == 0, watch.position, position)
        # Of the signs, since a product of small positions could underflow.
        side = jnp.sign(position)
        crosses = side * jnp.sign(watch.position) < 0
        leaves = jnp.abs(position) > jnp.abs(watch.position)
        returns = crosses | (leaves & (side * jnp.sign(expected_position) < 0))
        change = jnp.where(returns, _PER_RETURN, -1)
        return Watch(position, jnp.maximum(watch.returns + change, 0))


Watched.__init__.__doc__ = """**Arguments:**

- `wrapped`: the solver to wrap, in a wrapper already.
- `positions`: takes a state to numbers that change their signs where the field jumps,
    or are 0 while it changes from one side to the other.
"""
