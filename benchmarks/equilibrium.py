"""How many gradients does an equilibrium take, against gradient descent?

It depends on what counts as one. Lagrange flow with λ = 1 of a 65-64-64-1 network (seed
0) on 200 digits, from ρ = 0.1, to a stationarity (`gf.Stationarity`) of 1e-5, and until
the speed of the flow, the norm of its tangent gradient, has fallen to 1e-2, 1e-3 and
1e-4 of that at the start; with `--long` (rtol 1e-3 only) to 6e-5, 3e-5 and 1e-5 too.

Gradient descent is Euler's method for the same flow on the same smoothed network, with
steps of 1, 0.95, 0.9 and 0.8 times the largest that is stable at the equilibrium, two
over the sharpness: the largest need not be the fastest, and the fastest is given. It is
given up after 30 times gradflow's gradients and after 300,000 steps at most, with
`--long` (0.95 only) after 20 times; then "> n" is a measured lower bound. "t / h" is no
measurement but arithmetic, the flow time over 0.95 of the largest step. Down to 1e-4 it
says too much: gradflow's integration errors, times the sharpness, keep its speed up
there, and descent arrives at an earlier time. Below 6e-5 the flow creeps, and descent
with it. Between its steps gradflow's curves are those of the interpolant, which moves
faster than the flow; the dots are at the steps that reached the goals. gradflow's
gradients and descent's leave out those of the stopping condition.

Measured (seed 0, two CPU cores), gradients of gradflow and steps of descent at its
fastest: at rtol 1e-3 (ε = 3e-3) 1,920 and 7,500 to the stationarity, 2,044 and 8,500
to a speed of 1e-2, 2,307 and 16,000 to 1e-3, 3,296 and 20,000 to 1e-4: 3.9 to 6.9 times
as many, and 2.1 to 5.2 times as long. At rtol 1e-4 (ε = 3e-4) 7,567 and 10,500, 7,693
and 12,000, 7,885 and 14,000, 8,505 and 19,000: 1.4 to 2.2 times as many, and 1 to 1.7
times as long. To 6e-5, 3e-5 and 1e-5 gradflow takes 15,766, 187,137 and 302,007, until
t = 1.2e3, 1.1e4 and 2.0e4; descent comes to 6e-5 after 6,100,000 steps, 387 times as
many, at t = 1.1e3, and by then to neither of the others: more than 20 times as many.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Table, clocked, dense, digits
from jax.flatten_util import ravel_pytree

import gradflow as gf

FLOW = gf.LagrangeFlow(1.0)
PROBLEM = digits(200)
NETWORK = dense(0, (64, 64))
RTOLS = (1e-3, 1e-4)
GOALS = (
    ("stationarity", 1e-5),
    ("speed", 1e-2),
    ("speed", 1e-3),
    ("speed", 1e-4),
)
LONG_GOALS = (("speed", 6e-5), ("speed", 3e-5), ("speed", 1e-5))
DRAWN = 0.95


@dataclass(frozen=True)
class Effort:
    """How long, and with which parts of the largest step, descent is followed."""

    fractions: tuple[float, ...]
    multiple: float
    """Of gradflow's gradients."""
    max_steps: int
    chunk: int
    """It is looked at after so many steps."""


SHORT = Effort((1.0, DRAWN, 0.9, 0.8), multiple=30.0, max_steps=300_000, chunk=500)
LONG = Effort((DRAWN,), multiple=20.0, max_steps=10_000_000, chunk=100_000)


class Speed(gf.AbstractObservable):
    """The norm of the flow's velocity, as a part of that at the start."""

    start: jax.Array

    def __call__(self, point: gf.Point):
        return _speed(point.problem, point.flow, point.state, point.network) / (
            self.start
        )


class SlowerThan(gf.AbstractObservable):
    """Stops where the speed has fallen to this part of that at the start."""

    speed: Speed
    level: float

    def __call__(self, point: gf.Point):
        return self.speed(point) <= self.level


@eqx.filter_jit
def _speed(problem, flow, state, network):
    return jnp.linalg.norm(
        ravel_pytree(flow.vector_field(0.0, state, problem, network))[0]
    )


SPEED = Speed(_speed(PROBLEM, FLOW, FLOW.init(NETWORK), NETWORK))
OBSERVE = {"stationarity": gf.Stationarity(), "speed": SPEED}


def condition(measure: str, level: float) -> gf.AbstractObservable:
    return (
        gf.Stationary(level) if measure == "stationarity" else SlowerThan(SPEED, level)
    )


def solve(rtol: float, measure: str, level: float) -> gf.Trajectory:
    ts = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, 1e5, 120)])
    return gf.solve(
        PROBLEM,
        FLOW,
        NETWORK,
        1e5,
        ts=ts,
        rtol=rtol,
        observe=OBSERVE,
        until=condition(measure, level),
        save_networks=False,
    )


@dataclass
class Descent:
    """A course of gradient descent, looked at every so many steps only: a condition in
    `until` would be looked at after each."""

    fraction: float
    step: float
    steps: list[int] = field(default_factory=list)
    values: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def index(self, measure: str, level: float) -> int | None:
        """Where the goal was first seen to be reached."""
        reached = (i for i, v in enumerate(self.values) if v[measure] <= level)
        return next(reached, None)

    def needed(self, measure: str, level: float) -> float:
        i = self.index(measure, level)
        return np.inf if i is None else self.steps[i]


