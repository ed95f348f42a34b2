"""Neural collapse without weight decay, at very late times.

The cross-entropy of separable classes has no minimum: the directions of the weights
tend to a point of largest margin, as slowly as the logarithm of time grows. A clock of
its own takes the flow to log t = 100,000, on digits as they are and whitened, that is
with orthonormal inputs, through one hidden layer and through three. Beside it are the
rests of the flow with less and less weight decay, whose directions tend to a point of
largest margin, too, from the same start.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

CLASSES = (0, 1, 2, 3)
PER_CLASS = 15
NETWORKS = {"two layers": (65, 48, 4), "four layers": (65, 48, 48, 48, 4)}
END = 1e5
DECAYS = (1e-1, 1e-3, 1e-5)
SAVES = 25
MEASURES = ("spread", "KKT", "nc1", "nc2_simplex", "nc3")


def main(
    out: Path = Path("."),
    end: float = END,
    networks: Mapping[str, tuple[int, ...]] = NETWORKS,
    decays: tuple[float, ...] = DECAYS,
):
    """Follows the flows, prints a table for each, and writes a figure to `out`.

    `end` is the logarithm of the time to which those without weight decay are followed.
    """
    jax.config.update("jax_enable_x64", True)
    images = gf.datasets.digits(CLASSES, signs=False, per_class=PER_CLASS)
    whitened = gf.Dataset(gf.datasets.whiten(images.inputs), images.labels)
    datasets = {"as they are": images, "whitened": whitened}
    flows, rests = {}, {}
    for name, widths in networks.items():
        network = gf.Dense(widths, key=jax.random.key(0))
        for data, dataset in datasets.items():
            problem = gf.Problem(dataset, gf.CrossEntropyLoss())
            flows[name, data] = follow(problem, network, 0.0, end)
            rests[name, data] = {
                decay: follow(problem, network, decay, np.log1p(30 / decay), rtol=1e-4)
                for decay in decays
            }
            _print(f"{name}, images {data}", flows[name, data], rests[name, data])
        print(f"{name}, margin of the collapse: {collapsed_margin(widths):.6f}\n")

    out.mkdir(parents=True, exist_ok=True)
    figure = _draw(flows, {name: collapsed_margin(w) for name, w in networks.items()})
    figure.savefig(out / "collapse_at_late_times.png", dpi=150)
    return flows, rests


def collapsed_margin(widths):
    """The margin of a collapsed network on orthonormal inputs.

    The units of the first layer see the sum of the inputs of a class, all layers but
    the last keep the classes orthogonal, and the last is a simplex.
    """
    count, hidden = len(CLASSES), len(widths) - 2
    return 1 / np.sqrt(PER_CLASS * float(count) ** hidden * (count - 1))


def follow(problem, network, weight_decay, end, rtol=1e-3):
    """The flow on the clock of the logarithm of time."""
    return gf.solve(
        problem,
        gf.LogTime(gf.GradientFlow(weight_decay)),
        network,
        end,
        ts=np.geomspace(1.0, end, SAVES),
        rtol=rtol,
        observe={
            "log10_loss": log10_loss,
            "margins": gf.Problem.margins,
            "smoothed_margin": gf.analysis.smoothed_margin,
            "spread": gf.analysis.equal_margin_defect,
            "KKT": kkt,
            "collapse": gf.analysis.neural_collapse,
        },
        save_networks=False,
    )


def log10_loss(problem, network):
    return problem.log_value(network) / jnp.log(10)


def kkt(problem, network):
    residual = gf.analysis.kkt_residual(problem, network, rtol=1e-2)
    return jnp.max(residual.stationarity)


def measure(run, name):
    """One of `MEASURES` along a run, of the last hidden layer where there are more."""
    if name in run.observables:
        return np.asarray(run.observables[name])
    values = np.asarray(getattr(run.observables["collapse"], name))
    return values if values.ndim == 1 else values[:, -1]


def _print(title, flow, rests):
    print(f"{title}, {int(flow.stats['num_gradients']):,} gradients")
    print(
        f"{'log t':>11}{'log10 L':>12}{'margin':>10}{'smoothed':>10}"
        + "".join(f"{name:>12}" for name in MEASURES)
    )
    for row in range(0, SAVES, 4):
        print(_row(f"{flow.log_ts[row]:.3g}", flow, row))
    for decay, run in rests.items():
        print(_row(f"λ = {decay:g}", run, -1))
    print()


def _row(label, run, row):
    observed = run.observables
    return (
        f"{label:>11}{observed['log10_loss'][row]:12.4g}"
        f"{np.min(observed['margins'][row]):10.6f}"
        f"{observed['smoothed_margin'][row]:10.6f}"
        + "".join(f"{measure(run, name)[row]:12.1e}" for name in MEASURES)
    )


def _draw(flows, collapsed_margins):
    names = list(collapsed_margins)
    figure, grid = plt.subplots(
        len(names),
        3,
        figsize=(13, 3.6 * len(names)),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for name, (*of_data, margins) in zip(names, grid, strict=True):
        runs = {data: run for (other, data), run in flows.items() if other == name}
        for n, (axes, (data, run)) in enumerate(
            zip(of_data, runs.items(), strict=True)
        ):
            for of in MEASURES:
                axes.loglog(run.log_ts, measure(run, of), label=of)
            axes.set(title=f"{name}, images {data}", ylim=(1e-6, 2))
            smallest = np.min(run.observables["margins"], axis=1)
            smoothed = run.observables["smoothed_margin"]
            margins.semilogx(run.log_ts, smallest, f"C{n}", label=data)
            margins.semilogx(run.log_ts, smoothed, f"C{n}:", label=f"{data}, smoothed")
        margins.axhline(
            collapsed_margins[name], color="gray", ls="--", label="collapsed, whitened"
        )
        margins.set(title=f"{name}, smallest margin", ylim=(0, None))
    grid[0, 0].legend(loc="lower left", ncols=2)
    grid[0, 2].legend(loc="lower right")
    for axes in grid[-1]:
        axes.set_xlabel("log t")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Collapse without weight decay.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
