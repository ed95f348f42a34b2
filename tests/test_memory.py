"""What the analysis of a large problem takes, beside one gradient of it.

XLA says how much memory a compiled program needs; nothing is run.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf

a = gf.analysis
FLOW = gf.GradientFlow(0.1)


def at(problem, network):
    return gf.Point(problem, FLOW, jnp.zeros(()), network.weights, network)


# Those that take gradients, or several arrays of the size of the data. What is made of
# all pairs of samples or weights says so.
MEASURES = {
    **{
        name: getattr(a, name)
        for name in (
            "euler_residual",
            "extreme_eigenvalues",
            "jacobian_rank",
            "neural_collapse",
            "normalised_loss",
            "rademacher_bound",
            "representation_residual",
            "rho_eq",
            "sample_residual",
            "sliding_units",
            "spectral_density",
            "stationarity_residual",
            "structural_residual",
        )
    },
    "classifier_relation": functools.partial(a.classifier_relation, weight_decay=0.1),
    "hessian_product": lambda p, n: a.hessian_product(p, n, n.weights),
    "margin_bound": functools.partial(a.margin_bound, margin=0.1),
    "Stationarity": lambda p, n: gf.Stationarity()(at(p, n)),
    "Sharpness": lambda p, n: gf.Sharpness()(at(p, n)),
}


@functools.cache
def large():
    """10,000 samples of ten classes, about 100,000 weights."""
    inputs = np.zeros((10_000, 784))
    inputs[:, 0] = 1
    problem = gf.Problem(gf.Dataset(inputs, np.arange(10_000) % 10), gf.SquareLoss())
    network = gf.Dense(
        (784, 120, 40, 10), key=jax.random.key(0), activation=gf.ReLU(0.01)
    )
    return problem, network


@functools.cache
def gradient():
    return memory(lambda problem, network: problem.gradient(network))


def memory(measure):
    """Bytes of arguments, results and all that is between them."""
    compiled = eqx.filter_jit(measure).lower(*large()).compile()
    stats = compiled.compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        + stats.temp_size_in_bytes
    )


@pytest.mark.parametrize("name", MEASURES)
def test_at_most_four_gradients(name):
    assert memory(MEASURES[name]) <= 4 * gradient()


def test_a_jacobian_would_be_seen():
    def jacobian(problem, network):
        def outputs(weights):
            return problem.outputs(network.with_weights(weights))

        return jax.jacrev(outputs)(network.weights)

    assert memory(jacobian) > 100 * gradient()
