"""What kicks do to degenerate minima: they climb, and others do not.

A linear network of polynomial features with more weights than samples has a flat set of
minima of the square loss. Gradient descent keeps the part of the weights that lies
along it. So random kicks of the weights, between which the loss falls to zero again,
add up there: the square of the norm grows by the same amount with each, and the test
error with it. With fewer features than samples the minimum is unique, and every kick is
forgotten (T3 figures 5 to 7). The script repeats the three experiments at the paper's
sizes, as one compiled loop over all repetitions; the longest, of ten million steps, it
follows as a flow between the kicks, which takes seconds, and with `--full` as the paper
does, too.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradflow as gf

SAMPLES = 9
TEST_SAMPLES = 100
STEP = 0.2
START = 0.1
"""The norm of the weights at the start, which the paper does not give."""


class Experiment(NamedTuple):
    """Gradient descent with kicks of size `sigma` every so many steps, up to the step
    `last_kick`."""

    degree: int
    steps: int
    every: int
    sigma: float
    last_kick: int
    repetitions: int
    as_flow: bool = False


EXPERIMENTS = {
    "degree 30": Experiment(30, 250_000, 250_000, 0.0, 0, 30),
    "degree 39, kicks": Experiment(
        39, 10_000_000, 120_000, 0.45, 5_000_000, 29, as_flow=True
    ),
    "degree 4, kicks": Experiment(4, 250_000, 4_000, 0.6, 250_000, 30),
}


class Course(NamedTuple):
    """Measured at rest, of shape `(repetitions, steps)`."""

    steps: np.ndarray
    train: np.ndarray
    test: np.ndarray
    norm: np.ndarray


def main(
    out: Path = Path("."), experiments: dict[str, Experiment] | None = None
) -> dict[str, Course]:
    """Prints a table, and writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    experiments = EXPERIMENTS if experiments is None else experiments
    courses = {}
    print(f"{'':24}{'kicks':>5}{'train loss':>12}", end="")
    print(f"{'test loss':>12}{'law':>9}{'rms norm':>11}{'law':>9}")
    for name, experiment in experiments.items():
        follow = follow_flow if experiment.as_flow else follow_descent
        courses[name] = course = follow(experiment)
        test, square = laws(experiment, course.steps)
        for i in (0, -1):
            print(
                f"{name:24}{kicks_until(experiment, course.steps[i]):5}"
                f"{np.mean(course.train[:, i]):12.2e}"
                f"{np.mean(course.test[:, i]):12.5f}{test[i]:9.5f}"
                f"{rms(course.norm[:, i]):11.4f}{np.sqrt(square[i]):9.4f}"
            )
    out.mkdir(parents=True, exist_ok=True)
    draw(courses, experiments).savefig(out / "degenerate_minima.png", dpi=150)
    return courses


def problems(experiment: Experiment) -> tuple[gf.Problem, gf.Problem]:
    """Training and test set."""
    loss = gf.SquareLoss("mean")
    train = gf.datasets.polynomial(SAMPLES, degree=experiment.degree)
    test = gf.datasets.polynomial(
        TEST_SAMPLES,
        degree=experiment.degree,
        nodes=gf.datasets.equispaced_nodes,
    )
    return gf.Problem(train, loss), gf.Problem(test, loss)


def start(experiment: Experiment, key) -> gf.Dense:
    widths = (experiment.degree + 1, 1)
    return gf.Dense(widths, key=key, activation=gf.Identity(), norm=START)


def observables(experiment: Experiment) -> dict:
    _, test = problems(experiment)
    return {
        "train": gf.Problem.value,
        "test": lambda problem, network: test.value(network),
        "norm": gf.analysis.product_of_norms,
    }


def rests(experiment: Experiment) -> np.ndarray:
    """The steps before each kick, or some steps where there is none."""
    if experiment.sigma == 0:
        return np.linspace(0, experiment.steps, 126).astype(int)[1:]
    return np.arange(experiment.every, experiment.steps + 1, experiment.every) - 1


def kicks_until(experiment: Experiment, steps):
    if experiment.sigma == 0:
        return 0 * steps
    return np.minimum(steps, experiment.last_kick) // experiment.every


