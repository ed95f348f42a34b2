"""The flow of an exponential loss, followed until the margin has settled.

The loss of separable data has no minimum: the weights grow for ever, like the logarithm
of time, and their direction tends to one of largest margin. On a clock of its own the
flow gets there, where gradient descent with as many gradients has hardly begun.

In the gradient flow the directions of the layers slow down as their norms grow. In the
Lagrange flow, which holds them on unit spheres, they do not, and settle.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

RUNS = {
    "two layers": ((65, 16, 1), gf.GradientFlow(), 1e5),
    "three layers": ((65, 16, 16, 1), gf.GradientFlow(), 1e5),
    "three layers, Lagrange flow": (
        (65, 16, 16, 1),
        gf.LagrangeFlow(all_norms=True),
        2.5e4,
    ),
}
"""Widths, flow, and the logarithm of the time to which it is followed."""


def smallest_margin(problem, network):
    return jnp.min(problem.margins(network))


def kkt(problem, network):
    return gf.analysis.kkt_residual(problem, network, rtol=1e-2)


def main(
    out: Path = Path("."),
    per_class: int = 30,
    runs: dict = RUNS,
) -> dict:
    """Prints a table for each run, and writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    problem = gf.Problem(
        gf.datasets.digits((3, 8), per_class=per_class), gf.ExponentialLoss()
    )
    figure, axes = plt.subplots(
        1,
        len(runs),
        figsize=(4.5 * len(runs), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    flows = {}
    for name, ax in zip(runs, axes[0], strict=True):
        widths, flow, end = runs[name]
        network = gf.Dense(widths, key=jax.random.key(0), norm=1.0)
        trajectory = gf.solve(
            problem,
            gf.LogTime(flow),
            network,
            end,
            ts=np.geomspace(1.0, end, 61),
            observe={
                "margin": smallest_margin,
                "smoothed_margin": gf.analysis.smoothed_margin,
                "log10_loss": lambda p, n: p.log_value(n) / np.log(10),
                "kkt": kkt,
            },
        )
        descent = gf.descend(
            problem,
            1e-2,
            trajectory[0],
            int(trajectory.stats["num_gradients"]),
            observe={"margin": smallest_margin},
        )
        flows[name] = trajectory
        print(f"{name}, {int(trajectory.stats['num_gradients']):,} gradients")
        print("    log t      log10 L     margin   smoothed    KKT")
        observed = trajectory.observables
        for i in range(0, 61, 10):
            print(
                f"{trajectory.log_ts[i]:9.3g} {observed['log10_loss'][i]:12.5g}"
                f" {observed['margin'][i]:10.6f} {observed['smoothed_margin'][i]:10.6f}"
                f" {jnp.max(observed['kkt'].stationarity[i]):8.1e}"
            )
        print(f"gradient descent: margin {descent.observables['margin'][-1]:.6f}")
        ax.plot(trajectory.log_ts, observed["margin"], label="flow: smallest margin")
        ax.plot(
            trajectory.log_ts, observed["smoothed_margin"], "--", label="flow: smoothed"
        )
        ax.plot(
            np.logaddexp(trajectory.log_ts[0], descent.log_ts[1:]),
            descent.observables["margin"][1:],
            label="gradient descent, as many gradients",
            linewidth=3,
            alpha=0.6,
        )
        ax.set(xscale="log", xlabel="log t", title=name, ylim=(0, None))
    axes[0, 0].set_ylabel("normalised margin")
    axes[0, 0].legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "max_margin.png", dpi=150)
    return flows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Margins at late times.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
