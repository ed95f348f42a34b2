"""How long does `gf.solve` compile?

Lagrange flow with λ = 0.1 of a 65-64-64-1 network on 200 digits, from ρ = 0.1, rtol
1e-3, to T = 0.1: the first call less the median of three later ones, for the default
without observables and with what can be added to it. Beside it, plain diffrax with
Tsit5, a PID controller and a projection on the same field; and the first call with
another seed, another λ and another rtol, which do not compile again. What `error` runs
is compiled by the default already.

Measured (two CPU cores): 3.9 s by default, against 2.5 s for plain diffrax; 5.4 s with
the default observables, 4.8 s with `until`, 0.5 s more with `error`, 5.5 s under
`vmap`. Other seeds, λ and rtol take as long as any later call, 0.1 to 0.2 s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from common import Table, clocked, dense, digits, out_directory, timed
from rivals import with_diffrax

import gradflow as gf

PROBLEM = digits(200)
T1 = 0.1
REPEATS = 3
SEEDS = 4


def network(seed: int) -> gf.Dense:
    return dense(seed, (64, 64))


def solve(
    start: gf.Dense, weight_decay: float = 0.1, rtol: float = 1e-3, **options
) -> gf.Trajectory:
    flow, ts = gf.LagrangeFlow(weight_decay), jnp.asarray([T1])
    options = {"observe": {}} | options
    return gf.solve(PROBLEM, flow, start, T1, ts=ts, rtol=rtol, **options)


def ensemble() -> gf.Trajectory:
    starts = [network(seed) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    return eqx.filter_vmap(lambda start: solve(start).observables)(stacked)


def plain_diffrax() -> Any:
    solver = diffrax.Tsit5()
    return with_diffrax(PROBLEM, gf.LagrangeFlow(0.1), network(0), T1, solver)


def main(out: Path) -> None:
    table = Table("Compilation", ["what", "compile s", "run s"])
    cases: dict[str, Callable[[], Any]] = {
        "plain diffrax, Tsit5": plain_diffrax,
        "default": lambda: solve(network(0)),
        "with the default observables": lambda: solve(network(0), observe=None),
        "with `until`": lambda: solve(network(0), until=gf.Stationary(1e-9)),
        "with `error`": lambda: solve(network(0), error=True),
        f"vmap over {SEEDS} seeds": ensemble,
    }
    for name, case in cases.items():
        _, compiling, running = timed(case, REPEATS)
        table.add(name, compiling, running)
    again: dict[str, Callable[[], Any]] = {
        "default, another seed": lambda: solve(network(1)),
        "default, another λ": lambda: solve(network(0), weight_decay=0.2),
        "default, another rtol": lambda: solve(network(0), rtol=2e-3),
    }
    for name, case in again.items():
        _, first = clocked(case)
        table.add(f"{name}, first call", "–", first)
    table.write(out, "compile_time")


if __name__ == "__main__":
    main(out_directory(__doc__))
