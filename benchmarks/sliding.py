"""Sliding units: who follows the flow of an exact ReLU network, and at what cost?

Lagrange flow with λ = 0.1 of 65-32-32-1 networks on 20 digits, from ρ = 0.1, to
T = 10, 100 and 1000. The reference is Filippov's solution with sliding units treated
exactly (`filippov.py`), which knows neither gradflow nor JAX. "Error" is the relative
distance of the states (ρ, V_k). Gradients are evaluations of the field; for gradflow
two more for each Jacobian-vector product.

The others get the same field: the exact network's, in the papers' raw form and without
a projection, as one writes it first; and in the tangent form with a projection after
every step and a floor under the step size.
"""

from pathlib import Path
from typing import Any

import diffrax
import filippov
import jax.numpy as jnp
import numpy as np
from common import (
    Table,
    dense,
    digits,
    out_directory,
    polar_vector,
    relative_distance,
    timed,
)

import gradflow as gf

SEEDS = (0, 2, 5)
TIMES = (10.0, 100.0, 1000.0)
WEIGHT_DECAY = 0.1
PROBLEM = digits(20)


def reference(seed: int) -> list[np.ndarray]:
    network = dense(seed, (32, 32))
    result = filippov.integrate(
        [np.asarray(w) for w in network.weights],
        np.asarray(PROBLEM.dataset.inputs),
        np.asarray(PROBLEM.dataset.labels),
        WEIGHT_DECAY,
        TIMES,
    )
    return [
        np.concatenate([[rho], *(v.ravel() for v in directions)])
        for rho, directions in result.states
    ]


def gradflow_with(seed: int, t1: float, **options) -> gf.Trajectory:
    return gf.solve(
        PROBLEM,
        gf.LagrangeFlow(WEIGHT_DECAY),
        dense(seed, (32, 32)),
        t1,
        ts=jnp.asarray([t1]),
        observe={},
        throw=False,
        **options,
    )


def floored(rtol: float, floor: float) -> diffrax.AbstractStepSizeController:
    return diffrax.PIDController(rtol=rtol, atol=1e-6, dtmin=floor, force_dtmin=True)


def explicit_methods(t1: float) -> list[tuple[str, dict[str, Any]]]:
    """Solvers and step sizes for the exact network, without those that are hopeless."""
    methods = []
    for h in (3e-3, 1e-3):
        options = {
            "solver": diffrax.Euler(),
            "controller": diffrax.ConstantStepSize(),
            "dt0": h,
        }
        methods.append((f"Euler, h = {h:g}", options))
    solvers = (diffrax.Heun(), diffrax.Tsit5()) if t1 <= 100 else (diffrax.Heun(),)
    for solver in solvers:
        for floor in (3e-3, 1e-3, 3e-4) if t1 <= 100 else (1e-3,):
            options = {"solver": solver, "controller": floored(1e-3, floor)}
            methods.append((f"{type(solver).__name__}, step ≥ {floor:g}", options))
    return methods


def as_written_first(seed: int, t1: float) -> tuple[np.ndarray, int, str]:
    """Tsit5 on the papers' equations, without a projection."""
    network = dense(seed, (32, 32))
    flow = gf.LagrangeFlow(WEIGHT_DECAY, raw=True)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, _: flow.vector_field(t, y, PROBLEM, network)),
        diffrax.Tsit5(),
        0.0,
        t1,
        None,
        flow.init(network),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        max_steps=10_000_000,
        throw=False,
    )
    state = solution.ys
    parts = [state.rho[0], *(v[0] for v in state.directions)]
    vector = np.concatenate([np.ravel(part) for part in parts])
    gradients = 1 + 6 * int(solution.stats["num_steps"])
    result = "success" if solution.result == diffrax.RESULTS.successful else "failure"
    return vector, gradients, result


def main(out: Path) -> None:
    table = Table(
        "Sliding units",
        ["seed", "T", "method", "error", "gradients", "compile s", "run s", "result"],
    )

    def add(seed, t1, method, exact, trajectory_of):
        trajectory, compiling, running = timed(trajectory_of)
        table.add(
            seed,
            t1,
            method,
            relative_distance(polar_vector(trajectory.final), exact),
            int(trajectory.stats["num_gradients"]),
            compiling,
            running,
            "success" if trajectory.result == gf.RESULTS.successful else "failure",
        )

    for seed in SEEDS:
        references = reference(seed)
        for t1, exact in zip(TIMES, references, strict=True):
            for rtol in (1e-3, 1e-4):

                def ours(seed=seed, t1=t1, rtol=rtol):
                    return gradflow_with(seed, t1, rtol=rtol)

                add(seed, t1, f"gradflow, rtol {rtol:g}", exact, ours)

    seed = SEEDS[0]
    references = reference(seed)
    for t1, exact in zip(TIMES, references, strict=True):
        for name, options in explicit_methods(t1):

            def explicit(t1=t1, options=options):
                return gradflow_with(
                    seed, t1, smoothing=0, max_steps=10_000_000, **options
                )

            add(seed, t1, f"{name}, projected", exact, explicit)
    for t1, exact in zip(TIMES[:2], references, strict=False):
        (vector, gradients, result), _, running = timed(
            lambda t1=t1: as_written_first(seed, t1)
        )
        error = relative_distance(vector, exact)
        name = "Tsit5 as written first, rtol 1e-3"
        table.add(seed, t1, name, error, gradients, "–", running, result)
    table.write(out, "sliding")


if __name__ == "__main__":
    main(out_directory(__doc__))
