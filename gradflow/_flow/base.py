"""What every flow is."""

import abc
import math
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike, Weights

S = TypeVar("S")


class AbstractFlow(eqx.Module, Generic[S]):
    r"""Constrained steepest descent of $L + \lambda P$ in coordinates of its own.

    A flow is made of four things: coordinates (`init` and `weights`, there and back),
    a `penalty` $P$, a metric (`sharp`), and a constraint set (`tangent`, `project`,
    `defect`). The vector field follows from them:

    $$\dot s = -\Pi_s\, G_s^{-1}\, \nabla_s \left( L(W(s)) + \lambda P(s) \right).$$

    A `state` is a pytree of floating-point arrays. `norms` says which norms are free in
    it; on those of them that are `scaling_norms` the equilibrium of the scale depends.
    """

    weight_decay: eqx.AbstractVar[RealScalarLike]

    @abc.abstractmethod
    def init(self, network: AbstractNetwork) -> S:
        """The state of the network from which the flow starts."""

    @abc.abstractmethod
    def weights(self, state: S) -> Weights:
        """The weights of the network that `state` stands for."""

    @abc.abstractmethod
    def penalty(self, state: S) -> Float[Array, ""]:
        r"""What the weight decay $\lambda$ multiplies."""

    @abc.abstractmethod
    def norms(self, state: S) -> Float[Array, " K"]:
        r"""The norms that evolve, and that the weight decay acts on: $P$ is the sum of
        their squares. All the layers', or a single one."""

    @abc.abstractmethod
    def sharp(self, state: S, gradient: S) -> S:
        """Turns partial derivatives into a velocity: applies the inverse metric."""

    @abc.abstractmethod
    def tangent(self, state: S, velocity: S) -> S:
        """Takes what leaves the constraint set out of a velocity."""

    @abc.abstractmethod
    def project(self, state: S) -> S:
        """The point of the constraint set nearest to `state`."""

    @abc.abstractmethod
    def defect(self, state: S) -> Float[Array, ""]:
        r"""How far `state` is off its spheres: the largest $|\|V\| - 1|$."""

    def scaling_norms(self, state: S, like: AbstractNetwork) -> Float[Array, " K"]:
        """Those of `norms` on which the outputs depend: with batch normalisation, those
        of the layers whose scale matters."""
        norms = self.norms(state)
        return norms if norms.size == 1 else norms[like.scaling_layers]

    def to_network(self, state: S, like: AbstractNetwork) -> AbstractNetwork:
        """The network that `state` stands for, of the architecture of `like`."""
        return like.with_weights(self.weights(state))

    def gradient(
        self,
        problem: Problem,
        state: S,
        like: AbstractNetwork,
        slopes: Float[Array, "N C"] | None = None,
    ) -> S:
        """The partial derivatives of the loss by the coordinates; with other `slopes`
        than the loss's if they are given, as in `Problem.pullback`."""
        return problem.pullback(lambda s: self.to_network(s, like), state, slopes)

    @abc.abstractmethod
    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        r"""$\lambda$ at the physical time `t`; `weight_decay` is what it tends to."""

    def penalty_gradient(
        self, t: RealScalarLike, state: S, log_unit: RealScalarLike = 0.0
    ) -> S:
        r"""The partial derivatives of $\lambda P$ by the coordinates at the physical
        time `t`, in units of `exp(log_unit)`."""
        slope = jax.grad(self.penalty)(state)
        dtype = jax.tree.leaves(slope)[0].dtype
        # Bounded, so that no decay stays none in units that are next to nothing.
        largest = 0.99 * math.log(float(jnp.finfo(dtype).max))
        per_unit = jnp.exp(jnp.minimum(jnp.asarray(-log_unit, dtype), largest))
        factor = jnp.asarray(self.weight_decay_at(t), dtype) * per_unit
        return jax.tree.map(lambda x: factor * x, slope)

    def velocity(
        self,
        t: RealScalarLike,
        state: S,
        gradient: S,
        log_unit: RealScalarLike = 0.0,
    ) -> S:
        """The velocity of `state` at the physical time `t`, where the loss has the
        partial derivatives `gradient`. Both in units of `exp(log_unit)`."""
        penalty_gradient = self.penalty_gradient(t, state, log_unit)
        total = jax.tree.map(jnp.add, gradient, penalty_gradient)
        descent = jax.tree.map(jnp.negative, self.sharp(state, total))
        return self.tangent(state, descent)

    @abc.abstractmethod
    def vector_field(
        self, t: RealScalarLike, state: S, problem: Problem, like: AbstractNetwork
    ) -> S:
        """How fast `state` changes at `t`, in the flow's own time."""

    @abc.abstractmethod
    def log_time(
        self, t: RealScalarLike, state: S, problem: Problem, like: AbstractNetwork
    ) -> Float[Array, ""]:
        """The logarithm of the physical time."""

    @abc.abstractmethod
    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        """The times at which a run is saved unless the user asks for others."""


class AbstractPhysicalFlow(AbstractFlow[S]):
    """A flow whose time is the physical one."""

    def vector_field(
        self, t: RealScalarLike, state: S, problem: Problem, like: AbstractNetwork
    ) -> S:
        return self.velocity(t, state, self.gradient(problem, state, like))

    def log_time(
        self, t: RealScalarLike, state: S, problem: Problem, like: AbstractNetwork
    ) -> Float[Array, ""]:
        del state, problem
        return jnp.log(jnp.asarray(t, like.weights[0].dtype))

    def save_times(
        self, t0: Float[Array, ""], t1: Float[Array, ""]
    ) -> Float[Array, " T"]:
        return evenly_spaced(t0, t1)


class AbstractPlainFlow(AbstractPhysicalFlow[S]):
    """A flow that does not depend on the time, which is the physical one."""

    def weight_decay_at(self, t: RealScalarLike) -> RealScalarLike:
        del t
        return self.weight_decay


def evenly_spaced(t0: Float[Array, ""], t1: Float[Array, ""]) -> Float[Array, " T"]:
    return jnp.linspace(t0, t1, 101)