def descend(network: gf.Dense, step: float, steps: int) -> gf.Trajectory:
    return gf.descend(
        PROBLEM,
        step,
        network,
        steps,
        flow=FLOW,
        save_steps=[0, steps],
        observe=OBSERVE,
        save_networks=False,
        throw=False,
    )


def descend_to(
    goals: Sequence[tuple[str, float]],
    network: gf.Dense,
    course: Descent,
    limit: int,
    chunk: int,
) -> Descent:
    """Until all goals are reached, or the limit is."""
    done, spent = 0, 0.0
    while done < limit and any(course.needed(*goal) == np.inf for goal in goals):
        trajectory, seconds = clocked(lambda n=network: descend(n, course.step, chunk))
        network = trajectory.final
        done, spent = done + chunk, spent + seconds
        course.steps.append(done)
        course.seconds.append(spent)
        values = trajectory.observables
        course.values.append({name: float(v[-1]) for name, v in values.items()})
        if trajectory.result != gf.RESULTS.successful:
            break
    return course


@dataclass
class Ours:
    """A run of gradflow's to one goal."""

    trajectory: gf.Trajectory
    seconds: float

    @property
    def gradients(self) -> int:
        return int(self.trajectory.stats["num_gradients"])

    @property
    def t(self) -> float:
        return float(self.trajectory.ts[-1])


def compare(table: Table, rtol: float, goals, effort: Effort):
    """gradflow's runs by goal, the longest of them, and descent's courses."""
    runs, compiling = {}, {}
    for measure, level in goals:
        if measure not in compiling:
            # A condition that is met after one step.
            _, compiling[measure] = clocked(lambda m=measure: solve(rtol, m, 1e300))
        runs[measure, level] = Ours(
            *clocked(lambda m=measure, v=level: solve(rtol, m, v))
        )
    longest = max(runs.values(), key=lambda run: run.t)
    stats = longest.trajectory.stats
    width, largest = float(stats["smoothing"]), 2 / float(stats["spectral_radius"])
    smoothed = NETWORK.with_activation(gf.ReLU(width))
    descend(smoothed, largest, effort.chunk)  # compiles
    most = effort.multiple * max(run.gradients for run in runs.values())
    most = int(min(most, effort.max_steps))
    courses = [
        descend_to(
            goals, smoothed, Descent(fraction, fraction * largest), most, effort.chunk
        )
        for fraction in effort.fractions
    ]
    for goal, run in runs.items():
        best = min(courses, key=lambda course: course.needed(*goal))
        i = best.index(*goal)
        bound, at = ("> ", -1) if i is None else ("", i)
        steps, seconds = best.steps[at], best.seconds[at]
        table.add(
            f"{goal[0]} {goal[1]:g}",
            rtol,
            run.t,
            run.gradients,
            run.seconds,
            "none" if i is None else f"{best.fraction:g}",
            f"{bound}{steps}",
            f"{bound}{seconds:.3g}",
            f"{bound}{steps / run.gradients:.3g}",
            f"{bound}{seconds / run.seconds:.3g}",
            f"{run.t / (DRAWN * largest):.2g}",
        )
    return runs, longest.trajectory, courses


def draw(axes, rtol: float, runs, trajectory: gf.Trajectory, course: Descent) -> None:
    for axis, measure in zip(axes, OBSERVE, strict=True):
        values = trajectory.observables[measure]
        (line,) = axis.loglog(
            trajectory.ts[1:], values[1:], label=f"gradflow, rtol {rtol:g}"
        )
        axis.loglog(
            np.multiply(course.steps, course.step),
            [v[measure] for v in course.values],
            "--",
            color=line.get_color(),
            label=f"descent, ε = {float(trajectory.stats['smoothing']):g}",
        )
        reached = [
            (run.t, level) for (name, level), run in runs.items() if name == measure
        ]
        axis.plot(*zip(*reached, strict=True), "o", color=line.get_color())
        axis.set(xlabel="flow time $t$")


def main(out: Path, long: bool = False) -> None:
    columns = ["goal", "rtol", "time t", "gradients", "run s"]
    theirs = [
        "descent at",
        "steps",
        "their s",
        "steps / gradients",
        "seconds / seconds",
    ]
    table = Table("Equilibrium", [*columns, *theirs, "t / h"])
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for rtol in RTOLS:
        runs, trajectory, courses = compare(table, rtol, GOALS, SHORT)
        drawn = courses[SHORT.fractions.index(DRAWN)]
        draw(axes, rtol, runs, trajectory, drawn)
    if long:
        compare(table, RTOLS[0], LONG_GOALS, LONG)
    table.write(out, "equilibrium")
    axes[0].set(ylabel="stationarity")
    axes[1].set(ylabel="speed / speed at the start")
    for axis, measure in zip(axes, OBSERVE, strict=True):
        for level in (level for name, level in GOALS if name == measure):
            axis.axhline(level, color="gray", linewidth=0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(out / "equilibrium.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--long", action="store_true", help="takes 40 minutes more")
    arguments = parser.parse_args()
    main(arguments.out, arguments.long)
