"""The hard-margin support vector machine, against closed forms and other solvers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

import gradflow as gf
from gradflow.analysis import _nnls

hard_margin_svm = gf.analysis.hard_margin_svm


TEACHER = np.array([1.0, -2.0, 0.5, 1.0])


def drawn(samples=12, seed=3):
    """Samples in 4 dimensions that a linear function separates."""
    inputs = np.random.default_rng(seed).normal(size=(samples, 4))
    return inputs, np.sign(inputs @ TEACHER)


def rotation(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def is_nan(svm):
    return all(np.all(np.isnan(x)) for x in jax.tree.leaves(svm))


@pytest.mark.parametrize(
    "rows, direction, margin, multipliers",
    [
        # The foot of the altitude of a triangle with sides 3, 4 and 5,
        ([[3.0, 0.0], [0.0, 4.0]], [0.8, 0.6], 2.4, [0.64, 0.36]),
        # and where it lies outside, the nearer point.
        ([[1.0, 0.0], [2.0, 1.0]], [1.0, 0.0], 1.0, [1.0, 0.0]),
    ],
)
def test_two_points(rows, direction, margin, multipliers):
    # The second sample with the other label, on the other side.
    signs = np.array([1.0, -1.0])
    svm = hard_margin_svm(gf.Dataset(signs[:, None] * rows, signs))
    np.testing.assert_allclose(svm.direction, direction, atol=1e-14)
    np.testing.assert_allclose(svm.margin, margin, rtol=1e-14)
    np.testing.assert_allclose(svm.multipliers, multipliers, atol=1e-14)
    entropy = -sum(p * np.log(p) for p in multipliers if p > 0)
    assert svm.num_support == np.count_nonzero(multipliers)
    np.testing.assert_allclose(svm.effective_support, np.exp(entropy), rtol=1e-13)


def test_orthonormal_samples():
    """All are alike."""
    rows, signs = rotation(7)[:5], np.array([1.0, -1.0, -1.0, 1.0, 1.0])
    svm = hard_margin_svm(gf.Dataset(signs[:, None] * rows, signs))
    np.testing.assert_allclose(svm.direction, np.sum(rows, 0) / 5**0.5, atol=1e-14)
    np.testing.assert_allclose(svm.margin, 5**-0.5, rtol=1e-14)
    np.testing.assert_allclose(svm.multipliers, 0.2, rtol=1e-13)
    assert svm.num_support == 5
    np.testing.assert_allclose(svm.effective_support, 5, rtol=1e-13)


@pytest.mark.parametrize("samples", [3, 12, 60])
def test_quadratic_programme(samples):
    """The shortest w with margins of at least 1, as SciPy finds it."""
    inputs, signs = drawn(samples)
    rows = signs[:, None] * inputs
    found = minimize(
        lambda w: w @ w / 2,
        TEACHER / np.min(rows @ TEACHER),
        jac=lambda w: w,
        constraints={
            "type": "ineq",
            "fun": lambda w: rows @ w - 1,
            "jac": lambda _: rows,
        },
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert found.success
    svm = hard_margin_svm(gf.Dataset(inputs, signs))
    np.testing.assert_allclose(svm.direction / svm.margin, found.x, rtol=1e-6)


def test_optimality():
    """Weak duality bounds every margin by the norm of any mean of the samples."""
    dataset = gf.datasets.digits((3, 8))
    svm = hard_margin_svm(dataset)
    v, p = np.asarray(svm.direction), np.asarray(svm.multipliers)
    rows = np.asarray(dataset.labels)[:, None] * np.asarray(dataset.inputs)
    np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-14)
    assert np.all(p >= 0) and 10 < np.count_nonzero(p) < len(p) / 2
    np.testing.assert_allclose(np.sum(p), 1, rtol=1e-14)
    np.testing.assert_allclose(np.min(rows @ v), svm.margin, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(p @ rows), svm.margin, rtol=1e-12)
    np.testing.assert_allclose(p @ rows, svm.margin * v, atol=1e-13)
    np.testing.assert_allclose((rows @ v)[p > 0], svm.margin, rtol=1e-11)


@pytest.mark.parametrize("margin", [1e-3, 1e-7])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_small_margins(margin, scale):
    """Nearly opposite samples, with others far away, in a frame of any direction."""
    q = rotation(4)
    near = [[margin, 1, 0, 0], [margin, -2, 0, 0]]
    rows = np.array([*near, [1, 3, -2, 1], [2, 0, 1, -1]])
    svm = hard_margin_svm(gf.Dataset(scale * rows @ q, np.ones(4)))
    np.testing.assert_allclose(svm.margin / scale, margin, rtol=1e-8)
    np.testing.assert_allclose(svm.direction, q[0], atol=1e-13 / margin)
    np.testing.assert_allclose(svm.multipliers, [2 / 3, 1 / 3, 0, 0], atol=1e-8)


def separable(inputs, signs):
    """Whether a linear programme finds a w with margins of at least 1."""
    rows = signs[:, None] * inputs
    zero, minus = np.zeros(rows.shape[1]), -np.ones(len(rows))
    return linprog(zero, -rows, minus, bounds=(None, None)).status == 0


def test_what_is_separable():
    """As many samples as make it uncertain, twice the dimensions (Cover)."""
    rng = np.random.default_rng(0)
    expected, found = [], []
    for _ in range(40):
        inputs, signs = rng.normal(size=(8, 4)), np.sign(rng.normal(size=8))
        expected.append(separable(inputs, signs))
        svm = hard_margin_svm(gf.Dataset(inputs, signs))
        found.append(bool(svm.margin > 0))
        assert found[-1] or is_nan(svm)
    assert found == expected and 10 < sum(found) < 30


@pytest.mark.parametrize(
    "inputs, signs",
    [
        ([[1.0, 2.0], [1.0, 2.0]], [1.0, -1.0]),  # one sample with both labels
        ([[1.0, 0.0], [0.0, 0.0]], [1.0, 1.0]),  # no margin for a sample of 0
        ([[0.0, 0.0]], [1.0]),
        ([[1.0], [2.0], [-1.0]], [1.0, -1.0, -1.0]),
    ],
)
def test_inseparable(inputs, signs):
    assert is_nan(hard_margin_svm(gf.Dataset(np.array(inputs), np.array(signs))))


def test_what_is_not_found(monkeypatch):
    def out_of_iterations(*_):
        raise RuntimeError

    def wrong(matrix, _):
        return np.ones(matrix.shape[1]), 0.0

    # The right multipliers are not equal.
    dataset = gf.Dataset(np.diag([1.0, 2.0]), np.ones(2))
    assert hard_margin_svm(dataset).margin > 0
    for solver in (out_of_iterations, wrong):
        monkeypatch.setattr(_nnls, "nnls", solver)
        assert is_nan(hard_margin_svm(dataset))


def test_under_transformations():
    inputs, signs = drawn()
    batch = np.stack([inputs, inputs @ rotation(4), -inputs])
    measure = eqx.filter_jit(jax.vmap(lambda x: hard_margin_svm(gf.Dataset(x, signs))))
    found = measure(jnp.asarray(batch))
    single = hard_margin_svm(gf.Dataset(inputs, signs))
    v = np.asarray(single.direction)
    turned = np.stack([v, v @ rotation(4), -v])
    np.testing.assert_allclose(found.direction, turned, atol=1e-13)
    for name in ("margin", "multipliers"):
        expected = np.stack([getattr(single, name)] * 3)
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-13)


def test_images_in_single_precision():
    inputs, signs = drawn()
    expected = hard_margin_svm(gf.Dataset(inputs, signs))
    images = inputs.reshape(12, 1, 2, 2).astype(np.float32)
    svm = hard_margin_svm(gf.Dataset(images, signs))
    assert {x.dtype for x in jax.tree.leaves(svm)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(svm.direction.ravel(), expected.direction, atol=1e-5)
    np.testing.assert_allclose(svm.margin, expected.margin, rtol=1e-5)
    np.testing.assert_allclose(svm.multipliers, expected.multipliers, atol=1e-5)


def test_what_is_not_defined():
    with pytest.raises(ValueError, match="`dataset`: regression"):
        hard_margin_svm(gf.Dataset(np.eye(3), np.ones(3), regression=True))
    with pytest.raises(
        ValueError, match="`dataset` must have labels ±1, not 3 classes"
    ):
        hard_margin_svm(gf.Dataset(np.eye(3), np.arange(3)))
