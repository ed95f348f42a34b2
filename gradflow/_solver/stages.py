"""The loop over the stages of a step."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import State
from .chebyshev import Chebyshev, Scheme


class Start(eqx.Module):
    """What a step starts from."""

    y: State
    # Where the step before this one started.
    previous: State
    # The field at `y`; not known where the start is fresh.
    derivative: State
    is_fresh: Bool[Array, ""]


def run_stages(
    field: Callable[[Float[Array, ""], State], State],
    scheme: Scheme,
    h: Float[Array, ""],
    start: Start,
    *,
    max_stages: int,
    kind: Literal["lax", "checkpointed", "bounded"],
) -> tuple[State, State, State]:
    """The state at the end of a step, and the field at its two ends; `field` is one of
    the fraction of the step and the state."""
    advance = _from_stage_to_stage(h, start)

    # There is one evaluation of the field in the program, for the stages and for
    # both ends: it is what takes time to compile.
    def evaluate_and_advance(carry):
        j, coefficients, before, now, f0, _ = carry
        f = field(coefficients.node(j), jax.tree.map(jnp.add, start.y, now))
        f0 = jax.tree.map(lambda new, old: jnp.where(j == 0, new, old), f, f0)
        coefficients, after = advance(coefficients, j, before, now, f0, f)
        is_last = j == scheme.stages
        before, now = jax.tree.map(
            lambda new, old: jnp.where(is_last, old, new), (now, after), (before, now)
        )
        return j + 1, coefficients, before, now, f0, f

    zero, f = jax.tree.map(jnp.zeros_like, start.y), start.derivative
    j = jnp.asarray(0, jnp.int32)
    zeroth = Chebyshev.of_degree_zero(scheme)
    first, increment = advance(zeroth, j, zero, zero, f, f)
    carry = jax.tree.map(
        lambda a, b: jnp.where(start.is_fresh, a, b),
        (j, zeroth, zero, zero, f, f),
        (j + 1, first, zero, increment, f, f),
    )
    carry = eqxi.while_loop(
        lambda carry: carry[0] <= scheme.stages,
        evaluate_and_advance,
        carry,
        max_steps=max_stages + 1,
        kind=kind,
    )
    _, _, _, increment, f0, f1 = carry
    return jax.tree.map(jnp.add, start.y, increment), f0, f1


def _from_stage_to_stage(h, start):
    # On the increments Y_j - Y_0. On the Y_j themselves, rounding errors of the size of
    # Y_0 in every stage would add up to a drift, which shows in float32.
    to_previous = jax.tree.map(jnp.subtract, start.previous, start.y)

    def advance(coefficients, j, before, now, f0, f):
        coefficients, stage = coefficients.next(j)

        def combine(to_previous, before, now, f0, f):
            return (
                stage.mu * now
                + stage.nu * before
                + stage.previous * to_previous
                + (h * stage.mu_tilde) * f
                + (h * stage.gamma_tilde) * f0
            )

        return coefficients, jax.tree.map(combine, to_previous, before, now, f0, f)

    return advance
