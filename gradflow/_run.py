"""What integration and descent have in common: from raw arrays to a trajectory."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ._check import is_concrete
from ._network import AbstractNetwork
from ._results import RESULTS, SolveError, explain, is_okay
from ._trajectory import Trajectory
from ._types import Weights


class Run(eqx.Module):
    """The arrays of a run. Rows that were not reached have the time `inf`; the row of
    the point where a run ended early comes right after those that were reached."""

    ts: Float[Array, " rows"]
    weights: Weights | None
    observables: dict[str, PyTree[Array]]
    final: Weights
    result: RESULTS
    conditions_met: tuple[Bool[Array, ""], ...]
    stats: dict[str, Any]
    num_saves: int = eqx.field(static=True)


def finish(
    run: Run, network: AbstractNetwork, *, names: Sequence[str], throw: bool
) -> Trajectory:
    """Cuts off what was not reached, and raises a failure if it is to be raised."""
    concrete = is_concrete(run)
    rows = _rows_reached(run) if concrete else run.num_saves
    ts, weights, observables = jax.tree.map(
        lambda x: x[:rows], (run.ts, run.weights, run.observables)
    )
    result = run.result
    if throw and not concrete:
        ts = result.error_if(ts, ~is_okay(result))
    stopped_by = None
    if concrete:
        met = [n for n, is_met in zip(names, run.conditions_met, strict=True) if is_met]
        stopped_by = met[0] if met else None
    trajectory = Trajectory(
        ts=ts,
        networks=None if weights is None else network.with_weights(weights),
        final=network.with_weights(run.final),
        observables=observables,
        result=result,
        stats=run.stats,
        stopped_by=stopped_by,
    )
    if throw and concrete and not is_okay(result):
        raise SolveError(explain(result), trajectory)
    return trajectory


def _rows_reached(run: Run) -> int:
    reached = int(np.sum(np.isfinite(run.ts)))
    if run.result == RESULTS.successful:
        return min(reached, run.num_saves)
    # The end may coincide with a time that was to be saved anyway.
    if reached > 1 and run.ts[reached - 1] == run.ts[reached - 2]:
        return reached - 1
    return reached


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
