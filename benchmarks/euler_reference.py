"""How far is Euler's method from the Filippov solution of an exact ReLU flow?

The Lagrange flow of the square loss (sum), the last norm free, on 20 digits, integrated
with small fixed steps and re-projected on the unit spheres after each. The field is
written out by hand: only the data and the start come from gradflow. At a sliding
pre-activation the method chatters with an amplitude O(h) about the Filippov solution
and approaches it at first order. Two remedies are measured beside it: the mean over a
window of steps, which takes out the chatter, and Richardson's extrapolation of two such
means, from the steps h and h/2. The reference is that of `filippov.py`.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial

import filippov
import jax
import jax.numpy as jnp
import numpy as np

import gradflow as gf

WEIGHT_DECAY = 0.1
WIDTHS = (65, 32, 32, 1)
RHO = 0.1

State = tuple[float, list[np.ndarray]]


def problem(seed: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Weights at the start, inputs and labels."""
    data = gf.datasets.digits((3, 8), per_class=10)
    norm = RHO ** (1 / (len(WIDTHS) - 1))
    network = gf.Dense(WIDTHS, key=jax.random.key(seed), norm=norm)
    weights = [np.asarray(w) for w in network.weights]
    return weights, np.asarray(data.inputs), np.asarray(data.labels)


@partial(jax.jit, static_argnames="mean")
def _steps(state, inputs, labels, weight_decay, step, count, *, mean):
    """The state after `count` steps, or the mean of the states after each of them."""

    def advance(state):
        rho, directions = state
        layers = [inputs]
        for v in directions[:-1]:
            layers.append(jnp.maximum(layers[-1] @ v.T, 0.0))
        f = (layers[-1] @ directions[-1].T)[:, 0]
        d = 2.0 * (rho * f - labels)
        # The scalar product of V_k and its gradient, the same for every layer.
        along = d @ f
        new, signal = [], d[:, None]
        for v, h in zip(directions[::-1], layers[::-1], strict=True):
            moved = v - step * rho * (signal.T @ h - along * v)
            new.append(moved / jnp.sqrt(jnp.sum(moved * moved)))
            signal = (signal @ v) * (h > 0.0)
        return rho - step * (along + 2.0 * weight_decay * rho), tuple(new[::-1])

    if not mean:
        return jax.lax.fori_loop(0, count, lambda _, s: advance(s), state)

    def accumulate(_, carry):
        state, total = carry
        state = advance(state)
        return state, jax.tree.map(jnp.add, total, state)

    zero = jax.tree.map(jnp.zeros_like, state)
    _, total = jax.lax.fori_loop(0, count, accumulate, (state, zero))
    return jax.tree.map(lambda x: x / count, total)


def euler(
    weights: Sequence[np.ndarray],
    inputs: np.ndarray,
    labels: np.ndarray,
    weight_decay: float,
    step: float,
    times: Sequence[float],
    *,
    window: int = 0,
) -> list[State]:
    """States at `times`, multiples of `step` that are more than `window` of them apart.

    With `window` > 0 each is the mean over so many steps before and after, projected
    on the spheres.
    """
    norms = [np.linalg.norm(w) for w in weights]
    directions = tuple(jnp.asarray(w / n) for w, n in zip(weights, norms, strict=True))
    state, done, states = (jnp.asarray(np.prod(norms)), directions), 0, []
    for t in times:
        target = round(t / step) - (window + 1 if window else 0)
        data = inputs, labels, weight_decay, step
        state = _steps(state, *data, target - done, mean=False)
        done = target
        here = _steps(state, *data, 2 * window + 1, mean=True) if window else state
        directions = [np.asarray(v) for v in here[1]]
        states.append((float(here[0]), [v / np.linalg.norm(v) for v in directions]))
    return states


def richardson(coarse: State, fine: State) -> State:
    """Extrapolation to step 0 from the steps h and h/2, projected on the spheres."""
    directions = [2.0 * b - a for a, b in zip(coarse[1], fine[1], strict=True)]
    rho = 2.0 * fine[0] - coarse[0]
    return rho, [v / np.linalg.norm(v) for v in directions]


def distance(state: State, other: State) -> float:
    """|W - W'| / |W'| over the weights of all layers, the last with its norm."""
    flat, target = (
        np.concatenate([v.ravel() for v in (*d[:-1], rho * d[-1])])
        for rho, d in (state, other)
    )
    return float(np.linalg.norm(flat - target) / np.linalg.norm(target))


def _print(name, states, exact, seconds):
    errors = "".join(
        f"{distance(*pair):12.2e}" for pair in zip(states, exact, strict=True)
    )
    print(f"{name:32}{errors}{seconds:10.1f}", flush=True)


def main(seed: int, times: Sequence[float], steps: Sequence[float], window: int):
    """Prints the distances from the Filippov solution at `times`."""
    jax.config.update("jax_enable_x64", True)
    start = problem(seed)
    clock = time.perf_counter()
    result = filippov.integrate(*start, WEIGHT_DECAY, times, rtol=1e-7)
    exact = result.states
    seconds = time.perf_counter() - clock
    print(f"seed {seed}; at rest from t = {result.at_rest:.4g}; {dict(result.count)}")
    print(f"{'t':32}" + "".join(f"{t:12g}" for t in times) + f"{'seconds':>10}")
    print(f"{'rho':32}" + "".join(f"{rho:12.8f}" for rho, _ in exact))
    print(f"{'sliding pairs':32}" + "".join(f"{s!s:>12}" for s in result.sliding))
    loose = filippov.integrate(*start, WEIGHT_DECAY, times, rtol=1e-6).states
    _print("Filippov, rtol 1e-6 from 1e-7", loose, exact, seconds)
    for step in steps:
        rows = {}
        for h, width in ((step, 0), (step, window), (step / 2, 2 * window)):
            clock = time.perf_counter()
            states = euler(*start, WEIGHT_DECAY, h, times, window=width)
            rows[h, width] = states, time.perf_counter() - clock
        _print(f"Euler, h = {step:g}", rows[step, 0][0], exact, rows[step, 0][1])
        (coarse, seconds), (fine, more) = rows[step, window], rows[step / 2, 2 * window]
        _print(f"  mean over {window} h each side", coarse, exact, seconds)
        both = [richardson(*pair) for pair in zip(coarse, fine, strict=True)]
        _print("  extrapolated", both, exact, seconds + more)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Euler against Filippov.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--steps", type=float, nargs="+", default=[1e-3, 1e-4])
    parser.add_argument("--window", type=int, default=10, help="steps on each side")
    arguments = parser.parse_args()
    main(arguments.seed, arguments.times, arguments.steps, arguments.window)
