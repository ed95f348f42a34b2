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
    """Prints a table, writes a figure to `out`, and returns the fitted order."""
    jax.config.update("jax_enable_x64", True)
    problem = gf.Problem(gf.datasets.digits((3, 8), per_class=10), gf.SquareLoss())
    network = gf.Dense(
        (65, 16, 1), key=jax.random.key(0), activation=gf.ReLU(1e-2), norm=1.0
    )
    flow = gf.GradientFlow(weight_decay=0.1)
    ts = np.linspace(0, TIME, SAVES + 1)

    # Nothing is observed here: the networks are all that is compared.
    exact = gf.solve(problem, flow, network, TIME, ts=ts, rtol=1e-8, observe={})
    distances = {}
    for steps in STEPS:
        descent = gf.descend(
            problem,
            TIME / steps,
            network,
            steps,
            flow=flow,
            save_steps=np.arange(0, steps + 1, steps // SAVES),
            observe={},
        )
        distances[TIME / steps] = np.asarray(
            jax.vmap(gf.analysis.relative_distance)(descent.networks, exact.networks)
        )

    sizes = np.array(list(distances))
    final = np.array([along[-1] for along in distances.values()])
    order = float(np.polyfit(np.log(sizes), np.log(final), 1)[0])
    print(f"{'steps':>8}{'step size h':>15}{'distance at t = 1':>20}{'ratio':>9}")
    for n, steps in enumerate(STEPS):
        ratio = f"{final[n - 1] / final[n]:9.3f}" if n > 0 else ""
        print(f"{steps:8}{sizes[n]:15.6g}{final[n]:20.3e}{ratio}")
    print(f"fitted order: {order:.3f}")

    out.mkdir(parents=True, exist_ok=True)
    _draw(ts, distances, sizes, final, order).savefig(
        out / "flow_against_descent.png", dpi=150
    )
    return order


def _draw(ts, distances, sizes, final, order):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.8), layout="constrained", sharey=True
    )
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(distances)))
    for colour, (size, along) in zip(colours, distances.items(), strict=True):
        # Both start from the same network, at distance 0.
        left.semilogy(ts[1:], along[1:], color=colour, label=f"$h$ = 1/{1 / size:.0f}")
    left.set(xlabel="flow time $t$", ylabel="relative distance of the weights")
    left.set_ylim(top=5 * max(distances[sizes[0]]))
    left.legend(ncols=2)
    right.loglog(sizes, final, "o", label=f"measured, fitted order {order:.2f}")
    right.loglog(sizes, final[-1] / sizes[-1] * sizes, "k--", label="order 1")
    right.set_xticks(sizes, [f"1/{1 / size:.0f}" for size in sizes])
    right.set_xticks([], minor=True)
    right.set(xlabel="step size $h$", title=f"at $t$ = {ts[-1]:g}")
    right.legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Gradient descent against the flow.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
