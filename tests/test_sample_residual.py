"""Stationarity sample by sample, against gradients written out by hand."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for, reference_of

sample_residual = eqx.filter_jit(gf.analysis.sample_residual)


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [(kind, c) for kind in NETWORKS for c in (1, 3) if (kind, c) != ("diagonal", 3)],
)
def test_against_the_jacobian(kind, outputs):
    """Of the network with unit norms, as the definition has it."""
    problem, network = problem_for(kind, outputs), network_of(kind, 0.1, outputs)
    directions = [np.asarray(w) / np.linalg.norm(w) for w in network.weights]
    oracle = reference_of(network).with_weights(directions)
    inputs = np.asarray(problem.dataset.inputs)
    f = oracle.outputs(inputs)
    found = sample_residual(problem, network)
    assert found.shape == (3, len(inputs))
    for k, (v, jacobian) in enumerate(
        zip(directions, oracle.jacobian(inputs), strict=True)
    ):
        for n in range(len(inputs)):
            ratios = [
                np.linalg.norm(df - v * f[n, c]) / np.linalg.norm(df)
                for c, df in enumerate(jacobian[n])
            ]
            np.testing.assert_allclose(found[k, n], max(ratios), rtol=1e-10)


def test_rank_one_and_aligned():
    """Then every sample along the common direction is stationary on its own, and one
    at an angle to it in the upper layers only."""
    u, v = np.array([0.6, 0.8]), np.array([2.0, 1.0, 2.0]) / 3
    weights = np.outer(v, u), np.outer(u, v), u[None]
    network = gf.Dense.from_weights([jnp.asarray(3.0 * w) for w in weights])
    aside = np.array([0.0, 1.0])
    data = gf.Dataset(np.stack([u, aside]), np.array([1.0, 1.0]))
    residual = sample_residual(gf.Problem(data, gf.SquareLoss()), network)
    np.testing.assert_allclose(residual[:, 0], 0, atol=1e-14)
    # The sine of the angle between the sample and u.
    np.testing.assert_allclose(residual[:, 1], [0.6, 0, 0], atol=1e-14)


def test_sample_that_no_unit_sees():
    network = gf.Dense.from_weights([jnp.eye(2), jnp.ones((1, 2))])
    data = gf.Dataset(np.array([[-1.0, -1.0], [1.0, 1.0]]), np.array([1.0, 1.0]))
    residual = sample_residual(gf.Problem(data, gf.SquareLoss()), network)
    assert jnp.all(jnp.isnan(residual[:, 0])) and not jnp.any(jnp.isnan(residual[:, 1]))
