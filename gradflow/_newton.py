"""Newton's method for the critical points of what a flow descends."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from ._flow import AbstractFlow
from ._lanczos import lanczos
from ._network import AbstractNetwork
from ._observables import Point, Stationarity
from ._problem import Problem
from ._types import State


class Restricted(eqx.Module):
    r"""A flow's $L + \lambda P$ on its constraint set, in flat coordinates.

    It is continued to all coordinates $x$ as $F(x) = (L + \lambda P)(\pi(x))$ with the
    flow's projection $\pi$. The derivative of $\pi$ at a point of the set is the
    projection on its tangent space. So there the gradient of $F$ is that along the set,
    and the Hessian of $F$ between tangent vectors is the Riemannian one: at a critical
    point in any metric, elsewhere in the Euclidean one.
    """

    problem: Problem
    flow: AbstractFlow
    network: AbstractNetwork
    unravel: Callable[[Float[Array, " n"]], State] = eqx.field(static=True)

    def project(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return _flat(self.flow.project(self.unravel(x)))

    def gradient(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        state, pull = jax.vjp(self.flow.project, self.unravel(x))
        partial = jax.tree.map(
            jnp.add,
            self.flow.gradient(self.problem, state, self.network),
            self.flow.decay(state),
        )
        return _flat(pull(partial)[0])

    def sharp(self, x: Float[Array, " n"]) -> Callable:
        """The inverse metric at `x`, followed by the projection on the tangents."""
        state = self.unravel(x)

        def at_state(covector: Float[Array, " n"]) -> Float[Array, " n"]:
            vector = self.flow.sharp(state, self.unravel(covector))
            return _flat(jax.jvp(self.flow.project, (state,), (vector,))[1])

        return at_state

    def restrict(self, x: Float[Array, " n"]) -> Callable:
        """The transpose of the projection on the tangents at `x`, for covectors."""
        _, pull = jax.vjp(self.project, x)
        return lambda covector: pull(covector)[0]

    def norm(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        gradient = self.gradient(x)
        return jnp.sqrt(jnp.abs(jnp.dot(gradient, self.sharp(x)(gradient))))

    def stationarity(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        state = self.unravel(x)
        network = self.flow.to_network(state, self.network)
        zero = jnp.zeros((), x.dtype)
        return Stationarity()(Point(self.problem, self.flow, zero, state, network))

    def linearized(self, x: Float[Array, " n"]) -> tuple[Float[Array, " n"], Callable]:
        """The gradient at `x`, and the Hessian as a function of a vector."""
        return jax.linearize(self.gradient, x)


class Iterate(eqx.Module):
    """Where the iteration is."""

    x: Float[Array, " n"]
    stationarity: Float[Array, ""]
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
    max_steps: int,
    subspace: int,
) -> tuple[Iterate, Iterate]:
    r"""Drives the gradient $\gamma$ of `problem` to zero from `x`, a point of the set.

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
        is_on = (at.stationarity > rtol) & ~at.stalled
        return is_on & (at.num_steps < max_steps)

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
            radius=jnp.where(is_easy, 3 * trial.radius, trial.radius),
            num_steps=at.num_steps + 1,
            num_hvps=at.num_hvps + krylov.size,
            stalled=stalled,
        )

    start = Iterate(
        x=x,
        stationarity=problem.stationarity(x),
        radius=0.1 * jnp.linalg.norm(x),
        num_steps=jnp.asarray(0),
        num_hvps=jnp.asarray(0),
        stalled=jnp.asarray(False),
    )
    return start, jax.lax.while_loop(is_open, step, start)


def _flat(state: State) -> Float[Array, " n"]:
    return ravel_pytree(state)[0]
