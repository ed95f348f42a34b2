"""What does a solve cost as the problem grows?

Gradients, seconds and seconds of compilation of `gf.solve` with its defaults, as one
thing at a time changes about a base case: Lagrange flow with λ = 0.1 of a 65-64-64-1
network (seed 0) on 200 digits, from ρ = 0.1, to T = 1 at rtol 1e-3. λ, ε and rtol do
not compile again.

Measured: not yet.
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
from common import Table, clocked, dense, digits, out_directory

import gradflow as gf

BASE = {"samples": 200, "width": 64, "depth": 3, "λ": 0.1, "ε": 3e-3, "rtol": 1e-3}
T1 = 1.0
VALUES = {
    "samples": (20, 60, 200, 340),
    "width": (16, 32, 64, 128, 256),
    "depth": (2, 3, 4, 6),
    "λ": (0.0, 0.01, 0.1, 1.0),
    "ε": (1e-2, 3e-3, 1e-3, 3e-4),
    "rtol": (1e-2, 1e-3, 1e-4, 1e-5),
}


def solve(case: dict, t1: float) -> gf.Trajectory:
    return gf.solve(
        digits(case["samples"]),
        gf.LagrangeFlow(case["λ"]),
        dense(0, (case["width"],) * (case["depth"] - 1)),
        t1,
        ts=jnp.asarray([t1]),
        rtol=case["rtol"],
        smoothing=case["ε"],
        observe={},
    )


def main(out: Path) -> None:
    columns = ["what", "value", "gradients", "steps", "sharpness"]
    table = Table("Scaling", [*columns, "run s", "compile s"])
