"""Newton's method for the critical points of what a flow descends."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._lanczos import lanczos
from ._restricted import Restricted


class Iterate(eqx.Module):
    """Where the iteration is."""

    x: Float[Array, " n"]
    stationarity: Float[Array, ""]
    distance: Float[Array, ""]
    radius: Float[Array, ""]
    num_steps: Int[Array, ""]
    num_hvps: Int[Array, ""]
    stalled: Bool[Array, ""]


class Trial(eqx.Module):
    """A step of a radius."""

    radius: Float[Array, ""]
    x: Float[Array, " n"]
    length: Float[Array, ""]
    gain: Float[Array, ""]  # actual over predicted decrease
    count: Int[Array, ""]


def newton(
    problem: Restricted,
    x: Float[Array, " n"],
    rtol: Float[Array, ""],
    max_distance: Float[Array, ""],
    max_steps: Int[Array, ""],
    subspace: int,
) -> tuple[Iterate, Iterate]:
    r"""Drives the gradient $\gamma$ of `problem` to zero from `x`, a point of the set,
    and gives up beyond `max_distance`.

    A step is the Levenberg-Marquardt step for the equation $\gamma = 0$,
    $v = -(H^2 + \mu)^{-1} H \gamma$, in a Krylov space of the Hessian $H$. It lessens
    $\|\gamma\|$, not the loss, and so goes to a saddle as it goes to a minimum. It has
    no part in the kernel of $H$. With $\mu = (\|\gamma\| / r)^2$ it is no longer than
    $r / 2$, and the convergence is quadratic where $\|\gamma\|$ bounds the distance
    from the critical points, be they isolated or not (Fan & Yuan 2005).

    **Returns:** the start and the end.
    """
    # optimistix's LevenbergMarquardt with lineax's LSMR gets to the same precision, for
    # inner tolerances of 1e-13. But it stops, with success, wherever its steps have
    # become short, it does not count products, and LSMR takes two for each new vector,
    # where symmetry needs one.
    eps = jnp.finfo(x.dtype).eps

    def is_open(at: Iterate) -> Bool[Array, ""]:
        is_on = (at.stationarity > rtol) & (at.distance <= max_distance)
        return is_on & ~at.stalled & (at.num_steps < max_steps)

    def step(at: Iterate) -> Iterate:
        sharp, restrict = problem.sharp(at.x), problem.restrict(at.x)
        gradient, hessian = problem.linearized(at.x)
        krylov = lanczos(hessian, sharp, restrict, gradient, subspace)
        before = krylov.start_norm
        left, sizes, right = jnp.linalg.svd(krylov.rectangle(), full_matrices=False)
        # Eigenvalues of this size are rounding.
        least = jnp.square(eps ** (2 / 3) * sizes[0])

        def is_rejected(trial: Trial) -> Bool[Array, ""]:
            # A gain of NaN is rejected too.
            return ~(trial.gain > 1e-3) & (trial.count < 30)

        def attempt(trial: Trial) -> Trial:
            shorter = jnp.minimum(trial.radius, 2 * trial.length) / 4
            radius = jnp.where(trial.count == 0, trial.radius, shorter)
            mu = jnp.square(before / radius) + least
            filtered = jnp.square(sizes) / (jnp.square(sizes) + mu)
            coefficients = -before * left[0] * filtered
            y = (coefficients / jnp.where(sizes > 0, sizes, 1)) @ right
            new = problem.project(at.x + sharp(y @ krylov.basis[:-1]))
            # What is left of the gradient if the Hessian does not change.
            predicted = jnp.linalg.norm((left @ coefficients).at[0].add(before))
            gain = (before - problem.norm(new)) / (before - predicted)
            return Trial(radius, new, jnp.linalg.norm(y), gain, trial.count + 1)

        never = jnp.asarray(-jnp.inf, x.dtype)
        untried = Trial(at.radius, at.x, at.radius, never, jnp.asarray(0))
        trial = jax.lax.while_loop(is_rejected, attempt, untried)
        stalled = ~(trial.gain > 1e-3)
        is_easy = (trial.count == 1) & (trial.gain > 0.75)
        new = jnp.where(stalled, at.x, trial.x)
        return Iterate(
            x=new,
            stationarity=problem.stationarity(new),
            distance=problem.distance(new, x),
            radius=jnp.where(is_easy, 3 * trial.radius, trial.radius),
            num_steps=at.num_steps + 1,
            num_hvps=at.num_hvps + krylov.size,
            stalled=stalled,
        )

    start = Iterate(
        x=x,
        stationarity=problem.stationarity(x),
        distance=jnp.zeros((), x.dtype),
        radius=0.1 * jnp.linalg.norm(x),
        num_steps=jnp.asarray(0),
        num_hvps=jnp.asarray(0),
        stalled=jnp.asarray(False),
    )
    return start, jax.lax.while_loop(is_open, step, start)
