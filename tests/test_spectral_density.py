"""Stochastic Lanczos quadrature, against moments in closed form and dense spectra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import network_of, problem_for

DECAY = 0.3
# The Hessian of least squares on scaled unit vectors is diagonal. For random signs the
# quadrature of a diagonal form is that of its eigenvalues, without any noise.
SCALES = np.array([0.5, 0.5, 0.5, 1.0, 1.0, 2.0, 0.0, 0.0])
DIAGONAL = gf.Problem(
    gf.Dataset(jnp.diag(jnp.asarray(SCALES)), jnp.ones(8)), gf.SquareLoss()
)
EIGENVALUES = 2 * SCALES**2


@pytest.fixture(scope="module")
def diagonal():
    network = gf.Dense((8, 1), key=jax.random.key(0))
    measure = eqx.filter_jit(gf.analysis.spectral_density)
    return measure(DIAGONAL, network, num_vectors=3, subspace=6)


def test_gauss_quadrature_of_a_diagonal_form(diagonal):
    assert diagonal.points.shape == diagonal.weights.shape == (3, 6)
    points = np.where(np.isfinite(diagonal.points), diagonal.points, 0)
    for power in range(8):
        moments = np.sum(diagonal.weights * points**power, axis=1)
        np.testing.assert_allclose(moments, np.sum(EIGENVALUES**power), rtol=1e-10)
    # Four different eigenvalues make a Krylov space of four dimensions.
    assert np.all(np.sum(np.isfinite(diagonal.points), axis=1) == 4)


def test_counts(diagonal):
    for low, high, expected in [(0.4, 0.6, 3), (0.4, 2.5, 5), (7.0, 9.0, 1)]:
        number, error = diagonal.count(low, high)
        np.testing.assert_allclose(number, expected, rtol=1e-10)
        assert error <= 1e-10
    number, _ = diagonal.num_near_zero()
    np.testing.assert_allclose(number, 2, rtol=1e-10)
    number, _ = diagonal.num_near_zero(rtol=0.1)
    np.testing.assert_allclose(number, 5, rtol=1e-10)


def test_density(diagonal):
    x = np.linspace(-2, 12, 4001)
    found = np.asarray(diagonal.density(jnp.asarray(x), 0.2))
    bumps = np.exp(-((x[:, None] - EIGENVALUES) ** 2) / (2 * 0.2**2))
    expected = np.sum(bumps, axis=1) / (0.2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(
    "flow",
    [
        gf.PolarGradientFlow(DECAY),
        gf.LagrangeFlow(DECAY, spheres=gf.RowSpheres()),
    ],
)
def test_against_the_dense_spectrum(flow):
    """Within what the standard errors allow, also with another metric and spheres."""
    where, network = (
        problem_for("dense", 3, "cross_entropy"),
        network_of("dense", 0.1, 3),
    )
    found = eqx.filter_jit(gf.analysis.spectral_density)(
        where,
        network,
        flow=flow,
        num_vectors=400,
        subspace=100,
        key=jax.random.key(1),
    )
    everything = eqx.filter_jit(gf.analysis.hessian_eigenvalues)
    dense = np.asarray(everything(where, network, flow=flow))
    dense = dense[np.isfinite(dense)]
    # With as many points as dimensions they are the eigenvalues themselves.
    points, weights = np.asarray(found.points), np.asarray(found.weights)
    distances = np.abs(points[0][np.isfinite(points[0])][:, None] - dense).min(axis=1)
    assert np.max(distances) <= 1e-8 * np.max(np.abs(dense))
    for low, high in [(-np.inf, 0.0), (0.5, np.inf), (0.2, 0.7)]:
        number, error = found.count(low, high)
        expected = float(np.sum((dense >= low) & (dense <= high)))
        assert abs(number - expected) <= 4 * error + 1e-9
        assert error <= 0.3
    traces = np.sum(np.where(weights > 0, points, 0) * weights, axis=1)
    error = np.std(traces) / np.sqrt(400)
    assert abs(np.mean(traces) - np.sum(dense)) <= 4 * error


def test_bad_arguments():
    where, network = problem_for("dense"), network_of("dense", 0.1)
    for name in ("num_vectors", "subspace"):
        with pytest.raises(ValueError, match=f"`{name}`"):
            gf.analysis.spectral_density(where, network, **{name: 0})
    density = gf.analysis.SpectralDensity(jnp.ones((1, 2)), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="`width`"):
        density.density(jnp.ones(3), 0.0)
    number, error = density.count(0.0, 2.0)
    assert number == 2 and jnp.isnan(error)
