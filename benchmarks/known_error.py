"""Does `gf.solve(error=True)` know its error?

Its estimate at T = 4 against the distance from Filippov's solution (`filippov.py`) of
the exact ReLU network: Lagrange flow with λ = 0.1 of 65-32-32-1 networks, seeds 0 to 9,
on 20 digits, from ρ = 0.1. "Ratio" is true by estimated; up to 3 it counts as known.

Measured: known for 10 of 10 seeds at rtol 1e-3 and at 1e-4, the true distance being
0.02 to 2.1 times the estimate, 0.35 in the median.
"""

from pathlib import Path

import jax.numpy as jnp
from common import Table, out_directory
from exact_flow import FLOW, PROBLEM, reference, start

import gradflow as gf

SEEDS = range(10)
T1 = 4.0
FACTOR = 3.0


def main(out: Path) -> None:
    columns = ["seed", "rtol", "true", "estimate", "ratio", "gradients"]
    table = Table("Known error", columns)
    known: dict[float, list[bool]] = {1e-3: [], 1e-4: []}
    for seed in SEEDS:
        network = start(seed)
        (exact,) = reference(network, [T1])
        for rtol, verdicts in known.items():
            trajectory = gf.solve(
                PROBLEM,
                FLOW,
                network,
                T1,
                ts=jnp.asarray([T1]),
                observe={},
                rtol=rtol,
                error=True,
            )
            distance = gf.analysis.relative_distance(trajectory.final, exact)
            estimate = trajectory.error[-1]
            verdicts.append(bool(distance <= FACTOR * estimate))
            table.add(
                seed,
                rtol,
                float(distance),
                float(estimate),
                float(distance / estimate),
                int(trajectory.stats["num_gradients"]),
            )
    for rtol, verdicts in known.items():
        count = f"{sum(verdicts)} of {len(verdicts)} known"
        table.add("all", rtol, count, "–", "–", "–")
    table.write(out, "known_error")


if __name__ == "__main__":
    main(out_directory(__doc__))
