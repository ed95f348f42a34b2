"""A first trajectory: the normalised flow of a ReLU network on real digits.

A network with one hidden layer learns to tell 3 from 8 under the square loss with
weight decay. The scale ρ of the network starts small and grows towards its equilibrium
ρ_eq, which itself moves while the directions of the weights turn; the run stops by
itself where everything has come to rest.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import gradflow as gf


def main(out: Path = Path(".")) -> gf.Trajectory:
    """Integrates the flow, prints what happened, and writes two figures to `out`."""
    jax.config.update("jax_enable_x64", True)
    problem = gf.Problem(gf.datasets.digits((3, 8), per_class=20), gf.SquareLoss())
    network = gf.Dense(
        (65, 16, 1),
        key=jax.random.key(0),
        activation=gf.ReLU(smoothing=1e-2),
        norm=0.3,
    )
    trajectory = gf.solve(
        problem,
        gf.LagrangeFlow(weight_decay=1.0),
        network,
        t1=5.0,
        ts=np.linspace(0, 5, 501),
        rtol=1e-6,
        until=gf.Stationary(1e-4),
    )
    print(trajectory)

    test = gf.Problem(gf.datasets.digits((3, 8), split="test"), gf.SquareLoss())
    accuracy = float(test.accuracy(trajectory.final))
    print(f"accuracy on {test.dataset.num_samples} test images: {accuracy:.3f}")

    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "rho": gf.plot.rho(trajectory),
        "margins": gf.plot.sorted_margins(
            problem, {"start": network, "end": trajectory.final}
        ),
    }
    for name, axes in figures.items():
        axes.figure.savefig(out / f"quickstart_{name}.png", dpi=150)
    return trajectory


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A first trajectory.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figures")
    main(parser.parse_args().out)
