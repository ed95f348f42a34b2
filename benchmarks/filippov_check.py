"""Is the Filippov reference right, for every flow and loss?

Three checks of `filippov.py` on small problems in which units slide:

- "field": its field against gradflow's of the exact ReLU network, at the start: the
  relative difference of the rates of change of the weights;
- "rtol": the relative distance of its weights at rtol 1e-7 from those at 1e-9;
- "order": at which Euler's method with gradflow's field, projected on the spheres after
  each step, approaches it. That method chatters along kinks with an amplitude of O(h):
  the order should be 1. "Euler" is its distance at the smallest of the steps.

Measured, in 2 minutes: the fields agree to 2e-15; the reference at rtol 1e-7 is within
8e-7 of itself at 1e-9; the orders lie between 0.94 and 1.09, but for one of 0.80, whose
distances scatter.
"""

from pathlib import Path
from typing import Any

import filippov
import jax
import numpy as np
from common import Table, out_directory, relative_distance
from jax.flatten_util import ravel_pytree
from small_problems import FLOWS, LOSSES, Case

import gradflow as gf

SEEDS = (0, 1)
T1 = 2.0
COUNTS = tuple(1000 * 2**k for k in range(8))


def flat(weights: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(list(weights))[0])


@jax.jit
def euler(flow: Any, problem: gf.Problem, network: gf.Dense, count: int) -> Any:
    """The weights after `count` steps to T1."""

    def advance(_, state):
        velocity = flow.vector_field(0.0, state, problem, network)
        moved = jax.tree.map(lambda y, v: y + T1 / count * v, state, velocity)
        return flow.project(moved)

    return flow.weights(jax.lax.fori_loop(0, count, advance, flow.init(network)))


def field_difference(case: Case) -> float:
    flow, network = case.flow, case.network
    state = flow.init(network)
    velocity = flow.vector_field(0.0, state, case.problem, network)
    _, rates = jax.jvp(flow.weights, (state,), (velocity,))

    twin = FLOWS[case.flow_name][1]
    polar = twin.start([np.asarray(w) for w in network.weights])
    data = case.problem.dataset
    modes = filippov.Modes(
        twin,
        LOSSES[case.loss_name][1],
        polar,
        np.asarray(data.inputs),
        np.asarray(data.labels),
        case.weight_decay,
        slack=0.0,
    )
    norms_dot, dots = modes.unpack(modes.evaluate(modes.pack(*polar)).velocity)
    norms, directions = polar
    moved, turned = twin.weights(norms_dot, directions), twin.weights(norms, dots)
    if not twin.all_norms:
        # Of the last layer alone the norm changes.
        moved = [*(0.0 * w for w in moved[:-1]), moved[-1]]
    return relative_distance(flat(rates), flat(moved) + flat(turned))


def main(out: Path) -> None:
    columns = ["flow", "loss", "seed", "sliding", "field", "rtol", "Euler", "order"]
    table = Table("Filippov reference", columns)
    for flow_name in FLOWS:
        for loss_name in LOSSES:
            for seed in SEEDS:
                case = Case(flow_name, loss_name, seed)
                exact, sliding = case.reference(T1, 1e-9)
                loose, _ = case.reference(T1, 1e-7)
                errors = [
                    relative_distance(
                        flat(euler(case.flow, case.problem, case.network, count)),
                        flat(exact),
                    )
                    for count in COUNTS
                ]
                order = -np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]
                table.add(
                    flow_name,
                    loss_name,
                    seed,
                    sum(sliding),
                    field_difference(case),
                    relative_distance(flat(loose), flat(exact)),
                    errors[-1],
                    float(order),
                )
    table.write(out, "filippov_check")


if __name__ == "__main__":
    main(out_directory(__doc__))
