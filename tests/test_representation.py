"""The layers as sums of the samples' gradients, against gradients written out by hand
and at critical points."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
import small
from cases import CASES, network_of, problem_for, reference_of, slopes_of

coefficients = eqx.filter_jit(gf.analysis.representation_coefficients)
residual = eqx.filter_jit(gf.analysis.representation_residual)


# The loss enters through the slopes: all networks, and all losses.
@pytest.mark.parametrize(
    ("kind", "outputs", "loss"),
    [case for case in CASES if case[0] == "dense" or case[2] == "square"],
)
def test_against_the_jacobian(kind, outputs, loss):
    problem, network = problem_for(kind, outputs, loss), network_of(kind, 0.1, outputs)
    inputs = problem.dataset.inputs
    units = [np.asarray(w) / np.linalg.norm(w) for w in network.weights]
    oracle = reference_of(network).with_weights(units)
    f, rho = oracle.outputs(inputs), np.prod(np.asarray(network.norms))
    d = slopes_of(problem)(rho * f).reshape(f.shape)
    alpha = d / np.sum(d * f)
    np.testing.assert_allclose(coefficients(problem, network), alpha, rtol=1e-10)
    found = residual(problem, network)
    for k, (v, jacobian) in enumerate(zip(units, oracle.jacobian(inputs), strict=True)):
        rest = v - np.einsum("nc,nc...->...", alpha, jacobian)
        np.testing.assert_allclose(found[k], np.linalg.norm(rest), rtol=1e-9)
    # What is left is tangent.
    stationarity = gf.analysis.stationarity_residual(problem, network)
    np.testing.assert_allclose(found, stationarity / abs(np.sum(d * f)), rtol=1e-9)


@pytest.mark.parametrize("loss", [gf.SquareLoss(), gf.LogisticLoss()])
def test_at_a_critical_point(loss):
    problem = small.problem(loss=loss)
    run = gf.descend(
        problem,
        0.05,
        small.network(),
        8000,
        flow=gf.GradientFlow(0.2),
        observe={},
        save_networks=False,
    )
    before = residual(problem, small.network())
    assert jnp.min(before) > 0.1
    assert jnp.max(residual(problem, run.final)) < 1e-6
    assert jnp.min(run.final.norms) > 0.1
    # The layers are those sums, the first one by the oracle's gradients.
    alpha = np.asarray(coefficients(problem, run.final))
    units = [np.asarray(w) / np.linalg.norm(w) for w in run.final.weights]
    oracle = reference_of(run.final).with_weights(units)
    first, _ = oracle.jacobian(problem.dataset.inputs)
    np.testing.assert_allclose(
        np.einsum("nc,nc...->...", alpha, first), units[0], atol=1e-6
    )


def test_where_the_slopes_underflow():
    """The sample of the smallest margin alone is left, and any scale is the same."""
    data = gf.Dataset(np.array([[0.6, 0.8], [1.0, 0.0]]), np.array([1.0, 1.0]))
    for loss in (gf.ExponentialLoss(), gf.LogisticLoss()):
        problem = gf.Problem(data, loss)
        network = gf.Dense.from_weights([jnp.asarray([[1e6, 0.0]])], gf.Identity())
        assert problem.value(network) == 0
        # V = (1, 0), and the second component of the first sample is left.
        np.testing.assert_allclose(coefficients(problem, network).ravel(), [1 / 0.6, 0])
        np.testing.assert_allclose(residual(problem, network), [0.8 / 0.6])


def test_where_the_slopes_cancel():
    """At an interpolating network."""
    network = gf.Dense.from_weights([jnp.eye(2), jnp.asarray([[1.0, -1.0]])])
    data = gf.Dataset(np.eye(2), np.array([1.0, -1.0]))
    problem = gf.Problem(data, gf.SquareLoss())
    assert jnp.all(jnp.isnan(coefficients(problem, network)))
    assert jnp.all(jnp.isnan(residual(problem, network)))


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, -1)])
@pytest.mark.parametrize("depth", [3, 4])
def test_critical_points_of_diagonal_networks(depth, signs):
    """For one sample, |V_k^i|^(L - 2) = f / x^i for all layers k, or 0.

    M112 (72) prints x^i / f. That follows from V_k^i f = x^i times the product of the
    other layers only where the fraction is turned over.
    """
    x = np.array([1.0, 0.5, 2.0, 3.0])

    def network(entries):
        unit = entries / np.linalg.norm(entries)
        factors = [*signs, *[1] * (depth - 3)]
        layers = tuple(jnp.asarray(s * unit) for s in factors)
        return gf.Diagonal.from_weights(layers, activation=gf.Identity())

    where = gf.Problem(gf.Dataset(jnp.asarray(x[None]), jnp.ones(1)), gf.SquareLoss())
    active = np.array([1.0, 1.0, 0.0, 1.0])
    critical = network(active * x ** (-1 / (depth - 2)))
    printed = network(active * x)
    for measure in (
        gf.analysis.stationarity_residual,
        gf.analysis.representation_residual,
        lambda p, n: gf.analysis.sample_residual(p, n)[:, 0],
    ):
        np.testing.assert_allclose(measure(where, critical), 0, atol=1e-14)
        assert np.min(measure(where, printed)) > 0.01


def test_a_layer_of_zeros_has_no_direction():
    network = network_of("dense")
    network = network.with_weights((*network.weights[:-1], jnp.zeros((1, 3))))
    for measure in (
        gf.analysis.representation_residual,
        gf.analysis.stationarity_residual,
    ):
        assert jnp.all(jnp.isnan(measure(problem_for("dense"), network)))
