"""Steps that are halves of halves."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_ROUNDING = 64.0
"""How many units in the last place of the largest time are taken for rounding."""


class Step(NamedTuple):
    """The `place`-th of the `2 ** level` equal parts of a cell."""

    cell: Int[Array, ""]
    level: Int[Array, ""]
    place: Int[Array, ""]


class DyadicSteps(eqx.Module):
    """Steps each of which is a cell, the time from one of `times` to the next, or one
    of 2, 4, 8, ... equal parts of it. The first level has the longest steps that are no
    longer than `longest`; those that are taken are `finer` by so many levels or more.

    A step is known by where it begins and ends, whatever came before. Of two of them
    one is in the other, or they have no time in common.
    """

    times: Float[Array, " times"]
    longest: Float[Array, ""]
    finer: Int[Array, ""]

    def first_level(self, cell: Int[Array, ""]) -> Int[Array, ""]:
        """The first level of a cell."""
        return self._level_for(cell, self.longest)

    def find(self, t0: Float[Array, ""], t1: Float[Array, ""]) -> Step:
        """The step from `t0` to `t1`."""
        cell = self._cell_of(t0)
        level = jnp.round(jnp.log2(self._length(cell) / (t1 - t0))).astype(int)
        return Step(cell, level, self._place(cell, level, t0))

    def end_of_next(
        self, t0: Float[Array, ""], length: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The end of the longest step that begins at `t0` and is no longer than
        `length`; of the shortest one, where all are longer."""
        t0, length = jax.lax.stop_gradient((t0, length))
        cell = self._cell_of(t0)

        def begins_elsewhere(level: Int[Array, ""]) -> Bool[Array, ""]:
            nearest = self._time(cell, level, self._place(cell, level, t0))
            return jnp.abs(nearest - t0) > self._rounding

        coarsest = self.first_level(cell) + self.finer
        level = jnp.maximum(self._level_for(cell, length), coarsest)
        level = jax.lax.while_loop(begins_elsewhere, lambda k: k + 1, level)
        return self._time(cell, level, self._place(cell, level, t0) + 1)

    @property
    def shortest(self) -> Float[Array, ""]:
        """What can be told from rounding: no shorter steps are chosen."""
        return 2 * self._rounding

    @property
    def _rounding(self) -> Float[Array, ""]:
        largest = jnp.max(jnp.abs(self.times))
        return _ROUNDING * jnp.finfo(largest.dtype).eps * largest

    def _cell_of(self, t: Float[Array, ""]) -> Int[Array, ""]:
        after = jnp.searchsorted(self.times, t, side="right")
        return jnp.clip(after.astype(int) - 1, 0, self.times.shape[0] - 2)

    def _length(self, cell: Int[Array, ""]) -> Float[Array, ""]:
        return self.times[cell + 1] - self.times[cell]

    def _level_for(
        self, cell: Int[Array, ""], length: Float[Array, ""]
    ) -> Int[Array, ""]:
        ratio = self._length(cell) / jnp.maximum(length, self.shortest)
        # A length that is half a step but for rounding is that of the next level.
        return jnp.maximum(jnp.ceil(jnp.log2(ratio) - 1e-3), 0).astype(int)

    def _place(
        self, cell: Int[Array, ""], level: Int[Array, ""], t: Float[Array, ""]
    ) -> Int[Array, ""]:
        fraction = (t - self.times[cell]) / self._length(cell)
        return jnp.round(fraction * parts(level, t.dtype)).astype(int)

    def _time(
        self, cell: Int[Array, ""], level: Int[Array, ""], place: Int[Array, ""]
    ) -> Float[Array, ""]:
        dtype = self.times.dtype
        fraction = place.astype(dtype) / parts(level, dtype)
        # The end of a cell is looked up, so that rounding does not leave a rest of it.
        return jnp.where(
            fraction == 1,
            self.times[cell + 1],
            self.times[cell] + fraction * self._length(cell),
        )


def parts(level: Int[Array, ""], dtype: Any) -> Float[Array, ""]:
    """Two to the power of `level`: exactly, which `exp2` is not."""
    return (jnp.ones_like(level) << level).astype(dtype)
