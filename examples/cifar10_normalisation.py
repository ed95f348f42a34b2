"""Does normalisation make the norm ρ forget its start? After SQ and M112, figures 1-12.

Two classes of CIFAR-10, the square loss, a convolutional network and SGD with momentum,
from layers of several initial norms: with batch normalisation and weight decay (X1),
with batch normalisation alone (X2), and with neither (X3).

The papers do not say what kernels and strides they take. With batch normalisation these
decide which steps are stable: n features of a normalised ReLU layer have means of about
1/√(2π), which alone give the last layer a sharpness of n/π, whatever the weights.
Momentum μ is stable up to a sharpness of 2(1 + μ)/h, which is 38 for the step h = 0.1
of X1. So the strides here leave as few features as there can be with the papers' 128
channels. Since 128/π = 41 is still above that, there is X1 with half of the step too.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradflow as gf

CLASSES = ("airplane", "automobile")
CHANNELS = (32, 64, 128)
KERNELS = {"kernel_size": 5, "stride": (4, 4, 2), "padding": 2}
BATCH = 128
MOMENTUM = 0.9
SAVES = 100
FULL = {"images": 10_000, "epochs": 1000}
SMALL = {"images": 512, "epochs": 200}


class Experiment(NamedTuple):
    normalised: bool
    # λ‖W‖² has the gradient 2λW: PyTorch's weight decay of 0.01 is λ = 0.005.
    weight_decay: float
    learning_rate: float
    norms: tuple[float, ...]

    @property
    def time_of_step(self) -> float:
        """Momentum takes every gradient 1/(1 - μ) times in the end."""
        return self.learning_rate / (1 - MOMENTUM)


EXPERIMENTS = {
    "X1": Experiment(True, 0.005, 0.1, (0.1, 1.0, 5.0)),
    "X1 half step": Experiment(True, 0.005, 0.05, (0.1, 1.0, 5.0)),
    "X2": Experiment(True, 0.0, 0.01, (0.1, 5.0)),
    "X3": Experiment(False, 0.0, 0.1, (5.0, 15.0, 30.0)),
}


def main(
    data: Path,
    out: Path = Path("."),
    *,
    images: int = FULL["images"],
    epochs: int = FULL["epochs"],
    seeds: int = 1,
    experiments: tuple[str, ...] = tuple(EXPERIMENTS),
    channels: tuple[int, ...] = CHANNELS,
):
    """Runs the experiments on so many images, half of either class, prints tables, and
    writes figures to `out`. Returns the runs by experiment, norm and seed."""
    train, validation = problems(data, images)
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in experiments:
        experiment = EXPERIMENTS[name]
        steps = epochs * max(images // BATCH, 1)
        descend = descent(experiment, train, validation, steps)
        results[name] = runs = {
            norm: [
                descend(network(experiment, norm, channels, seed), seed)
                for seed in range(seeds)
            ]
            for norm in experiment.norms
        }
        start = network(experiment, experiment.norms[0], channels, 0)
        _print(name, experiment, runs, last_layer_sharpness(train, start))
        epochs_of = {"epochs": epochs / steps / experiment.time_of_step}
        stem = f"cifar10_{name.replace(' ', '_')}"
        draw(name, runs, **epochs_of).savefig(out / f"{stem}.png", dpi=120)
        if name == "X2":
            figure = draw_histogram(runs, **epochs_of)
            figure.savefig(out / f"{stem}_histogram.png", dpi=120)
    return results


def problems(data: Path, images: int) -> tuple[gf.Problem, gf.Problem]:
    """Of the training images, and of as many of the others, or all."""

    def problem(split):
        dataset = gf.datasets.cifar10(data, classes=CLASSES, split=split, bias=0)
        # In the files' order, which is random.
        some = gf.Dataset(dataset.inputs[:images], dataset.labels[:images])
        return gf.Problem(some, gf.SquareLoss(reduction="mean"))

    return problem("train"), problem("test")


def network(experiment, norm, channels, seed) -> gf.AbstractNetwork:
    """With random layers of this norm."""
    plain = gf.Conv(
        (3, 32, 32), channels, key=jax.random.key(seed), norm=norm, **KERNELS
    )
    return gf.BatchNorm(plain) if experiment.normalised else plain


def descent(experiment, train, validation, steps):
    """The SGD of an experiment, from a network and with a seed."""
    # The flow's weight decay is part of the gradient that the optimiser is given, as
    # with PyTorch, or `optax.add_decayed_weights` in front.
    flow = gf.GradientFlow(experiment.weight_decay)
    optimiser = optax.sgd(experiment.learning_rate, momentum=MOMENTUM)
    along = observables(experiment, validation)
    # Denser at the start.
    saves = np.unique(np.round(np.linspace(0, 1, SAVES + 1) ** 2 * steps).astype(int))

    def descend(start, seed):
        # Of all samples where there are no more than in a batch.
        size = min(BATCH, train.dataset.num_samples)
        return gf.descend(
            train,
            optimiser,
            start,
            steps,
            flow=flow,
            sampler=gf.Minibatches(size, key=jax.random.key(seed)),
            learning_rate=experiment.time_of_step,
            save_steps=saves,
            observe={"along": along},
            save_networks=False,
            progress=True,
            throw=False,
        )

    return descend


def observables(experiment, validation):
    """What is measured along a run. All of it needs the outputs for the same samples,
    which are computed once."""

    def along(problem, network):
        fixed = problem.with_statistics(network)
        return {
            "loss": problem.value(network),
            "error": 1 - problem.accuracy(network),
            "validation loss": validation.value(fixed),
            "validation error": 1 - validation.accuracy(fixed),
            "margins": problem.margins(network),
            "rho": network.scale,
            "rho_eq": gf.analysis.rho_eq(problem, network, experiment.weight_decay),
            "ratio": gf.analysis.rho_eq(problem, network),
            "product": gf.analysis.product_of_norms(problem, network),
            "norms": network.norms,
        }

    return along


def last_layer_sharpness(problem, network):
    """The largest eigenvalue of the Hessian by the last layer's weights, in which the
    loss is quadratic: a lower bound of the sharpness."""
    *hidden, last = network.weights

    def outputs(last):
        return problem.outputs(network.with_weights((*hidden, last)))[:, 0]

    features = jax.jacrev(outputs)(last)[:, 0]
    return 2 * jnp.linalg.norm(features, ord=2) ** 2 / problem.dataset.num_samples


def end(run):
    """Of how the run ended, a word."""
    names = ("successful", "nonfinite_state", "max_steps_reached", "too_stiff")
    found = [name for name in names if run.result == getattr(gf.RESULTS, name)]
    return found[0] if found else gf.RESULTS[run.result]


def final(run) -> dict[str, np.ndarray]:
    """What is measured at the end."""
    return {k: np.asarray(v)[-1] for k, v in run.observables["along"].items()}


def is_finite(run) -> bool:
    """Not so also where weights are that large that their norms overflow."""
    return end(run) != "nonfinite_state" and bool(np.isfinite(final(run)["rho"]))


def spread(values) -> float:
    """The largest over the smallest."""
    return max(values) / min(values) if len(values) else np.nan


def spreads(runs) -> tuple[float, float]:
    """Of the final ρ: of its geometric means from the different starts, and the
    largest one between seeds of the same start, for those that stay finite."""
    finite = [
        [final(run)["rho"] for run in of_norm if is_finite(run)]
        for of_norm in runs.values()
    ]
    finite = [rhos for rhos in finite if rhos]
    means = [np.exp(np.mean(np.log(rhos))) for rhos in finite]
    return spread(means), max(map(spread, finite), default=np.nan)


def _print(name, experiment, runs, sharpness):
    limit = 2 * (1 + MOMENTUM) / experiment.learning_rate
    print(
        f"{name}: sharpness of the last layer at the start {sharpness:.3g}, "
        f"stable up to {limit:.3g}\n"
        "  start  seed         ρ      ρ_eq   all norms  min margin"
        "  train err  valid err  result"
    )
    for norm, of_norm in runs.items():
        for seed, run in enumerate(of_norm):
            at = final(run)
            print(
                f"{norm:7g}{seed:6}{at['rho']:10.4g}{at['rho_eq']:10.4g}"
                f"{at['product']:12.4g}{np.min(at['margins']):12.2g}"
                f"{at['error']:11.4f}{at['validation error']:11.4f}  {end(run)}"
            )
    between, within = spreads(runs)
    print(
        f"  ρ, largest / smallest: {between:.3g} over the initial norms, "
        f"at most {within:.3g} over the seeds\n",
        flush=True,
    )


def draw(name, runs, epochs):
    """The papers' figures of one experiment; `epochs` is their number per flow time."""
    figure, grid = plt.subplots(2, 4, figsize=(17, 7.6), layout="constrained")
    panels = {
        "loss": "loss (dashed: validation)",
        "error": "error (dashed: validation)",
        "rho": "ρ",
        "beginning": "ρ at the beginning",
        "size": "mean |f|",
        "ratio": "Σ y f / Σ f² against ρ",
        "margins": "y f at the end, sorted",
        "norms": "norms of the layers",
    }
    axes = dict(zip(panels, grid.flat, strict=True))
    for n, (norm, of_norm) in enumerate(runs.items()):
        for seed, run in enumerate(of_norm):
            if not is_finite(run):
                continue
            colour, label = f"C{n}", f"‖W‖ = {norm:g}" if seed == 0 else None
            along = {k: np.asarray(v) for k, v in run.observables["along"].items()}
            time, margins = epochs * np.asarray(run.ts), along["margins"]
            style = {"color": colour, "lw": 1.2}
            for key in ("loss", "error"):
                axes[key].plot(time, along[key], **style)
                axes[key].plot(time, along[f"validation {key}"], "--", **style)
            beginning = time <= time[-1] / 50
            axes["rho"].plot(time, along["rho"], label=label, **style)
            axes["beginning"].plot(time[beginning], along["rho"][beginning], **style)
            axes["size"].plot(time, np.mean(np.abs(margins), axis=1), **style)
            positive = along["ratio"] > 0
            axes["ratio"].plot(
                along["rho"][positive], along["ratio"][positive], ".-", ms=3, **style
            )
            axes["margins"].plot(np.sort(margins[-1]), **style)
            for layer, of_layer in enumerate(along["norms"].T):
                ls = ("-", "--", "-.", ":")[layer % 4]
                axes["norms"].plot(time, of_layer, ls, **style)
    for key, title in panels.items():
        axes[key].set_title(title)
        axes[key].set_xlabel({"ratio": "ρ", "margins": "sample"}.get(key, "epochs"))
    for key in ("loss", "rho", "beginning", "size", "ratio", "norms"):
        axes[key].set_yscale("log")
    axes["ratio"].set_xscale("log")
    low, high = axes["ratio"].get_xlim()
    axes["ratio"].plot([low, high], [low, high], color="gray", lw=0.8, ls=":")
    axes["margins"].axhline(0, color="gray", lw=0.8, ls=":")
    if axes["rho"].lines:
        axes["rho"].legend()
    figure.suptitle(name)
    return figure


