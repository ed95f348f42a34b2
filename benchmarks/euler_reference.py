"""How far is Euler's method from the Filippov solution of an exact ReLU flow?

The Lagrange flow of the square loss (sum), the last norm free, integrated with small
fixed steps and re-projected on the unit spheres after each. The right-hand side is
written out by hand: nothing but the data and the start comes from gradflow. On a
sliding pre-activation the method chatters with an amplitude O(h) about the Filippov
solution, which it approaches at first order.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def _signals(directions, inputs, labels, rho):
    """f_n, the slopes d_n, and sum_n d_n df_n/dV_k for each layer."""
    layers = [inputs]
    for v in directions[:-1]:
        layers.append(jnp.maximum(layers[-1] @ v.T, 0.0))
    f = (layers[-1] @ directions[-1].T)[:, 0]
    d = 2.0 * (rho * f - labels)
    back = d[:, None]
    gradients = []
    for v, h in zip(reversed(directions), reversed(layers), strict=True):
        gradients.append(back.T @ h)
        back = (back @ v) * (h > 0.0)
    return f, d, gradients[::-1]


@partial(jax.jit, static_argnames="average")
def _segment(state, inputs, labels, weight_decay, step, count, average):
    """`count` steps; with `average`, also the mean state of the second half."""

    def one(rho, directions):
        f, d, gradients = _signals(directions, inputs, labels, rho)
        df = jnp.sum(d * f)
        new = []
        for v, g in zip(directions, gradients, strict=True):
            # <V_k, G_k> = sum_n d_n f_n in every layer.
            v = v - step * rho * (g - df * v)
            new.append(v / jnp.sqrt(jnp.sum(v * v)))
        return rho - step * (df + 2.0 * weight_decay * rho), tuple(new)

    if not average:
        return jax.lax.fori_loop(0, count, lambda _, s: one(*s), state)

    def body(i, carry):
        state, total = carry
        state = one(*state)
        total = jax.tree.map(lambda a, b: a + b, total, state)
        return state, total

    zero = jax.tree.map(jnp.zeros_like, state)
    state, total = jax.lax.fori_loop(0, count, body, (state, zero))
    return jax.tree.map(lambda a: a / count, total)


def split(weights):
    """rho and the unit directions of a network with the given weights."""
    weights = [np.asarray(w, np.float64) for w in weights]
    norms = [np.linalg.norm(w) for w in weights]
    return np.prod(norms), tuple(w / n for w, n in zip(weights, norms, strict=True))


def euler(weights, inputs, labels, weight_decay, step, times, *, window=0):
    """States (rho, directions) at `times`, multiples of `step`.

    With `window` > 0 each of them is the mean over the steps in
    (t - window step, t + window step), which takes out most of the chatter; the
    directions are brought back to the unit spheres.
    """
    rho, directions = split(weights)
    state = (jnp.asarray(rho), tuple(map(jnp.asarray, directions)))
    run = partial(
        _segment,
        inputs=jnp.asarray(inputs, jnp.float64),
        labels=jnp.asarray(labels, jnp.float64),
        weight_decay=weight_decay,
        step=step,
    )
    states, done = [], 0
    for t in times:
        target = round(t / step) - window
        state = run(state, count=target - done, average=False)
        done = target
        here = state if window == 0 else run(state, count=2 * window, average=True)
        rho, directions = float(here[0]), [np.asarray(v) for v in here[1]]
        states.append((rho, tuple(v / np.linalg.norm(v) for v in directions)))
    return states


def distance(state, other):
    """|W - W'| / |W'| over all weights, the last layer's with the norm rho."""
    flat = [
        np.concatenate([v.ravel() for v in (*s[1][:-1], s[0] * s[1][-1])])
        for s in (state, other)
    ]
    return np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
