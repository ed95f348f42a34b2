"""What does a convolutional gradient cost beside a hand-written one?

Of the papers' network, convolutions of 32, 64 and 128 channels (3 x 3, stride 2) and a
dense layer, without and with batch normalisation, on 1,000 images of 3 x 32 x 32
numbers in float32: a gradient on its own, and one in a compiled loop, as all runs are.
By hand, XLA's convolutions are called on the whole batch. In chunks of 100 the memory
is that of 100 images.

Measured (two CPU cores, medians of three, in several runs): a gradient takes 0.73 to
0.83 times as long as by hand, in a loop 0.58 to 0.63, in chunks 0.43, where XLA's
convolutions take 18 to 26 times as long. With batch normalisation it is 0.88 to 0.91
(1.48 in one run), in a loop 0.74 to 0.84, and in chunks 1.8, since the statistics of
each layer are taken before those of the next. A gradient needs 398 MiB for 1,000 images
and 3,984 for 10,000, in chunks 41 for either; with batch normalisation 515, 5,151 and
55.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from common import Table, clocked, out_directory

import gradflow as gf

IMAGES = 1_000
CHUNK = 100
STEPS = 2
REPEATS = 3


def problem(count: int, batch_size: int | None = None) -> gf.Problem:
    """Random images of norm one."""
    inputs = jax.random.normal(jax.random.key(0), (count, 3, 32, 32), jnp.float32)
    inputs = inputs / jnp.sqrt(jnp.sum(inputs**2, axis=(1, 2, 3), keepdims=True))
    labels = jnp.where(jnp.arange(count) % 2 == 0, 1, -1).astype(jnp.float32)
    dataset = gf.Dataset(inputs, labels)
    return gf.Problem(dataset, gf.SquareLoss("mean"), batch_size=batch_size)


def by_hand(of: gf.Problem, network: gf.AbstractNetwork) -> gf.AbstractNetwork:
    """The gradient, as one writes it."""
    normalises = isinstance(network, gf.BatchNorm)

    def loss(weights):
        h = of.dataset.inputs
        *kernels, last = weights
        for kernel in kernels:
            z = jax.lax.conv_general_dilated(h, kernel, (2, 2), [(1, 1)] * 2)
            if normalises:
                z = z - jnp.mean(z, axis=(0, 2, 3), keepdims=True)
                variance = jnp.mean(z**2, axis=(0, 2, 3), keepdims=True)
                z = z * jax.lax.rsqrt(variance)
            h = jax.nn.relu(z)
        g = jnp.reshape(h, (len(h), -1)) @ last[0]
        return jnp.mean((g - of.dataset.labels) ** 2)

    return network.with_weights(jax.grad(loss)(network.weights))


def ours(of: gf.Problem, network: gf.AbstractNetwork) -> gf.AbstractNetwork:
    return network.with_weights(of.gradient(network))


def in_a_loop(gradient: Callable) -> Callable:
    """So many gradients, each at another point."""

    def steps(of, network):
        def step(_, network):
            slopes = gradient(of, network)
            return jax.tree.map(lambda w, g: w - 1e-3 * g, network, slopes)

        return jax.lax.fori_loop(0, STEPS, step, network)

    return steps


def memory(of: gf.Problem, network: gf.AbstractNetwork) -> float:
    """What a compiled gradient needs beside its arguments, in MiB."""
    analysis = jax.jit(ours).lower(of, network).compile().memory_analysis()
    return analysis.temp_size_in_bytes / 2**20


def main(out: Path) -> None:
    with jax.enable_x64(False):
        columns = ("network", "gradient", "seconds", "over by hand, alone")
        table = Table("Convolutional gradients", columns)
        plain = gf.Conv((3, 32, 32), (32, 64, 128), key=jax.random.key(1))
        whole, chunked = problem(IMAGES), problem(IMAGES, CHUNK)
        networks = {"plain": plain, "BN": gf.BatchNorm(plain)}
        for name, network in networks.items():
            ways = {
                "by hand": (jax.jit(by_hand), whole, 1),
                "Problem.gradient": (jax.jit(ours), whole, 1),
                "in a loop": (jax.jit(in_a_loop(ours)), whole, STEPS),
                "in a loop, chunks": (jax.jit(in_a_loop(ours)), chunked, STEPS),
            }
            if name == "plain":
                by_hand_in_a_loop = jax.jit(in_a_loop(by_hand))
                ways["in a loop, by hand"] = (by_hand_in_a_loop, whole, STEPS)
            for way, median, ratio in _times(network, ways):
                table.add(name, way, median, ratio)
        table.write(out, "convolution")
        for name, network in networks.items():
            for count in (IMAGES, 10 * IMAGES):
                print(
                    f"{name}, {count} images: {memory(problem(count), network):.0f} "
                    f"MiB, in chunks {memory(problem(count, CHUNK), network):.0f} MiB"
                )


def _times(network, ways):
    seconds = {way: [] for way in ways}
    for repeat in range(REPEATS + 1):
        for way, (function, of, count) in ways.items():
            _, time = clocked(lambda f=function, of=of: f(of, network))
            if repeat > 0:
                seconds[way].append(time / count)
    reference = statistics.median(seconds["by hand"])
    for way, times in seconds.items():
        median = statistics.median(times)
        yield way, median, median / reference


if __name__ == "__main__":
    main(out_directory(__doc__))
