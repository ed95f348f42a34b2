"""What a flow descends, on its constraint set, in flat coordinates."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ._flow import AbstractFlow, LagrangeFlow, steepest_descent
from ._flow.wrapper import AbstractWrapperFlow
from ._lanczos import Krylov
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

    @classmethod
    def at(
        cls, problem: Problem, flow: AbstractFlow, network: AbstractNetwork
    ) -> tuple["Restricted", Float[Array, " n"]]:
        """Together with the coordinates of `network`."""
        flow, _ = steepest_descent(flow)
        flow = _projected(flow)
        x, unravel = ravel_pytree(flow.project(flow.init(network)))
        return cls(problem, flow, network, unravel), x

    def project(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return _flat(self.flow.project(self.unravel(x)))

    def gradient(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        state, pull = jax.vjp(self.flow.project, self.unravel(x))
        partial = jax.tree.map(
            jnp.add,
            self.flow.gradient(self.problem, state, self.network),
            self.flow.penalty_gradient(jnp.inf, state),
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

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        state = self.flow.project(self.unravel(x))
        loss = self.problem.value(self.flow.to_network(state, self.network))
        weight_decay = jnp.asarray(self.flow.weight_decay, x.dtype)
        return loss + weight_decay * self.flow.penalty(state)

    def norm(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        gradient = self.gradient(x)
        return jnp.sqrt(jnp.abs(jnp.dot(gradient, self.sharp(x)(gradient))))

    def stationarity(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        state = self.unravel(x)
        network = self.flow.to_network(state, self.network)
        # A decay that vanishes in time has done so, as in `gradient`.
        end = jnp.full((), jnp.inf, x.dtype)
        return Stationarity()(Point(self.problem, self.flow, end, state, network))

    def distance(
        self, x: Float[Array, " n"], start: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """The largest change of a layer's weights, relative to their norm."""
        ratios = []
        for before, after in zip(
            self.flow.weights(self.unravel(start)),
            self.flow.weights(self.unravel(x)),
            strict=True,
        ):
            size = jnp.linalg.norm(before.ravel())
            moved = jnp.linalg.norm((after - before).ravel())
            ratios.append(moved / jnp.where(size > 0, size, 1))
        return jnp.max(jnp.stack(ratios))

    def linearized(self, x: Float[Array, " n"]) -> tuple[Float[Array, " n"], Callable]:
        """The gradient at `x`, and the Hessian as a function of a vector."""
        return jax.linearize(self.gradient, x)

    def falls_along_one(
        self, x: Float[Array, " n"], krylov: Krylov, zero: Float[Array, ""]
    ) -> Bool[Array, ""]:
        r"""Whether $F$ falls from `x` along the vector of a Ritz value below `-zero`,
        or against it.

        The step $\tau$ is the shortest for which the fall $|\theta| \tau^2 / 2$ that
        the Ritz value $\theta$ promises stands out of rounding. One hundredth of that
        is asked for.
        """
        values, _, vectors = krylov.ritz()
        sharp = self.sharp(x)
        here = self.value(x)
        fall = 1e4 * jnp.finfo(x.dtype).eps * jnp.abs(here)

        def is_open(carry) -> Bool[Array, ""]:
            k, falls = carry
            value = values.at[k].get(mode="fill", fill_value=jnp.inf)
            return (value < -zero) & ~falls

        def look(carry):
            k, _ = carry
            vector = sharp(vectors[:, k] @ krylov.basis[:-1])
            step = jnp.sqrt(2 * fall / -values[k]) * vector
            there = jax.vmap(self.value)(jnp.stack([x + step, x - step]))
            return k + 1, jnp.min(there) < here - 0.01 * fall

        start = jnp.asarray(0), jnp.asarray(False)
        return jax.lax.while_loop(is_open, look, start)[1]


def _projected(flow: AbstractFlow) -> AbstractFlow:
    """The raw form is the same on the spheres, but is not projected on them."""
    if isinstance(flow, AbstractWrapperFlow):
        return dataclasses.replace(flow, flow=_projected(flow.flow))
    if isinstance(flow, LagrangeFlow):
        return dataclasses.replace(flow, raw=False)
    return flow


def _flat(state: State) -> Float[Array, " n"]:
    return ravel_pytree(state)[0]
