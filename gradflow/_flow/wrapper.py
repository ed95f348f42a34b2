"""A flow in the coordinates of another one, in physical time."""

import equinox as eqx
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, State, Weights
from .base import AbstractFlow, AbstractPhysicalFlow


class AbstractWrapperFlow(AbstractFlow[State]):
    """Forwards coordinates, penalty, metric and constraint set to the flow within."""

    flow: eqx.AbstractVar[AbstractPhysicalFlow]

    @property
    def weight_decay(self) -> RealScalarLike:  # pyright: ignore
        return self.flow.weight_decay

    def init(self, network: AbstractNetwork) -> State:
        return self.flow.init(network)

    def weights(self, state: State) -> Weights:
        return self.flow.weights(state)

    def penalty(self, state: State) -> Float[Array, ""]:
        return self.flow.penalty(state)

    def norms(self, state: State) -> Float[Array, " K"]:
        return self.flow.norms(state)

    def sharp(self, state: State, gradient: State) -> State:
        return self.flow.sharp(state, gradient)

    def tangent(self, state: State, velocity: State) -> State:
        return self.flow.tangent(state, velocity)

    def project(self, state: State) -> State:
        return self.flow.project(state)

    def defect(self, state: State) -> Float[Array, ""]:
        return self.flow.defect(state)

    def log_time(
        self, t: RealScalarLike, state: State, problem: Problem, like: AbstractNetwork
    ) -> Float[Array, ""]:
        return self.flow.log_time(t, state, problem, like)

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return self.flow.save_times(t0, t1)
