"""Do kicks of the weights make a convolutional network worse and worse?

T3 (figures 8 and 9) trains a network of four convolutions and a dense layer on CIFAR-10
with the cross-entropy until all training images are right. From then on it adds
Gaussian noise to every layer, of a quarter of the standard deviation of its weights,
again and again. The training loss goes back to where it was; if minima are degenerate,
nothing brings back what the noise does along them, so that norms and test loss grow
with every kick, and stay where they are once the kicks stop. The script does so for
several seeds, beside the same training without kicks; and with the gradient flow of all
images in place of SGD, kicked at the same times.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tqdm

import gradflow as gf


class Setting(NamedTuple):
    """How many images and epochs, and the learning rate of plain descent."""

    per_class: int | None
    batch: int
    rate: float
    epochs_to_fit: int
    epochs_per_kick: int
    kicks: int
    rests: int
    """As many times `epochs_per_kick`, after the last kick."""


class Course(NamedTuple):
    """What was measured at which times, and the row at which all images were right.
    The later rows are of the ends of the periods, each but the last ones with a kick
    behind it."""

    time: np.ndarray
    measures: dict[str, np.ndarray]
    fitted: int


PAPER = Setting(None, 128, 0.1, 1800, 100, 57, 25)
SMALL = Setting(20, 20, 0.2, 300, 20, 15, 5)
SIGMA = 0.25
# Of the flow: at each kick it starts anew.
RTOL = 1e-2
CHANNELS = (16, 32, 64, 128)


def main(
    data: Path,
    out: Path = Path("."),
    setting: Setting = PAPER,
    seeds: int = 3,
    channels: tuple[int, ...] = CHANNELS,
    flow_seeds: int = 1,
):
    """Trains, kicks and trains on, and follows the flow instead for the first seeds;
    prints a table and writes a figure to `out`. Returns the courses by kind, size of
    the kicks, and seed."""
    train, test = (
        gf.Problem(
            gf.datasets.cifar10(
                data, split=split, per_class=setting.per_class, bias=0.0, signs=False
            ),
            gf.CrossEntropyLoss("mean"),
            batch_size=1_000,
        )
        for split in ("train", "test")
    )
    print(f"{train.dataset.num_samples} images, {test.dataset.num_samples} to test")
    observe = _measures(test)
    results = {}
    for seed in range(seeds):
        key = jax.random.key(seed)
        start = gf.Conv(
            train.dataset.input_shape, channels, train.dataset.num_outputs, key=key
        )
        fitted = fit(train, start, setting, observe, jax.random.fold_in(key, 1))
        kinds = {"SGD": go_on}
        if seed < flow_seeds:
            kinds["flow"] = go_on_as_flow
        for kind, follow in kinds.items():
            for sigma in (0.0, SIGMA):
                results[kind, sigma, seed] = follow(
                    train, fitted, setting, sigma, observe, jax.random.fold_in(key, 2)
                )
    _print(results, setting)
    out.mkdir(parents=True, exist_ok=True)
    _draw(results).savefig(out / "cifar10_kicks.png", dpi=150)
    return results


def fit(train, network, setting, observe, key):
    """SGD until all images are right."""
    return gf.descend(
        train,
        setting.rate,
        network,
        setting.epochs_to_fit * _epoch(train, setting),
        sampler=gf.Minibatches(setting.batch, key=key),
        until=gf.ZeroTrainingError(),
        observe=observe,
        save_networks=False,
        progress=True,
    )


def go_on(train, fitted, setting, sigma, observe, key):
    """SGD with kicks of relative size `sigma`, then without."""
    every = setting.epochs_per_kick * _epoch(train, setting)
    of_kicks, of_batches = jax.random.split(key)
    kicks = gf.rules.kicks(
        every, sigma, of_kicks, relative=True, last=setting.kicks * every
    )
    periods = setting.kicks + setting.rests
    after = gf.descend(
        train,
        optax.chain(optax.sgd(setting.rate), kicks),
        fitted.final,
        periods * every,
        sampler=gf.Minibatches(setting.batch, key=of_batches),
        learning_rate=setting.rate,
        # Just before the step with the next kick.
        save_steps=every * np.arange(1, periods + 1) - 1,
        observe=observe,
        save_networks=False,
        progress=True,
    )
    return _joined(fitted, after.ts, after.observables)


def go_on_as_flow(train, fitted, setting, sigma, observe, key):
    """The gradient flow for as long a time, kicked as often."""
    period = setting.rate * setting.epochs_per_kick * _epoch(train, setting)
    periods = setting.kicks + setting.rests
    kick = gf.rules.kicks(1, sigma, key, relative=True)
    network, state, ends = fitted.final, kick.init(fitted.final.weights), []
    for number in tqdm.trange(periods, desc="flow"):
        run = gf.solve(
            train,
            gf.GradientFlow(),
            network,
            period,
            ts=np.array([0, period]),
            rtol=RTOL,
            observe=observe,
            save_networks=False,
        )
        ends.append(jax.tree.map(lambda x: np.asarray(x)[-1], run.observables))
        weights = run.final.weights
        if number < setting.kicks:
            still = jax.tree.map(jnp.zeros_like, weights)
            noise, state = kick.update(still, state, weights)
            weights = optax.apply_updates(weights, noise)
        network = network.with_weights(weights)
    measures = {name: np.stack([end[name] for end in ends]) for name in observe}
    return _joined(fitted, period * np.arange(1, periods + 1), measures)


def _joined(fitted, ts, measures):
    return Course(
        np.concatenate([fitted.ts, fitted.ts[-1] + ts]),
        {
            name: np.concatenate([values, measures[name]])
            for name, values in fitted.observables.items()
        },
        len(fitted.ts) - 1,
    )


def _epoch(train, setting) -> int:
    return max(1, train.dataset.num_samples // setting.batch)


def _measures(test):
    return {
        "train error": lambda problem, network: 1 - problem.accuracy(network),
        "test error": lambda problem, network: 1 - test.accuracy(network),
        "train loss": lambda problem, network: problem.value(network),
        "test loss": lambda problem, network: test.value(network),
        "norm": lambda problem, network: jnp.linalg.norm(network.norms),
    }


def _print(results, setting):
    names = ("train loss", "test loss", "test error", "norm")
    print("\nwhen all images are right | before the last kick | at the end")
    print(" " * 28 + "".join(f"{name:>30}" for name in names))
    for (kind, sigma, seed), course in results.items():
        places = (course.fitted, course.fitted + setting.kicks, -1)
        cells = [
            "".join(f"{course.measures[name][place]:10.3g}" for place in places)
            for name in names
        ]
        label = f"{kind}, {'kicks' if sigma else 'no kicks'}, seed {seed}"
        print(f"{label:28}" + "".join(cells))


def _draw(courses):
    """One line for each seed, thick broken ones for the flow: errors, losses and the
    norm over time."""
    panels = {
        "classification error": ("train error", "test error"),
        "cross-entropy": ("train loss", "test loss"),
        "norm of all weights": ("norm",),
    }
    figure, axes = plt.subplots(
        2, 3, figsize=(12, 6.5), layout="constrained", sharex=True, sharey="col"
    )
    for (kind, sigma, seed), course in courses.items():
        is_flow = kind == "flow"
        row = axes[int(sigma > 0)]
        for axis, (title, names) in zip(row, panels.items(), strict=True):
            for name, color in zip(names, ("C0", "C1"), strict=False):
                label = f"{name}, {kind}" if seed == 0 else None
                # What comes before is the same.
                some = slice(course.fitted if is_flow else 0, None)
                style = {"ls": "--", "lw": 2.2} if is_flow else {"lw": 1}
                axis.plot(
                    course.time[some],
                    course.measures[name][some],
                    color,
                    label=label,
                    **style,
                )
            fitted = course.time[course.fitted]
            axis.axvline(fitted, color="0.7", lw=0.8, ls=":")
            axis.set_title(f"{title}, {'with' if sigma else 'without'} kicks")
    for axis in axes[:, 1]:
        axis.set_yscale("log")
    for axis in axes[-1]:
        axis.set_xlabel("time (learning rate × steps)")
    for axis in axes.flat:
        axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="CIFAR-10: an npz file"
    )
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--small", action="store_true", help="minutes on two cores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--flow-seeds",
        type=int,
        help="of them followed as flows, too: 1 with --small, else none",
    )
    arguments = parser.parse_args()
    flow_seeds = arguments.flow_seeds
    if flow_seeds is None:
        flow_seeds = int(arguments.small)
    main(
        arguments.data,
        arguments.out,
        SMALL if arguments.small else PAPER,
        arguments.seeds,
        flow_seeds=flow_seeds,
    )
