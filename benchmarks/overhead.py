"""How much time does RKC spend beside the gradients?

The whole of a solve's run time (stages, error control, projections, spectral radius,
flow) by its number of gradients, in which a Jacobian-vector product counts as two,
against one bare gradient (`Problem.gradient`, in a compiled loop of as many). Lagrange
flow with λ = 0.1 of 65-w-w-1 networks from ρ = 0.1, rtol 1e-3, on 200 digits with
w = 64, and on 1,000 samples of two Gaussian clouds with w = 256.

Measured (seed 0, one of two CPU cores, shared with other work that slowed all alike):
on 200 digits, width 64, 1.91 times the bare gradient of the exact network, 1.43 times
that of the smoothed one, which is what is integrated (1,654 gradients). On 1,000
samples, width 256, 1.34 and 1.14 times (109 gradients, 72 of them by products).
"""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
from common import Table, clocked, dense, digits, out_directory

import gradflow as gf

FLOW = gf.LagrangeFlow(0.1)
RTOL = 1e-3
REPEATS = 3


def clouds(num_samples: int) -> gf.Problem:
    """Two classes in 65 dimensions that overlap little."""
    first = jax.random.normal(jax.random.key(1), (64,))
    first = first / jnp.linalg.norm(first)
    data = gf.datasets.gaussian_mixture(
        jnp.stack([first, -first]),
        num_samples // 2,
        key=jax.random.key(2),
        scale=0.2,
    )
    return gf.Problem(data, gf.SquareLoss())


CASES = ((digits(200), 64, 1.0), (clouds(1_000), 256, 0.02))


@jax.jit
def bare(problem: gf.Problem, network: gf.Dense, count: int) -> gf.Dense:
    """So many gradients, each at another point."""

    def step(_, network: gf.Dense) -> gf.Dense:
        gradient = problem.gradient(network)
        return network.with_weights(
            jax.tree.map(lambda w, g: w - 1e-6 * g, network.weights, gradient)
        )

    return jax.lax.fori_loop(0, count, step, network)


def main(out: Path) -> None:
    columns = ["samples", "width", "T", "steps", "gradients", "of these by JVPs"]
    times = ["bare, µs", "smoothed, µs", "solve, µs"]
    ratios = ["solve / bare", "solve / smoothed"]
    table = Table("Overhead", [*columns, *times, *ratios])
    for problem, width, t1 in CASES:
        network = dense(0, (width, width))
        smoothed = network.with_activation(gf.ReLU(3 * RTOL))

        def solve(problem=problem, network=network, t1=t1) -> gf.Trajectory:
            return gf.solve(
                problem, FLOW, network, t1, ts=jnp.asarray([t1]), observe={}, rtol=RTOL
            )

        stats = solve().stats
        count = int(stats["num_gradients"])
        runs = {
            "bare": lambda p=problem, n=network, c=count: bare(p, n, c),
            "smoothed": lambda p=problem, n=smoothed, c=count: bare(p, n, c),
            "solve": solve,
        }
        for run in runs.values():
            jax.block_until_ready(run())
        # In turn, so that whatever else the machine does falls on all.
        rounds = [
            {name: clocked(run)[1] / count for name, run in runs.items()}
            for _ in range(REPEATS)
        ]
        table.add(
            problem.dataset.num_samples,
            width,
            t1,
            int(stats["num_steps"]),
            count,
            2 * int(stats["num_jvps"]),
            *(1e6 * statistics.median(r[name] for r in rounds) for name in runs),
            statistics.median(r["solve"] / r["bare"] for r in rounds),
            statistics.median(r["solve"] / r["smoothed"] for r in rounds),
        )
    table.write(out, "overhead")


if __name__ == "__main__":
    main(out_directory(__doc__))
