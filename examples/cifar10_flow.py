"""The experiments of `cifar10_normalisation.py` in continuous time.

From every start the gradient flow is followed for the time of some steps of SGD, beside
gradient descent with momentum on the same few images, all in one batch. Where there is
batch normalisation, so is what the papers take it for: the Lagrange flow of a plain
network with rows of norm one (M112 §2.3, App. A.2), from the same directions and the
same norm of the last layer. Runs that would take too many steps end early, and say so.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from cifar10_normalisation import (
    CHANNELS,
    EXPERIMENTS,
    descent,
    end,
    final,
    is_finite,
    network,
    observables,
    problems,
)
from matplotlib.lines import Line2D

import gradflow as gf

IMAGES = 128
STEPS = 20
SAVES = 20
RTOL = 1e-2
MAX_STEPS = 40
STYLES = {"SGD": "--", "flow": "-", "unit rows": ":"}


def main(
    data: Path,
    out: Path = Path("."),
    *,
    images: int = IMAGES,
    steps: int = STEPS,
    max_steps: int = MAX_STEPS,
    experiments: tuple[str, ...] = tuple(EXPERIMENTS),
    channels: tuple[int, ...] = CHANNELS,
):
    """Follows the flows for the time of so many steps of SGD, prints a table, and
    writes a figure to `out`. Returns the runs by experiment, initial norm and kind."""
    train, validation = problems(data, images)
    print(f"{'':12}  start  {'':10}       t         ρ  min margin      loss  gradients")
    results = {}
    for name in experiments:
        experiment = EXPERIMENTS[name]
        descend = descent(experiment, train, validation, steps)
        follow = solution(experiment, train, validation, steps, max_steps)
        results[name] = {}
        for norm in experiment.norms:
            start = network(experiment, norm, channels, 0)
            runs = {
                "SGD": descend(start, 0),
                "flow": follow(gf.GradientFlow(experiment.weight_decay), start),
            }
            if experiment.normalised:
                plain = network(experiment._replace(normalised=False), 1, channels, 0)
                rows = gf.LagrangeFlow(experiment.weight_decay, spheres=gf.RowSpheres())
                runs["unit rows"] = follow(rows, unit_rows(plain, norm))
            results[name][norm] = runs
            for kind, run in runs.items():
                _print(name, norm, kind, run, experiment.normalised)
    out.mkdir(parents=True, exist_ok=True)
    draw(results).savefig(out / "cifar10_flow.png", dpi=120)
    return results


def solution(experiment, train, validation, steps, max_steps):
    """What follows a flow, from a network."""
    ts = np.linspace(0, steps * experiment.time_of_step, SAVES + 1)
    along = observables(experiment, validation)

    def follow(flow, start):
        return gf.solve(
            train,
            flow,
            start,
            ts[-1],
            ts=ts,
            rtol=RTOL,
            observe={"along": along},
            save_networks=False,
            progress=True,
            throw=False,
            max_steps=max_steps,
        )

    return follow


def unit_rows(plain, norm) -> gf.AbstractNetwork:
    """With hidden rows of norm one and a last layer of this norm."""
    *hidden, last = gf.RowSpheres().project(plain.weights)
    return plain.with_weights((*hidden, norm * last))


def rho(along, normalised):
    """The scale, over time: the norm of the last layer with batch normalisation and
    with rows of norm one, whose product of norms is a constant multiple of it."""
    return np.asarray(along["norms"])[..., -1] if normalised else along["rho"]


def _print(name, norm, kind, run, normalised):
    at = final(run)
    scale = rho(at, normalised)
    margin = np.min(at["margins"]) * at["rho"] / scale
    print(
        f"{name:12}{norm:7g}  {kind:10}{run.ts[-1]:8.3g}{scale:10.4g}{margin:12.2g}"
        f"{at['loss']:10.3g}{run.stats['num_gradients']:11.0f}  {end(run)}",
        flush=True,
    )


def draw(results):
    """ρ over time."""
    figure, grid = plt.subplots(
        1,
        len(results),
        figsize=(4.5 * len(results), 4),
        layout="constrained",
        squeeze=False,
    )
    for axes, (name, by_norm) in zip(grid[0], results.items(), strict=True):
        for n, (norm, runs) in enumerate(by_norm.items()):
            for kind, run in runs.items():
                if not is_finite(run):
                    continue
                scale = rho(run.observables["along"], EXPERIMENTS[name].normalised)
                label = f"‖W‖ = {norm:g}" if kind == "flow" else None
                style = {"color": f"C{n}", "label": label}
                # A dot where it ends, which may be early.
                axes.plot(
                    run.ts, scale, STYLES[kind], marker=".", markevery=[-1], **style
                )
        axes.set(title=name, xlabel="flow time", ylabel="ρ", yscale="log")
        axes.legend(loc="center right")
    kinds = [
        Line2D([], [], color="black", ls=style, label=kind)
        for kind, style in STYLES.items()
    ]
    figure.legend(handles=kinds, loc="outside lower center", ncols=len(kinds))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Batch normalisation and its flow.")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 files")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--steps", type=int, default=STEPS, help="of SGD")
    parser.add_argument("--max-steps", type=int, default=MAX_STEPS, help="of the flows")
    parser.add_argument(
        "--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS)
    )
    options = parser.parse_args()
    main(
        options.data,
        options.out,
        images=options.images,
        steps=options.steps,
        max_steps=options.max_steps,
        experiments=tuple(options.experiments),
    )
