"""Orthonormal inputs, against the properties that single out a polar factor."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.datasets import digits, whiten

DTYPES = [np.float32, np.float64]


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def flat(inputs):
    return np.asarray(inputs).reshape(len(inputs), -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (1, 3), (4, 2, 3, 3)])
def test_polar_factor(shape, dtype):
    """X = H U with U orthonormal and H positive definite determine each other, and U is
    then the nearest orthonormal set: <X, V> = tr(H U V') <= tr H."""
    inputs = drawn(shape).astype(dtype)
    whitened = whiten(inputs)
    assert whitened.shape == shape and whitened.dtype == dtype
    x, u = flat(inputs), flat(whitened)
    tolerance = 30 * np.finfo(dtype).eps
    np.testing.assert_allclose(u @ u.T, np.eye(len(x)), atol=tolerance)
    h = x @ u.T
    np.testing.assert_allclose(h, h.T, atol=4 * tolerance)
    assert np.min(np.linalg.eigvalsh(h)) > 1e-3
    # The span is the same.
    np.testing.assert_allclose(h @ u, x, atol=4 * tolerance)


def test_inverse_root_of_the_inner_products():
    x = drawn((4, 9))
    values, vectors = np.linalg.eigh(x @ x.T)
    expected = vectors @ np.diag(values**-0.5) @ vectors.T @ x
    np.testing.assert_allclose(whiten(x), expected, atol=1e-13)


def test_symmetries():
    """Rotations of the inputs, orders of the samples and a common scale; what is
    orthonormal already stays."""
    x, order = drawn((4, 6)), [2, 0, 3, 1]
    q, _ = np.linalg.qr(drawn((6, 6), seed=1))
    u = np.asarray(whiten(x))
    np.testing.assert_allclose(whiten(x @ q), u @ q, atol=1e-13)
    np.testing.assert_allclose(whiten(x[order]), u[order], atol=1e-13)
    np.testing.assert_allclose(whiten(1e-200 * x), u, atol=1e-13)
    np.testing.assert_allclose(whiten(q[:4]), q[:4], atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearly_dependent_samples(dtype):
    """They come out orthonormal to rounding all the same."""
    x = np.ones((3, 8)) + np.sqrt(np.finfo(dtype).eps) * drawn((3, 8))
    u = np.asarray(whiten(x.astype(dtype)))
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=10 * np.finfo(dtype).eps)


def test_digits_and_pixels():
    images = digits((0, 1, 2, 3), per_class=15).inputs
    u = np.asarray(whiten(images))
    np.testing.assert_allclose(u @ u.T, np.eye(60), atol=1e-14)
    pixels = whiten(np.array([[3, 4], [4, 3]], np.uint8))
    # H has eigenvalues 7 and 1, on the diagonals.
    np.testing.assert_allclose(pixels, [[0, 1], [1, 0]], atol=1e-14)


def test_under_transformations():
    x = jnp.asarray(drawn((3, 4, 6)))
    expected = np.stack([whiten(a) for a in x])
    np.testing.assert_allclose(jax.vmap(whiten)(x), expected, atol=1e-14)
    np.testing.assert_allclose(jax.jit(whiten)(x[0]), expected[0], atol=1e-14)


def test_dependent_samples():
    """Still orthonormal and nearest, with H as before, if no longer the only ones."""
    x = drawn((4, 6))
    x[3] = x[0] - 2 * x[1]
    u = np.asarray(whiten(x))
    np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-14)
    h = x @ u.T
    np.testing.assert_allclose(h, h.T, atol=1e-13)
    values = np.linalg.eigvalsh(h)
    np.testing.assert_allclose(values[0], 0, atol=1e-13)
    assert values[1] > 0.1
    np.testing.assert_allclose(h @ u, x, atol=1e-13)


@pytest.mark.parametrize(
    "inputs, message",
    [
        (drawn((7, 6)), "`inputs` holds 7 samples of 6 entries each"),
        (drawn((7, 2, 3)), "`inputs` holds 7 samples of 6 entries each"),
        (np.ones((0, 3)), "`inputs` holds no sample"),
        (np.ones(3), "`inputs` must have shape (N, ...), not (3,)"),
        (np.full((1, 3), np.nan), "`inputs` has 3 entries that are NaN"),
    ],
)
def test_errors(inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        whiten(inputs)
