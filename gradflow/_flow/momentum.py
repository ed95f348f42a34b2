"""The flow of gradient descent with momentum."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_instance, check_nonnegative
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, State, Weights
from .base import AbstractFlow, AbstractPhysicalFlow
from .gradient import GradientFlow
from .metric import check_euclidean


class MomentumState(eqx.Module):
    """Where a flow with momentum is, and how fast it goes there."""

    position: State
    momentum: State


class MomentumFlow(AbstractFlow[MomentumState]):
    r"""The heavy ball: motion with friction $\gamma$ in the landscape of $J = L +
    \lambda P$, in the weights

    $$\ddot W = -\nabla J - \gamma \dot W,$$

    from rest. Gradient descent of step $h$ with momentum $\mu = 1 - \gamma \sqrt h$
    follows it for small steps, and its $n$-th step lies at the time $t = n \sqrt h$
    (Polyak 1964). The energy $J + \|\dot W\|^2 / 2$ falls at the rate $\gamma \|\dot
    W\|^2$. For large $\gamma$ it is the gradient flow, slowed down to $\dot W = -\nabla
    J / \gamma$.

    On unit spheres the motion is the constrained one, $\ddot V = -S \nabla_V J - \gamma
    \dot V - \|\dot V\|^2 V$: without a force it is along great circles.

    For flows with the Euclidean metric. `stationarity` counts the friction as a force.
    State: a `MomentumState`.
    """

    friction: RealScalarLike
    flow: AbstractPhysicalFlow = GradientFlow()

    def __check_init__(self):
        check_nonnegative("friction", self.friction)
        check_instance("flow", self.flow, AbstractPhysicalFlow)

    @property
    def weight_decay(self) -> RealScalarLike:  # pyright: ignore
        return self.flow.weight_decay

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t)

    def init(self, network: AbstractNetwork) -> MomentumState:
        position = self.flow.init(network)
        check_euclidean("the law of motion", self.flow, position)
        return MomentumState(position, jax.tree.map(jnp.zeros_like, position))

    def weights(self, state: MomentumState) -> Weights:
        return self.flow.weights(state.position)

    def penalty(self, state: MomentumState) -> Float[Array, ""]:
        return self.flow.penalty(state.position)

    def norms(self, state: MomentumState) -> Float[Array, " K"]:
        return self.flow.norms(state.position)

    def sharp(self, state: MomentumState, gradient: MomentumState) -> MomentumState:
        del state
        return gradient

    def tangent(self, state: MomentumState, velocity: MomentumState) -> MomentumState:
        along = self.flow.tangent(state.position, velocity.position)
        return MomentumState(along, velocity.momentum)

    def project(self, state: MomentumState) -> MomentumState:
        return MomentumState(
            *jax.jvp(self.flow.project, (state.position,), (state.momentum,))
        )

    def defect(self, state: MomentumState) -> Float[Array, ""]:
        return self.flow.defect(state.position)

    def friction_force(self, state: MomentumState) -> State:
        return jax.tree.map(
            lambda p: jnp.asarray(self.friction, p.dtype) * p, state.momentum
        )

    def vector_field(
        self,
        t: RealScalarLike,
        state: MomentumState,
        problem: Problem,
        like: AbstractNetwork,
    ) -> MomentumState:
        position, momentum = state.position, state.momentum

        def along(position: State) -> State:
            return jax.jvp(self.flow.project, (position,), (momentum,))[1]

        # What keeps the motion on the constraint set, and is zero where there is none.
        _, inward = jax.jvp(along, (position,), (momentum,))
        acceleration = jax.tree.map(
            lambda force, friction, inward: force - friction + inward,
            self.flow.vector_field(t, position, problem, like),
            self.friction_force(state),
            inward,
        )
        return MomentumState(momentum, acceleration)

    def log_time(
        self,
        t: RealScalarLike,
        state: MomentumState,
        problem: Problem,
        like: AbstractNetwork,
    ) -> Float[Array, ""]:
        return self.flow.log_time(t, state.position, problem, like)

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return self.flow.save_times(t0, t1)


MomentumFlow.__init__.__doc__ = r"""**Arguments:**

- `friction`: $\gamma \ge 0$.
- `flow`: any flow without a clock, in coordinates with the Euclidean metric.

**Raises:** `ValueError` for a negative `friction` and a `flow` that does not fit.
"""
