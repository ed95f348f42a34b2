"""What does a solve cost as the problem grows?

Gradients, seconds and seconds of compilation of `gf.solve` with its defaults, as one
thing at a time changes about a base case: Lagrange flow with λ = 0.1 of a 65-64-64-1
network (seed 0) on 200 digits, from ρ = 0.1, to T = 1 at rtol 1e-3. λ, ε and rtol do
not compile again.

Measured (two CPU cores): gradients grow with the sharpness that comes with the samples,
from 410 for 20 to 2,175 for 200; not with the width (2,136 for 16, 2,063 for 256) nor
with a smaller λ. To a third of ε belong 1.4 to 1.7 times as many, to a tenth of rtol
1.8, 1.9 and, from 1e-4 to 1e-5, 3.2 times. 2 layers take 1,673 and 3 take 2,175; 4 and
6 layers have not left the saddle at the origin by T = 1, and say nothing (262 and 48).
A gradient takes 77 µs for width 16, 0.35 ms for 64, 2.6 ms for 256; compilation 3 to 8
s.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
from common import Table, dense, digits, out_directory, timed
from matplotlib.ticker import NullLocator

import gradflow as gf

BASE = {"samples": 200, "width": 64, "depth": 3, "λ": 0.1, "ε": 3e-3, "rtol": 1e-3}
T1 = 1.0
VALUES = {
    "samples": (20, 50, 100, 200, 280),
    "width": (16, 32, 64, 128, 256),
    "depth": (2, 3, 4, 6),
    "λ": (1e-3, 1e-2, 1e-1, 1.0),
    "ε": (1e-2, 3e-3, 1e-3, 3e-4),
    "rtol": (1e-2, 1e-3, 1e-4, 1e-5),
}
COMPILED = ("samples", "width", "depth")


@dataclass
class Cost:
    """Of one solve."""

    gradients: int
    steps: int
    sharpness: float
    seconds: float
    compiling: float


@cache
def cost(
    samples: int,
    width: int,
    depth: int,
    weight_decay: float,
    smoothing: float,
    rtol: float,
) -> Cost:
    problem = digits(samples)
    network = dense(0, (width,) * (depth - 1))

    def solve() -> gf.Trajectory:
        return gf.solve(
            problem,
            gf.LagrangeFlow(weight_decay),
            network,
            T1,
            ts=jnp.asarray([T1]),
            rtol=rtol,
            smoothing=smoothing,
            observe={},
        )

    trajectory, compiling, seconds = timed(solve)
    return Cost(
        int(trajectory.stats["num_gradients"]),
        int(trajectory.stats["num_steps"]),
        float(trajectory.stats["spectral_radius"]),
        seconds,
        compiling,
    )


def main(out: Path) -> None:
    columns = ["what", "value", "gradients", "steps", "sharpness at the end"]
    table = Table("Scaling", [*columns, "run s", "µs / gradient", "compile s"])
    costs: dict[str, list[Cost]] = {}
    for name, values in VALUES.items():
        for value in values:
            c = cost(*(BASE | {name: value}).values())
            each = 1e6 * c.seconds / c.gradients
            numbers = (c.gradients, c.steps, c.sharpness, c.seconds, each)
            compiling = c.compiling if name in COMPILED else "–"
            table.add(name, value, *numbers, compiling)
            costs.setdefault(name, []).append(c)
    table.write(out, "scaling")
    draw(costs, out / "scaling.png")


def draw(costs: dict[str, list[Cost]], path: Path) -> None:
    figure, grid = plt.subplots(
        2, 3, figsize=(10, 5.5), sharey=True, layout="constrained"
    )
    lines, compiled, right = [], [], None
    for axis, (name, values) in zip(grid.flat, VALUES.items(), strict=True):
        seconds = axis.twinx()
        # All panels have one axis of seconds too.
        if right is not None:
            seconds.sharey(right)
        right = right or seconds
        gradients = [c.gradients for c in costs[name]]
        running = [c.seconds for c in costs[name]]
        compiling = [c.compiling for c in costs[name]]
        lines = axis.loglog(values, gradients, "o-k", label="gradients")
        lines += seconds.loglog(values, running, "s--", c="tab:blue", label="run s")
        if name in COMPILED:
            style = {"color": "tab:orange", "label": "compile s"}
            compiled = seconds.loglog(values, compiling, "^:", **style)
        axis.set_xlabel(name)
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.xaxis.set_minor_locator(NullLocator())
        is_last = axis in grid[:, -1]
        seconds.tick_params(labelright=is_last, which="both")
        if is_last:
            seconds.set_ylabel("seconds")
    for axis in grid[:, 0]:
        axis.set_ylabel("gradients")
    handles = [*lines, *compiled]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(out_directory(__doc__))