def follow_descent(experiment: Experiment) -> Course:
    """In one loop for all repetitions."""
    train, _ = problems(experiment)
    steps = rests(experiment)

    @jax.jit
    @jax.vmap
    def repeat(key):
        key, kicks_key = jax.random.split(key)
        kicks = gf.rules.kicks(
            experiment.every,
            experiment.sigma,
            kicks_key,
            last=experiment.last_kick,
        )
        return gf.descend(
            train,
            optax.chain(optax.sgd(STEP), kicks),
            start(experiment, key),
            experiment.steps,
            save_steps=steps,
            observe=observables(experiment),
            save_networks=False,
        ).observables

    keys = jax.random.split(jax.random.key(0), experiment.repetitions)
    return Course(steps, **jax.tree.map(np.asarray, repeat(keys)))


def follow_flow(experiment: Experiment) -> Course:
    """From kick to kick, and then to the end."""
    train, _ = problems(experiment)
    steps = rests(experiment)
    time = STEP * experiment.every

    @eqx.filter_jit
    @eqx.filter_vmap
    def follow(network):
        run = gf.solve(
            train,
            gf.GradientFlow(),
            network,
            time,
            ts=[time],
            observe=observables(experiment),
            save_networks=False,
        )
        return run.final, {k: v[0] for k, v in run.observables.items()}

    @eqx.filter_jit
    @eqx.filter_vmap
    def kick(network, key):
        (w,) = network.weights
        noise = jax.random.normal(key, w.shape, w.dtype)
        return network.with_weights((w + experiment.sigma * noise,))

    def keys(n):
        key = jax.random.fold_in(jax.random.key(0), n)
        return jax.random.split(key, experiment.repetitions)

    networks = eqx.filter_vmap(lambda key: start(experiment, key))(keys(0))
    measured = []
    for n, step in enumerate(steps):
        networks, values = follow(networks)
        measured.append(values)
        if step < experiment.last_kick:
            networks = kick(networks, keys(n + 1))
    stacked = {k: np.stack([m[k] for m in measured], axis=1) for k in measured[0]}
    return Course(steps, **stacked)


def laws(experiment: Experiment, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What to expect of the test loss and of the square of the norm at rest: those of
    the solution of least norm, and what the start and the kicks add along the flat
    directions."""
    train, test = problems(experiment)
    inputs, test_inputs = (np.asarray(p.dataset.inputs) for p in (train, test))
    inverse = np.linalg.pinv(inputs)
    least = inverse @ np.asarray(train.dataset.labels)
    flat = np.eye(len(least)) - inverse @ inputs
    kicks = kicks_until(experiment, steps)
    variance = START**2 / len(least) + kicks * experiment.sigma**2
    errors = test_inputs @ least - np.asarray(test.dataset.labels)
    spread = np.sum((test_inputs @ flat) ** 2, axis=1)
    return (
        np.mean(errors**2) + variance * np.mean(spread),
        np.sum(least**2) + variance * np.trace(flat),
    )


def rms(values: np.ndarray) -> np.ndarray:
    """Over the repetitions."""
    return np.sqrt(np.mean(values**2, axis=0))


def draw(courses: dict[str, Course], experiments: dict[str, Experiment]):
    figure, axes = plt.subplots(
        3,
        len(courses),
        figsize=(4.3 * len(courses), 7.5),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for (name, course), column in zip(courses.items(), axes.T, strict=True):
        top, middle, bottom = column
        test, square = laws(experiments[name], course.steps)
        top.semilogy(course.steps, np.mean(course.train, axis=0))
        middle.plot(course.steps, np.mean(course.test, axis=0))
        middle.plot(course.steps, test, "k:")
        bottom.plot(course.steps, rms(course.norm), label="measured")
        bottom.plot(course.steps, np.sqrt(square), "k:", label="law, at rest")
        # Where nothing changes there is nothing to see but rounding.
        for axes_of_one in column:
            low, high = axes_of_one.get_ylim()
            axes_of_one.set_ylim(min(low, 0.9 * high), 1.02 * high)
        top.set_title(name)
        bottom.set_xlabel("steps")
    axes[0, 0].set_ylabel("training loss, mean")
    axes[1, 0].set_ylabel("test loss, mean")
    axes[2, 0].set_ylabel(r"$\|w\|$, root mean square")
    axes[2, 0].legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kicks at degenerate minima.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    parser.add_argument(
        "--full", action="store_true", help="all ten million steps, in minutes"
    )
    options = parser.parse_args()
    chosen = dict(EXPERIMENTS)
    if options.full:
        name = "degree 39, kicks"
        chosen[f"{name}, descent"] = EXPERIMENTS[name]._replace(as_flow=False)
    main(options.out, chosen)
