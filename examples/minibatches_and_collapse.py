"""Does neural collapse under the exponential loss need SGD, and small minibatches?

Where SGD rests on every minibatch of one sample, with weight decay, N e^{-m} m = 2λρ_k²
for the margin m = y g of every sample (M112 60), from where M112 concludes that all
margins are equal and the features collapse. The flow of all samples need not do that,
and so M112 conjectures that the collapse needs SGD under the exponential loss, that it
does not under the square loss, and that small minibatches are better than large ones.
The script follows the flow and SGD with minibatches of several sizes from the same
start, with the same weight decay of all layers, under both losses: on two digits as
they are, and on the same images whitened, that is with orthonormal inputs. SGD runs for
a while at a constant step, and then with steps that decay, so that it comes to rest
where it can. Then it looks at where the flow rests for other weight decays.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradflow as gf

LOSSES: Mapping[str, gf.AbstractLoss] = {
    "exponential loss": gf.ExponentialLoss(),
    "square loss": gf.SquareLoss(),
}
PER_CLASS = 10
WEIGHT_DECAY = 0.3
BATCHES = (1, 4, 10, 20)
DECAYS = (1.0, 0.3, 0.1, 0.03)
"""For the flow alone."""
TIME = 40.0
STEP = 5e-3
SEEDS = 8
SAVES = 40
DECAY = 1000.0
"""By how much the steps decay in the second half."""
STEPS = round(TIME / STEP / SAVES) * SAVES
"""At the constant step, and as many while it decays."""
SCHEDULE = optax.exponential_decay(STEP, STEPS, 1 / DECAY, transition_begin=STEPS)


def main(
    out: Path = Path("."),
    losses: Mapping[str, gf.AbstractLoss] = LOSSES,
    batches: tuple[int, ...] = BATCHES,
    decays: tuple[float, ...] = DECAYS,
    seeds: int = SEEDS,
):
    """Follows the flow and SGD, prints tables, and writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    digits = gf.datasets.digits((3, 8), per_class=PER_CLASS)
    whitened = gf.Dataset(gf.datasets.whiten(digits.inputs), digits.labels)
    datasets = {"as they are": digits, "whitened": whitened}
    # Smoothed alike for all, and by so little that it does not matter.
    network = gf.Dense((65, 16, 16, 1), key=jax.random.key(0), activation=gf.ReLU(1e-3))
    ts = clock()
    keys = jax.random.split(jax.random.key(1), seeds)
    results = {}
    for loss in losses:
        for data, dataset in datasets.items():
            problem = gf.Problem(dataset, losses[loss])
            runs = {"flow": flow(problem, network, ts, WEIGHT_DECAY)}
            for batch in batches:
                name = "descent" if batch == dataset.num_samples else f"SGD, {batch}"
                values = sgd(problem, network, batch, keys)
                runs[name] = {k: np.asarray(v) for k, v in values.items()}
            results[loss, data] = runs
            _print(f"{loss}, images {data}", runs)
    rests = {
        (loss, decay): flow(
            gf.Problem(digits, losses[loss]),
            network,
            ts * max(1, WEIGHT_DECAY / decay),
            decay,
        )
        for loss in losses
        for decay in decays
    }
    _print_rests(rests)

    out.mkdir(parents=True, exist_ok=True)
    _draw(ts, results).savefig(out / "minibatches_and_collapse.png", dpi=150)
    return results, rests


def measures(problem, network, weight_decay):
    r"""What is compared.

    Each sample on its own lets the norm of layer $k$ rest where $-N d_n g_n = 2 \lambda
    \rho_k^2$: for the exponential loss this is (60). At a rest of all samples the two
    sides are the same on average. How far each sample is from that is relative, and a
    root mean square over the samples.
    """
    outputs = problem.outputs(network)
    push = -len(outputs) * jnp.sum(problem.slopes(outputs) * outputs, axis=1)
    pull = 2 * weight_decay * jnp.mean(network.norms**2)
    pairs = zip(problem.gradient(network), network.weights, strict=True)
    forces = [gradient + 2 * weight_decay * w for gradient, w in pairs]
    collapse = gf.analysis.neural_collapse(problem, network)
    return {
        "accuracy": problem.accuracy(network),
        "margins": problem.dataset.labels * outputs[:, 0],
        "spread of the margins": gf.analysis.equal_margin_defect(problem, network),
        "sample residual": jnp.sqrt(jnp.mean((push / pull - 1) ** 2)),
        "NC1": collapse.nc1[-1],
        "rest": _norm(forces) / (2 * weight_decay * _norm(network.weights)),
    }


