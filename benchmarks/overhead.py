"""How much time does RKC spend beside the gradients?

A stage of one long step, and the whole of a solve's run time by its number of gradients
(in which a Jacobian-vector product counts as two), against one bare gradient
(`Problem.gradient`, in a compiled loop of as many) of the exact network and of the
smoothed one, which is what is integrated. Lagrange flow with λ = 0.1 of 65-w-w-1
networks from ρ = 0.1, rtol 1e-3, on 200 digits with w = 64, and on 1,000 samples of two
Gaussian clouds with w = 256.

Measured (seed 0, two CPU cores): a stage takes 1.14 and 1.03 times a gradient of the
smoothed network, 1.3 times one of the exact network in both cases; a whole solve 1.43
and 1.31 times as long as its gradients on the smoothed network.
"""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
from common import Table, clocked, dense, digits, out_directory
from jax.flatten_util import ravel_pytree

import gradflow as gf
from gradflow._solver.rkc import second_order
from gradflow._solver.stages import Start, run_stages

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


CASES = ((digits(200), 64, 1.0), (clouds(1_000), 256, 0.1))


@jax.jit
def bare(problem: gf.Problem, network: gf.Dense, count: int) -> gf.Dense:
    """So many gradients, each at another point."""

    def step(_, network: gf.Dense) -> gf.Dense:
        gradient = problem.gradient(network)
        return network.with_weights(
            jax.tree.map(lambda w, g: w - 1e-6 * g, network.weights, gradient)
        )

    return jax.lax.fori_loop(0, count, step, network)


@jax.jit
def stages(problem: gf.Problem, network: gf.Dense, count: int) -> jax.Array:
    """One step of so many stages, without what a step costs once."""
    start, unravel = ravel_pytree(FLOW.init(network))

    def field(fraction, vector):
        del fraction
        state = FLOW.project(unravel(vector))
        return ravel_pytree(FLOW.vector_field(0.0, state, problem, network))[0]

    end, _, _ = run_stages(
        field,
        second_order(count, start.dtype),
        jnp.asarray(1e-6),
        Start(start, start, start, jnp.asarray(True)),
        max_stages=10_000,
        kind="checkpointed",
    )
    return end


def main(out: Path) -> None:
    columns = ["samples", "width", "T", "steps", "gradients", "of these by JVPs"]
    times = ["bare, µs", "smoothed, µs", "stage, µs", "solve, µs"]
    ratios = ["stage / smoothed", "solve / smoothed"]
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
            "stage": lambda p=problem, n=smoothed, c=count: stages(
                p, n, jnp.asarray(c)
            ),
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
            statistics.median(r["stage"] / r["smoothed"] for r in rounds),
            statistics.median(r["solve"] / r["smoothed"] for r in rounds),
        )
    table.write(out, "overhead")


if __name__ == "__main__":
    main(out_directory(__doc__))
