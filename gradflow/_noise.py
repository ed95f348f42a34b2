"""The noise of a stochastic flow, for the solver."""

import dataclasses
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ._flow import AbstractStochasticFlow
from ._network import AbstractNetwork
from ._problem import Problem
from ._solver import BrownianTree, DyadicSteps
from ._solver.spectral_radius import refine, unknown_spectral_radius
from ._types import RealScalarLike, State


@eqx.filter_jit
def steps_of_noise(
    times: Float[Array, " times"],
    problem: Problem,
    flow: AbstractStochasticFlow,
    network: AbstractNetwork,
) -> DyadicSteps:
    """The steps on which the path of the noise is drawn. The longest are those that are
    stable at the start, so that it takes few halves to come to the ones needed."""
    state = flow.init(network)

    def field(state: State) -> State:
        return flow.vector_field(times[0], flow.project(state), problem, network)

    stiffness = refine(
        field, state, unknown_spectral_radius(state), when=jnp.asarray(True), rtol=0.1
    ).value
    span = times[-1] - times[0]
    longest = 2 / jnp.maximum(stiffness, 1 / span)
    # A coarser run on the same path then has coarser steps to go.
    finer = jnp.asarray(1)
    return DyadicSteps(times, jax.lax.stop_gradient(longest), finer)


def coarser_steps(steps: DyadicSteps | None) -> DyadicSteps | None:
    """The steps, where there is noise, of a run that is to be less accurate."""
    if steps is None:
        return None
    return dataclasses.replace(steps, finer=jnp.zeros_like(steps.finer))


def noise_term(
    flow: AbstractStochasticFlow,
    problem: Problem,
    network_at: Callable[[RealScalarLike], AbstractNetwork],
    state: State,
    steps: DyadicSteps,
) -> diffrax.ControlTerm:
    """The noise of `flow` in flat coordinates, where `state` has the shapes."""
    _, unravel = ravel_pytree(state)
    like = flow.noise_like(state, problem, network_at(steps.times[0]))
    increment, unravel_increment = ravel_pytree(like)

    def diffusion(t, vector, args) -> lx.FunctionLinearOperator:
        del args
        y = flow.project(unravel(vector))
        network = network_at(t)

        def diffuse(db: Float[Array, " n"]) -> Float[Array, " P"]:
            velocity = flow.diffuse(y, problem, network, unravel_increment(db))
            return ravel_pytree(velocity)[0]

        structure = jax.ShapeDtypeStruct(increment.shape, increment.dtype)
        return lx.FunctionLinearOperator(diffuse, structure)

    path = BrownianTree(steps, increment.size, flow.key)  # pyright: ignore
    return diffrax.ControlTerm(diffusion, path)