def _norm(arrays):
    return jnp.sqrt(sum(jnp.sum(a**2) for a in arrays))


def flow(problem, network, ts, weight_decay):
    """The measures along the flow, as of one seed."""
    run = gf.solve(
        problem,
        gf.GradientFlow(weight_decay),
        network,
        ts[-1],
        ts=ts,
        rtol=1e-3,
        observe={"measures": eqx.Partial(measures, weight_decay=weight_decay)},
        save_networks=False,
    )
    return {k: np.asarray(v)[None] for k, v in run.observables["measures"].items()}


def clock():
    """The time of the start and of each save."""
    sizes = SCHEDULE(np.arange(2 * STEPS))
    return np.append(0, np.cumsum(sizes))[:: STEPS // SAVES]


@eqx.filter_jit
def sgd(problem, network, batch, keys):
    """The measures along SGD, for several seeds.

    Every minibatch is drawn on its own, not in epochs, in which most of the noise
    cancels. On average a step of size h goes down the gradient of the flow, and takes
    a time h.
    """
    # A batch of all samples is to have each of them once.
    replacement = batch < problem.dataset.num_samples

    def run(key):
        trajectory = gf.descend(
            problem,
            optax.sgd(SCHEDULE),
            network,
            2 * STEPS,
            flow=gf.GradientFlow(WEIGHT_DECAY),
            sampler=gf.Minibatches(batch, key=key, replacement=replacement),
            save_steps=np.arange(0, 2 * STEPS + 1, STEPS // SAVES),
            observe={"measures": eqx.Partial(measures, weight_decay=WEIGHT_DECAY)},
            save_networks=False,
        )
        return trajectory.observables["measures"]

    return jax.vmap(run)(keys)


SHOWN = ("spread of the margins", "sample residual", "NC1", "rest")
HEADER = f"{'spread':>10}{'(60)':>10}{'NC1':>10}{'rest':>10}"
CONSTANT = slice(SAVES // 2, SAVES + 1)
"""The saves in the second half of the time at a constant step."""


def _print(title, runs):
    print(title)
    print(f"{'':>10}{'fitted':>8}{'at the constant step':>40}{'at the end':>40}")
    print(f"{'':>18}{HEADER}{HEADER}")
    for name, along in runs.items():
        # Of the seeds the median, and how many of them fit all samples.
        fitted = along["accuracy"][:, -1] == 1
        constant, end = (
            "".join(
                f"{np.median(np.mean(along[k][:, when], axis=1)):10.1e}" for k in SHOWN
            )
            for when in (CONSTANT, slice(-1, None))
        )
        print(f"{name:>10}{f'{fitted.sum()}/{len(fitted)}':>8}{constant}{end}")
    print()


def _print_rests(rests):
    print("where the flow rests, images as they are")
    print(f"{'':>17}{'λ':>7}{'margins m':>19}{HEADER}")
    for (loss, decay), along in rests.items():
        margins = along["margins"][0, -1]
        span = f"{np.min(margins):.3f} to {np.max(margins):.3f}"
        end = "".join(f"{along[k][0, -1]:10.1e}" for k in SHOWN)
        print(f"{loss:>17}{decay:7.3g}{span:>19}{end}")


def _draw(ts, results):
    figure, grid = plt.subplots(
        2,
        len(results),
        figsize=(15, 6.6),
        layout="constrained",
        sharex=True,
        sharey="row",
    )
    for row, measure in zip(grid, ("spread of the margins", "NC1"), strict=True):
        row[0].set(yscale="log", ylabel=measure)
        for axes, (key, runs) in zip(row, results.items(), strict=True):
            for n, (name, along) in enumerate(runs.items()):
                of_seeds = along[measure]
                colour = "black" if name == "flow" else f"C{n - 1}"
                style = "--" if name == "flow" else "-"
                middle = np.median(of_seeds, axis=0)
                axes.plot(ts, middle, style, color=colour, label=name, zorder=9 - n)
                low, high = np.min(of_seeds, axis=0), np.max(of_seeds, axis=0)
                axes.fill_between(ts, low, high, color=colour, alpha=0.2, lw=0)
            axes.axvline(TIME, color="gray", lw=0.8, ls=":")
            axes.set_title(", ".join(key))
    # Below this there is little but rounding.
    grid[0, 0].set_ylim(bottom=1e-5)
    grid[1, 0].set_ylim(bottom=1e-10)
    grid[1, 0].set_xlim(0, ts[-1])
    figure.supxlabel("flow time; the steps decay behind the dotted line")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=9
    )
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Collapse, and minibatches of SGD.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
