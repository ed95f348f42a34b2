"""Flows with noise."""

import abc

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, State
from .wrapper import AbstractWrapperFlow


class AbstractStochasticFlow(AbstractWrapperFlow):
    r"""Another flow with noise: a stochastic differential equation

    $$ds = F(s)\,dt + B(s) \circ d\beta,$$

    where `vector_field` is $F$, and $\beta$ a Brownian motion of as many dimensions as
    `noise_like` has entries. It is meant in the sense of Stratonovich, in which the
    rules of calculus hold: $B$ is tangent to the constraint set, so paths stay there.
    """

    key: eqx.AbstractVar[PRNGKeyArray]

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        return self.flow.weight_decay_at(t)

    @abc.abstractmethod
    def noise_like(
        self, state: State, problem: Problem, like: AbstractNetwork
    ) -> State:
        r"""A pytree of arrays of the shapes of $d\beta$."""

    @abc.abstractmethod
    def diffuse(
        self, state: State, problem: Problem, like: AbstractNetwork, increment: State
    ) -> State:
        r"""$B(s)\,d\beta$ for an `increment` $d\beta$."""

    def onto_tangents(self, state: State, vector: State) -> State:
        """The part of a vector along the constraint set."""
        return jax.jvp(self.flow.project, (state,), (vector,))[1]
