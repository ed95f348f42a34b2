"""Collapse with one output: by definition, in constructed networks, and at a minimum
of a deep linear network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import gradflow as gf
from cases import network_of, problem_for
from reference import ReferenceDense

binary_collapse = eqx.filter_jit(gf.analysis.binary_collapse)


def of(inputs, labels, weights, activation=None):
    data = gf.Dataset(np.array(inputs), np.array(labels))
    arrays = [jnp.asarray(w) for w in weights]
    network = gf.Dense.from_weights(arrays, activation or gf.ReLU())
    return binary_collapse(gf.Problem(data, gf.SquareLoss()), network)


def test_against_the_definitions():
    problem, network = problem_for("dense"), network_of("dense")
    h = np.asarray(problem.dataset.inputs)
    *hidden, last = [np.asarray(w) for w in network.weights]
    for w in hidden:
        h = np.maximum(h @ w.T, 0)
    found = binary_collapse(problem, network)
    for k, sign in enumerate((-1, 1)):
        cloud = h[np.asarray(problem.dataset.labels) == sign]
        mean, target = cloud.mean(0), sign * last[0]
        size = np.sqrt(np.mean(np.sum(cloud**2, 1)))
        spread = np.sqrt(np.mean(np.sum((cloud - mean) ** 2, 1))) / size
        np.testing.assert_allclose(found.spread[k], spread, rtol=1e-12)
        distances = found.distance[k], found.distance_to_part[k]
        targets = target, np.maximum(target, 0)
        for distance, direction in zip(distances, targets, strict=True):
            norms = np.linalg.norm(mean) * np.linalg.norm(direction)
            angle = np.arccos(mean @ direction / norms)
            np.testing.assert_allclose(distance, 2 * np.sin(angle / 2), rtol=1e-10)


ORTHOGONAL = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def test_complete_behind_a_relu():
    """Each class has units of its own, which the last layer mirrors: along the part of
    the last layer, which is 1/√2 of the whole."""
    first = np.array([[2.0, -1.0], [1.0, -1.0], [-1.0, 2.0], [-1.0, 1.0]])
    last = np.array([[2.0, 1.0, -2.0, -1.0]])
    found = of(ORTHOGONAL, [1.0, 1.0, -1.0], (first, last))
    np.testing.assert_allclose(found.spread, 0, atol=1e-15)
    np.testing.assert_allclose(found.distance_to_part, 0, atol=1e-14)
    np.testing.assert_allclose(found.distance, np.sqrt(2 - np.sqrt(2)), rtol=1e-14)


def test_features_of_the_wrong_sign():
    """The last layer takes both classes for the other."""
    weights = np.eye(2), np.array([[-1.0, 1.0]])
    found = of(ORTHOGONAL, [1.0, 1.0, -1.0], weights)
    np.testing.assert_allclose(found.distance_to_part, np.sqrt(2), rtol=1e-15)
    np.testing.assert_allclose(found.distance, np.sqrt(2 + np.sqrt(2)), rtol=1e-14)


def test_classes_without_features():
    found = of(ORTHOGONAL, [1.0, 1.0, -1.0], (np.eye(2)[:1], np.ones((1, 1))))
    for values in (found.spread, found.distance, found.distance_to_part):
        assert jnp.isnan(values[0]) and values[1] == 0


def test_minimum_of_a_deep_linear_network():
    """By BFGS: whatever the data, the means are along the last layer."""
    rng = np.random.default_rng(0)
    labels = np.resize([1.0, -1.0], 8)
    inputs = rng.normal(size=(8, 3)) + labels[:, None]
    shapes, sizes = ((4, 3), (3, 4), (1, 3)), (12, 24)

    def value_and_gradient(vector):
        parts = np.split(vector, sizes)
        weights = [w.reshape(s) for w, s in zip(parts, shapes, strict=True)]
        network = ReferenceDense(weights, identity=True)
        residual = network.outputs(inputs) - labels[:, None]
        _, gradients = network.pullback(inputs, 2 * residual)
        flat = np.concatenate([np.ravel(g) for g in gradients])
        return np.sum(residual**2) + 0.1 * vector @ vector, flat + 0.2 * vector

    found = minimize(
        value_and_gradient,
        rng.normal(size=27),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-8, "xrtol": 1e-14},
    )
    weights = np.split(found.x, sizes)
    weights = [w.reshape(s) for w, s in zip(weights, shapes, strict=True)]
    assert np.linalg.norm(weights[-1]) > 0.5  # not the origin, which is critical too
    measured = of(inputs, labels, weights, gf.Identity())
    np.testing.assert_allclose(measured.distance, 0, atol=1e-6)
    assert jnp.min(measured.spread) > 1e-2
    moved = of(inputs, labels, [w + 0.01 for w in weights], gf.Identity())
    assert jnp.min(moved.distance) > 1e-4


def test_what_cannot_collapse():
    with pytest.raises(ValueError, match="neural_collapse"):
        binary_collapse(problem_for("dense", 3), network_of("dense", outputs=3))
    with pytest.raises(ValueError, match="hidden layer"):
        shallow = gf.Dense((5, 1), key=jax.random.key(0))
        binary_collapse(problem_for("dense"), shallow)
    with pytest.raises(ValueError, match=r"classes \[0\]"):
        data = gf.Dataset(np.eye(2), np.ones(2))
        network = gf.Dense((2, 3, 1), key=jax.random.key(0))
        gf.analysis.binary_collapse(gf.Problem(data, gf.SquareLoss()), network)
