"""Residual networks, against hand-written NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import assert_close
from cases import unchecked_types as unchecked_types
from gradflow.analysis._features import hidden_features
from test_batch_norm import convolved

SAMPLES = 6


outputs_of = eqx.filter_jit(gf.Problem.outputs)
gradient_of = eqx.filter_jit(gf.Problem.gradient)


def residual(smoothing=0.0, channels=(3, 4), blocks=2):
    return gf.Residual(
        (2, 5, 6),
        channels,
        key=jax.random.key(1),
        blocks=blocks,
        activation=gf.ReLU(smoothing),
    )


def problem():
    inputs = jax.random.normal(jax.random.key(0), (SAMPLES, 2, 5, 6))
    labels = jnp.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    return gf.Problem(gf.Dataset(inputs, labels), gf.SquareLoss())


def by_hand(weights, inputs, normalises):
    """Two stages of two blocks each: the third block is the first of its stage."""

    def layer(h, w, stride):
        z = convolved(h, np.asarray(w), stride, 1)
        if not normalises:
            return z
        mean, std = z.mean((0, 2, 3), keepdims=True), z.std((0, 2, 3), keepdims=True)
        return (z - mean) / std

    first, *kernels, last = weights
    h = np.maximum(layer(np.asarray(inputs), first, 1), 0)
    for block in range(4):
        stride = 2 if block == 2 else 1
        z = np.maximum(layer(h, kernels[2 * block], stride), 0)
        z = layer(z, kernels[2 * block + 1], 1)
        skip = np.zeros_like(z)
        skip[:, : h.shape[1]] = h[:, :, ::stride, ::stride]
        h = np.maximum(skip + z, 0)
    return h.mean((2, 3)) @ np.asarray(last).T


@pytest.mark.parametrize("normalises", [False, True])
def test_outputs_are_those_of_numpy(normalises):
    network, of = residual(), problem()
    expected = by_hand(network.weights, of.dataset.inputs, normalises)
    network = gf.BatchNorm(network) if normalises else network
    assert_close(outputs_of(of, network), expected, 1e-13)
    fixed = of.with_statistics(network)
    assert_close(outputs_of(of, fixed), expected, 1e-13)
    if isinstance(fixed, gf.BatchNorm):
        absorbed = jax.jit(lambda fixed, x: jax.vmap(fixed.absorbed())(x))
        assert_close(absorbed(fixed, of.dataset.inputs), expected, 1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_with_batch_normalisation_it_is_homogeneous(smoothing):
    network, of = gf.BatchNorm(residual(smoothing)), problem()
    outputs = outputs_of(of, network)
    assert network.degrees == (0,) * 9 + (1,)
    for k, degree in enumerate(network.degrees):
        weights = list(network.weights)
        weights[k] = 1.7 * weights[k]
        there = outputs_of(of, network.with_weights(tuple(weights)))
        assert_close(there, 1.7**degree * outputs, 1e-12)
    for g, w in zip(gradient_of(of, network)[:-1], network.weights, strict=False):
        inner = jnp.abs(jnp.sum(g * w, axis=(1, 2, 3)))
        sizes = jnp.sum(g**2, axis=(1, 2, 3)) * jnp.sum(w**2, axis=(1, 2, 3))
        assert jnp.all(inner < 1e-12 * jnp.sqrt(sizes))


def test_gradient_is_that_of_finite_differences():
    network, of = residual(0.5), problem()
    gradient = gradient_of(of, network)
    tangent = [
        jax.random.normal(jax.random.key(k), w.shape)
        for k, w in enumerate(network.weights)
    ]

    @jax.jit
    def value(s):
        weights = [w + s * u for w, u in zip(network.weights, tangent, strict=True)]
        return of.value(network.with_weights(tuple(weights)))

    along = sum(jnp.sum(g * u) for g, u in zip(gradient, tangent, strict=True))
    assert_close(along, (value(1e-6) - value(-1e-6)) / 2e-6, 1e-7)


def test_flow_with_batch_normalisation():
    """The scale follows its own equation, whatever the blocks do."""
    network, of = gf.BatchNorm(residual(0.3, (3,), 1)), problem()
    observe = {"rho": lambda _, network: network.scale}
    run = gf.solve(of, gf.LagrangeFlow(0.1), network, 0.5, rtol=1e-5, observe=observe)
    rho = run.observables["rho"]
    slope = jnp.gradient(rho, run.ts)[50]
    f = outputs_of(of, run[50])[:, 0] / rho[50]
    expected = -2 * jnp.sum((rho[50] * f - of.dataset.labels) * f) - 0.2 * rho[50]
    assert abs(slope - expected) < 1e-3 * abs(expected)
    assert abs(rho[-1] - rho[0]) > 0.02


def test_without_it_there_is_no_scale():
    network, of = residual(), problem()
    for refused in (
        lambda: network.scale,
        lambda: of.margins(network),
        lambda: gf.solve(of, gf.GradientFlow(), network, 0.1),
        lambda: gf.LagrangeFlow().init(network),
    ):
        with pytest.raises(ValueError, match="BatchNorm"):
            refused()
    run = gf.descend(of, 1e-3, network, 2, observe={"loss": lambda p, n: p.value(n)})
    assert run.observables["loss"][-1] < run.observables["loss"][0]


@pytest.mark.parametrize(
    "measure",
    [
        gf.analysis.layer_balance,
        gf.analysis.matrix_balance,
        gf.analysis.path_norm,
        gf.analysis.spectral_complexity,
        gf.analysis.asymmetry,
    ],
)
def test_what_is_not_defined(measure):
    with pytest.raises(ValueError, match="residual networks"):
        measure(problem(), residual())


def test_last_features_are_those_of_the_last_layer():
    """The means of the channels, which its rows can be compared with."""
    of, network = problem(), gf.BatchNorm(residual())
    features = eqx.filter_jit(hidden_features)(of, network)[-1]
    assert_close(features @ network.weights[-1].T, outputs_of(of, network), 1e-13)
    collapse = eqx.filter_jit(gf.analysis.neural_collapse)(of, network)
    assert jnp.isfinite(collapse.nc3) and collapse.nc1.shape == (9,)


def test_normalised_by_the_output_for_one_example():
    """Whatever the scale of the outputs was."""
    of, example = problem(), problem().dataset.inputs[2]
    normalised_loss = eqx.filter_jit(gf.analysis.normalised_loss)
    mean = gf.Problem(of.dataset, gf.LogisticLoss("mean"))
    for network in (residual(), gf.BatchNorm(residual())):
        outputs = outputs_of(of, network)[:, 0]
        size = jnp.abs(outputs[2])
        expected = jnp.mean(jnp.log1p(jnp.exp(-of.dataset.labels * outputs / size)))
        for factor in (1.0, 5.0):
            weights = (*network.weights[:-1], factor * network.weights[-1])
            there = network.with_weights(weights)
            loss = normalised_loss(mean, there, example=example)
            assert_close(loss, expected, 1e-13)


def test_layers_of_the_papers():
    """ResNet-56 has 855,770 weights but for batch normalisation and biases (He et al.
    2016, table 6: 0.85 M)."""
    network = eqx.filter_eval_shape(
        lambda key: gf.Residual((3, 32, 32), (16, 32, 64), 10, key=key, blocks=9),
        jax.random.key(0),
    )
    assert len(network.weights) == 56
    kernels = 9 * (3 * 16 + 18 * 16**2 + 16 * 32 + 17 * 32**2 + 32 * 64 + 17 * 64**2)
    assert sum(w.size for w in network.weights) == kernels + 640
    assert repr(network) == "Residual(3x32x32: 16-32-64-10, 56 layers, ReLU())"


def test_from_weights_and_saved(tmp_path):
    network = residual(0.1)
    again = gf.Residual.from_weights(network.weights, **network.config())
    assert eqx.tree_equal(again, network)
    start = gf.BatchNorm(residual(0.1, (3,), 1))
    run = gf.descend(problem(), 1e-3, start, 2, observe={})
    run.save(tmp_path / "run.npz")
    assert eqx.tree_equal(gf.Trajectory.load(tmp_path / "run.npz").final, run.final)
    with pytest.raises(ValueError, match="`weights`"):
        gf.Residual.from_weights(network.weights[:-2], (2, 5, 6), blocks=2)
    with pytest.raises(ValueError, match="`weights`"):
        gf.Residual.from_weights(network.weights, (2, 5, 6), blocks=3)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"channels": ()},
        {"channels": (4, 3)},
        {"channels": (0, 3)},
        {"blocks": 0},
        {"outputs": 0},
        {"in_shape": (2, 5)},
    ],
)
def test_arguments(kwargs, getkey, unchecked_types):
    arguments = {"in_shape": (2, 5, 5), "channels": (3, 4), **kwargs}
    with pytest.raises(ValueError, match="`in_shape`|`channels`"):
        gf.Residual(**arguments, key=getkey())


@pytest.mark.parametrize("kwargs", [{"affine": True}, {"after_activation": True}])
def test_what_would_share_a_scale(kwargs):
    with pytest.raises(ValueError, match="`affine`"):
        gf.BatchNorm(residual(), **kwargs)
