"""What is measured along the whole run."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._default_observables import Equilibrium
from .._flow import AbstractFlow
from .._network import AbstractNetwork
from .._observables import AbstractObservable, Point
from .._observe import observe
from .._problem import Problem
from .._trajectory import Trajectory
from ..analysis import (
    neural_collapse,
    product_of_norms,
    sample_residual,
    stable_rank,
    stationarity_residual,
)


def measure_along(
    problem: Problem, flow: AbstractFlow, trajectory: Trajectory, num_times: int
) -> Trajectory:
    """The trajectory at `num_times` of its times at most, with what the page draws."""
    reached = np.flatnonzero(np.isfinite(np.asarray(trajectory.ts)))
    chosen = np.unique(np.linspace(0, len(reached) - 1, num_times).round().astype(int))
    rows = reached[chosen]
    networks = trajectory.require_networks()
    few = dataclasses.replace(
        trajectory,
        ts=trajectory.ts[rows],
        log_ts=trajectory.log_ts[rows],
        networks=networks.with_weights(tuple(w[rows] for w in networks.weights)),
        observables={},
        error=None,
    )
    observables = {
        "rho": product_of_norms,
        "rho_eq": OfFlow(Equilibrium(), flow),
        "stationarity_residual": stationarity_residual,
        "sample_residual": _mean_sample_residual,
        "stable_rank": stable_rank,
    }
    if can_collapse(problem, trajectory.final):
        observables["neural_collapse"] = neural_collapse
    return observe(problem, few, observables)


def can_collapse(problem: Problem, network: AbstractNetwork) -> bool:
    """Whether there are features and classes, each with a sample."""
    if problem.dataset.regression or len(network.weights) < 2:
        return False
    present = len(np.unique(np.asarray(problem.dataset.labels)))
    return 1 < present == (problem.dataset.num_classes or 2)


class OfFlow(eqx.Module):
    """An observable of the flow's state, as one of the network."""

    observable: AbstractObservable
    flow: AbstractFlow

    def __call__(self, problem: Problem, network: AbstractNetwork) -> Any:
        state = self.flow.project(self.flow.init(network))
        t = jnp.zeros((), network.weights[0].dtype)
        return self.observable(Point(problem, self.flow, t, state, network))


def _mean_sample_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    return jnp.nanmean(sample_residual(problem, network), axis=1)
