"""Small problems for the tests of whole runs.

Compiling a run takes seconds, and is needed again for other shapes, functions and
flags, but not for other numbers. So everything here has the same shapes, and the tests
save as many times as is the default, 101, unless that is what they are about.
"""

import dataclasses
import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gradflow as gf

NUM_SAVES = 101


@functools.cache
def dataset(seed=0):
    """Six samples of norm one in four dimensions, three of each sign."""
    inputs = np.random.default_rng(seed).normal(size=(6, 4))
    inputs = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    # Also where it is first called while something is traced.
    with jax.ensure_compile_time_eval():
        return gf.Dataset(inputs, np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))


def inseparable():
    """Like `dataset`, with one input under both signs: some error always remains."""
    inputs = np.array(dataset().inputs)
    inputs[1] = inputs[0]
    return gf.Dataset(inputs, dataset().labels)


def problem(seed=0, loss=None):
    return gf.Problem(dataset(seed), gf.SquareLoss() if loss is None else loss)


def regression(inputs, targets):
    """The squares of what is left of real targets."""
    dataset = gf.Dataset(np.array(inputs), np.array(targets), regression=True)
    return gf.Problem(dataset, gf.SquareLoss())


def linear(*weights):
    """A linear network of these weights, first layer first."""
    return gf.Dense.from_weights(
        tuple(jnp.asarray(w, float) for w in weights), gf.Identity()
    )


def network(seed=1, norms=(0.8, 1.25), activation=None):
    """Unequal norms, so that flows that move them to the last layer have to."""
    rng = np.random.default_rng(100 + seed)
    weights = [rng.normal(size=shape) for shape in ((5, 4), (1, 5))]
    return gf.Dense.from_weights(
        [
            jnp.asarray(w * (n / np.linalg.norm(w)))
            for w, n in zip(weights, norms, strict=True)
        ],
        gf.ReLU(0.1) if activation is None else activation,
    )


def loss(problem, network):
    return problem.value(network)


def rho(problem, network):
    del problem
    return jnp.prod(network.norms)


@eqx.filter_jit
def outputs(problem, network):
    return problem.outputs(network)


OBSERVE = {"loss": loss, "rho": rho}


def weights_of(network):
    """All weights as one NumPy vector; for several networks, a matrix of them."""
    lead = network.weights[0].ndim - 2
    return np.concatenate(
        [np.reshape(w, (*w.shape[:lead], -1)) for w in network.weights], axis=-1
    )


def mapped(trajectory, folder):
    """The trajectory with its rows in files below `folder`, none of them in memory."""
    files = itertools.count()

    def to_file(leaf):
        path = folder / f"{next(files)}.npy"
        np.save(path, leaf)
        return np.load(path, mmap_mode="r")

    rows = ("ts", "log_ts", "observables", "error")
    weights = jax.tree.map(to_file, trajectory.require_networks().weights)
    return dataclasses.replace(
        trajectory,
        networks=trajectory.networks.with_weights(weights),
        **{name: jax.tree.map(to_file, getattr(trajectory, name)) for name in rows},
    )


def from_vector(vector, like):
    """The network whose weights, one after the other, are `vector`."""
    weights, start = [], 0
    for w in like.weights:
        weights.append(jnp.reshape(vector[start : start + w.size], w.shape))
        start += w.size
    return like.with_weights(tuple(weights))
