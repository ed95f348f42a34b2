"""Registries of networks, losses and flows, and how each looks to the oracle.

A property is parametrized over all of a registry. Everything is made from the explicit
keys in here, so a test that names its case can be run again.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config

import gradflow as gf
from reference import ReferenceConv, ReferenceDense, ReferenceDiagonal, slopes_function

SMOOTHINGS = (0.0, 1e-3, 0.1)
SAMPLES = 7
# Unequal, so that nothing that mixes up the layers goes unnoticed.
NORMS = (0.7, 1.6, 1.2)


# Networks: name -> fn(outputs, activation).


def _dense(outputs, activation):
    return gf.Dense((5, 4, 3, outputs), key=jax.random.key(1), activation=activation)


def _deep_linear(outputs, activation):
    del activation
    return _dense(outputs, gf.Identity())


def _conv(outputs, activation):
    # 5 x 5 -> 3 x 3 -> 2 x 2, with zeros around the first of the two.
    return gf.Conv(
        (2, 5, 5),
        (3, 2),
        outputs,
        key=jax.random.key(2),
        kernel_size=(3, 2),
        stride=(2, 1),
        padding=(1, 0),
        activation=activation,
    )


def _diagonal(outputs, activation):
    assert outputs == 1
    return gf.Diagonal(5, 3, key=jax.random.key(3), activation=activation)


NETWORKS = {
    "dense": _dense,
    "deep_linear": _deep_linear,
    "conv": _conv,
    "diagonal": _diagonal,
}


@functools.cache
def network_of(kind, smoothing=0.0, outputs=1, norms=NORMS):
    """A network of three layers with the given norms."""
    network = NETWORKS[kind](outputs, gf.ReLU(smoothing))
    pairs = zip(norms, network.weights, strict=True)
    return network.with_weights(tuple(w * (n / jnp.linalg.norm(w)) for n, w in pairs))


def reference_of(network):
    """The oracle's network with the weights and the activation of `network`."""
    weights = [np.asarray(w) for w in network.weights]
    if isinstance(network.activation, gf.Identity):
        options = {"identity": True}
    else:
        options = {"smoothing": float(network.activation.smoothing)}
    if isinstance(network, gf.Conv):
        return ReferenceConv(weights, network.strides, network.paddings, **options)
    if isinstance(network, gf.Diagonal):
        return ReferenceDiagonal(weights, **options)
    return ReferenceDense(weights, **options)


# Losses: name -> class; the names are those of the oracle.

LOSSES = {
    "square": gf.SquareLoss,
    "exponential": gf.ExponentialLoss,
    "logistic": gf.LogisticLoss,
    "cross_entropy": gf.CrossEntropyLoss,
}

# What fits together: (kind of network, outputs, loss). One output has labels ±1,
# several outputs have classes.
CASES = [
    (kind, outputs, loss)
    for kind in NETWORKS
    for outputs in (1, 3)
    for loss in LOSSES
    if outputs == 1 or kind != "diagonal"
    if (loss in ("exponential", "logistic")) <= (outputs == 1)
    if (loss == "cross_entropy") <= (outputs > 1)
]


def inputs_for(kind, samples=SAMPLES, seed=10):
    shape = (2, 5, 5) if kind == "conv" else (5,)
    inputs = jax.random.normal(jax.random.key(seed), (samples, *shape))
    norms = jnp.sqrt(jnp.sum(inputs**2, axis=range(1, inputs.ndim), keepdims=True))
    return inputs / norms


@functools.cache
def dataset_for(kind, outputs=1, samples=SAMPLES, seed=10):
    """Inputs of unit norm; labels ±1 for one output, classes for several."""
    inputs = inputs_for(kind, samples, seed)
    key = jax.random.key(seed + 1)
    if outputs == 1:
        return gf.Dataset(inputs, jax.random.rademacher(key, (samples,), float))
    labels = jax.random.randint(key, (samples,), 0, outputs)
    return gf.Dataset(inputs, labels, num_classes=outputs)


def problem_for(kind, outputs=1, loss="square", reduction="sum"):
    return gf.Problem(dataset_for(kind, outputs), LOSSES[loss](reduction))


def slopes_of(problem):
    """The oracle's slopes of the problem's loss, as its flows ask for them."""
    name = next(name for name, cls in LOSSES.items() if type(problem.loss) is cls)
    labels = np.asarray(problem.dataset.labels)
    return slopes_function(name, labels, mean=problem.loss.reduction == "mean")


# Flows: name -> fn(weight_decay).

FLOWS = {
    "gradient": gf.GradientFlow,
    "polar": gf.PolarGradientFlow,
    **{
        f"lagrange_{'all' if all_norms else 'last'}{'_rows' * rows}{'_raw' * raw}": (
            lambda weight_decay=0.0, all_norms=all_norms, rows=rows, raw=raw: (
                gf.LagrangeFlow(
                    weight_decay,
                    all_norms=all_norms,
                    raw=raw,
                    spheres=gf.RowSpheres() if rows else gf.MatrixSpheres(),
                )
            )
        )
        for all_norms in (False, True)
        for rows in (False, True)
        for raw in (False, True)
    },
    **{
        f"weight_norm_{'all' if all_norms else 'last'}_v{v_norm}": (
            lambda weight_decay=0.0, all_norms=all_norms, v_norm=v_norm: (
                gf.WeightNormFlow(weight_decay, all_norms=all_norms, v_norm=v_norm)
            )
        )
        for all_norms in (False, True)
        for v_norm in (1.0, 2.5)
    },
}


def flows_for(kind):
    """The names of the flows that a kind of network can follow."""
    return [name for name in FLOWS if kind != "diagonal" or "rows" not in name]


def assert_close(actual, expected, rtol, case=None):
    """Agreement of pytrees, in the norm of each array relative to that norm."""
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected), case
    for a, b in zip(actual, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, case
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b), case


@pytest.fixture
def unchecked_types():
    """Without the type checks of the tests: a wrong type meets the library's own."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
