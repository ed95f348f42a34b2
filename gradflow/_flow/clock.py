"""The same path at another pace."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_instance
from .._network import AbstractNetwork
from .._problem import Problem
from .._tree import tree_inner
from .._types import RealScalarLike, State, Weights
from .base import AbstractFlow, AbstractPlainFlow


class ClockedState(eqx.Module):
    r"""The state of the flow within, and its time multiplied by what descends, $t J$
    with $J = L + \lambda P$.

    Times overflow where losses underflow; their product does neither.
    """

    inner: State
    time_times_objective: Float[Array, ""]


class Moment(eqx.Module):
    r"""What a clock may go by, with $s$, $ds = J\,dt$, as the unit of time.

    **Attributes:**

    - `t`: the clock's own time $\tau$.
    - `log_loss`: $\log L$, without weight decay.
    - `log_objective`: $\log J$, with it: $J = L + \lambda P$.
    - `growth`: $\sum_n |\langle d_n, g_n \rangle| / J$.
    - `norms`: the norms that the flow evolves, of the layers whose scale matters.
    - `velocity`: $dW / ds$, of the weights.
    """

    t: RealScalarLike
    log_loss: Float[Array, ""]
    log_objective: Float[Array, ""]
    growth: Float[Array, ""]
    norms: Float[Array, " K"]
    velocity: Weights


class AbstractClock(AbstractFlow[ClockedState]):
    r"""A flow on the same path as `flow`, in a time $\tau$ of its own.

    For exponential-type losses the path leads to infinity, so slowly that plain time
    does not get far: the scale grows like $\log t$, and $t$ and $1 / L$ overflow at
    $\log L = -709$. A clock takes slopes and decay divided by $J = L + \lambda P$, of
    which the larger one does not underflow, and integrates beside the state the product
    $q = t J$, which is of moderate size and obeys a linear equation,

    $$\frac{dq}{ds} = 1 + q \frac{d \log J}{ds}, \qquad ds = J\,dt.$$

    So $\log t = \log q - \log J$ is known along the way, `trajectory.log_ts`.
    """

    flow: eqx.AbstractVar[AbstractFlow]
    stands_still_at_rest: ClassVar[bool]
    """Whether this clock cannot go on where the flow has come to rest."""

    def __check_init__(self):
        check_instance("flow", self.flow, AbstractFlow)
        if isinstance(self.flow, AbstractClock):
            raise ValueError(f"`flow` has a clock already, got {self.flow}.")
        if not isinstance(self.flow, AbstractPlainFlow):
            raise ValueError(
                f"`flow`: {type(self.flow).__name__} depends on the physical time: on "
                "its value, as a vanishing decay does, or on its pace, as momentum, "
                "noise and finite steps do. A clock lets it overflow. Integrate the "
                "flow in plain time."
            )

    @abc.abstractmethod
    def pace(self, moment: Moment) -> Float[Array, ""]:
        r"""$d\tau / ds$: how fast this clock goes."""

    @abc.abstractmethod
    def log_start(self, t0: Float[Array, ""]) -> Float[Array, ""]:
        """The logarithm of the physical time at which a run starts, given the clock's
        time `t0` there."""

    @property
    def weight_decay(self) -> RealScalarLike:  # pyright: ignore
        return self.flow.weight_decay

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t)

    def init(self, network: AbstractNetwork) -> ClockedState:
        zero = jnp.zeros((), network.weights[0].dtype)
        return ClockedState(self.flow.init(network), zero)

    def start(
        self,
        t0: Float[Array, ""],
        state: ClockedState,
        problem: Problem,
        like: AbstractNetwork,
    ) -> ClockedState:
        """The state at the clock's time `t0`, where that of `init` is at time 0."""
        log_objective = self._log_objective_of(state, problem, like)
        time_times_objective = jnp.exp(self.log_start(t0) + log_objective)
        return ClockedState(state.inner, time_times_objective)

    def weights(self, state: ClockedState) -> Weights:
        return self.flow.weights(state.inner)

    def penalty(self, state: ClockedState) -> Float[Array, ""]:
        return self.flow.penalty(state.inner)

    def norms(self, state: ClockedState) -> Float[Array, " K"]:
        return self.flow.norms(state.inner)

    def sharp(self, state: ClockedState, gradient: ClockedState) -> ClockedState:
        inner = self.flow.sharp(state.inner, gradient.inner)
        return ClockedState(inner, gradient.time_times_objective)

    def tangent(self, state: ClockedState, velocity: ClockedState) -> ClockedState:
        inner = self.flow.tangent(state.inner, velocity.inner)
        return ClockedState(inner, velocity.time_times_objective)

    def project(self, state: ClockedState) -> ClockedState:
        inner = self.flow.project(state.inner)
        return ClockedState(inner, state.time_times_objective)

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
        log_objective = self._log_objective_of(state, problem, like)
        return jnp.log(state.time_times_objective) - log_objective

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
        log_objective = self._log_objective(inner, log_loss)
        slopes = problem.slopes(outputs, log_objective)
        gradient = self.flow.gradient(problem, inner, like, slopes)
        physical = jnp.exp(self.log_time(t, state, problem, like))
        velocity = self.flow.velocity(physical, inner, gradient, log_objective)
        moment = Moment(
            t=t,
            log_loss=log_loss,
            log_objective=log_objective,
            growth=jnp.sum(jnp.abs(jnp.sum(slopes * outputs, axis=1))),
            norms=self.flow.scaling_norms(inner, like),
            velocity=jax.jvp(self.flow.weights, (inner,), (velocity,))[1],
        )
        decay = self.flow.penalty_gradient(physical, inner, log_objective)
        total = jax.tree.map(jnp.add, gradient, decay)
        growth = tree_inner(total, velocity)
        in_time_s = ClockedState(velocity, 1 + state.time_times_objective * growth)
        pace = self.pace(moment)
        return jax.tree.map(lambda x: x / pace, in_time_s)

    def _log_objective_of(
        self, state: ClockedState, problem: Problem, like: AbstractNetwork
    ) -> Float[Array, ""]:
        log_loss = problem.log_value(self.to_network(state, like))
        return self._log_objective(state.inner, log_loss)

    def _log_objective(
        self, inner: State, log_loss: Float[Array, ""]
    ) -> Float[Array, ""]:
        r"""$\log(L + \lambda P)$."""
        penalty = self.flow.penalty(inner)
        decay = jnp.asarray(self.flow.weight_decay, penalty.dtype)
        decays = (decay > 0) & (penalty > 0)
        # Where there is no decay, its logarithm must not have a derivative either.
        decay, penalty = (jnp.where(decays, x, 1) for x in (decay, penalty))
        log_decay = jnp.where(decays, jnp.log(decay) + jnp.log(penalty), -jnp.inf)
        return jnp.logaddexp(log_loss, log_decay)
