"""The tangent kernel, the Gauss-Newton matrix and the linearised flow, against NumPy's
Jacobians and matrix exponentials."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import gradflow as gf
from cases import inputs_for, network_of, problem_for, reference_of
from small import network, problem

pairs = pytest.mark.parametrize(
    ("kind", "outputs"), [("dense", 3), ("conv", 3), ("diagonal", 1)]
)


def jacobian(network, inputs):
    """(N C, P)"""
    layers = reference_of(network).jacobian(inputs)
    rows = layers[0].shape[0] * layers[0].shape[1]
    return np.concatenate([j.reshape(rows, -1) for j in layers], axis=1)


@pairs
def test_kernel(kind, outputs):
    where, network = problem_for(kind, outputs), network_of(kind, 0.1, outputs)
    j = jacobian(network, where.dataset.inputs)
    kernel = eqx.filter_jit(gf.analysis.tangent_kernel)
    found = kernel(where, network)
    assert found.shape == (7, outputs, 7, outputs)
    np.testing.assert_allclose(found.reshape(j.shape[0], -1), j @ j.T, atol=1e-13)
    others = inputs_for(kind, 4, seed=3)
    found = kernel(where, network, inputs=others)
    assert found.shape == (4, outputs, 7, outputs)
    expected = jacobian(network, others) @ j.T
    np.testing.assert_allclose(
        found.reshape(expected.shape), expected, rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize(
    ("loss", "outputs", "reduction"),
    [("square", 3, "mean"), ("logistic", 1, "sum"), ("cross_entropy", 3, "sum")],
)
def test_gauss_newton(loss, outputs, reduction):
    where = problem_for("dense", outputs, loss, reduction)
    network = network_of("dense", 0.1, outputs)
    j = jacobian(network, where.dataset.inputs)
    g = reference_of(network).outputs(where.dataset.inputs)
    if loss == "square":
        curvatures = np.stack([2 / 7 * np.eye(3)] * 7)
    elif loss == "logistic":
        p = 1 / (1 + np.exp(-g))
        curvatures = (p * (1 - p))[:, :, None]
    else:
        p = np.exp(g) / np.sum(np.exp(g), axis=1, keepdims=True)
        curvatures = np.stack([np.diag(q) - np.outer(q, q) for q in p])
    j = j.reshape(7, outputs, -1)
    matrix = np.einsum("nip,nij,njq->pq", j, curvatures, j)
    expected = np.linalg.eigvalsh(matrix)
    found = np.asarray(
        eqx.filter_jit(gf.analysis.gauss_newton_eigenvalues)(where, network)
    )
    # Both have zeros beyond the rank, of different numbers.
    assert found.size == 7 * outputs
    rank = min(found.size, expected.size)
    np.testing.assert_allclose(
        found[-rank:], expected[-rank:], atol=1e-12 * expected[-1]
    )
    assert found[-1] > 0.01


@pytest.mark.parametrize("weight_decay", [0.0, 1e-9, 0.3])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_linearised_flow(weight_decay, reduction):
    """In the space of the weights, with NumPy's Jacobian and an exponential."""
    where, network = (
        problem_for("dense", 3, "square", reduction),
        network_of("dense", 0.1, 3),
    )
    inputs, labels = np.asarray(where.dataset.inputs), where.dataset.labels
    others = inputs_for("dense", 4, seed=3)
    j, there = jacobian(network, inputs), jacobian(network, others)
    w = np.concatenate([np.ravel(x) for x in network.weights])
    g = reference_of(network).outputs(inputs).ravel()
    g_there = reference_of(network).outputs(others).ravel()
    targets = np.eye(3)[np.asarray(labels)].ravel()
    weight = 1 / 7 if reduction == "mean" else 1
    # w' = A w + b, with a row for the constant.
    decay = 2 * weight_decay * np.eye(w.size)
    matrix = np.zeros((w.size + 1, w.size + 1))
    matrix[:-1, :-1] = -2 * weight * j.T @ j - decay
    matrix[:-1, -1] = -2 * weight * j.T @ (g - j @ w - targets)
    ts = np.array([0.0, 1e-6, 0.1, 1.0, 30.0, 1e4])
    states = [(expm(t * matrix) @ np.append(w, 1.0))[:-1] for t in ts]
    linearised = eqx.filter_jit(gf.analysis.linearised_outputs)
    found = linearised(where, network, ts, weight_decay=weight_decay)
    expected = np.stack([g + j @ (s - w) for s in states])
    np.testing.assert_allclose(found.reshape(6, -1), expected, atol=1e-10)
    found = linearised(where, network, ts, weight_decay=weight_decay, inputs=others)
    expected = np.stack([g_there + there @ (s - w) for s in states])
    np.testing.assert_allclose(found.reshape(6, -1), expected, atol=1e-10)


def test_the_twin_parts_at_the_second_order():
    ts = np.concatenate([[0, 1e-3, 2e-3], np.linspace(0.02, 2, 98)])
    trajectory = gf.solve(
        problem(), gf.GradientFlow(0.3), network(), 2.0, ts=ts, rtol=1e-9
    )
    outputs = eqx.filter_vmap(problem().outputs)(trajectory.networks)
    twin = eqx.filter_jit(gf.analysis.linearised_outputs)(
        problem(), trajectory[0], ts, weight_decay=0.3
    )
    apart = np.max(np.abs(outputs - twin), axis=(1, 2))
    np.testing.assert_allclose(apart[2] / apart[1], 4, rtol=0.05)
    assert apart[0] <= 1e-14 and apart[1] <= 1e-5 and apart[-1] > 0.05


def test_bad_arguments():
    where, network = problem_for("dense", 1, "logistic"), network_of("dense")
    with pytest.raises(ValueError, match="square loss"):
        gf.analysis.linearised_outputs(where, network, jnp.ones(1))
    with pytest.raises(ValueError, match="`weight_decay`"):
        gf.analysis.linearised_outputs(
            problem_for("dense"), network, jnp.ones(1), weight_decay=-1.0
        )
    with pytest.raises(ValueError, match="`inputs`"):
        gf.analysis.tangent_kernel(where, network, inputs=jnp.ones((2, 4)))


def test_single_precision_is_kept():
    network = network_of("dense")
    network = network.with_weights(tuple(w.astype("float32") for w in network.weights))
    data = problem_for("dense").dataset
    data = gf.Dataset(data.inputs.astype("float32"), data.labels)
    where = gf.Problem(data, gf.SquareLoss())
    outputs = gf.analysis.linearised_outputs(where, network, jnp.arange(2.0))
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs[0], where.outputs(network), rtol=1e-5)
