"""Neural collapse on real digits: what completes it, and what stands in its way.

A network with three hidden layers follows the gradient flow with weight decay on four
classes, from an ordinary random start: with two losses, on the images as they are and
on the same images whitened, that is with orthonormal inputs. As they are, the classes
are not alike, and at rest their means are not either. Whitened, nothing sets them
apart: each class collapses to its mean, and the means to an orthogonal frame, which is
a simplex once it is centred. The last layer becomes the centred simplex under the
cross-entropy, and the frame itself under the square loss.
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
WEIGHT_DECAY = 0.1
LOSSES: Mapping[str, gf.AbstractLoss] = {
    "cross-entropy": gf.CrossEntropyLoss(),
    "square loss": gf.SquareLoss(),
}
MEASURES = ("nc1", "nc2_norms", "nc2_angles", "nc2_simplex", "nc3", "nc3_product")
RELATIONS = {
    "rest": r"rest: $2\lambda W = -\sum_n d_n h_n^\top$",
    "simplex": r"$W_c \propto \mu_c - \mu_G$",
    "frame": r"$W_c \propto \mu_c$",
}


def main(
    out: Path = Path("."),
    time: float = 1000.0,
    losses: Mapping[str, gf.AbstractLoss] = LOSSES,
) -> dict[tuple[str, str], gf.Trajectory]:
    """Integrates the flows, prints how far each measure fell and which relation of the
    last layer to the class means holds, and writes two figures to `out`."""
    jax.config.update("jax_enable_x64", True)
    images = gf.datasets.digits(CLASSES, signs=False, per_class=PER_CLASS)
    whitened = gf.Dataset(gf.datasets.whiten(images.inputs), images.labels)
    datasets = {"as they are": images, "whitened": whitened}
    network = gf.Dense((65, 48, 48, 48, 4), key=jax.random.key(0))
    runs = {
        (loss, data): gf.solve(
            gf.Problem(datasets[data], losses[loss]),
            gf.GradientFlow(WEIGHT_DECAY),
            network,
            time,
            ts=np.append(0, np.geomspace(1e-2, time, 100)),
            rtol=1e-3,
            observe={
                "collapse": gf.analysis.neural_collapse,
                "means": class_means,
                "relations": relations,
                "outputs": mean_outputs,
            },
            save_networks=False,
        )
        for loss in losses
        for data in datasets
    }
    for (loss, data), run in runs.items():
        _print_measures(f"{loss}, images {data}", run)
    _print_relations(runs)

    out.mkdir(parents=True, exist_ok=True)
    _draw_measures(runs).savefig(out / "neural_collapse.png", dpi=150)
    _draw_classifier(runs).savefig(out / "neural_collapse_classifier.png", dpi=150)
    return runs


def class_means(problem, network):
    """The means of the last features of each class, as they are: not centred."""
    *hidden, last = network.weights
    features = network.with_weights((*hidden, jnp.eye(last.shape[1])))
    h = jax.vmap(features)(problem.dataset.inputs)
    return _of_classes(problem) @ h


def mean_outputs(problem, network):
    """The mean outputs of each class, classes by outputs."""
    return _of_classes(problem) @ problem.outputs(network)


def _of_classes(problem):
    """The matrix that takes the mean over each class."""
    members = jax.nn.one_hot(problem.dataset.labels, len(CLASSES), axis=0)
    return members / jnp.sum(members, axis=1, keepdims=True)


def relations(problem, network):
    r"""How far the last layer $W$ is from what it should be, relative to $\|W\|$.

    At rest $2 \lambda W = -\sum_n d_n h_n^\top$, whatever the features. In a collapse,
    with $N$ samples and the slope $-e$ of its own output in each class, that is
    $2 \lambda W_c = N e \mu_c$ where the slopes of the others vanish, and $N e
    \frac{C}{C - 1} (\mu_c - \mu_G)$ where they are $e / (C - 1)$ (M112 54).
    """
    w, count = network.weights[-1], len(CLASSES)
    scale = 2 * WEIGHT_DECAY * jnp.linalg.norm(w)
    slopes = problem.slopes(problem.outputs(network))
    own = jax.nn.one_hot(problem.dataset.labels, count)
    sum_of_slopes = -jnp.sum(own * slopes) / count
    means = class_means(problem, network)
    centred = means - jnp.mean(means, axis=0, keepdims=True)

    def distance(expected):
        return jnp.linalg.norm(2 * WEIGHT_DECAY * w - expected) / scale

    return {
        "rest": distance(-problem.gradient(network)[-1]),
        "simplex": distance(sum_of_slopes * count / (count - 1) * centred),
        "frame": distance(sum_of_slopes * means),
    }


def _measure(run, name):
    values = np.asarray(getattr(run.observables["collapse"], name))
    return values if values.ndim == 1 else values[:, -1]  # of the last hidden layer


def _print_measures(title, run):
    print(f"{title} ({run.stats['num_gradients']} gradients)")
    print(f"{'':>14}{'start':>11}{'end':>11}{'start/end':>12}")
    for name in MEASURES:
        start, end = _measure(run, name)[[0, -1]]
        print(f"{name:>14}{start:11.2e}{end:11.2e}{start / end:12.3g}")
    start, end = _measure(run, "nc4")[[0, -1]]
    print(f"{'nc4':>14}{start:11.2f}{end:11.2f}\n")


def _print_relations(runs):
    print(f"{'the last layer at the end':<30}{'rest':>10}{'simplex':>10}{'frame':>10}")
    for (loss, data), run in runs.items():
        ends = [float(run.observables["relations"][name][-1]) for name in RELATIONS]
        print(f"{loss + ', ' + data:<30}" + "".join(f"{end:10.1e}" for end in ends))
    for (loss, data), run in runs.items():
        if loss == "square loss":
            outputs = np.asarray(run.observables["outputs"][-1])
            own = np.diag(outputs)
            others = (outputs.sum(1) - own) / (len(CLASSES) - 1)
            print(
                f"outputs, images {data}: of the own class 1 - {np.mean(1 - own):.4f}, "
                f"of the others {np.mean(others):.4f}"
            )


def _draw_measures(runs):
    losses = list(dict.fromkeys(loss for loss, _ in runs))
    figure, grid = plt.subplots(
        len(losses),
        2,
        figsize=(10, 3.6 * len(losses)),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes, ((loss, data), run) in zip(grid.flat, runs.items(), strict=True):
        for name in MEASURES:
            axes.loglog(run.ts[1:], _measure(run, name)[1:], label=name)
        axes.set_title(f"{loss}, images {data}")
    # Below this there is nothing but rounding.
    grid[0, 0].set_ylim(bottom=1e-9)
    grid[0, 0].legend(ncols=2, loc="lower left")
    for axes in grid[-1]:
        axes.set_xlabel("flow time $t$")
    return figure


def _draw_classifier(runs):
    runs = {loss: run for (loss, data), run in runs.items() if data == "whitened"}
    figure, grid = plt.subplots(
        len(runs),
        3,
        figsize=(12, 3.6 * len(runs)),
        layout="constrained",
        squeeze=False,
        width_ratios=(2, 1, 1),
    )
    for (along, *grams), (loss, run) in zip(grid, runs.items(), strict=True):
        distances = run.observables["relations"]
        for name, label in RELATIONS.items():
            along.loglog(run.ts[1:], distances[name][1:], label=label)
        along.set(xlabel="flow time $t$", ylabel="distance, relative to $W$")
        along.set_title(f"{loss}, images whitened")
        along.legend(loc="lower left")
        means = np.asarray(run.observables["means"])
        for axes, mu, when in zip(grams, means[[0, -1]], ("start", "end"), strict=True):
            units = mu / np.linalg.norm(mu, axis=1, keepdims=True)
            cosines = units @ units.T
            axes.imshow(cosines, vmin=0, vmax=1, cmap="viridis")
            for (i, j), cosine in np.ndenumerate(cosines):
                colour = "black" if cosine > 0.5 else "white"
                axes.text(j, i, f"{cosine:.2f}", ha="center", va="center", color=colour)
            axes.set_xticks(range(len(CLASSES)), [str(c) for c in CLASSES])
            axes.set_yticks(range(len(CLASSES)), [str(c) for c in CLASSES])
            axes.set_title(f"cosines of the means $\\mu_c$, {when}")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Neural collapse on digits.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figures")
    main(parser.parse_args().out)
