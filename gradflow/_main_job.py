"""The main job: a flow to equilibrium, beside gradient descent on the same problem."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ._descend import descend
from ._flow import AbstractFlow
from ._network import AbstractNetwork
from ._problem import Problem
from ._solve import solve
from ._stopwatch import Stopwatch
from ._trajectory import Trajectory
from .analysis import relative_distance, structural_residual


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run: the flow for `time`, and descent with steps of `learning_rate`."""

    problem: Problem
    test_problem: Problem
    network: AbstractNetwork
    flow: AbstractFlow
    time: float
    learning_rate: float
    rtol: float
    progress: bool


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Both trajectories, and their figures under plain names."""

    flow: Trajectory
    descent: Trajectory
    flow_summary: dict[str, Any]
    descent_summary: dict[str, Any]


def run(job: Job) -> Outcome:
    """Runs flow and descent from the same start to the same time.

    **Raises:** `SolveError` where one of them fails.
    """
    steps = max(1, round(job.time / job.learning_rate))
    with Stopwatch() as descent_watch:
        descent = descend(
            job.problem,
            job.learning_rate,
            job.network,
            steps,
            flow=job.flow,
            progress=job.progress,
        )
        jax.block_until_ready(descent)
    with Stopwatch() as flow_watch:
        flow = solve(
            job.problem,
            job.flow,
            job.network,
            descent.ts[-1],
            ts=descent.ts,
            rtol=job.rtol,
            progress=job.progress,
        )
        jax.block_until_ready(flow)
    distance = float(relative_distance(flow.final, descent.final))
    return Outcome(
        flow,
        descent,
        _summary(job, flow, flow_watch) | {"distance_flow_descent": distance},
        _summary(job, descent, descent_watch),
    )


def _summary(job: Job, trajectory: Trajectory, watch: Stopwatch) -> dict[str, Any]:
    problem, network = job.problem, trajectory.final
    margins = problem.margins(network)
    # For the square loss.
    equilibria = trajectory.observables.get("rho_eq")
    return {
        "time": float(trajectory.ts[-1]),
        "rho": float(network.scale),
        "rho_eq": None if equilibria is None else float(equilibria[-1]),
        "loss": float(problem.value(network)),
        "margin_min": float(jnp.min(margins)),
        "margin_mean": float(jnp.mean(margins)),
        "train_error": 1 - float(problem.accuracy(network)),
        "test_error": 1 - float(job.test_problem.accuracy(network)),
        "stationarity": float(trajectory.observables["stationarity"][-1]),
        "structural_residual": float(jnp.max(structural_residual(problem, network))),
        "norm_defect": float(jnp.max(trajectory.observables["norm_defect"])),
        "num_gradients": int(trajectory.stats["num_gradients"]),
        "num_steps": int(trajectory.stats["num_steps"]),
        "compile_seconds": watch.compile_seconds,
        "run_seconds": watch.run_seconds,
    }
