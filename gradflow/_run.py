"""What integration and descent have in common: from raw arrays to a trajectory."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ._check import is_concrete
from ._flow import AbstractFlow
from ._network import AbstractNetwork
from ._observables import Point, check_measured, measure
from ._problem import Problem
from ._results import RESULTS, SolveError, explain, is_okay
from ._trajectory import Trajectory
from ._types import State, Weights


class Run(eqx.Module):
    """The arrays of a run: rows at the saved times, and the point where it ended. Rows
    that were not reached have the time `inf`."""

    ts: Float[Array, " rows"]
    log_ts: Float[Array, " rows"]
    weights: Weights | None
    observables: dict[str, PyTree[Array]]
    t_end: Float[Array, ""]
    end: State
    final: Weights
    result: RESULTS
    conditions_met: tuple[Bool[Array, ""], ...]
    stats: dict[str, Any]


@eqx.filter_jit
def measure_row(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    observables: dict[str, Any],
    save_networks: bool,
    t: Float[Array, ""],
    state: State,
) -> tuple[Float[Array, ""], Weights | None, dict[str, Any]]:
    """The logarithm of the physical time, the weights, if they are to be saved, and all
    observables of one state."""
    state = flow.project(state)
    point = Point(problem, flow, t, state, flow.to_network(state, network))
    values = {name: measure(o, point) for name, o in observables.items()}
    check_measured("observe", values)
    weights = point.network.weights if save_networks else None
    dtype = network.weights[0].dtype

    # Rows that are not reached are infinite, which no integer is.
    def as_float(value: Any) -> Array:
        value = jnp.asarray(value)
        return (
            value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(dtype)
        )

    log_t = flow.log_time(t, state, problem, network)
    return log_t, weights, jax.tree.map(as_float, values)


def finish(
    run: Run,
    network: AbstractNetwork,
    *,
    names: Sequence[str],
    throw: bool,
    error: Float[Array, " rows"] | None = None,
) -> Trajectory:
    """Makes a trajectory, and raises a failure if it is to be raised."""
    concrete = is_concrete(run)
    result, ts = run.result, run.ts
    if throw and not concrete:
        ts = result.error_if(ts, ~is_okay(result))
    stopped_by = None
    if concrete:
        met = [n for n, is_met in zip(names, run.conditions_met, strict=True) if is_met]
        stopped_by = met[0] if met else None
    trajectory = Trajectory(
        ts=ts,
        log_ts=run.log_ts,
        networks=None if run.weights is None else network.with_weights(run.weights),
        final=network.with_weights(run.final),
        observables=run.observables,
        result=result,
        stats=run.stats,
        error=error,
        stopped_by=stopped_by,
    )
    if throw and concrete and not is_okay(result):
        raise SolveError(explain(result), trajectory)
    return trajectory


def with_end_row(
    run: Run,
    row: Callable[[Float[Array, ""], State], tuple[Any, Weights | None, Any]],
) -> Run:
    """Appends the point where a run ended early, which no one had asked to save.

    Only outside of transformations: the number of rows depends on values.
    """
    if not is_concrete(run) or run.result == RESULTS.successful:
        return run
    reached = int(np.sum(np.isfinite(run.ts)))
    rows = (run.ts, run.log_ts, run.weights, run.observables)
    rows = jax.tree.map(lambda x: x[:reached], rows)
    if reached == 0 or run.ts[reached - 1] != run.t_end:
        end = (run.t_end, *row(run.t_end, run.end))
        rows = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), rows, end)
    ts, log_ts, weights, observables = rows
    return dataclasses.replace(
        run, ts=ts, log_ts=log_ts, weights=weights, observables=observables
    )


def floats_to_arrays(tree: Any, dtype: Any) -> Any:
    """Turns Python floats into arrays, so that new values do not mean a new
    compilation."""
    return _leaves_to_arrays(tree, float, dtype)


def numbers_to_arrays(tree: Any, dtype: Any) -> Any:
    """The same for integers too."""
    return _leaves_to_arrays(tree, (int, float), dtype)


def _leaves_to_arrays(tree: Any, kinds: Any, dtype: Any) -> Any:
    def convert(leaf: Any) -> Any:
        if isinstance(leaf, kinds) and not isinstance(leaf, bool):
            return jnp.asarray(leaf, dtype)
        return leaf

    return jax.tree.map(convert, tree)
