"""Samples shared by several devices, and by several processes."""

import dataclasses
import re
import socket
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradflow as gf
from cases import assert_close, dataset_for, network_of
from small import network, problem

FLOW = gf.LagrangeFlow(0.1)
CLOCK = gf.LogTime(FLOW)


def whole(samples=40):
    return gf.Problem(dataset_for("dense", samples=samples), gf.LogisticLoss())


def shared(problem, size, devices=8):
    """Among the devices, each of which takes its own in chunks."""
    mesh = jax.make_mesh((devices,), ("samples",), devices=jax.devices()[:devices])
    return gf.shard_samples(dataclasses.replace(problem, batch_size=size), mesh)


def gradient(problem, network):
    return problem.gradient(network)


def field(problem, network, state):
    return FLOW.vector_field(0.0, state, problem, network)


@eqx.filter_jit
def measured(problem, network):
    weights, state, clocked = network.weights, FLOW.init(network), CLOCK.init(network)

    def value(weights):
        return problem.value(network.with_weights(weights))

    def field_at(state):
        return field(problem, network, state)

    return {
        "outputs": problem.outputs(network),
        "value": problem.value(network),
        "log_value": problem.log_value(network),
        "margins": problem.margins(network),
        "accuracy": problem.accuracy(network),
        "of the value": jax.grad(value)(weights),
        "of the field": jax.jvp(field_at, (state,), (state,)),
        "clock": CLOCK.vector_field(1.0, clocked, problem, network),
    }


def test_values_and_derivatives():
    """Shares of five samples, in chunks of three, of which one is in both."""
    network = network_of("dense", 0.1)
    expected = measured(whole(), network)
    found = measured(shared(whole(), 3), network)
    for name in expected:
        assert_close(found[name], expected[name], 1e-10, name)


def communication(measure, *args):
    """How often the devices hear from each other in a compiled program, by kind."""
    text = eqx.filter_jit(measure).lower(*args).compile().compiled.as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf" ({kinds})(?:-start)?\(", text)


@pytest.mark.parametrize("size", [None, 3])
def test_one_sum_goes_between_the_devices(size):
    problem, network = shared(whole(), size), network_of("dense", 0.1)
    assert communication(gradient, problem, network) == ["all-reduce"]
    state = FLOW.init(network)
    assert communication(field, problem, network, state) == ["all-reduce"]


def test_communication_would_be_seen():
    """Of pairs of samples."""

    def pairs(problem):
        inputs = problem.dataset.inputs
        return inputs @ inputs.T

    assert "all-gather" in communication(pairs, shared(whole(), None))


def test_a_flow():
    """Of six samples, on two devices in chunks of two, of which one is in both."""
    expected, found = (
        gf.solve(p, FLOW, network(), 1.0, observe={})
        for p in (problem(), shared(problem(), 2, devices=2))
    )
    assert all(w.sharding.is_fully_replicated for w in found.networks.weights)
    assert_close(found.networks, expected.networks, 1e-10)


def test_a_descent():
    """On minibatches, with the default observables."""

    def descend(problem):
        sampler = gf.Minibatches(16, key=jax.random.key(0))
        network = network_of("dense", 0.1)
        return gf.descend(problem, 1e-2, network, steps=8, flow=FLOW, sampler=sampler)

    expected, found = descend(whole()), descend(shared(whole(), 3))
    assert_close(found.networks, expected.networks, 1e-10)
    # Which is 0 but for rounding.
    for observables in (found.observables, expected.observables):
        assert np.all(observables.pop("norm_defect") < 1e-15)
    assert_close(found.observables, expected.observables, 1e-10)


def test_members_and_samples():
    """Each pair of devices has two of four networks, and each device half of the pair's
    samples: gradients are summed within the pairs."""
    mesh = jax.make_mesh(
        (4, 2), ("members", "samples"), axis_types=2 * (AxisType.Auto,)
    )
    problem = gf.shard_samples(dataclasses.replace(whole(), batch_size=3), mesh)
    networks = jax.vmap(lambda key: gf.Dense((5, 4, 1), key=key))(
        jax.random.split(jax.random.key(0), 8)
    )
    apart = jax.device_put(networks, NamedSharding(mesh, PartitionSpec("members")))

    @eqx.filter_jit
    def gradients(problem, networks):
        return jax.vmap(problem.gradient)(networks)

    found = gradients(problem, apart)
    assert_close(found, gradients(whole(), networks), 1e-10)
    assert all(g.sharding.spec[0] == "members" for g in found)
    assert communication(gradients, problem, apart) == ["all-reduce"]


def test_what_cannot_be_shared():
    with pytest.raises(ValueError, match="`dataset`: 39 samples .* 8 devices"):
        shared(whole(39), None)
    with pytest.raises(ValueError, match="`dataset`: 6 samples .* 8 devices"):
        shared(whole(), None).batch(jnp.arange(6))
    with pytest.raises(ValueError, match="`axis`"):
        gf.shard_samples(whole(), jax.make_mesh((8,), ("samples",)), "members")


def test_two_processes(tmp_path):
    script = Path(__file__).parent / "two_processes.py"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(rank), tmp_path / "run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
