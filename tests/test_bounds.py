"""Bounds of the test error, against what they bound."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import network_of, problem_for

analysis = gf.analysis


def problem_of(inputs, labels):
    return gf.Problem(gf.Dataset(np.array(inputs), np.array(labels)), gf.SquareLoss())


@pytest.mark.parametrize("outputs", [1, 3])
def test_rademacher_bound(outputs):
    problem, network = problem_for("dense", outputs), network_of("dense", 0.0, outputs)
    inputs = np.asarray(problem.dataset.inputs)
    scale = np.prod([np.linalg.norm(w) for w in network.weights])
    size = np.sqrt(np.mean(np.sum(inputs**2, 1)) / len(inputs))
    found = analysis.rademacher_bound(problem, network)
    np.testing.assert_allclose(found, scale * size * (1 + np.sqrt(np.log(64))))


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_of_linear_functions(spread):
    """Over all signs: the supremum over |w| <= rho of the correlation with them is
    rho |Σ s_n x_n| / N."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(8, 3)) * np.exp(spread * rng.normal(size=(8, 1)))
    problem = problem_of(inputs, np.resize([1.0, -1.0], 8))
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=8)))
    row = np.array([[0.6, -1.2, 0.4]])
    exact = np.mean(np.linalg.norm(signs @ inputs, axis=1)) / 8 * np.linalg.norm(row)
    bound = analysis.rademacher_bound(
        problem, gf.Dense.from_weights([jnp.asarray(row)])
    )
    assert exact < bound < 4 * exact


def test_margin_bound():
    """Three samples with normalised margins 0.8, 0.2 and -0.6."""
    network = gf.Dense.from_weights([jnp.asarray([[3.0, 4.0]])])
    problem = problem_of([[0, 1.0], [0, 0.25], [1, 0]], [1.0, 1.0, -1.0])
    found = analysis.margin_bound(problem, network, margin=0.5, confidence=0.9)
    complexity = (1 + np.sqrt(np.log(4))) * np.sqrt(2 + 1 / 16) / 3
    chance = 3 * np.sqrt(np.log(20) / 6)
    expected = (0 + 0.6 + 1) / 3 + 2 / 0.5 * complexity + chance
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_margin_bound_of_classes():
    problem, network = problem_for("dense", 3), network_of("dense", outputs=3)
    found = analysis.margin_bound(problem, network, margin=0.1)
    ramp = analysis.ramp_loss(problem, network, margin=0.1)
    complexity = analysis.rademacher_bound(problem, network) / jnp.prod(network.norms)
    chance = 3 * np.sqrt(np.log(40) / (2 * 7))
    np.testing.assert_allclose(found, ramp + 12 / 0.1 * complexity + chance, rtol=1e-12)
    larger = network.with_weights(tuple(3.0 * w for w in network.weights))
    again = analysis.margin_bound(problem, larger, margin=0.1)
    np.testing.assert_allclose(again, found, rtol=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
def test_spectral_margin_bound(outputs):
    """With Dudley's integral done by quadrature, 4 / N^(3/2) + 12 / N times that of the
    root of the logarithm of the covering numbers from 1/N to the root of N."""
    problem, network = problem_for("dense", outputs), network_of("dense", 0.0, outputs)
    found = analysis.spectral_margin_bound(problem, network, margin=0.1, confidence=0.9)
    units = [np.asarray(w) / np.linalg.norm(w) for w in network.weights]
    spectral = [np.linalg.svd(v)[1][0] for v in units]
    rows = [sum(np.linalg.norm(row) for row in v) for v in units]
    ratios = [(b / s) ** (2 / 3) for b, s in zip(rows, spectral, strict=True)]
    inputs = np.asarray(problem.dataset.inputs)
    # Theorem 3.3 of the reference; the loss stretches by 1/γ, or 2/γ, per unit.
    stretch = (1 if outputs == 1 else 2) / 0.1
    entropy = np.sum(inputs**2) * np.log(2 * 5**2) * np.prod(spectral) ** 2
    entropy *= np.sum(ratios) ** 3 * stretch**2
    # Over the logarithm of the radius, which divides the root of the entropy.
    radii, weights = np.polynomial.legendre.leggauss(20)
    low, high = np.log(1 / 7), np.log(np.sqrt(7))
    logs = (low + high) / 2 + (high - low) / 2 * radii
    integrand = np.sqrt(entropy / np.exp(logs) ** 2) * np.exp(logs)
    integral = np.sum(weights * integrand) * (high - low) / 2
    complexity = 4 / 7**1.5 + 12 / 7 * integral
    ramp = analysis.ramp_loss(problem, network, margin=0.1)
    expected = ramp + 2 * complexity + 3 * np.sqrt(np.log(20) / 14)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    larger = network.with_weights(tuple(3.0 * w for w in network.weights))
    again = analysis.spectral_margin_bound(problem, larger, margin=0.1, confidence=0.9)
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_what_the_margin_bound_bounds():
    """Where it is not vacuous: many samples, far apart."""
    rng = np.random.default_rng(0)
    labels = np.resize([1.0, -1.0], 20_000)
    inputs = rng.normal(scale=0.3, size=(20_000, 2)) + labels[:, None]
    network = gf.Dense.from_weights([jnp.ones((1, 2))])
    train = problem_of(inputs[:10_000], labels[:10_000])
    test = problem_of(inputs[10_000:], labels[10_000:])
    bound = analysis.margin_bound(train, network, margin=1.0)
    assert 1 - test.accuracy(network) < bound < 0.5
    # One with larger constants is vacuous even here.
    assert analysis.spectral_margin_bound(train, network, margin=1.0) > 1


def test_arguments_that_do_not_fit():
    problem, network = problem_for("dense"), network_of("dense")
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="`confidence`"):
            analysis.margin_bound(problem, network, margin=0.1, confidence=confidence)
    with pytest.raises(ValueError, match="`margin`"):
        analysis.margin_bound(problem, network, margin=0.0)
    with pytest.raises(ValueError, match="convolutions"):
        analysis.rademacher_bound(problem_for("conv"), network_of("conv"))
