"""How fast is `descend`, against a loop that is written by hand?

A `lax.scan` of `optax.sgd` from the same start on the same samples, which checks
nothing and saves its end alone, against `descend` with one saved point, with 200 saved
losses, and with 200 points of the default observables. Exact ReLU networks 65-w-w-1 on
digits, full batches, and batches of 10 in a new random order in each epoch. Run times
in turn, and the medians of their ratios: hand-written over `descend`.

Measured (seed 0, two CPU cores beside another run): 0.98 to 1.01 with one point, and
200 losses cost 1 to 4 %. 200 points of the default observables, each of all samples,
cost as much as about 1,000 gradients: 6 % of 20,000 steps of all of 20 samples, and 14
to 20 % of as many in batches of 10 of 200.
"""

import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Table, clocked, dense, digits, out_directory

import gradflow as gf

STEP = 1e-4
SAVES = 200
REPEATS = 7
# Samples, width, size of the batches, steps.
CASES = (
    (20, 32, None, 20_000),
    (200, 64, None, 4_000),
    (200, 32, 10, 20_000),
    (200, 64, 10, 20_000),
)


def by_hand(problem: gf.Problem, network: gf.Dense, batch: int | None, steps: int):
    """The weights after all steps, as a compiled function of those at the start."""
    inputs, labels = problem.dataset.inputs, problem.dataset.labels
    count = len(inputs)
    optimiser = optax.sgd(STEP)

    def loss(weights, inputs, labels):
        outputs = jax.vmap(network.with_weights(weights))(inputs)[:, 0]
        return count / len(inputs) * jnp.sum((outputs - labels) ** 2)

    def step(carry, indices):
        weights, state = carry
        samples = (inputs, labels)
        if indices is not None:
            samples = (inputs[indices], labels[indices])
        gradient = jax.grad(loss)(weights, *samples)
        updates, state = optimiser.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    def epoch(carry, key):
        order = jax.random.permutation(key, count).reshape(-1, batch)
        return jax.lax.scan(step, carry, order)

    @jax.jit
    def run(weights):
        carry = weights, optimiser.init(weights)
        if batch is None:
            carry, _ = jax.lax.scan(step, carry, None, length=steps)
        else:
            keys = jax.random.split(jax.random.key(0), steps * batch // count)
            carry, _ = jax.lax.scan(epoch, carry, keys)
        return carry[0]

    return lambda: run(network.weights)


def main(out: Path) -> None:
    columns = ["samples", "width", "batch", "steps", "by hand, µs a step"]
    ratios = ["one point", "200 losses", "200 points of all", "of 200 losses, %"]
    table = Table("Descent", [*columns, *ratios])
    for num_samples, width, batch, steps in CASES:
        problem, network = digits(num_samples), dense(0, (width, width), rho=1.0)
        if batch is None:
            sampler = gf.FullBatch()
        else:
            sampler = gf.Minibatches(batch, key=jax.random.key(0))
        points = np.linspace(0, steps, SAVES).astype(int)

        def descend(
            save_steps,
            observe,
            problem=problem,
            network=network,
            steps=steps,
            sampler=sampler,
        ):
            run = gf.descend(
                problem,
                STEP,
                network,
                steps,
                sampler=sampler,
                save_steps=save_steps,
                observe=observe,
                save_networks=False,
            )
            return run.final.weights, run.observables

        loss = {"loss": _loss}
        runs = {
            "by hand": by_hand(problem, network, batch, steps),
            "one": lambda d=descend, s=steps: d([s], {}),
            "losses": lambda d=descend, p=points, o=loss: d(p, o),
            "all": lambda d=descend, p=points: d(p, None),
        }
        for run in runs.values():
            jax.block_until_ready(run())
        rounds = [
            {name: clocked(run)[1] for name, run in runs.items()}
            for _ in range(REPEATS)
        ]

        def ratio(first, second, rounds=rounds):
            return statistics.median(r[first] / r[second] for r in rounds)

        table.add(
            num_samples,
            width,
            batch or "all",
            steps,
            1e6 * statistics.median(r["by hand"] for r in rounds) / steps,
            ratio("by hand", "one"),
            ratio("by hand", "losses"),
            ratio("by hand", "all"),
            100 * (ratio("losses", "one") - 1),
        )
    table.write(out, "descent")


def _loss(problem: gf.Problem, network: gf.AbstractNetwork) -> jax.Array:
    return problem.value(network)


if __name__ == "__main__":
    main(out_directory(__doc__))
