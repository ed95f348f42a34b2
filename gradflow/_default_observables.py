"""What is measured unless the user asks for something else."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._flow import AbstractFlow
from ._loss import SquareLoss
from ._network import AbstractNetwork
from ._observables import (
    AbstractObservable,
    NormDefect,
    Point,
    Stationarity,
    check_observables,
)
from ._problem import Problem
from ._types import Observable
from .analysis import rho_eq


def as_observables(
    observables: Mapping[str, Observable] | None, problem: Problem, flow: AbstractFlow
) -> dict[str, Any]:
    """The user's observables, or the default ones where there are none.

    **Raises:** `ValueError` for anything but a dictionary of functions.
    """
    if observables is None:
        return dict(default_observables(problem, flow))
    check_observables("observe", observables)
    return dict(observables)


def default_observables(
    problem: Problem, flow: AbstractFlow
) -> Mapping[str, Observable | AbstractObservable]:
    """What is measured unless the user asks for something else.

    `loss`, `rho` (`network.scale`, the product of the layers' Frobenius norms),
    `rho_layers`, `stationarity` and `norm_defect`; `rho_eq` for the square loss, of the
    norms that the flow evolves; `margin_min`, `margin_mean` and `accuracy` unless the
    data are for regression.
    """
    observables: dict[str, Observable | AbstractObservable] = {
        "loss": _loss,
        "rho": _rho,
        "rho_layers": _rho_layers,
        "stationarity": Stationarity(),
        "norm_defect": NormDefect(),
    }
    if isinstance(problem.loss, SquareLoss):
        observables["rho_eq"] = Equilibrium()
    if not problem.dataset.regression:
        observables["margin_min"] = _margin_min
        observables["margin_mean"] = _margin_mean
        observables["accuracy"] = _accuracy
    return observables


class Equilibrium(AbstractObservable):
    r"""$\rho_{eq}$ of the flow's own norms and weight decay."""

    def __call__(self, point: Point) -> Float[Array, ""]:
        network = point.network
        norms = point.flow.scaling_norms(point.state, network)
        # Layers that are not of norm 1 beside those norms, such as spheres of rows:
        # decaying the flow's norms by λ decays the layers' as they are by another.
        others = jnp.abs(network.scale / jnp.prod(norms))
        decay = jnp.asarray(point.flow.weight_decay_at(point.t), norms.dtype)
        decay = decay * others ** (-2 / norms.size)
        return rho_eq(point.problem, network, decay, num_norms=norms.size)


def _loss(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return problem.value(network)


def _rho(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    del problem
    return network.scale


def _rho_layers(problem: Problem, network: AbstractNetwork) -> Float[Array, " layers"]:
    del problem
    return network.norms


def _margin_min(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return jnp.min(problem.margins(network))


def _margin_mean(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return jnp.mean(problem.margins(network))


def _accuracy(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    return problem.accuracy(network)
