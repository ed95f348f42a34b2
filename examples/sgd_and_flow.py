"""Does SGD make the weights rank one, where the flow of all samples does not?

Where SGD rests on every minibatch of one sample, with weight decay, every sample on its
own must satisfy ∂f_n/∂V_k = V_k f_n (M112 40), and then every V_k has rank one (M112
Lemma 6). But in the first layer ∂f_n/∂V_1 = a_n x_nᵀ: all inputs would have to be
parallel, and of one sign for a ReLU network to see them all. So inputs of norm one
would have to be the same. The script follows the flow and SGD from the same start, with
the same weight decay, on two digits and on copies of one image, and measures for every
layer how far (40) and rank one are. SGD runs for a while at a constant step, and then
with steps that decay, so that it comes to rest where it can.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradflow as gf

WEIGHT_DECAY = 1.0
TIME = 40.0
STEPS = (1e-3, 5e-3, 1e-2)
SEEDS = 8
SAVES = 40
DECAY = 100.0
"""By how much the steps decay in the second half."""


def main(out: Path = Path("."), steps: tuple[float, ...] = STEPS, seeds: int = SEEDS):
    """Follows the flow and SGD, prints tables, and writes a figure for each data set to
    `out`."""
    jax.config.update("jax_enable_x64", True)
    digits = gf.datasets.digits((3, 8), per_class=10)
    copies = gf.Dataset(
        jnp.tile(digits.inputs[:1], (digits.num_samples, 1)),
        jnp.ones(digits.num_samples),
    )
    # Smoothed alike for both, and by so little that it does not matter.
    network = gf.Dense((65, 16, 16, 1), key=jax.random.key(0), activation=gf.ReLU(1e-3))
    results = {}
    for name, dataset in {"digits": digits, "copies": copies}.items():
        problem = gf.Problem(dataset, gf.SquareLoss())
        ts = clock(steps[0])
        flow = gf.solve(
            problem,
            gf.GradientFlow(WEIGHT_DECAY),
            network,
            ts[-1],
            ts=ts,
            observe={"measures": measures},
            save_networks=False,
        )
        # As of one seed.
        along = {
            k: np.asarray(v)[None] for k, v in flow.observables["measures"].items()
        }
        runs = {"flow": (ts, along)}
        for step in steps:
            keys = jax.random.split(jax.random.key(1), seeds)
            values = sgd(problem, network, step, keys)
            along = {k: np.asarray(v) for k, v in values.items()}
            runs[f"SGD, step {step:g}"] = (clock(step), along)
        results[name] = runs

    out.mkdir(parents=True, exist_ok=True)
    for (name, runs), dataset in zip(results.items(), (digits, copies), strict=True):
        floor = residual_floor(dataset)
        _print(name, runs, floor)
        figure = _draw(runs, floor, scale="linear" if name == "digits" else "log")
        figure.savefig(out / f"sgd_and_flow_{name}.png", dpi=150)
    return results


def measures(problem, network):
    """What is compared, for every layer where there are several numbers."""
    residuals = gf.analysis.sample_residual(problem, network)
    return {
        "loss": problem.value(network),
        "accuracy": problem.accuracy(network),
        # NaN for a sample that no unit sees.
        "residual": jnp.sqrt(jnp.nanmean(residuals**2, axis=1)),
        "largest residual": jnp.nanmax(residuals, axis=1),
        # The last layer is a row, which has rank one always.
        "distance to rank one": gf.analysis.distance_to_rank_one(problem, network)[:-1],
    }


def num_steps(step):
    """At the constant step, and as many while it decays."""
    return round(TIME / step / SAVES) * SAVES


def schedule(step):
    """The size of each step: constant, then decaying."""
    count = num_steps(step)
    return optax.exponential_decay(step, count, 1 / DECAY, transition_begin=count)


def clock(step):
    """The time of the start and of each save."""
    count = num_steps(step)
    sizes = schedule(step)(np.arange(2 * count))
    return np.append(0, np.cumsum(sizes))[:: count // SAVES]


@eqx.filter_jit
def sgd(problem, network, step, keys):
    """SGD on one sample at a time, each drawn from all of them, for several seeds.

    On average a step of size h goes down the gradient of the flow, and takes a time h.
    """
    count = num_steps(step)

    def run(key):
        trajectory = gf.descend(
            problem,
            optax.sgd(schedule(step)),
            network,
            2 * count,
            flow=gf.GradientFlow(WEIGHT_DECAY),
            sampler=gf.Minibatches(1, key=key, replacement=True),
            save_steps=np.arange(0, 2 * count + 1, count // SAVES),
            observe={"measures": measures},
            save_networks=False,
        )
        return trajectory.observables["measures"]

    return jax.vmap(run)(keys)


def residual_floor(dataset):
    r"""A lower bound of the residual of the first layer, whatever the weights.

    The cosines of $V_1$ to the normalised $a_n x_n^\top$ have squares that sum to at
    most the largest eigenvalue of their Gram matrix, whose entries are no larger than
    those of $X X^\top$ in absolute value.
    """
    x = np.asarray(dataset.inputs)
    gram = np.abs(x @ x.T)
    return np.sqrt(max(1 - np.linalg.eigvalsh(gram)[-1] / len(x), 0))


def _print(name, runs, floor):
    print(f"{name}: the residual of the first layer is at least {floor:.3f}")
    print(
        f"{'':>15}{'time':>6}{'loss':>7}{'fitted':>8}"
        f"{'residual of the layers':>28}{'largest residual':>28}"
        f"{'distance to rank 1':>20}"
    )
    for label, (ts, along) in runs.items():
        # Of the seeds the median, and how many of them fit all samples.
        fitted = along["accuracy"] == 1
        rows = (0, SAVES, 2 * SAVES) if label == "flow" else (SAVES, 2 * SAVES)
        for row in rows:
            loss = np.median(along["loss"][:, row])
            residuals, largest, ranks = (
                "".join(f"{x:9.2g}" for x in np.median(along[k][:, row], axis=0))
                for k in ("residual", "largest residual", "distance to rank one")
            )
            print(
                f"{label:>15}{ts[row]:6.1f}{loss:7.2g}"
                f"{f'{fitted[:, row].sum()}/{len(fitted)}':>8}"
                f"{residuals:>28}{largest:>28}{ranks:>20}"
            )
    print()


def _draw(runs, floor, scale):
    figure, grid = plt.subplots(
        2, 3, figsize=(12, 6.4), layout="constrained", sharex=True, sharey="row"
    )
    for measure, row in zip(("residual", "distance to rank one"), grid, strict=True):
        row[0].set(yscale=scale)
        row[0].set_ylabel(f"{measure} (r.m.s.)" if measure == "residual" else measure)
        for layer, axes in enumerate(row):
            if measure == "distance to rank one" and layer == 2:
                axes.set_axis_off()
                continue
            for n, (label, (ts, along)) in enumerate(runs.items()):
                of_seeds = along[measure][:, :, layer]
                colour = "black" if label == "flow" else f"C{n - 1}"
                style = "--" if label == "flow" else "-"
                middle = np.median(of_seeds, axis=0)
                axes.plot(ts, middle, style, color=colour, label=label, zorder=3 - n)
                low, high = np.min(of_seeds, axis=0), np.max(of_seeds, axis=0)
                axes.fill_between(ts, low, high, color=colour, alpha=0.2, lw=0)
            axes.axvline(TIME, color="gray", lw=0.8, ls=":")
            axes.tick_params(labelbottom=True)
            axes.set_title(f"layer {layer + 1}")
            axes.set_xlabel("flow time; the steps decay behind the dotted line")
    if scale == "linear":
        grid[0, 0].axhline(floor, color="gray", ls="-.", label="lower bound, layer 1")
        grid[0, 0].set_ylim(0, 1.05)
        grid[1, 0].set_ylim(0, 1.05)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    grid[1, 2].legend(handles, labels, loc="center", fontsize="large")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="SGD and the flow of all samples.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figures")
    main(parser.parse_args().out)
