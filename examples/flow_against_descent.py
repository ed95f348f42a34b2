"""Gradient descent approaches the gradient flow, at first order in the step size.

Gradient descent of step h is Euler's method for the flow, and its step n lies at flow
time n h. So the distance of the two trajectories at a fixed time is proportional to h,
as long as h is well below the limit of stability. The flow is integrated with a
tolerance so fine that its own error does not show.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

TIME = 1.0
SAVES = 32
STEPS = (256, 512, 1024, 2048, 4096, 8192)


def main(out: Path = Path(".")) -> float:
    """Prints the comparison, writes a figure to `out`, and returns the fitted order."""
    jax.config.update("jax_enable_x64", True)
    problem = gf.Problem(gf.datasets.digits((3, 8), per_class=10), gf.SquareLoss())
    network = gf.Dense(
        (65, 16, 1), key=jax.random.key(0), activation=gf.ReLU(1e-2), norm=1.0
    )
    comparison = gf.compare(
        problem,
        network,
        TIME,
        TIME / np.array(STEPS),
        flow=gf.GradientFlow(weight_decay=0.1),
        saves=SAVES,
        rtol=1e-8,
    )
    print(comparison)
    out.mkdir(parents=True, exist_ok=True)
    _draw(comparison).savefig(out / "flow_against_descent.png", dpi=150)
    return float(comparison.order)


def _draw(comparison):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.8), layout="constrained", sharey=True
    )
    gf.plot.comparison(comparison, axes=left).legend(ncols=2)
    sizes = np.asarray(comparison.learning_rates)
    final = np.asarray(comparison.final_distances)
    order = float(comparison.order)
    right.loglog(sizes, final, "o", label=f"measured, fitted order {order:.2f}")
    right.loglog(sizes, final[-1] / sizes[-1] * sizes, "k--", label="order 1")
    right.set_xticks(sizes, [f"1/{1 / size:.0f}" for size in sizes])
    right.set_xticks([], minor=True)
    right.set(xlabel="step size $h$", title=f"at $t$ = {TIME:g}")
    right.legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Gradient descent against the flow.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
