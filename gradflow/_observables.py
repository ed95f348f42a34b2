"""What is measured along a run."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._flow import AbstractFlow
from ._loss import SquareLoss
from ._network import AbstractNetwork
from ._problem import Problem
from ._tree import tree_inner
from ._types import Observable, RealScalarLike, State
from .analysis import rho_eq


class Point(eqx.Module):
    """A point of a run: everything that an observable may want to look at."""

    problem: Problem
    flow: AbstractFlow
    t: RealScalarLike
    state: State
    network: AbstractNetwork


class AbstractObservable(eqx.Module):
    """An observable of the flow and its state, and not of the network alone."""

    @abc.abstractmethod
    def __call__(self, point: Point) -> Any:
        """The value at one point of the run."""


def measure(observable: Observable | AbstractObservable, point: Point) -> Any:
    """The value of an observable of either kind."""
    if isinstance(observable, AbstractObservable):
        return observable(point)
    return observable(point.problem, point.network)


class Stationarity(AbstractObservable):
    r"""How stationary the state is: the speed of the flow relative to the scale of the
    gradients that cancel in it, both in the flow's metric,

    $$\frac{\|\dot s\|}{c \|\nabla_s L\| + \|\nabla_s \lambda P\|}.$$

    The gradients are those before the projection on the tangent space. For a loss that
    attains its infimum, $c \ge 1$ is the ratio of the norm of the slopes at output zero
    to their present norm; so an interpolating network, whose slopes all vanish, counts
    as stationary. For exponential-type losses $c = 1$: that all gradients are small
    does not mean that the directions have settled.
    """

    def __call__(self, point: Point) -> Float[Array, ""]:
        problem, flow, state = point.problem, point.flow, point.state
        gradient = flow.gradient(problem, state, point.network)
        decay = flow.decay(state)
        velocity = flow.vector_field(point.t, state, problem, point.network)
        # The velocity is minus the projected gradient, so its squared norm is minus
        # its product with the gradient, in whatever metric.
        descent = tree_inner(jax.tree.map(jnp.add, gradient, decay), velocity)
        speed = jnp.sqrt(jnp.abs(descent))
        scale = _slope_ratio(point) * _norm(flow, state, gradient)
        scale = scale + _norm(flow, state, decay)
        return jnp.where(speed == 0, 0, speed / jnp.where(scale > 0, scale, 1))


class NormDefect(AbstractObservable):
    r"""The largest $|\|V\| - 1|$ over the flow's spheres."""

    def __call__(self, point: Point) -> Float[Array, ""]:
        return point.flow.defect(point.state)


def default_observables(
    problem: Problem, flow: AbstractFlow
) -> Mapping[str, Observable | AbstractObservable]:
    """What is measured unless the user asks for something else.

    `loss`, `rho` (the product of the layers' Frobenius norms), `rho_layers`,
    `stationarity` and `norm_defect`; `rho_eq` for the square loss; `margin_min`,
    `margin_mean` and `accuracy` unless the data are for regression.
    """
    observables: dict[str, Observable | AbstractObservable] = {
        "loss": _loss,
        "rho": _rho,
        "rho_layers": _rho_layers,
        "stationarity": Stationarity(),
        "norm_defect": NormDefect(),
    }
    if isinstance(problem.loss, SquareLoss):
        observables["rho_eq"] = eqx.Partial(rho_eq, weight_decay=flow.weight_decay)
    if not problem.dataset.regression:
        observables["margin_min"] = _margin_min
        observables["margin_mean"] = _margin_mean
        observables["accuracy"] = _accuracy
    return observables


def _loss(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return problem.value(network)


def _rho(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    del problem
    return jnp.prod(network.norms)


def _rho_layers(problem: Problem, network: AbstractNetwork) -> Float[Array, " layers"]:
    del problem
    return network.norms


def _margin_min(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return jnp.min(problem.margins(network))


def _margin_mean(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return jnp.mean(problem.margins(network))


def _accuracy(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return problem.accuracy(network)


def _norm(flow: AbstractFlow, state: State, gradient: State) -> Float[Array, ""]:
    """The norm of a gradient in the flow's metric."""
    return jnp.sqrt(tree_inner(gradient, flow.sharp(state, gradient)))


def _slope_ratio(point: Point) -> Float[Array, ""]:
    problem = point.problem
    outputs = problem.outputs(point.network)
    if not problem.loss.attains_infimum:
        return jnp.ones((), outputs.dtype)
    now = jnp.linalg.norm(problem.slopes(outputs))
    at_zero = jnp.linalg.norm(problem.slopes(jnp.zeros_like(outputs)))
    return jnp.maximum(1, at_zero / jnp.where(now > 0, now, 1))
