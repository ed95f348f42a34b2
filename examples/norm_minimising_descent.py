"""Does norm-minimising gradient descent find minima of small norm in a deep network?

Norm-minimising gradient descent, w ← (1 - λ_n)(w - γ ∇L) with λ_n = n^-a, ends for a
linear network at the solution of least norm, from any start (T3 9, 25, 26). T3 hopes
for the same of deep ReLU networks. But each step decays the weights by λ_n whatever γ
is: at first the decay is of order one, against a small γ ∇L, and the origin, a saddle
of the loss, attracts. Near it ∇L is homogeneous: where w = P_n u with P_n = Π (1 -
λ_i), u descends the loss alone, for K layers by the steps γ P_n^(K-2). They take the
time s = γ Σ P_n^(K-2). With two layers that is γ n, and they get away from the origin.
With three and a = 1 it is γ log n, for all others it is finite.

The script trains three layers on 40 digits, from three norms of the start, by plain
descent, under a constant weight decay, by the rule as T3 prints it, and by that of the
flow's clock, λ_n = γ / (1 + γ n), where the decay is weak against the loss from the
first step on. The flow itself then goes further. Last it tries whether networks of two
to four layers get away from the origin.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradflow as gf

WIDTH = 16
STEP = 1e-3
STEPS = 4000
STARTS = (1.0, 3.0, 8.0)
"""The norm of every layer."""
TIMES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
SEEDS = 10
AWAY = 36.0
"""The loss below which the origin, where it is 40, has been left."""
power = gf.rules.power_decay
RULES = {
    "plain descent": optax.sgd(STEP),
    "weight decay": optax.chain(gf.rules.weight_decay(0.1), optax.sgd(STEP)),
    "n^-1/2": gf.rules.nmgd(STEP, power(0.5)),
    "n^-1": gf.rules.nmgd(STEP, power(1.0)),
    "γ / (1 + γ n)": gf.rules.nmgd(STEP, power(1.0, first=1 / STEP)),
}


class Escape(NamedTuple):
    """Layers, the norm of each at the start, and λ_n = n^-exponent."""

    layers: int
    norm: float
    exponent: float
    step: float
    steps: int = STEPS


ESCAPES = (
    Escape(2, 3.0, 1.0, 1e-3),
    Escape(2, 3.0, 0.5, 1e-3, 20_000),
    Escape(3, 3.0, 0.75, 1e-2),
    Escape(3, 1.0, 1.0, 1e-2),
    Escape(3, 3.0, 1.0, 1e-2),
    Escape(3, 4.0, 1.0, 1e-2),
    Escape(4, 3.0, 1.0, 1e-2),
)


def main(
    out: Path = Path("."),
    starts: tuple[float, ...] = STARTS,
    steps: int = STEPS,
    times: tuple[float, ...] = TIMES,
    escapes: tuple[Escape, ...] = ESCAPES,
    seeds: int = SEEDS,
):
    """Prints tables, and writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    keys = jax.random.split(jax.random.key(0), seeds)
    columns = f"{'loss':>13}{'ρ':>17}{'Σ|W|²':>17}{'test error':>20}{'test loss':>15}"
    print(f"{'rule':14}{'start':>6}{columns}")
    runs = {}
    for name, rule in RULES.items():
        for start in starts:
            runs[name, start] = _, along = descents(rule, start, steps, keys)
            _print(f"{name:14}{start:6g}", along, -1)
    print(f"\n{'flow to time':14}{'start':>6}{columns}")
    flows = {start: follow(start, times, keys) for start in starts}
    for start, (_, along) in flows.items():
        for row, time in enumerate(times[1:], start=1):
            _print(f"{time:14g}{start:6g}", along, row)
    print("\nlayers  start    a   step  steps     time s  |u| grows by", end="")
    print("          loss from    to  away")
    left = {escape: leave(escape, keys) for escape in escapes}
    for escape, (_, along) in left.items():
        growth, loss = along["growth"][:, -1], along["loss"][:, -1]
        print(
            f"{escape.layers:6}{escape.norm:7g}{escape.exponent:5g}{escape.step:7g}"
            f"{escape.steps:7}{along['s'][-1]:11.3g}"
            f"{np.min(growth):11.4g} to {np.max(growth):<9.4g}"
            f"{np.min(loss):8.3g}{np.max(loss):6.3g}"
            f"{f'{np.sum(loss < AWAY)}/{seeds}':>6}"
        )
    out.mkdir(parents=True, exist_ok=True)
    figure = draw(runs, flows, left)
    figure.savefig(out / "norm_minimising_descent.png", dpi=150)
    return runs, flows, left


def problems():
    """Training and test set."""
    train = gf.datasets.digits((3, 8), per_class=20)
    test = gf.datasets.digits((3, 8), split="test")
    return gf.Problem(train, gf.SquareLoss()), gf.Problem(test, gf.SquareLoss("mean"))


