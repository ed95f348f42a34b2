"""Sizes of networks, by enumeration and by dense linear algebra."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for

analysis = gf.analysis
kinds = pytest.mark.parametrize("kind", NETWORKS)


@kinds
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_product_of_norms(kind, p):
    network = network_of(kind)
    norms = [np.sum(np.abs(np.asarray(w)) ** p) ** (1 / p) for w in network.weights]
    found = analysis.product_of_norms(problem_for(kind), network, p=p)
    np.testing.assert_allclose(found, np.prod(norms), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_normalised_loss(reduction):
    """Of the cross-entropy, by its definition."""
    problem = problem_for("dense", 3, "cross_entropy", reduction)
    network = network_of("dense", outputs=3)
    h = np.asarray(problem.dataset.inputs)
    *hidden, last = [np.asarray(w) for w in network.weights]
    for w in hidden:
        h = np.maximum(h @ w.T, 0)
    sizes = [np.sum(np.abs(w) ** 3) ** (1 / 3) for w in (*hidden, last)]
    powers = np.exp(h @ last.T / np.prod(sizes))
    right = powers[np.arange(len(h)), np.asarray(problem.dataset.labels)]
    expected = -np.mean(np.log(right / powers.sum(1)))
    found = analysis.normalised_loss(problem, network, p=3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    doubled = network.with_weights(tuple(2.0 * w for w in network.weights))
    again = analysis.normalised_loss(problem, doubled, p=3)
    np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_path_norm_by_enumeration():
    network = network_of("dense", outputs=3)
    weights = [np.asarray(w) for w in network.weights]
    widths = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    total = 0.0
    for path in itertools.product(*map(range, widths)):
        steps = zip(weights, path[:-1], path[1:], strict=True)
        total += np.prod([w[above, below] ** 2 for w, below, above in steps])
    found = analysis.path_norm(problem_for("dense", 3), network)
    np.testing.assert_allclose(found, np.sqrt(total), rtol=1e-12)


@kinds
def test_path_norm_under_rescalings(kind):
    """Of the units of the first layer."""
    network, problem = network_of(kind), problem_for(kind)
    first, second, last = network.weights
    factors = jnp.linspace(0.5, 2.0, first.shape[0])
    rows = factors.reshape(-1, *[1] * (first.ndim - 1))
    rescaled = network.with_weights(
        (first / rows, network.scale_fan_in(1, second, factors), last)
    )
    assert not jnp.allclose(rescaled.norms, network.norms, rtol=1e-2)
    sizes = [analysis.path_norm(problem, n) for n in (network, rescaled)]
    np.testing.assert_allclose(*sizes, rtol=1e-12)


def test_path_norm_of_a_convolution():
    """Every kernel entry as often as it is used: one kernel of three on four numbers in
    a row, all within one larger kernel's zeros."""
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 1] = [1.0, 2.0, 3.0]
    last = np.array([[1.0, 10.0]])
    network = gf.Conv.from_weights(
        [jnp.asarray(kernel), jnp.asarray(last)], (1, 3, 4), stride=1, padding=0
    )
    data = gf.Dataset(np.ones((2, 1, 3, 4)), np.array([1.0, -1.0]))
    found = analysis.path_norm(gf.Problem(data, gf.SquareLoss()), network)
    np.testing.assert_allclose(found, np.sqrt((1 + 4 + 9) * (1 + 100)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
def test_spectral_complexity(kind):
    network = network_of(kind)
    matrices = [np.asarray(w) for w in network.weights]
    if kind == "diagonal":
        matrices = [*map(np.diag, matrices[:-1]), matrices[-1][None]]
    spectral = [np.sqrt(np.linalg.eigvalsh(m @ m.T)[-1]) for m in matrices]
    rows = [sum(np.sqrt(row @ row) for row in m) for m in matrices]
    ratios = [(r / s) ** (2 / 3) for r, s in zip(rows, spectral, strict=True)]
    expected = np.prod(spectral) * sum(ratios) ** 1.5
    found = analysis.spectral_complexity(problem_for(kind), network)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_ramp_loss():
    """One error, one within the margin, one beyond it."""
    network = gf.Dense.from_weights([jnp.asarray([[3.0, 4.0]])])
    inputs = np.array([[1.0, 0.0], [0.0, 0.25], [-1.0, -1.0]])
    problem = gf.Problem(gf.Dataset(inputs, np.array([-1.0, 1, -1])), gf.SquareLoss())
    # Normalised margins -0.6, 0.2 and 1.4.
    found = analysis.ramp_loss(problem, network, margin=0.5)
    np.testing.assert_allclose(found, (1 + 0.6 + 0) / 3)
    sharp = analysis.ramp_loss(problem, network, margin=1e-6)
    np.testing.assert_allclose(sharp, 1 - problem.accuracy(network))


def test_arguments_that_do_not_fit():
    problem, network = problem_for("conv"), network_of("conv")
    with pytest.raises(ValueError, match="convolutions"):
        analysis.spectral_complexity(problem, network)
    with pytest.raises(ValueError, match="`margin`"):
        analysis.ramp_loss(problem, network, margin=0.0)
    with pytest.raises(ValueError, match="`p`"):
        analysis.product_of_norms(problem, network, p=-1.0)


def test_path_norm_of_any_size():
    """Though the squares of the products are beyond double precision."""
    network, problem = network_of("dense"), problem_for("dense")
    expected = gf.analysis.path_norm(problem, network)
    for scale in (1e-80, 1e80):
        weights = tuple(w * scale for w in network.weights)
        found = gf.analysis.path_norm(problem, network.with_weights(weights))
        np.testing.assert_allclose(found / scale**3, expected, rtol=1e-12)
