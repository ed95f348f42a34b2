"""What does it cost to write a run to disk while it goes on?

Gradient flow of a 65-64-64-1 network on 200 digits, with 10,000 rows of the default
observables and no networks, in memory and with a `path`: once without checkpoints on
the way, and once with as many as there ever are, where `checkpoint_seconds` is 0. All
are compiled beforehand and run in turn.
"""

import statistics
import tempfile
from pathlib import Path

import jax.numpy as jnp
from common import Table, clocked, dense, digits, out_directory

import gradflow as gf

ROWS = 10_000
REPEATS = 3
KINDS = {"in memory": None, "no checkpoints": 1e9, "checkpoints": 0.0}


def run(problem: gf.Problem, network: gf.Dense, seconds: float | None) -> gf.Trajectory:
    with tempfile.TemporaryDirectory() as folder:
        options = (
            {}
            if seconds is None
            else {"path": Path(folder) / "run", "checkpoint_seconds": seconds}
        )
        return gf.solve(
            problem,
            gf.GradientFlow(),
            network,
            10.0,
            ts=jnp.linspace(0.0, 10.0, ROWS),
            save_networks=False,
            **options,
        )


def main(out: Path) -> None:
    problem, network = digits(200), dense(0, (64, 64))
    for seconds in KINDS.values():
        run(problem, network, seconds)
    rounds = [
        {
            kind: clocked(lambda s=seconds: run(problem, network, s))[1]
            for kind, seconds in KINDS.items()
        }
        for _ in range(REPEATS)
    ]
    table = Table("Runs on disk", ["kind", "seconds", "ratio to in memory"])
    for kind in KINDS:
        table.add(
            kind,
            statistics.median(r[kind] for r in rounds),
            statistics.median(r[kind] / r["in memory"] for r in rounds),
        )
    table.write(out, "recording")


if __name__ == "__main__":
    main(out_directory(__doc__))