def network(key, norm, layers=3):
    widths = (65, *(WIDTH,) * (layers - 1), 1)
    # Smoothed alike for descent and flow, and by so little that it does not matter.
    return gf.Dense(widths, key=key, norm=norm, activation=gf.ReLU(1e-2))


def observables():
    _, test = problems()
    return {
        "loss": gf.Problem.value,
        "rho": gf.analysis.product_of_norms,
        "squares": lambda problem, network: jnp.sum(network.norms**2),
        "test error": lambda problem, network: 1 - test.accuracy(network),
        "test loss": lambda problem, network: test.value(network),
    }


def save_steps(steps):
    """At even distances of their logarithm."""
    return np.unique(np.append(0, np.geomspace(1, steps, 60).astype(int)))


def descents(rule, start, steps, keys, layers=3):
    """The saved steps, and what is measured at them for all seeds."""
    along = _descents(rule, jnp.asarray(start), steps, keys, layers)
    return save_steps(steps), jax.tree.map(np.asarray, along)


def follow(start, times, keys):
    """The times, and what is measured of the flow at them for all seeds."""
    along = _follow(jnp.asarray(start), times, keys)
    return np.asarray(times), jax.tree.map(np.asarray, along)


# The starts are traced: what is compiled for one is used for all.


@eqx.filter_jit
def _descents(rule, start, steps, keys, layers):
    train, _ = problems()

    def run(key):
        return gf.descend(
            train,
            rule,
            network(key, start, layers),
            steps,
            save_steps=save_steps(steps),
            observe=observables(),
            save_networks=False,
        ).observables

    return jax.vmap(run)(keys)


@eqx.filter_jit
def _follow(start, times, keys):
    train, _ = problems()

    def run(key):
        return gf.solve(
            train,
            gf.HalpernFlow(),
            network(key, start),
            times[-1],
            ts=np.asarray(times),
            rtol=1e-4,
            observe=observables(),
            save_networks=False,
        ).observables

    return jax.vmap(run)(keys)


def leave(escape, keys):
    """Norm-minimising descent, with the growth of |u| and its time s at the saves."""
    rule = gf.rules.nmgd(escape.step, power(escape.exponent))
    saves, along = descents(rule, escape.norm, escape.steps, keys, escape.layers)
    decay = np.arange(2, escape.steps + 2) ** -escape.exponent
    remains = np.append(1, np.cumprod(1 - decay))
    s = escape.step * np.append(0, np.cumsum(remains[:-1] ** (escape.layers - 2)))
    norm = np.sqrt(along["squares"] / along["squares"][:, :1])
    return saves, {**along, "growth": norm / remains[saves], "s": s[saves]}


def _print(line, along, row):
    """Means over the seeds and their standard errors."""
    for name, width in zip(along, (10, 9, 9, 8, 8), strict=True):
        mean, error = _mean_and_error(along[name][:, row])
        line += f"{mean:{width}.3g} ± {error:<7.1g}"
    print(line.rstrip())


def _mean_and_error(values):
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / len(values) ** 0.5


def draw(runs, flows, left):
    figure, grid = plt.subplots(2, 2, figsize=(10.5, 8), layout="constrained")
    (first, away), (flow, error) = grid
    for n, name in enumerate(RULES):
        for start, style in zip(flows, ("-", "--", ":"), strict=False):
            steps, along = runs[name, start]
            squares = np.mean(along["squares"], axis=0)
            label = name if style == "-" else None
            first.loglog(steps + 1, squares, style, color=f"C{n}", label=label)
    first.set(xlabel="1 + step", ylabel=r"$\sum_k \|W_k\|^2$", ylim=(1e-7, 1e3))
    first.set_title("descent with three layers, three starts")
    first.legend()
    for escape, (steps, along) in left.items():
        norms = np.sqrt(along["squares"] / escape.layers)
        label = f"{escape.layers} layers, a = {escape.exponent:g}, from {escape.norm:g}"
        away.loglog(steps + 1, np.median(norms, axis=0), label=label)
    away.set(xlabel="1 + step", ylabel=r"$\|W_k\|$, r.m.s.", ylim=(1e-9, 1e2))
    away.set_title("away from the origin? Medians")
    away.legend(fontsize="small", loc="lower left")
    for start, (times, along) in flows.items():
        squares, errors = along["squares"], along["test error"][:, 1:]
        flow.loglog(times + 1, np.mean(squares, axis=0), "o-", label=f"{start:g}")
        error.errorbar(times[1:], *_mean_and_error(errors), fmt="o-", capsize=3)
    flow.set(xlabel="1 + time", ylabel=r"$\sum_k \|W_k\|^2$")
    flow.set_title("the flow with a vanishing decay")
    flow.legend(title="norm of each layer")
    error.set(xlabel="time", ylabel="test error", xscale="log", ylim=(0, 0.1))
    error.set_title("and its test error")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Minima of small norm by descent.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
