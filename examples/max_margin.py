"""The flow of an exponential loss, followed until the margin has settled.

The loss of separable data has no minimum: the weights grow for ever, like the logarithm
of time, and their direction tends to one of largest margin. On a clock of its own the
flow gets there, where gradient descent with as many gradients has hardly begun.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

NETWORKS = {"two layers": (65, 16, 1), "three layers": (65, 16, 16, 1)}


def smallest_margin(problem, network):
    return jnp.min(problem.margins(network))


def kkt(problem, network):
    return gf.analysis.kkt_residual(problem, network, rtol=1e-2)


def main(
    out: Path = Path("."),
    per_class: int = 30,
    end: float = 1e5,
    networks: dict = NETWORKS,
) -> dict:
    """Prints a table for each network, and writes a figure to `out`.

    `end` is the logarithm of the time to which the flow is followed.
    """
    jax.config.update("jax_enable_x64", True)
    problem = gf.Problem(
        gf.datasets.digits((3, 8), per_class=per_class), gf.ExponentialLoss()
    )
    figure, axes = plt.subplots(
        1,
        len(networks),
        figsize=(10, 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    flows = {}
    for (name, widths), ax in zip(networks.items(), axes[0], strict=True):
        network = gf.Dense(widths, key=jax.random.key(0), norm=1.0)
        flow = gf.solve(
            problem,
            gf.LogTime(gf.GradientFlow()),
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
            flow[0],
            int(flow.stats["num_gradients"]),
            observe={"margin": smallest_margin},
        )
        flows[name] = flow
        print(f"{name}, {int(flow.stats['num_gradients']):,} gradients")
        print("    log t      log10 L     margin   smoothed    KKT")
        observed = flow.observables
        for i in range(0, 61, 10):
            print(
                f"{flow.log_ts[i]:9.3g} {observed['log10_loss'][i]:12.5g}"
                f" {observed['margin'][i]:10.6f} {observed['smoothed_margin'][i]:10.6f}"
                f" {jnp.max(observed['kkt'].stationarity[i]):8.1e}"
            )
        print(f"gradient descent: margin {descent.observables['margin'][-1]:.6f}")
        ax.plot(flow.log_ts, observed["margin"], label="flow: smallest margin")
        ax.plot(flow.log_ts, observed["smoothed_margin"], "--", label="flow: smoothed")
        ax.plot(
            np.logaddexp(flow.log_ts[0], descent.log_ts[1:]),
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
