"""What does observing the default set cost?

Whole solves with 200 save points, with the default observables and with none, in turn;
the median of the ratios of their run times. Lagrange flow with λ = 0.1 of 65-w-w-1
networks from ρ = 0.1 on digits, at rtol 1e-3. The observables of one point cost about
as much as `per point` gradients, so what they cost of a run depends on its length.

Measured (seed 0, two CPU cores, noisy): 2 to 5 gradients a point, most of it for
`stationarity`, which takes three pullbacks. That is 28 % of a run of 2,175 gradients
and 10 % of one of 9,605.
"""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
from common import Table, clocked, dense, digits, out_directory

import gradflow as gf

FLOW = gf.LagrangeFlow(0.1)
SAVES = 200
REPEATS = 5
# Samples, width, final time.
CASES = ((20, 32, 10.0), (20, 32, 100.0), (200, 64, 1.0), (200, 64, 10.0))


def main(out: Path) -> None:
    table = Table(
        "Observing",
        [
            "samples",
            "width",
            "T",
            "gradients",
            "without, s",
            "with, s",
            "cost, %",
            "per point, gradients",
        ],
    )
    for num_samples, width, t1 in CASES:
        problem, network = digits(num_samples), dense(0, (width, width))
        ts = jnp.linspace(0.0, t1, SAVES)

        def solve(observe, problem=problem, network=network, t1=t1, ts=ts):
            return gf.solve(
                problem, FLOW, network, t1, ts=ts, rtol=1e-3, observe=observe
            )

        runs = {"without": {}, "with": None}
        for observe in runs.values():
            jax.block_until_ready(solve(observe))
        rounds = []
        for _ in range(REPEATS):
            results = {name: clocked(lambda o=o: solve(o)) for name, o in runs.items()}
            rounds.append({name: seconds for name, (_, seconds) in results.items()})
        count = int(results["with"][0].stats["num_gradients"])
        seconds = {name: statistics.median(r[name] for r in rounds) for name in runs}
        cost = statistics.median(r["with"] / r["without"] - 1 for r in rounds)
        table.add(
            num_samples,
            width,
            t1,
            count,
            seconds["without"],
            seconds["with"],
            100 * cost,
            cost * count / SAVES,
        )
    table.write(out, "observing")


if __name__ == "__main__":
    main(out_directory(__doc__))
