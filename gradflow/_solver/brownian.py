"""A Brownian path for steps that are halved until they are short enough."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .dyadic import DyadicSteps, parts


class _Increment(eqx.Module):
    """The increment of a path over a step, and its space-time Lévy area."""

    w: Float[Array, " n"]
    h: Float[Array, " n"]


class BrownianTree(diffrax.AbstractBrownianPath):
    r"""A Brownian path over the steps of `DyadicSteps`, of which any two agree.

    The longest steps have increments of their own, drawn from the key; those of shorter
    ones are the halves of these, the halves of the halves, and so on. With $W$ and the
    space-time Lévy area $H$ of a step of length $\ell$, the difference of the
    increments of its halves is $3 H + e$, the sum of their areas is $(H - e) / 2$ and
    the difference of these is $g$, with independent $e \sim N(0, \ell / 4)$ and $g \sim
    N(0, \ell / 12)$.

    `diffrax.VirtualBrownianTree` can be asked for any times, and halves the whole run
    down to the shortest step for each. Measured for 1,056 weights: 3.5 and 5.2 ms an
    increment with 20 and 30 levels, here 0.3, 0.5 and 1 ms with 1, 3 and 6.
    """

    steps: DyadicSteps
    size: int = eqx.field(static=True)
    key: PRNGKeyArray
    levy_area: ClassVar = diffrax.SpaceTimeLevyArea  # pyright: ignore

    @property
    def t0(self):  # pyright: ignore
        return self.steps.times[0]

    @property
    def t1(self):  # pyright: ignore
        return self.steps.times[-1]

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        del left
        if t1 is None:
            raise ValueError("A `BrownianTree` has increments only.")
        dtype = self.steps.times.dtype
        t0, t1 = (jax.lax.stop_gradient(jnp.asarray(t, dtype)) for t in (t0, t1))
        increment = self._increment(t0, t1)
        if not use_levy:
            return increment.w
        return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=increment.w, H=increment.h)

    def _increment(self, t0: Float[Array, ""], t1: Float[Array, ""]) -> _Increment:
        cell, level, place = self.steps.find(t0, t1)
        first = self.steps.first_level(cell)

        def normals(at: Int[Array, ""], number: Int[Array, ""]) -> Float[Array, "2 n"]:
            key = self.key
            for part in (cell, at, number):
                key = jax.random.fold_in(key, part)
            return jax.random.normal(key, (2, self.size), t0.dtype)

        def halve(at: Int[Array, ""], carry):
            length, whole = carry
            half = place >> (level - at)
            # The halves of one whole have their noise in common.
            e, g = normals(at, half // 2)
            e, g = e * jnp.sqrt(length / 4), g * jnp.sqrt(length / 12)
            sign = 1 - 2 * (half % 2).astype(t0.dtype)
            w = (whole.w + sign * (3 * whole.h + e)) / 2
            h = ((whole.h - e) / 2 + sign * g) / 2
            return length / 2, _Increment(w, h)

        length = (t1 - t0) * parts(level - first, t0.dtype)
        w, h = normals(first, place >> (level - first))
        whole = _Increment(w * jnp.sqrt(length), h * jnp.sqrt(length / 12))
        _, increment = jax.lax.fori_loop(first + 1, level + 1, halve, (length, whole))
        return increment
