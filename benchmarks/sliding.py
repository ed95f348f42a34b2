"""Sliding units: who follows the flow of an exact ReLU network, and at what cost?

Lagrange flow with λ = 0.1 of 65-32-32-1 networks on 20 digits, from ρ = 0.1, to
T = 10, 100 and 1000. The reference is Filippov's solution with sliding units treated
exactly (`filippov.py`), which knows neither gradflow nor JAX. "Error" is the relative
distance of the states (ρ, V_k). Gradients are evaluations of the field; for gradflow
two more for each Jacobian-vector product.

The others (seed 0) get the exact network's field: in the tangent form with a projection
after every step and a floor under the step size; and, as one writes it first, Tsit5 on
the papers' raw form without either. "Written first / ours" and "best / ours" are ratios
of gradients and of run times: Tsit5's as written first by gradflow's, and those of the
cheapest explicit method that is as close as gradflow or closer. Rows "all": the largest
error of seeds 0 to 11, and means.

Measured (seed 0, two CPU cores): gradflow at rtol 1e-3 comes to 6.5e-4 with 2,436
gradients to T = 10, 3,375 to T = 100 and 5,438 to T = 1000. The cheapest as close takes
4.1, 30 and 376 times as many and 2.4, 18 and 272 times as long: Euler with h = 1e-3,
to T = 1000 Heun with a floor of 1e-3. Tsit5 as written first takes 12 and 104 times as
many, 6 and 52 times as long, to T = 10 and 100, for errors of 4.5e-3 and 2.5e-2. At
rtol 3e-4 the error is 2.2e-4 with 6,512 gradients to T = 100. Of the 12 seeds 9 are
within 1e-3 at rtol 1e-3, at all three times, and the worst is 1.7e-2 off; at rtol 3e-4
all are within 4.3e-4, at rtol 1e-4 within 2.2e-4. Takes 20 to 30 minutes, most of them
for the references.
"""

import dataclasses
import statistics
from pathlib import Path

import diffrax
import jax.numpy as jnp
from common import Table, out_directory, polar_vector, relative_distance, timed_to
from exact_flow import FLOW, PROBLEM, WEIGHT_DECAY, reference_vectors, start
from rivals import Outcome, with_diffrax

import gradflow as gf

SEEDS = range(12)
TIMES = (10.0, 100.0, 1000.0)
RTOLS = (1e-3, 3e-4, 1e-4)


@dataclasses.dataclass
class Row:
    """What a method did."""

    method: str
    error: float
    gradients: int
    seconds: float
    result: str


def ours(seed: int, t1: float, rtol: float) -> Row:
    def run(t1: float) -> gf.Trajectory:
        ts = jnp.asarray([t1])
        network = start(seed)
        return gf.solve(
            PROBLEM, FLOW, network, t1, ts=ts, rtol=rtol, observe={}, throw=False
        )

    trajectory, seconds = timed_to(run, t1)
    return Row(
        f"gradflow, rtol {rtol:g}",
        relative_distance(polar_vector(trajectory.final), exact(seed, t1)),
        int(trajectory.stats["num_gradients"]),
        seconds,
        "success" if trajectory.result == gf.RESULTS.successful else "failure",
    )


def rival(name: str, t1: float, *arguments, flow: gf.LagrangeFlow = FLOW, **options):
    seed = SEEDS[0]

    def run(t1: float) -> Outcome:
        return with_diffrax(PROBLEM, flow, start(seed), t1, *arguments, **options)

    outcome, seconds = timed_to(run, t1)
    distance = relative_distance(outcome.vector, exact(seed, t1))
    return Row(name, distance, outcome.gradients, seconds, outcome.result)


def exact(seed: int, t1: float):
    return reference_vectors(seed, TIMES)[TIMES.index(t1)]


def projected_rivals(t1: float) -> list[Row]:
    """Without those that are hopeless."""
    rows = []
    for h in (3e-3, 1e-3, 3e-4) if t1 <= 100 else (3e-3, 1e-3):
        name = f"Euler, h = {h:g}, projected"
        rows.append(rival(name, t1, diffrax.Euler(), step=h))
    solvers = (diffrax.Heun(), diffrax.Tsit5()) if t1 <= 100 else (diffrax.Heun(),)
    for solver in solvers:
        for floor in (3e-3, 1e-3, 3e-4) if t1 <= 100 else (1e-3,):
            name = f"{type(solver).__name__}, step ≥ {floor:g}, projected"
            rows.append(rival(name, t1, solver, floor=floor))
    return rows


def as_written_first(t1: float) -> Row:
    return rival(
        "Tsit5 as written first",
        t1,
        diffrax.Tsit5(),
        flow=gf.LagrangeFlow(WEIGHT_DECAY, raw=True),
        projects=False,
    )


def together(rows: list[Row]) -> Row:
    """The largest error, means of the rest, and how many ended well."""
    successes = sum(row.result == "success" for row in rows)
    return Row(
        rows[0].method,
        max(row.error for row in rows),
        round(statistics.mean(row.gradients for row in rows)),
        statistics.mean(row.seconds for row in rows),
        f"{successes} of {len(rows)}",
    )


def ratio(other: Row | None, row: Row) -> str:
    if other is None:
        return "–"
    times = other.seconds / row.seconds
    return f"{other.gradients / row.gradients:.3g}, {times:.3g}"


def main(out: Path) -> None:
    columns = ["seed", "T", "method", "error", "gradients", "run s", "result"]
    ratios = ["written first / ours", "best", "best / ours"]
    table = Table("Sliding units", [*columns, *ratios])

    def add(seed: int | str, t1: float, row: Row, *more: str) -> None:
        more = more or ("–",) * len(ratios)
        table.add(seed, t1, *dataclasses.astuple(row), *more)

    runs: dict[tuple[float, float], list[Row]] = {}

    def follow(seed: int, t1: float, rtol: float) -> Row:
        row = ours(seed, t1, rtol)
        runs.setdefault((t1, rtol), []).append(row)
        return row

    for t1 in TIMES:
        seed = SEEDS[0]
        rivals = projected_rivals(t1)
        first = as_written_first(t1) if t1 <= 100 else None
        for row in (*rivals, *([first] if first else [])):
            add(seed, t1, row)
        for rtol in RTOLS:
            row = follow(seed, t1, rtol)
            close = [other for other in rivals if other.error <= row.error]
            best = min(close, key=lambda other: other.gradients, default=None)
            name = best.method if best else "none as close"
            add(seed, t1, row, ratio(first, row), name, ratio(best, row))
    for seed in SEEDS[1:]:
        for t1 in TIMES:
            for rtol in RTOLS:
                add(seed, t1, follow(seed, t1, rtol))
    for (t1, _), rows in runs.items():
        add("all", t1, together(rows))
    table.write(out, "sliding")


if __name__ == "__main__":
    main(out_directory(__doc__))
