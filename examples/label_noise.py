"""What does label noise do to the norm and to the margins of a network?

Labels y_n ± δ, drawn anew in every step, are said to make Σ y_n f_n smaller, and with
it the equilibrium ρ, so that margins are larger: as weight decay does (M112 Appendix
E.1, footnote 15). But where a network interpolates, Σ y_n f_n = N / ρ, and ρ_eq = ρ:
one can only fall if the other rises. What is known is that steps of size h under this
noise drift along the interpolating networks as the flow of h δ² T does, where T = Σ
|∇g_n|² is half the trace of the Hessian (Blanc et al. 2020, Damian et al. 2021). So T
changes at the rate -h δ² |P∇T|², where P is the projection on the directions in which
no output changes.

The script takes networks that interpolate 20 digits, from small and from large starts,
and descends from them with noise, in the weights (the gradient flow's coordinates) and
in ρ and V_k (those of the Lagrange flow), for ten seeds at once. T and P∇T are those of
the coordinates. It compares T with its rate, and says what ρ and the margins do.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import gradflow as gf

WIDTHS = (65, 16, 16, 1)
STEPS = 4000
SEEDS = 10
TIME = 30.0
"""Of the flow without noise."""
SAVES = 100
LAST = 10
"""How many of the saves make the average over time at the end."""
NOISE = ((1e-3, 0.0), (1e-4, 1.0), (1e-3, 0.5), (5e-4, 1.0), (1e-3, 1.0))
"""Step h and δ. In as many steps, those with the same hδ should do the same."""


class Case(NamedTuple):
    name: str
    flow: gf.AbstractFlow
    rho: float
    """At the start, before the flow without noise takes the network to a fit."""


CASES = (
    Case("gradient descent, small", gf.GradientFlow(), 1.0),
    Case("gradient descent, large", gf.GradientFlow(), 64.0),
    Case("Lagrange, small", gf.LagrangeFlow(), 1.0),
    Case("Lagrange, large", gf.LagrangeFlow(), 16.0),
)


def main(
    out: Path = Path("."),
    cases: tuple[Case, ...] = CASES,
    noise: tuple[tuple[float, float], ...] = NOISE,
    steps: int = STEPS,
    seeds: int = SEEDS,
):
    """Prints tables, and writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    keys = jax.random.split(jax.random.key(0), seeds)
    results = {}
    for case in cases:
        results[case.name] = along = descend(case, noise, steps, keys)
        _print(case, noise, steps, along)
    out.mkdir(parents=True, exist_ok=True)
    draw(results, noise, steps).savefig(out / "label_noise.png", dpi=150)
    return results


def problems():
    """Training and test set."""
    train = gf.datasets.digits((3, 8), per_class=10)
    test = gf.datasets.digits((3, 8), split="test")
    return gf.Problem(train, gf.SquareLoss()), gf.Problem(test, gf.SquareLoss("mean"))


def sensitivity(flow):
    """Makes an observable of T and |P∇T|², in the coordinates of `flow`."""

    def gradients(problem, network, state):
        def output(state, x):
            return flow.to_network(state, network)(x)[0]

        def of_sample(x):
            return ravel_pytree(flow.tangent(state, jax.grad(output)(state, x)))[0]

        return jax.vmap(of_sample)(problem.dataset.inputs)

    def measure(problem, network):
        state = flow.init(network)

        def total(state):
            return jnp.sum(gradients(problem, network, state) ** 2)

        value, slope = jax.value_and_grad(total)(state)
        slope, _ = ravel_pytree(flow.tangent(state, slope))
        rows = gradients(problem, network, state)
        multipliers = jnp.linalg.solve(rows @ rows.T, rows @ slope)
        return {"T": value, "force": jnp.sum((slope - multipliers @ rows) ** 2)}

    return measure


def observables(flow):
    _, test = problems()
    return {
        "sensitivity": sensitivity(flow),
        "loss": gf.Problem.value,
        "rho": gf.analysis.product_of_norms,
        "sum": lambda problem, network: jnp.sum(problem.margins(network)),
        "squares": lambda problem, network: jnp.sum(problem.margins(network) ** 2),
        "smallest": lambda problem, network: jnp.min(problem.margins(network)),
        "test error": lambda problem, network: 1 - test.accuracy(network),
        "test loss": lambda problem, network: test.value(network),
    }


