"""From the runs of an ensemble to what is returned."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm

from .._check import check_positive_integer
from .._network import AbstractNetwork
from .._process import AbstractProcess, End, Rows
from .._results import SolveError, explain
from .._run import finish
from .._trajectory import Trajectory
from .ensemble import Ensemble
from .members import default_lanes, default_workers, run_members
from .stacked import stack

OnEnd = Callable[[int, Trajectory], Any]
_FAILURES_NAMED = 5


def run_ensemble(
    processes: Sequence[AbstractProcess],
    networks: Sequence[AbstractNetwork],
    names: Sequence[str],
    parameters: dict[str, np.ndarray],
    *,
    lanes: int | None,
    workers: int | None,
    throw: bool,
    progress: bool,
    on_end: OnEnd | None,
) -> Ensemble:
    """Runs them all. `networks` are those whose weights the trajectories' replace."""
    lanes = default_lanes() if lanes is None else lanes
    workers = default_workers() if workers is None else workers
    check_positive_integer("lanes", lanes)
    check_positive_integer("workers", workers)
    trajectories: dict[int, Trajectory] = {}
    with tqdm.tqdm(
        total=len(processes), unit="member", disable=not progress
    ) as progress_bar:

        def done(member: int, rows: Rows, end: End) -> None:
            trajectory = finish(rows, end, networks[member], names=names, throw=False)
            trajectories[member] = trajectory
            progress_bar.update()
            if on_end is not None:
                on_end(member, trajectory)

        run_members(
            stack(processes),
            len(processes),
            lanes=lanes,
            workers=workers,
            done=done,
        )
    members = tuple(trajectories[i] for i in range(len(processes)))
    ensemble = Ensemble(members, parameters)
    if ensemble.failed:
        message = _explain_failures(ensemble)
        if throw:
            raise SolveError(message, ensemble)
        warnings.warn(message, stacklevel=3)
    return ensemble


def _explain_failures(ensemble: Ensemble) -> str:
    failed = ensemble.failed
    results = ensemble.results
    named = ", ".join(f"{i} ({results[i]})" for i in failed[:_FAILURES_NAMED])
    more = ", …" if len(failed) > _FAILURES_NAMED else ""
    return (
        f"{len(failed)} of {len(ensemble)} members failed: {named}{more}. The first: "
        f"{explain(ensemble[failed[0]].result)}"
    )
