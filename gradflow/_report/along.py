"""What is measured along the whole run."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
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
    # Of memory maps, the rows alone are read.
    weights = tuple(jnp.asarray(w[rows]) for w in networks.weights)
    networks = networks.with_weights(weights)
    ts = jnp.asarray(trajectory.ts[rows])
    few = dataclasses.replace(
        trajectory,
        ts=ts,
        log_ts=trajectory.log_ts[rows],
        networks=networks,
        observables={"rho_eq": _rho_eq(problem, flow, networks, ts)},
        error=None,
    )
    observables: dict[str, Any] = {
        "rho": _rho,
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


def of_flow(
    observable: AbstractObservable,
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    t: Float[Array, ""],
) -> Any:
    """An observable of the flow's state, measured of a network at the time `t`."""
    state = flow.project(flow.init(network))
    return observable(Point(problem, flow, t, state, network))


@eqx.filter_jit
def _rho_eq(
    problem: Problem,
    flow: AbstractFlow,
    networks: AbstractNetwork,
    ts: Float[Array, " T"],
) -> Float[Array, " T"]:
    def at(row):
        t, weights = row
        network = networks.with_weights(weights)
        return of_flow(Equilibrium(), problem, flow, network, t)

    return jax.lax.map(at, (ts, networks.weights))


def _rho(problem: Problem, network: AbstractNetwork) -> Float[Array, ""]:
    del problem
    return network.scale


def _mean_sample_residual(
    problem: Problem, network: AbstractNetwork
) -> Float[Array, " layers"]:
    return jnp.nanmean(sample_residual(problem, network), axis=1)