def descend(case, noise, steps, keys):
    """What is measured along the descents, of shape `(noise, seeds, saves)`."""
    train, _ = problems()
    h, delta = np.transpose(noise)

    @jax.jit
    @jax.vmap
    def start(key):
        # Smoothed, so that T has a gradient.
        norm = case.rho ** (1 / (len(WIDTHS) - 1))
        network = gf.Dense(WIDTHS, key=key, norm=norm, activation=gf.ReLU(0.1))
        run = gf.solve(
            train, case.flow, network, TIME, ts=[TIME], rtol=1e-3, observe={}
        )
        return run.final.weights

    def run(h, delta, weights, key):
        network = gf.Dense.from_weights(weights, activation=gf.ReLU(0.1))
        along = gf.descend(
            train,
            h,
            network,
            steps,
            flow=case.flow,
            sampler=gf.LabelNoise(delta, key=jax.random.fold_in(key, 1)),
            save_steps=np.linspace(0, steps, SAVES + 1).astype(int),
            observe=observables(case.flow),
            save_networks=False,
        ).observables
        return {**along.pop("sensitivity"), **along}

    of_seeds = jax.vmap(run, in_axes=(None, None, 0, 0))
    of_noise = jax.jit(jax.vmap(of_seeds, in_axes=(0, 0, None, None)))
    along = of_noise(jnp.asarray(h), jnp.asarray(delta), start(keys), keys)
    along = jax.tree.map(np.asarray, along)
    # The rate -hδ² |P∇T|², integrated over the time h of the steps.
    rate = along["force"] * (h * delta)[:, None, None] ** 2
    means = (rate[..., 1:] + rate[..., :-1]) / 2
    falls = np.cumsum(means, axis=-1) * steps / SAVES
    along["law"] = along["T"][..., :1] - np.append(0 * rate[..., :1], falls, axis=-1)
    return along


def _print(case, noise, steps, along):
    """At the start and, as means over the last saves, at the end; of the sum of the
    margins and of ρ the change, with the standard error of its mean over the seeds."""
    start, end = (
        {name: np.mean(v[..., part], axis=-1) for name, v in along.items()}
        for part in (slice(0, 1), slice(-LAST, None))
    )
    print(f"{case.name}: ρ = {case.rho:g} before the fit")
    print(f"{'h':>8}{'δ':>5}{'(hδ)²n':>9}{'T':>8}{'law':>7}{'ρ':>8}{'ρ_eq':>8}", end="")
    print(f"{'Σyf':>8}{'ρ by':>15}{'Σyf by':>16}", end="")
    print(f"{'smallest':>10}{'test error':>12}{'loss':>7}")
    rows = [("start", start, 0), *((n, end, i) for i, n in enumerate(noise))]
    for label, values, i in rows:
        mean = {name: np.mean(v[i]) for name, v in values.items()}
        # Of means over time: the mean of the ratio is raised by its fluctuations.
        rho_eq = np.mean(values["sum"][i] / values["squares"][i])
        line = f"{'start':>22}"
        if label != "start":
            h, delta = label
            line = f"{h:8g}{delta:5g}{(h * delta) ** 2 * steps:9.2g}"
        line += f"{mean['T']:8.4g}{mean['law']:7.4g}{mean['rho']:8.4g}"
        line += f"{rho_eq:8.4g}{mean['sum']:8.4g}"
        for name in ("rho", "sum"):
            change = values[name][i] / start[name][i] - 1
            error = np.std(change, ddof=1) / np.sqrt(len(change))
            line += f"{100 * np.mean(change):8.2f} ± {100 * error:4.2f}%"
        line += f"{mean['smallest']:10.4f}{mean['test error']:12.4f}"
        print(line + f"{mean['test loss']:7.3f}")
    print()


def draw(results, noise, steps):
    figure, grid = plt.subplots(
        2,
        len(results),
        figsize=(3.6 * len(results), 6.6),
        layout="constrained",
        squeeze=False,
    )
    # Means over tenths of the run.
    tenths = (np.arange(10) + 0.5) / 10
    for (name, along), (top, bottom) in zip(results.items(), grid.T, strict=True):
        for n, (h, delta) in enumerate(noise):
            if delta == 0:
                continue
            T, law, rho, total = (
                np.mean(along[k][n, :, 1:], axis=0).reshape(10, -1).mean(axis=1)
                for k in ("T", "law", "rho", "sum")
            )
            time = (h * delta) ** 2 * steps * tenths
            label = f"h = {h:g}, δ = {delta:g}"
            top.semilogx(time, T, "o-", color=f"C{n}", label=label, ms=4)
            top.semilogx(time, law, "--", color=f"C{n}")
            for values, key, style in ((rho, "rho", "o-"), (total, "sum", "s:")):
                ratio = values / np.mean(along[key][n, :, 0])
                bottom.semilogx(time, ratio, style, color=f"C{n}", ms=4)
        top.set(title=name, ylabel="T, and its law (dashed)", ylim=(0, None))
        bottom.set(ylabel=r"over the start: $\rho$, and $\sum_n y_n f_n$ (dotted)")
        bottom.set_xlabel(r"$(h \delta)^2$ times steps")
    grid[0, 0].legend(fontsize="small")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Label noise, ρ and the margins.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
