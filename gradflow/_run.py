"""What integration and descent have in common: from raw arrays to a trajectory."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._check import is_concrete
from ._flow import AbstractFlow
from ._network import AbstractNetwork
from ._observables import Point, check_measured, measure
from ._problem import Problem
from ._process import End, Rows
from ._results import RESULTS, SolveError, explain, is_okay
from ._trajectory import Trajectory
from ._types import AnyArray, State, Weights


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
    rows: Rows,
    end: End,
    network: AbstractNetwork,
    *,
    names: Sequence[str],
    throw: bool,
    error: Float[Array, " rows"] | None = None,
) -> Trajectory:
    """Makes a trajectory, and raises a failure if it is to be raised."""
    concrete = is_concrete((rows, end))
    result, ts = end.result, rows.ts
    if throw and not concrete:
        ts = result.error_if(ts, ~is_okay(result))
    stopped_by = None
    if concrete:
        met = [n for n, is_met in zip(names, end.conditions_met, strict=True) if is_met]
        stopped_by = met[0] if met else None
    trajectory = Trajectory(
        ts=ts,
        log_ts=rows.log_ts,
        networks=None if rows.weights is None else network.with_weights(rows.weights),
        final=network.with_weights(end.weights),
        observables=rows.observables,
        result=result,
        stats=end.stats,
        error=error,
        stopped_by=stopped_by,
    )
    if throw and concrete:
        raise_failure(trajectory)
    return trajectory


def raise_failure(trajectory: Trajectory) -> None:
    """Raises a `SolveError` where the run has failed."""
    if not is_okay(trajectory.result):
        raise SolveError(explain(trajectory.result), trajectory)


def with_end_row(
    rows: Rows,
    end: End,
    row: Callable[[Float[Array, ""], State], tuple[Any, Weights | None, Any]],
) -> Rows:
    """Appends the point where a run ended early, which no one had asked to save.

    Only outside of transformations: the number of rows depends on values.
    """
    if not is_concrete((rows, end)) or end.result == RESULTS.successful:
        return rows
    reached = int(rows.num_reached())
    rows = jax.tree.map(lambda x: x[:reached], rows)
    if not lacks_end(rows.ts, end):
        return rows
    last = (end.t, *row(end.t, end.state))
    leaves = (rows.ts, rows.log_ts, rows.weights, rows.observables)
    return Rows(*jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), leaves, last))


def lacks_end(ts: Float[AnyArray, " T"], end: End) -> bool:
    """Whether a run ended early, and later than at the last of the times that were
    saved."""
    is_saved = len(ts) > 0 and ts[-1] == end.t
    return bool(end.result != RESULTS.successful) and not is_saved


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
