"""Flows at a temperature come to Boltzmann's density, each to that of its coordinates.

The Langevin equation dw = -∇J dt + √(2T) dβ has the stationary density e^{-J/T}/Z (T3
7). The script looks at two landscapes in which this can be computed. A network of two
layers with one weight each has two wells, at ab = 1, and its paths, which all start in
one of them, cross to the other. A linear network of two weights is followed in the
weights, and in ρ and V on the circle as the Lagrange flow has them: the loss and the
temperature are the same, but not the measure of volume, so the norms are not either.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradflow as gf

PATHS = 2000
TEMPERATURE = 0.4
DECAY = 0.2
TIMES = np.linspace(0.0, 50.0, 51)
GRID = np.linspace(-4.0, 4.0, 401)


def main(out: Path = Path("."), paths: int = PATHS, times: np.ndarray = TIMES):
    """Prints means beside those of Boltzmann's density; writes a figure to `out`."""
    jax.config.update("jax_enable_x64", True)
    wells = gf.Problem(
        gf.Dataset(np.array([[1.0]]), np.array([1.0]), regression=True), gf.SquareLoss()
    )
    inputs, targets = np.array([[1.0, 0.3], [0.2, 0.7]]), np.array([1.0, -0.5])
    plane = gf.Problem(gf.Dataset(inputs, targets, regression=True), gf.SquareLoss())
    one, line = jnp.array([[0.9]]), jnp.array([[0.6, 0.8]])

    print(f"{paths} paths to t = {times[-1]:g} at the temperature {TEMPERATURE:g}")
    ab = follow(wells, gf.GradientFlow(DECAY), (one, one), times, paths)
    ab = np.concatenate([w[..., 0] for w in ab], axis=-1)
    x, y = np.meshgrid(GRID, GRID, indexing="ij")
    density = boltzmann((x * y - 1) ** 2 + DECAY * (x**2 + y**2))
    _print("two layers, ⟨ab⟩", np.prod(ab[:, -1], axis=1), np.sum(x * y * density))
    _print("  in the other well", ab[:, -1].sum(1) < 0, np.sum((x + y < 0) * density))

    norms = {}
    objective = np.sum((np.stack([x, y], -1) @ inputs.T - targets) ** 2, axis=-1)
    objective = objective + DECAY * (x**2 + y**2)
    flows = {"weights": gf.GradientFlow(DECAY), "ρ and V": gf.LagrangeFlow(DECAY)}
    for name, flow in flows.items():
        # The area of the plane is ρ times that of ρ and the angle. At the origin it is
        # the mean of 1 / ρ over the cell.
        smallest = (GRID[1] - GRID[0]) / (4 * np.log(1 + np.sqrt(2)))
        volume = 1 / np.maximum(np.hypot(x, y), smallest)
        volume = volume if name == "ρ and V" else np.ones_like(volume)
        law = boltzmann(objective, volume)
        (w,) = follow(plane, flow, (line,), times, paths)
        norm = np.linalg.norm(w[:, -1, 0], axis=1)
        norms[name] = norm, law
        _print(f"linear network, {name}: ⟨‖w‖⟩", norm, np.sum(np.hypot(x, y) * law))
    out.mkdir(parents=True, exist_ok=True)
    _draw(times, ab, density, norms).savefig(out / "langevin.png", dpi=150)
    return ab, norms


def follow(problem, flow, weights, times, paths):
    """The weights of all paths at all times, of shape `(paths, times, …)`."""
    network = gf.Dense.from_weights(weights, activation=gf.Identity())

    @jax.jit
    @jax.vmap
    def path(key):
        hot = gf.LangevinFlow(TEMPERATURE, flow, key=key)
        run = gf.solve(
            problem, hot, network, times[-1], ts=times, rtol=3e-2, observe={}
        )
        return run.networks.weights

    return [np.asarray(w) for w in path(jax.random.split(jax.random.key(0), paths))]


def boltzmann(objective, volume=1.0):
    """The probabilities of the cells of the grid."""
    weights = volume * np.exp(-objective / TEMPERATURE)
    return weights / np.sum(weights)


def _print(name, values, expected):
    error = np.std(values) / np.sqrt(len(values))
    mean = np.mean(values)
    print(f"{name:38}{mean:8.4f} ± {error:.4f}   Boltzmann {expected:8.4f}")


def _draw(times, ab, density, norms):
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4), layout="constrained"
    )
    left.contour(GRID, GRID, density.T, colors="k", linewidths=0.6)
    left.plot(*ab[:, -1].T, ".", ms=2, alpha=0.5)
    left.set(
        xlabel="$a$", ylabel="$b$", aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5)
    )
    left.set_title(f"at t = {times[-1]:g}, and the density")
    middle.plot(times, np.mean(np.sum(ab, axis=-1) < 0, axis=0))
    middle.axhline(0.5, color="k", ls="--", lw=0.8)
    middle.set(xlabel="$t$", ylabel="share of the paths", title="in the other well")
    edges = np.linspace(0, 2.5, 26)
    x, y = np.meshgrid(GRID, GRID, indexing="ij")
    for i, (name, (norm, law)) in enumerate(norms.items()):
        share = np.full(len(norm), 1 / len(norm) / (edges[1] - edges[0]))
        right.hist(norm, edges, weights=share, alpha=0.4, label=f"in {name}")
        exact, _ = np.histogram(np.hypot(x, y), edges, weights=law)
        right.plot((edges[1:] + edges[:-1]) / 2, exact / np.diff(edges), f"C{i}.-")
    right.set(xlabel=r"$\|w\|$", ylabel="density", title="linear network")
    right.legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Flows at a temperature.")
    parser.add_argument("--out", type=Path, default=Path("."), help="for the figure")
    main(parser.parse_args().out)
