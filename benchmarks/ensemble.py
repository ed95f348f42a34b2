"""What does a member of an ensemble cost, beside a run alone?

Networks 65-32-1 on 20 digits: Lagrange flows of 8 weight decays from 8 seeds to t = 1,
until the smallest margin is above 0.12, which 57 of 64 reach, at times of their own.
rtol 1e-3, 101 rows of the default observables. A run alone is a call of `solve` that
has been compiled; its time is the mean over a quarter of the members, before and after
each ensemble. The seconds of processors tell what the clock would on a machine without
other work: divide their ratio by the cores that are there.

Measured on two cores that were shared with other work (three to six programs at a time
for both of them), in two rounds: with one lane in two threads a member takes 0.75 and
0.83 of the seconds of processors that a run alone takes, so at least 0.37 and 0.42 of
its time where both cores are free; by the clock it was 0.55 and 0.82. With 8 lanes a
member takes 1.3 to 1.5 times as long as alone, with 64 lanes 2.2 times. On CPUs a step
of a small network is arithmetic rather than overhead: a gradient takes 16 µs alone, and
11 to 20 µs for each of 4 to 64 networks in one program. Side by side they then have to
wait for each other, for the most stages and the most Jacobian-vector products of any.
Members differ little in their numbers of steps here, 134 to 271: groups of 16 that wait
for their slowest would make 1.25 times as many steps as are needed, lanes that are
filled again after every 16 steps 1.10 times as many.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import Table, dense, digits, out_directory

import gradflow as gf

DECAYS = np.geomspace(0.01, 1.0, 8)
SEEDS = range(8)
WIDTH = 32
T1 = 1.0
OPTIONS = {"rtol": 1e-3, "until": gf.MarginAbove(0.12)}
LANES_AND_WORKERS = ((1, 1), (1, 2), (8, 1), (8, 2), (64, 1))


def clocks(function: Callable[[], Any]) -> tuple[Any, np.ndarray]:
    """The result, and the seconds that it took: by the clock, and of processors."""
    start = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function())
    return result, np.subtract((time.perf_counter(), time.process_time()), start)


def main(out: Path) -> None:
    problem = digits(20)
    cases = list(itertools.product(DECAYS, SEEDS))
    flows = [gf.LagrangeFlow(float(decay)) for decay, _ in cases]
    networks = [dense(seed, (WIDTH,)) for _, seed in cases]

    def alone() -> list[gf.Trajectory]:
        some = list(zip(flows, networks, strict=True))[::4]
        return [gf.solve(problem, f, n, T1, **OPTIONS) for f, n in some]

    alone()
    columns = ["lanes", "workers", "first call, s", "next, s", "members that stop"]
    ratios = ["member / alone, clock", "member / alone, processors"]
    table = Table("Ensemble of 64", [*columns, *ratios, "alone, s"])
    for lanes, workers in LANES_AND_WORKERS:

        def together(lanes=lanes, workers=workers) -> gf.Ensemble:
            return gf.solve_ensemble(
                problem, flows, networks, T1, lanes=lanes, workers=workers, **OPTIONS
            )

        _, first = clocks(together)
        runs, before = clocks(alone)
        ensemble, seconds = clocks(together)
        _, after = clocks(alone)
        one = (before + after) / (2 * len(runs))
        ratio = seconds / len(ensemble) / one
        stopped = ensemble.results.count("event_occurred")
        table.add(
            lanes, workers, first[0], seconds[0], stopped, ratio[0], ratio[1], one[0]
        )
    table.write(out, "ensemble")


if __name__ == "__main__":
    main(out_directory(__doc__))
