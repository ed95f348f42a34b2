"""Ranks of the gradients against those of the oracle's, by NumPy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import NETWORKS, network_of, problem_for, reference_of

rank = eqx.filter_jit(gf.analysis.jacobian_rank)


def expected_ranks(problem, network):
    jacobian = reference_of(network).jacobian(np.asarray(problem.dataset.inputs))
    ranks = []
    for gradients in jacobian:
        if isinstance(network, gf.Diagonal):
            ranks.append(np.max(np.sum(gradients != 0, axis=2), axis=1))
            continue
        matrices = gradients.reshape(*gradients.shape[:3], -1)
        ranks.append(np.max(np.linalg.matrix_rank(matrices, tol=1e-10), axis=1))
    ranks = np.stack(ranks)
    if isinstance(network, gf.Diagonal):
        ranks[-1] = np.minimum(ranks[-1], 1)  # the last layer is a row
    return ranks


@pytest.mark.parametrize(
    ("kind", "outputs"), [*((kind, 1) for kind in NETWORKS), ("dense", 3), ("conv", 3)]
)
def test_against_the_oracle(kind, outputs):
    problem, network = problem_for(kind, outputs), network_of(kind, outputs=outputs)
    if kind == "diagonal":  # or half of its units see nothing
        network = network.with_activation(gf.Identity())
    found = rank(problem, network)
    np.testing.assert_array_equal(found, expected_ranks(problem, network))
    if kind in ("dense", "deep_linear"):
        assert jnp.max(found) == 1
    else:
        assert jnp.max(found[:2]) > 1  # many positions, or many units
        assert jnp.max(found[2]) == 1


def test_a_sample_that_no_unit_sees():
    first, *others = network_of("dense").weights
    problem = problem_for("dense")
    signs = jnp.sign(first @ problem.dataset.inputs[0])
    network = network_of("dense").with_weights((-signs[:, None] * first, *others))
    np.testing.assert_array_equal(rank(problem, network)[:, 0], 0)


def test_an_output_without_weights():
    """Its gradients vanish below the last layer, and those of the others count."""
    problem, network = problem_for("dense", 3), network_of("dense", outputs=3)
    *hidden, last = network.weights
    muted = network.with_weights((*hidden, last.at[1].set(0.0)))
    np.testing.assert_array_equal(rank(problem, muted), rank(problem, network))
    np.testing.assert_array_equal(rank(problem, muted)[0], 1)


def test_smoothed_kinks():
    """Their rows are the rank that a threshold above the smoothing leaves out."""
    problem, network = problem_for("dense"), network_of("dense", 0.1)
    assert jnp.max(rank(problem, network)) > 1
    assert jnp.max(rank(problem, network, rtol=0.3)) == 1


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="`rtol`"):
        gf.analysis.jacobian_rank(problem_for("dense"), network_of("dense"), rtol=-1.0)
