"""The margins of all samples together, against NumPy and made-up margins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import network_of, problem_for

kinds = pytest.mark.parametrize(
    ("kind", "outputs"), [("dense", 1), ("dense", 3), ("conv", 3), ("diagonal", 1)]
)


def with_margins(margins, scale=2.0):
    """A problem with labels of both signs, and a network of two layers."""
    signs = np.where(np.arange(len(margins)) % 2, -1.0, 1.0)
    inputs = (signs * np.asarray(margins))[:, None]
    layers = [jnp.ones((1, 1)), jnp.full((1, 1), scale)]
    network = gf.Dense.from_weights(layers, gf.Identity())
    return gf.Problem(gf.Dataset(inputs, signs), gf.SquareLoss()), network


def regression():
    """Two real targets for each sample."""
    data = gf.Dataset(np.eye(4), np.arange(8.0).reshape(4, 2), regression=True)
    network = gf.Dense((4, 3, 2), key=jax.random.key(0))
    return gf.Problem(data, gf.SquareLoss()), network


def targets_of(problem, outputs):
    labels = np.asarray(problem.dataset.labels)
    if problem.dataset.num_classes is not None:
        return np.eye(outputs)[labels]
    return labels.reshape(len(labels), outputs)


@kinds
def test_targets(kind, outputs):
    problem, network = problem_for(kind, outputs), network_of(kind, 0.1, outputs)
    check_targets(problem, network)
    # Whatever the loss and its reduction are.
    name = "cross_entropy" if outputs == 3 else "logistic"
    check_targets(problem_for(kind, outputs, name, "mean"), network)


def check_targets(problem, network):
    g = np.asarray(problem.outputs(network))
    y = targets_of(problem, g.shape[1])
    rho = np.prod(np.asarray(network.norms))
    total = gf.analysis.average_separability(problem, network)
    np.testing.assert_allclose(total, np.sum(y * g) / rho, rtol=1e-11)
    worst = gf.analysis.interpolation_defect(problem, network)
    np.testing.assert_allclose(worst, np.max(np.abs(g - y)), rtol=1e-12)


def test_targets_of_regression():
    check_targets(*regression())


def test_interpolation_in_terms_of_margins():
    problem, network = with_margins([0.5, 0.4, 0.7, -0.1], scale=2.0)
    defect = gf.analysis.interpolation_defect(problem, network)
    np.testing.assert_allclose(defect, 1.2)  # |2 (-0.1) - 1|


@kinds
def test_histogram(kind, outputs):
    problem, network = problem_for(kind, outputs), network_of(kind, 0.1, outputs)
    margins = np.asarray(problem.margins(network))
    edges = np.linspace(margins.min() / 2, margins.max() / 2, 5)
    found = eqx.filter_jit(gf.analysis.margin_histogram)(problem, network, edges)
    assert found.dtype == margins.dtype
    expected, _ = np.histogram(margins, edges)
    np.testing.assert_array_equal(found, expected)
    assert 0 < np.sum(expected) < len(margins)


def test_histogram_at_the_edges():
    """Like NumPy's: the upper edge belongs to the last bin only."""
    margins = [-1.0, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 1.5]
    problem, network = with_margins(margins)
    edges = [0.0, 0.25, 0.5, 1.0]
    found = gf.analysis.margin_histogram(problem, network, edges)
    np.testing.assert_array_equal(found, np.histogram(margins, edges)[0])
    np.testing.assert_array_equal(found, [2, 1, 3])


@pytest.mark.parametrize("edges", [0.0, [0.0], [[0.0, 1.0]], [0.0, 0.0, 1.0], [1, 0]])
def test_edges_that_do_not_fit(edges):
    with pytest.raises(ValueError, match="`edges`"):
        gf.analysis.margin_histogram(*with_margins([0.1, 0.2]), edges)


def test_support():
    problem, network = with_margins([0.5, 0.54, 0.56, 0.62, 0.9])

    def found(**options):
        return np.flatnonzero(gf.analysis.support(problem, network, **options))

    np.testing.assert_array_equal(found(), [0, 1])
    np.testing.assert_array_equal(found(rtol=0.2), [0, 1, 2])
    np.testing.assert_array_equal(found(rtol=0.0), [0])
    # Of wrong classifications, the worst.
    problem, network = with_margins([0.5, -0.54, -0.5, -0.3, 0.0])
    np.testing.assert_array_equal(found(), [1, 2])
    problem, network = with_margins([0.0, 0.5, 0.0])
    np.testing.assert_array_equal(found(), [0, 2])
    with pytest.raises(ValueError, match="`rtol`"):
        found(rtol=-0.1)


def test_equal_margins():
    defect = eqx.filter_jit(gf.analysis.equal_margin_defect)
    margins = np.array([0.5, 0.1, -0.2, 0.4])
    expected = margins.std() / np.abs(margins).mean()
    np.testing.assert_allclose(defect(*with_margins(margins)), expected, rtol=1e-13)
    np.testing.assert_allclose(defect(*with_margins([0.3, 0.3, 0.3])), 0, atol=1e-15)
    assert jnp.isnan(defect(*with_margins([0.0, 0.0])))


def test_classes_that_are_interpolated():
    """All margins are 1/ρ."""
    data = gf.Dataset(np.eye(3), np.array([0, 1, 2]))
    problem = gf.Problem(data, gf.SquareLoss())
    network = gf.Dense.from_weights([2 * jnp.eye(3), 0.5 * jnp.eye(3)])
    rho = 12**0.5 * 0.75**0.5
    np.testing.assert_allclose(problem.margins(network), 1 / rho, rtol=1e-13)
    for measure in (gf.analysis.equal_margin_defect, gf.analysis.interpolation_defect):
        np.testing.assert_allclose(measure(problem, network), 0, atol=1e-15)


def test_regression_has_no_margins():
    arguments = regression()
    for measure in (
        gf.analysis.support,
        gf.analysis.equal_margin_defect,
        lambda *at: gf.analysis.margin_histogram(*at, [0, 1]),
    ):
        with pytest.raises(ValueError, match="Regression"):
            measure(*arguments)
