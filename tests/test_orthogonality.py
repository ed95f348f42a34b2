"""Orthogonality and projections, of matrices made to be one or the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for

analysis = gf.analysis
rng = np.random.default_rng(0)


def measured(measure, *weights):
    network = gf.Dense.from_weights([jnp.asarray(w) for w in weights])
    return measure(problem_for("dense"), network)


def orthonormal(rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_defect_by_singular_values(kind):
    """|G/|G| - I/√m|² = 2 - 2 tr G / (√m |G|)."""
    network, problem = network_of(kind), problem_for(kind)
    found = eqx.filter_jit(analysis.orthogonality_defect)(problem, network)
    matrices = [np.asarray(w) for w in network.weights]
    if kind == "diagonal":
        matrices = [*map(np.diag, matrices[:-1]), matrices[-1][None]]
    for k, m in enumerate(matrices):
        squares = np.linalg.svd(m.reshape(len(m), -1), compute_uv=False) ** 2
        ratio = squares.sum() / np.sqrt(len(squares) * np.sum(squares**2))
        np.testing.assert_allclose(found[k] ** 2, 2 - 2 * ratio, atol=1e-13)
    assert found[1] > 0.1


def test_orthonormal_rows_and_columns():
    columns = 1e-200 * orthonormal(5, 3)
    rows = 1e200 * orthonormal(6, 4).T
    for w in (columns, rows, rng.normal(size=(1, 4))):
        found = measured(analysis.orthogonality_defect, w, np.ones((1, len(w))))
        np.testing.assert_allclose(found, 0, atol=1e-14)


def test_rank_one_is_furthest():
    one = np.outer([1.0, -2.0, 0.5], [1.0, 2.0, 3.0, 4.0])
    found = measured(analysis.orthogonality_defect, one, np.ones((1, 3)))[0]
    np.testing.assert_allclose(found, np.sqrt(2 - 2 / np.sqrt(3)), rtol=1e-14)


def test_projections():
    columns = orthonormal(4, 2)
    orthogonal = columns @ columns.T
    basis = rng.normal(size=(4, 4))
    oblique = basis @ np.diag([1.0, 1.0, 0.0, 0.0]) @ np.linalg.inv(basis)
    layers = (
        -1e-200 * orthogonal,
        1e200 * oblique,
        rng.normal(size=(4, 4)),
        np.ones((1, 4)),
    )
    defect = measured(analysis.projection_defect, *layers)
    np.testing.assert_allclose(defect[:2], 0, atol=1e-13)
    w, square = layers[2], layers[2] @ layers[2]
    cosine = np.sum(w * square) / np.linalg.norm(w) / np.linalg.norm(square)
    np.testing.assert_allclose(defect[2], np.sin(np.arccos(cosine)), rtol=1e-12)
    assert jnp.isnan(defect[3])
    symmetric = measured(analysis.asymmetry, *layers)
    np.testing.assert_allclose(symmetric[0], 0, atol=1e-15)
    difference = np.linalg.norm(w - w.T) / (2 * np.linalg.norm(w))
    np.testing.assert_allclose(symmetric[2], difference, rtol=1e-14)
    assert symmetric[1] > 0.1 and jnp.isnan(symmetric[3])


def test_what_is_not_defined():
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    nilpotent = np.array([[0.0, 1.0], [0.0, 0.0]])
    zeros = np.zeros((2, 2))
    layers = rotation, nilpotent, zeros, np.ones((1, 2))
    defect = measured(analysis.projection_defect, *layers)
    np.testing.assert_allclose(defect[0], 1, rtol=1e-15)
    np.testing.assert_array_equal(jnp.isnan(defect), [False, True, True, True])
    np.testing.assert_allclose(measured(analysis.asymmetry, *layers)[0], 1)
    orthogonal = measured(analysis.orthogonality_defect, *layers)
    np.testing.assert_array_equal(jnp.isnan(orthogonal), [False, False, True, False])
    for measure in (analysis.projection_defect, analysis.asymmetry):
        with pytest.raises(ValueError, match="convolution"):
            measure(problem_for("conv"), network_of("conv"))


def test_the_derivative_of_what_is_always_0():
    """A single row is orthogonal to itself in any case."""
    network, problem = network_of("dense"), problem_for("dense")

    def last(network):
        return gf.analysis.orthogonality_defect(problem, network)[-1]

    for gradient in jax.grad(last)(network).weights:
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
