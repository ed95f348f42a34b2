"""How to integrate: tolerances and steps."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from ._solver import BlockNorms, DyadicSteps

_PROPORTIONAL_BELOW = 1e-4
"""From here down, steps of solvers whose estimates are of higher order than they are
themselves are held to more than `rtol`."""

_AT_FIRST = 0.01
"""Before a layer has moved its errors are measured by this fraction of its norm."""
_AT_FIRST_WITH_NOISE = 1.0
"""Noise takes norms through zero, where nothing depends on their signs."""


class Settings(eqx.Module):
    """How to integrate. Arrays can change without a new compilation."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    ts: Float[Array, " T"]
    dt0: Float[Array, ""] | None
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    max_defect: Float[Array, ""]
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController | None
    adjoint: diffrax.AbstractAdjoint
    max_steps: int
    progress: bool
    save_networks: bool
    noise_steps: DyadicSteps | None


def default_controller(
    settings: Settings, terms: diffrax.AbstractTerm, unravel
) -> diffrax.AbstractStepSizeController:
    span = settings.t1 - settings.t0
    has_noise = settings.noise_steps is not None
    return BlockNorms(  # pyright: ignore
        diffrax.PIDController(
            rtol=_tolerance_of_steps(settings, terms),
            atol=settings.atol,
            norm=optx.max_norm,
            # Fewer steps are rejected than without the first, where kinks are crossed.
            pcoeff=0.2,
            icoeff=0.6,
            dtmin=jnp.minimum(_smallest_step(settings), span / 10),
            # Or steps of any error would be accepted at the smallest size.
            force_dtmin=False,
        ),
        unravel,
        _AT_FIRST_WITH_NOISE if has_noise else _AT_FIRST,
    )


def _tolerance_of_steps(
    settings: Settings, terms: diffrax.AbstractTerm
) -> Float[Array, ""]:
    """One by which the error of a run is proportional to `rtol`.

    An error of order q in each step that is held to a tolerance makes steps of its q-th
    root, and a method of order p with such steps an error of its power p / q.
    """
    orders: Any = settings.solver.error_order(terms), settings.solver.order(terms)
    excess = orders[0] / orders[1] - 1
    fraction = jnp.minimum(settings.rtol / _PROPORTIONAL_BELOW, 1) ** excess
    finest = 10 * jnp.finfo(settings.rtol.dtype).eps
    return jnp.maximum(settings.rtol * fraction, finest)


def first_step(settings: Settings, timescale: Float[Array, ""]) -> Float[Array, ""]:
    """One that changes the state by little; the controller soon finds better ones."""
    span = settings.t1 - settings.t0
    little = jnp.where(jnp.isfinite(timescale), 0.01 * timescale, span)
    return jnp.clip(little, 10 * _smallest_step(settings), span)


def _smallest_step(settings: Settings) -> Float[Array, ""]:
    """A step shorter than this cannot be told from rounding in the time."""
    if settings.noise_steps is not None:
        return settings.noise_steps.shortest
    largest = jnp.maximum(jnp.abs(settings.t0), jnp.abs(settings.t1))
    return 4 * jnp.finfo(largest.dtype).eps * largest
