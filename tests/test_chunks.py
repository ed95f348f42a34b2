"""Sums over samples of which some are in memory at a time."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import LOSSES, assert_close, network_of, reference_of, slopes_of
from cases import unchecked_types as unchecked_types
from gradflow._chunks import map_over, sum_over
from reference import log_loss, loss
from small import network, problem


def test_each_sample_once():
    """By its binary digit, whatever the number of samples and the size of a chunk."""
    with jax.disable_jit():
        for count in (1, 6, 7):
            digits = 2 ** jnp.arange(count)
            for size in [*range(1, count + 1), None]:
                total = sum_over(weighted_sum, 3, digits, size)
                assert total == 3 * (2**count - 1)
                rows = map_over(lambda by, rows: by * rows[:, None], 3, digits, size)
                np.testing.assert_array_equal(rows, 3 * digits[:, None])


def weighted_sum(by, rows, once):
    return by * jnp.sum(once(rows))


@eqx.filter_jit
def measured(problem, network):
    return {
        "outputs": problem.outputs(network),
        "value": problem.value(network),
        "log_value": problem.log_value(network),
        "accuracy": problem.accuracy(network),
        "gradient": problem.gradient(network),
    }


@pytest.mark.parametrize(("count", "size"), [(7, 1), (6, 3), (65, 16)])
def test_values_and_gradient(count, size):
    rng = np.random.default_rng(count)
    inputs, labels = rng.normal(size=(count, 5)), np.arange(count) % 3
    dataset = gf.Dataset(inputs, labels, num_classes=3)
    problem = gf.Problem(dataset, LOSSES["cross_entropy"](), batch_size=size)
    network = network_of("dense", 0.1, 3)
    reference = reference_of(network)
    g = reference.outputs(inputs)
    expected = {
        "outputs": g,
        "value": loss("cross_entropy", g, labels),
        "log_value": log_loss("cross_entropy", g, labels),
        "accuracy": np.mean(g.argmax(axis=1) == labels),
        "gradient": reference.pullback(inputs, slopes_of(problem)(g))[1],
    }
    found = measured(problem, network)
    for name in expected:
        assert_close(found[name], expected[name], 1e-12, name)


CLOCK = gf.LogTime(gf.LagrangeFlow(0.1))


@eqx.filter_jit
def derivatives(problem, network):
    """Of values and gradients, forwards and backwards, by weights and data."""
    weights = network.weights

    def gradient(weights):
        return problem.gradient(network.with_weights(weights))

    def value(weights, inputs):
        dataset = eqx.tree_at(lambda d: d.inputs, problem.dataset, inputs)
        of_inputs = dataclasses.replace(problem, dataset=dataset)
        return of_inputs.value(network.with_weights(weights))

    def log_value(weights):
        return problem.log_value(network.with_weights(weights))

    def steepness(weights):
        return sum(jnp.sum(jnp.square(g)) for g in gradient(weights))

    def clock(state):
        return CLOCK.vector_field(1.0, state, problem, network)

    state = CLOCK.init(network)
    state = CLOCK.start(jnp.asarray(1.0), state, problem, network)
    point = gf.Point(problem, CLOCK, 1.0, state, network)
    _, hessian = jax.linearize(gradient, weights)
    return {
        "of the value": jax.grad(value, (0, 1))(weights, problem.dataset.inputs),
        "of its logarithm": jax.grad(log_value)(weights),
        "forwards": jax.jvp(gradient, (weights,), (weights,)),
        "linear": jax.vmap(hessian)(jax.tree.map(lambda w: w[None], weights)),
        "backwards": jax.grad(steepness)(weights),
        "of a clock": jax.jvp(clock, (state,), (state,)),
        "stationarity": gf.Stationarity()(point),
        "kinks": gf.analysis.sliding_units(problem, network, width=0.5),
    }


def test_derivatives():
    """Of five samples, at most four at a time: of the second three, one has been in the
    first."""
    whole = problem(loss=gf.LogisticLoss("mean")).batch(jnp.arange(5))
    chunked = dataclasses.replace(whole, batch_size=4)
    expected = derivatives(whole, network())
    found = derivatives(chunked, network())
    for name in expected:
        assert_close(found[name], expected[name], 1e-12, name)


def test_many_networks_and_datasets():
    problems = [
        dataclasses.replace(problem(seed), batch_size=4).batch(jnp.arange(5))
        for seed in (0, 1)
    ]
    networks = [network(seed) for seed in (1, 2)]

    @eqx.filter_jit
    @eqx.filter_vmap
    def gradients(problem, network):
        return problem.gradient(network)

    stack = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    found = gradients(stack, jax.tree.map(lambda *w: jnp.stack(w), *networks))
    for i in range(2):
        whole = dataclasses.replace(problems[i], batch_size=None)
        gradient = jax.tree.map(lambda g, i=i: g[i], found)
        assert_close(gradient, whole.gradient(networks[i]), 1e-12)


def test_batches_are_taken_in_chunks_too():
    chunked = dataclasses.replace(problem(), batch_size=4)
    assert chunked.batch(jnp.arange(5)).batch_size == 4


@pytest.mark.parametrize("size", [0, -1, 2.0])
@pytest.mark.usefixtures("unchecked_types")
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="`batch_size`"):
        dataclasses.replace(problem(), batch_size=size)


# Memory. XLA says how much a compiled program needs beside arguments and results.


FLOW = gf.LagrangeFlow(0.1)


def velocity(problem, network):
    return FLOW.vector_field(0.0, FLOW.init(network), problem, network)


def derivative_of_velocity(problem, network):
    def field(state):
        return FLOW.vector_field(0.0, state, problem, network)

    state = FLOW.init(network)
    return jax.jvp(field, (state,), (state,))


def derivative_of_value(problem, network):
    def value(weights):
        return problem.value(network.with_weights(weights))

    return jax.grad(value)(network.weights)


def temporary_memory(measure, count, size):
    dataset = gf.Dataset(np.ones((count, 5)), np.ones(count))
    problem = gf.Problem(dataset, gf.LogisticLoss(), batch_size=size)
    network = gf.Dense((5, 16, 8, 1), key=jax.random.key(0))
    compiled = eqx.filter_jit(measure).lower(problem, network).compile()
    return compiled.compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    "measure", [velocity, derivative_of_velocity, derivative_of_value]
)
def test_memory_does_not_grow_with_the_samples(measure):
    few, many = (temporary_memory(measure, n, 100) for n in (1_000, 100_037))
    assert many <= 1.5 * few
    # As it does otherwise.
    assert temporary_memory(measure, 100_037, None) > 100 * few
