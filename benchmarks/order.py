"""Second or third order?

Gradients to T = 4 and the error there, by the solver: for exact ReLU networks
(`exact_flow.py`; medians of seeds 0 to 5, relative distance of (ρ, V_k) from Filippov's
solution), for the first of them with a smoothing of 0.1, and for a deep linear
65-16-16-1 network; the latter two against Dopri8 at rtol 1e-9.

Measured: at rtol 1e-4, RKC and RKC3 take 7,807 and 8,999 gradients for exact ReLUs,
to errors of 1.3e-4 and 1.6e-4; 705 and 826 for smooth ones, to 3.0e-4 and 2.9e-5; 568
and 643 for linear networks, to 9.6e-5 and 1.2e-5, where Bosh3 takes 2,290 to 1.8e-5.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from common import Table, out_directory, polar_vector, relative_distance
from exact_flow import FLOW, PROBLEM, reference_vectors, start

import gradflow as gf

T1 = 4.0
SEEDS = range(6)
SOLVERS = {"RKC": gf.RKC(), "RKC3": gf.RKC3(), "Bosh3": diffrax.Bosh3()}


def solve(network: gf.Dense, solver: diffrax.AbstractSolver, rtol: float):
    return gf.solve(
        PROBLEM,
        FLOW,
        network,
        T1,
        ts=jnp.asarray([T1]),
        observe={},
        rtol=jnp.asarray(rtol),
        solver=solver,
    )


def compare(
    table: Table,
    case: str,
    networks: Sequence[gf.Dense],
    exact: Sequence[np.ndarray],
    rtols: Sequence[float],
    names: Sequence[str],
) -> None:
    """A row for each tolerance and solver: medians over the networks."""
    for rtol in rtols:
        for name in names:
            runs = [solve(network, SOLVERS[name], rtol) for network in networks]
            errors = [
                relative_distance(polar_vector(run.final), vector)
                for run, vector in zip(runs, exact, strict=True)
            ]
            counts = [int(run.stats["num_gradients"]) for run in runs]
            median = statistics.median
            table.add(case, rtol, name, int(median(counts)), median(errors))


def main(out: Path) -> None:
    table = Table(
        "Second or third order", ["network", "rtol", "solver", "gradients", "error"]
    )
    compare(
        table,
        "exact ReLU",
        [start(seed) for seed in SEEDS],
        [reference_vectors(seed, (T1,))[0] for seed in SEEDS],
        (1e-3, 1e-4, 1e-5),
        ("RKC", "RKC3"),
    )
    smoothed = start(0).with_activation(gf.ReLU(0.1))
    linear = gf.Dense(
        (65, 16, 16, 1),
        activation=gf.Identity(),
        key=jax.random.key(0),
        norm=0.1 ** (1 / 3),
    )
    for case, network in (("ReLU(smoothing=0.1)", smoothed), ("linear", linear)):
        exact = polar_vector(solve(network, diffrax.Dopri8(), 1e-9).final)
        rtols = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
        compare(table, case, [network], [exact], rtols, tuple(SOLVERS))
    table.write(out, "order")


if __name__ == "__main__":
    main(out_directory(__doc__))
