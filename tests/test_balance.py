"""The balance of layers and units, written out with NumPy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for

kinds = pytest.mark.parametrize("kind", NETWORKS)


def arrays(kind):
    return [np.asarray(w) for w in network_of(kind).weights]


@kinds
def test_layers(kind):
    squares = np.array([np.sum(w**2) for w in arrays(kind)])
    balance = gf.analysis.layer_balance(problem_for(kind), network_of(kind))
    np.testing.assert_allclose(balance, squares[1:] - squares[:-1], rtol=1e-13)


@kinds
def test_units(kind):
    first, second, last = arrays(kind)
    if kind == "diagonal":
        expected = second**2 - first**2, last**2 - second**2
    elif kind == "conv":
        # Channels of kernels, then of the features of each channel.
        features = last.reshape(-1, second.shape[0], last.shape[1] // len(second))
        expected = (
            np.sum(second**2, (0, 2, 3)) - np.sum(first**2, (1, 2, 3)),
            np.sum(features**2, (0, 2)) - np.sum(second**2, (1, 2, 3)),
        )
    else:
        expected = (
            np.sum(second**2, 0) - np.sum(first**2, 1),
            np.sum(last**2, 0) - np.sum(second**2, 1),
        )
    balance = eqx.filter_jit(gf.analysis.unit_balance)
    for found, value in zip(
        balance(problem_for(kind), network_of(kind)), expected, strict=True
    ):
        np.testing.assert_allclose(found, value, rtol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "deep_linear", "diagonal"])
def test_matrices(kind):
    """Their traces are the balance of the layers, their diagonals that of the units."""
    arguments = problem_for(kind), network_of(kind)
    layers = gf.analysis.layer_balance(*arguments)
    units = gf.analysis.unit_balance(*arguments)
    matrices = gf.analysis.matrix_balance(*arguments)
    assert len(matrices) == 2
    for matrix, diagonal, difference in zip(matrices, units, layers, strict=True):
        np.testing.assert_allclose(jnp.diag(matrix), diagonal, rtol=1e-12)
        np.testing.assert_allclose(jnp.trace(matrix), difference, rtol=1e-12)
    if kind == "dense":
        first, second, _ = arrays(kind)
        i, j = 2, 0
        expected = second[:, i] @ second[:, j] - first[i] @ first[j]
        np.testing.assert_allclose(matrices[0][i, j], expected, rtol=1e-12)


def test_matrices_of_a_convolution():
    with pytest.raises(ValueError, match="unit_balance"):
        gf.analysis.matrix_balance(problem_for("conv"), network_of("conv"))
