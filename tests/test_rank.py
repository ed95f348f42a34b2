"""Ranks of the layers against dense linear algebra and constructed matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for

analysis = gf.analysis


@pytest.mark.parametrize("kind", NETWORKS)
def test_against_eigenvalues(kind):
    """Of W Wᵀ, of matrices written out by hand."""
    network, problem = network_of(kind), problem_for(kind)
    matrices = [np.asarray(w) for w in network.weights]
    if kind == "diagonal":
        matrices = [*map(np.diag, matrices[:-1]), matrices[-1][None]]
    matrices = [m.reshape(m.shape[0], -1) for m in matrices]
    measures = (analysis.stable_rank, analysis.effective_rank)
    stable, effective = (eqx.filter_jit(m)(problem, network) for m in measures)
    away = eqx.filter_jit(analysis.distance_to_rank_one)(problem, network)
    values = analysis.singular_values(problem, network)
    for k, m in enumerate(matrices):
        rank = min(m.shape)
        squares = np.linalg.eigvalsh(m @ m.T)[::-1][:rank]
        np.testing.assert_allclose(values[k], np.sqrt(squares), atol=1e-7)
        total = np.trace(m @ m.T)
        np.testing.assert_allclose(stable[k], total / squares[0], rtol=1e-12)
        u, s, vt = np.linalg.svd(m)
        rest = np.linalg.norm(m - s[0] * np.outer(u[:, 0], vt[0])) / np.linalg.norm(m)
        np.testing.assert_allclose(away[k], rest, atol=1e-12)
        p = s / s.sum()
        np.testing.assert_allclose(effective[k], np.prod(p ** (-p)), rtol=1e-12)


def test_known_ranks():
    """A multiple of an orthogonal matrix, a matrix of rank one, and one row."""
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    one = np.outer([1.0, -2.0, 0.5, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    weights = [1e-200 * orthogonal, 1e200 * one, np.ones((1, 4))]
    network = gf.Dense.from_weights([jnp.asarray(w) for w in weights])
    problem = problem_for("dense")
    for measure in (analysis.stable_rank, analysis.effective_rank):
        np.testing.assert_allclose(measure(problem, network), [5, 1, 1], rtol=1e-12)
    distances = analysis.distance_to_rank_one(problem, network)
    np.testing.assert_allclose(distances, [np.sqrt(4 / 5), 0, 0], atol=1e-14)


def test_a_layer_of_zeros_has_no_rank():
    network = network_of("dense")
    first, *others = network.weights
    network = network.with_weights((jnp.zeros_like(first), *others))
    ranks = analysis.stable_rank(problem_for("dense"), network)
    assert jnp.isnan(ranks[0]) and jnp.all(ranks[1:] >= 1)


def test_of_many_networks():
    network, problem = network_of("dense"), problem_for("dense")
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), network, network)
    ranks = jax.vmap(analysis.stable_rank, in_axes=(None, 0))(problem, stack)
    assert ranks.shape == (2, 3)
    with pytest.raises(ValueError, match="vmap"):
        analysis.stable_rank(problem, stack)
