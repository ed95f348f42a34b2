"""The same path at another pace."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_instance
from .._network import AbstractNetwork
from .._problem import Problem
from .._tree import tree_inner
from .._types import RealScalarLike, State, Weights
from .base import AbstractFlow
from .halpern import HalpernFlow
from .modified import ModifiedFlow


class ClockedState(eqx.Module):
    r"""The state of the flow within, and its time multiplied by the loss, $t L$.

    Times overflow where losses underflow; their product does neither.
    """

    inner: State
    time_times_loss: Float[Array, ""]


class Moment(eqx.Module):
    r"""What a clock may go by, with loss time $s$, $ds = L\,dt$, as the unit of time.

    **Attributes:**

    - `t`: the clock's own time $\tau$.
    - `log_loss`: $\log L$, without weight decay.
    - `growth`: $\sum_n |\langle d_n, g_n \rangle| / L$.
    - `norms`: the norms that the flow evolves.
    - `velocity`: $dW / ds$, of the weights.
    """

    t: RealScalarLike
    log_loss: Float[Array, ""]
    growth: Float[Array, ""]
    norms: Float[Array, " K"]
    velocity: Weights


class AbstractClock(AbstractFlow[ClockedState]):
    r"""A flow on the same path as `flow`, in a time $\tau$ of its own.

    For exponential-type losses the path leads to infinity, so slowly that plain time
    does not get far: the scale grows like $\log t$, and $t$ and $1 / L$ overflow at
    $\log L = -709$. A clock takes slopes divided by the loss, which do not underflow,
    and integrates beside the state the product $q = t L$, which is of moderate size and
    obeys a linear equation,

    $$\frac{dq}{ds} = 1 + q \frac{d \log L}{ds}, \qquad ds = L\,dt.$$

    So $\log t = \log q - \log L$ is known along the way, `trajectory.log_ts`.
    """

    flow: eqx.AbstractVar[AbstractFlow]
    stands_still_at_rest: ClassVar[bool]
    """Whether this clock cannot go on where the flow has come to rest."""

    def __check_init__(self):
        check_instance("flow", self.flow, AbstractFlow)
        if isinstance(self.flow, AbstractClock):
            raise ValueError(f"`flow` has a clock already, got {self.flow}.")
        if isinstance(self.flow, HalpernFlow):
            raise ValueError(
                "`flow`: the decay of a `HalpernFlow` depends on the physical time, "
                "which a clock lets overflow. Integrate it in plain time."
            )
        if isinstance(self.flow, ModifiedFlow):
            raise ValueError(
                "`flow`: the steps of the descent that a `ModifiedFlow` stands for are "
                "steps of the physical time. Integrate it in plain time."
            )

    @abc.abstractmethod
    def pace(self, moment: Moment) -> Float[Array, ""]:
        r"""$d\tau / ds$: how fast this clock goes in loss time."""

    @property
    def weight_decay(self) -> RealScalarLike:  # pyright: ignore
        return self.flow.weight_decay

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t)

    def init(self, network: AbstractNetwork) -> ClockedState:
        zero = jnp.zeros((), network.weights[0].dtype)
        return ClockedState(self.flow.init(network), zero)

    def weights(self, state: ClockedState) -> Weights:
        return self.flow.weights(state.inner)

    def penalty(self, state: ClockedState) -> Float[Array, ""]:
        return self.flow.penalty(state.inner)

    def norms(self, state: ClockedState) -> Float[Array, " K"]:
        return self.flow.norms(state.inner)

    def sharp(self, state: ClockedState, gradient: ClockedState) -> ClockedState:
        inner = self.flow.sharp(state.inner, gradient.inner)
        return ClockedState(inner, gradient.time_times_loss)

    def tangent(self, state: ClockedState, velocity: ClockedState) -> ClockedState:
        inner = self.flow.tangent(state.inner, velocity.inner)
        return ClockedState(inner, velocity.time_times_loss)

    def project(self, state: ClockedState) -> ClockedState:
        return ClockedState(self.flow.project(state.inner), state.time_times_loss)

    def defect(self, state: ClockedState) -> Float[Array, ""]:
        return self.flow.defect(state.inner)

    def log_time(
        self,
        t: RealScalarLike,
        state: ClockedState,
        problem: Problem,
        like: AbstractNetwork,
    ) -> Float[Array, ""]:
        del t
        log_loss = problem.log_value(self.to_network(state, like))
        return jnp.log(state.time_times_loss) - log_loss

    def vector_field(
        self,
        t: RealScalarLike,
        state: ClockedState,
        problem: Problem,
        like: AbstractNetwork,
    ) -> ClockedState:
        """The velocity of `state` at the clock's time `t`."""
        inner = state.inner
        outputs = problem.outputs(self.to_network(state, like))
        log_loss = problem.log_value_of(outputs)

        def slopes(outputs: Float[Array, "N C"]) -> Float[Array, "N C"]:
            return problem.slopes(outputs, log_loss)

        gradient = self.flow.gradient(problem, inner, like, slopes)
        physical = jnp.exp(self.log_time(t, state, problem, like))
        velocity = self.flow.velocity(physical, inner, gradient, log_loss)
        moment = Moment(
            t=t,
            log_loss=log_loss,
            growth=jnp.sum(jnp.abs(jnp.sum(slopes(outputs) * outputs, axis=1))),
            norms=self.flow.norms(inner),
            velocity=jax.jvp(self.flow.weights, (inner,), (velocity,))[1],
        )
        growth_of_log_loss = tree_inner(gradient, velocity)
        in_loss_time = ClockedState(
            velocity, 1 + state.time_times_loss * growth_of_log_loss
        )
        pace = self.pace(moment)
        return jax.tree.map(lambda x: x / pace, in_loss_time)


def without_clock(flow: AbstractFlow, state: Any = None) -> tuple[AbstractFlow, State]:
    """The flow within a clock and its state, or both as they are."""
    if isinstance(flow, AbstractClock):
        return flow.flow, None if state is None else state.inner
    return flow, state
