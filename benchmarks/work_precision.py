"""What does an accuracy cost, with gradflow and with other integrators?

The Lagrange flow with λ = 0.1 of 65-32-32-1 networks on 20 digits, from ρ = 0.1, to
T = 4 (or `--time`): medians over seeds 0, 2 and 5 of the relative distance of (ρ, V_k)
from Filippov's solution (`filippov.py`), against gradients and against seconds, without
compilation. gradflow with its defaults at rtol 1e-2 to 1e-5; plain diffrax with a PID
controller and a projection after every step, atol = rtol / 1000, at the same
tolerances, on the exact network's field and on that smoothed with ε = 3 rtol, as
gradflow smooths it; gradient descent, which is Euler's method, at 0.95 of its largest
stable step, two over the largest sharpness up to T (of the exact network between its
kinks), and Euler's method on the exact field with smaller ones; torchdiffeq's dopri5 on
the exact field, where it is installed. A run is given up at 200,000 gradients, one of
torchdiffeq's at 50,000; a point is drawn where all seeds arrived.

LSODA, BDF and Kvaerno5 get one try, on the smoothed field at rtol 1e-3 (seed 0), and
are given up after 30 s or 10 steps: their linear algebra is dense, with 3,137 unknowns.

Measured (two CPU cores, both busy): gradflow comes to 8.4e-3, 5.8e-4, 9.1e-5 and 1.1e-5
with 555, 1,516, 6,844 and 37,529 gradients, and nothing else came to 1.1e-5. Closest
are Euler's fixed steps, with 1.4e-3, 2.5e-4 and 6.9e-5 for 1,334, 4,000 and 13,334: at
times as short as this they take 1.2 to 1.5 times as many for the same error, between
gradflow's points, and far more at later times (`sliding.py`). Methods with error
control cost more: 4.1e-4 takes Heun 13,336, 7.0e-4 takes Tsit5 37,459 and 7.6e-4 takes
Dopri8 128,324 on the exact field; on the smoothed one 1.1e-4 takes Heun 20,860, 1.2e-4
takes Dopri8 60,932 and 5.9e-4 takes Tsit5 25,867. torchdiffeq's dopri5 takes 17,984 for
5.6e-3. Descent at its largest stable step ends 0.78 off on the exact field, and 3.8e-3
off on the smoothed one, after 6,171. LSODA comes to t = 1.9 in 30 s, BDF to 1.2, and
ten steps of Kvaerno5 take 19 s, with compilation, to t = 0.03.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffrax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import Table, clocked, polar_vector, relative_distance, timed_to
from exact_flow import FLOW, PROBLEM, WEIGHT_DECAY, reference_vectors, start
from rival_torch import IS_INSTALLED, MISSING, with_torchdiffeq
from rivals import Outcome, with_diffrax, with_scipy
from scipy.integrate import BDF, LSODA

import gradflow as gf
from gradflow._network import regularise

SEEDS = (0, 2, 5)
T1 = 4.0
RTOLS = (1e-2, 1e-3, 1e-4, 1e-5)
MAX_GRADIENTS = 200_000
MAX_TORCH_GRADIENTS = 50_000
STEPS = (1e-2, 3e-3, 1e-3, 3e-4)
# The solver, evaluations of the field in a step, and on which fields.
SOLVERS = (
    (diffrax.Heun(), 2),
    (diffrax.Tsit5(), 6),
    (diffrax.Dopri8(), 13),
)
FRACTION = 0.95
MAX_SECONDS = 30.0
IMPLICIT_STEPS = 10


@dataclass
class Run:
    """What a method did from one start."""

    error: float
    gradients: int
    seconds: float
    result: str


@dataclass
class Medians:
    """Over the starts; `arrived` of them came to the end."""

    error: float
    gradients: float
    seconds: float
    arrived: int

    @classmethod
    def of(cls, method: Callable[[int], Run]) -> "Medians":
        runs = [method(seed) for seed in SEEDS]
        return cls(
            statistics.median(run.error for run in runs),
            statistics.median(run.gradients for run in runs),
            statistics.median(run.seconds for run in runs),
            sum(run.result == "success" for run in runs),
        )


class SharpnessWithoutKinks(gf.AbstractObservable):
    """The sharpness of the exact network, wherever its kinks are not."""

    def __call__(self, point: gf.Point):
        exact = point.network.with_activation(gf.ReLU())
        point = gf.Point(point.problem, point.flow, point.t, point.state, exact)
        return gf.Sharpness()(point)


class Methods:
    """All methods, to the time `t1`."""

    def __init__(self, t1: float):
        self.t1 = t1

    def _judge(self, seed: int, run: Callable[[float], Outcome]) -> Run:
        outcome, seconds = timed_to(run, self.t1)
        (exact,) = reference_vectors(seed, (self.t1,))
        error = relative_distance(outcome.vector, exact)
        return Run(error, outcome.gradients, seconds, outcome.result)

    def gradflow(self, seed: int, rtol: float) -> Run:
        def run(t1: float) -> Outcome:
            ts = jnp.asarray([t1])
            trajectory = gf.solve(
                PROBLEM, FLOW, start(seed), t1, ts=ts, rtol=rtol, observe={}
            )
            vector = polar_vector(trajectory.final)
            gradients = int(trajectory.stats["num_gradients"])
            return Outcome(vector, t1, gradients, "success")

        return self._judge(seed, run)

    def diffrax(self, seed: int, width: float, solver, **options) -> Run:
        network, _ = regularise(start(seed), width, default=0.0)

        def run(t1: float) -> Outcome:
            return with_diffrax(PROBLEM, FLOW, network, t1, solver, **options)

        return self._judge(seed, run)

    def torchdiffeq(self, seed: int, rtol: float) -> Run:
        data = PROBLEM.dataset
        weights = [np.asarray(w) for w in start(seed).weights]

        def run(t1: float) -> Outcome:
            vector, gradients, result = with_torchdiffeq(
                weights,
                np.asarray(data.inputs),
                np.asarray(data.labels),
                WEIGHT_DECAY,
                t1,
                rtol=rtol,
                atol=1e-3 * rtol,
                max_steps=MAX_TORCH_GRADIENTS // 6,
            )
            return Outcome(vector, t1, gradients, result)

        return self._judge(seed, run)

    def scipy(self, seed: int, rtol: float, method) -> tuple[Outcome, float]:
        network, _ = regularise(start(seed), 3 * rtol, default=0.0)
        options = {"rtol": rtol, "atol": 1e-3 * rtol, "max_seconds": MAX_SECONDS}
        return clocked(
            lambda: with_scipy(PROBLEM, FLOW, network, self.t1, method, **options)
        )

    def kvaerno5(self, seed: int, rtol: float) -> tuple[Outcome, float]:
        network, _ = regularise(start(seed), 3 * rtol, default=0.0)
        options = {"rtol": rtol, "atol": 1e-3 * rtol, "max_steps": IMPLICIT_STEPS}
        solver = diffrax.Kvaerno5()
        return clocked(
            lambda: with_diffrax(PROBLEM, FLOW, network, self.t1, solver, **options)
        )

    def largest_steps(self, seed: int, rtol: float) -> dict[str, float]:
        """Those at which descent is stable all the way, for the two fields."""
        trajectory = gf.solve(
            PROBLEM,
            FLOW,
            start(seed),
            self.t1,
            ts=jnp.linspace(0, self.t1, 21),
            rtol=rtol,
            observe={"smoothed": gf.Sharpness(), "exact": SharpnessWithoutKinks()},
        )
        sharpness = trajectory.observables
        return {name: 2 / float(jnp.max(s)) for name, s in sharpness.items()}


def main(out: Path, t1: float = T1) -> None:
    methods = Methods(t1)
    table = Table(
        f"Work and precision, T = {t1:g}",
        ["method", "field", "rtol or h", "error", "gradients", "run s", "arrived"],
    )
    curves: dict[tuple[str, str], list[Medians]] = {}

    def add(method: str, field: str, rtol, medians: Medians) -> None:
        arrived = f"{medians.arrived} of {len(SEEDS)}"
        error = medians.error if medians.arrived == len(SEEDS) else "–"
        gradients = int(medians.gradients)
        table.add(method, field, rtol, error, gradients, medians.seconds, arrived)
        if medians.arrived == len(SEEDS):
            curves.setdefault((method, field), []).append(medians)

    for rtol in RTOLS:
        medians = Medians.of(lambda seed, rtol=rtol: methods.gradflow(seed, rtol))
        add("gradflow", "smoothed", rtol, medians)

    largest = {seed: methods.largest_steps(seed, 1e-3) for seed in SEEDS}
    for name, width in (("exact", 0.0), ("smoothed", 3e-3)):

        def descend(seed: int, name=name, width=width) -> Run:
            step = FRACTION * largest[seed][name]
            return methods.diffrax(seed, width, diffrax.Euler(), step=step)

        add("descent", name, "–", Medians.of(descend))

    for h in STEPS:
        medians = Medians.of(
            lambda seed, h=h: methods.diffrax(seed, 0.0, diffrax.Euler(), step=h)
        )
        add("Euler", "exact", h, medians)

    for solver, stages in SOLVERS:
        for field in ("exact", "smoothed"):
            for rtol in RTOLS:

                def rival(seed, solver=solver, stages=stages, field=field, rtol=rtol):
                    return methods.diffrax(
                        seed,
                        3 * rtol if field == "smoothed" else 0.0,
                        solver,
                        rtol=rtol,
                        atol=1e-3 * rtol,
                        max_steps=MAX_GRADIENTS // stages,
                    )

                add(type(solver).__name__, field, rtol, Medians.of(rival))

    if IS_INSTALLED:
        for rtol in RTOLS:
            medians = Medians.of(
                lambda seed, rtol=rtol: methods.torchdiffeq(seed, rtol)
            )
            add("torchdiffeq dopri5", "exact", rtol, medians)
    else:
        print(MISSING)

    tries = {
        "LSODA": lambda: methods.scipy(SEEDS[0], 1e-3, LSODA),
        "BDF": lambda: methods.scipy(SEEDS[0], 1e-3, BDF),
        "Kvaerno5": lambda: methods.kvaerno5(SEEDS[0], 1e-3),
    }
    for name, attempt in tries.items():
        outcome, seconds = attempt()
        error, end = "–", f"{outcome.result} at t = {outcome.t:.2g}"
        if outcome.result == "success":
            (exact,) = reference_vectors(SEEDS[0], (t1,))
            error, end = relative_distance(outcome.vector, exact), "1 of 1"
        table.add(name, "smoothed", 1e-3, error, outcome.gradients, seconds, end)
    table.write(out, "work_precision")
    draw(curves, t1, out / "work_precision.png")


COLOURS = {
    "gradflow": "black",
    "descent": "tab:red",
    "Euler": "tab:pink",
    "Heun": "tab:orange",
    "Tsit5": "tab:blue",
    "Dopri8": "tab:green",
    "torchdiffeq dopri5": "tab:purple",
}


def draw(curves: dict[tuple[str, str], list[Medians]], t1: float, path: Path) -> None:
    figure, axes = plt.subplots(
        1, 2, sharey=True, figsize=(10, 4.5), layout="constrained"
    )
    for (method, field), points in curves.items():
        style = {
            "color": COLOURS[method],
            "marker": "o" if field == "exact" else "s",
            "linestyle": "-" if method == "gradflow" or field == "exact" else "--",
            "markersize": 8 if method == "descent" else 5,
            "label": method if method == "gradflow" else f"{method}, {field}",
        }
        errors = [point.error for point in points]
        axes[0].loglog([point.gradients for point in points], errors, **style)
        axes[1].loglog([point.seconds for point in points], errors, **style)
    axes[0].set(
        xlabel="gradients", ylabel=f"distance from Filippov's solution at $t = {t1:g}$"
    )
    axes[1].set(xlabel="seconds, compilation left out")
    for axis in axes:
        axis.grid(which="major", linewidth=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--time", type=float, default=T1)
    arguments = parser.parse_args()
    main(arguments.out, arguments.time)