def draw_histogram(runs, epochs):
    """Of |f| over the run, for the first seed of each start."""
    figure, grid = plt.subplots(
        len(runs), 1, figsize=(9, 3.6 * len(runs)), layout="constrained", squeeze=False
    )
    for axes, (norm, of_norm) in zip(grid[:, 0], runs.items(), strict=True):
        run = of_norm[0]
        sizes = np.abs(run.observables["along"]["margins"])
        # What is larger, at the beginning, is left out.
        edges = np.linspace(0, 2 * np.max(sizes[-1]), 60)
        counts = np.stack([np.histogram(row, edges)[0] for row in sizes])
        time = epochs * np.asarray(run.ts)
        # From one save to the next.
        mesh = axes.pcolormesh(time, edges, counts[:-1].T, cmap="magma", shading="flat")
        figure.colorbar(mesh, ax=axes, label="samples")
        axes.set(title=f"|f|, from ‖W‖ = {norm:g}", xlabel="epochs", ylabel="|f|")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="ρ and batch normalisation.")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 files")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figures")
    parser.add_argument("--small", action="store_true", help="some minutes on a CPU")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS)
    )
    options = parser.parse_args()
    size = SMALL if options.small else FULL
    main(
        options.data,
        options.out,
        images=options.images or size["images"],
        epochs=options.epochs or size["epochs"],
        seeds=options.seeds,
        experiments=tuple(options.experiments),
    )
