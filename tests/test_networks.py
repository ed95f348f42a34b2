"""Networks: their initial weights, their arguments, and homogeneity at the edges."""

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import (
    NETWORKS,
    SMOOTHINGS,
    assert_close,
    inputs_for,
    network_of,
    reference_of,
)
from cases import unchecked_types as unchecked_types
from gradflow._network.convolution import by_patches, by_xla

kinds = pytest.mark.parametrize("kind", NETWORKS)
smoothings = pytest.mark.parametrize("smoothing", SMOOTHINGS)

MAKERS = {
    "dense": lambda **kwargs: gf.Dense((5, 4, 1), **kwargs),
    "conv": lambda **kwargs: gf.Conv((1, 4, 4), (2,), **kwargs),
    "diagonal": lambda **kwargs: gf.Diagonal(5, 2, **kwargs),
}
makers = pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)


# Initial weights.


@pytest.mark.parametrize(
    ("activation", "gain"),
    [(gf.ReLU(), 2.0), (gf.ReLU(0.1), 2.0), (gf.Identity(), 1.0)],
)
def test_he_scaling(activation, gain, getkey):
    """The variance of the weights is gain / fan-in, to five standard deviations."""
    dense = gf.Dense((100, 80, 60), key=getkey(), activation=activation)
    conv = gf.Conv(
        (6, 8, 8), (20, 30), 50, key=getkey(), kernel_size=5, activation=activation
    )
    diagonal = gf.Diagonal(3_000, 2, key=getkey(), activation=activation)
    # 8 x 8 -> 3 x 3 -> 1 x 1.
    fan_ins = [100, 80, 6 * 25, 20 * 25, 30, 1, 1]
    weights = (*dense.weights, *conv.weights, *diagonal.weights)
    for w, fan_in in zip(weights, fan_ins, strict=True):
        second_moment = jnp.mean(w**2) * fan_in / gain
        assert abs(second_moment - 1) < 5 * np.sqrt(2 / w.size)
        mean = jnp.mean(w) * np.sqrt(fan_in / gain)
        assert abs(mean) < 5 / np.sqrt(w.size)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (0.3, [0.3, 0.3]),
        (2, [2.0, 2.0]),
        (jnp.float64(0.3), [0.3, 0.3]),
        ((0.1, 7.0), [0.1, 7.0]),
        ([0.1, 7.0], [0.1, 7.0]),
        (jnp.array([0.1, 7.0]), [0.1, 7.0]),
    ],
    ids=["float", "int", "scalar", "tuple", "list", "array"],
)
@makers
def test_norm_sets_the_norm_of_each_layer(maker, norm, expected):
    free = maker(key=jax.random.key(0))
    network = maker(key=jax.random.key(0), norm=norm)
    np.testing.assert_allclose(network.norms, expected, rtol=1e-15)
    # Nothing but the norms is changed.
    for w, v in zip(network.weights, free.weights, strict=True):
        assert_close(w / jnp.linalg.norm(w), v / jnp.linalg.norm(v), 1e-15)


@pytest.mark.parametrize("norm", [0.0, -1.0, np.inf, np.nan])
@makers
def test_norm_must_be_positive(maker, norm, getkey):
    with pytest.raises(ValueError, match="`norm`"):
        maker(key=getkey(), norm=norm)


@pytest.mark.parametrize("norm", [(1.0, -1.0), (1.0,), (1.0, 1.0, 1.0), ((1.0, 1.0),)])
@makers
def test_norms_must_fit_the_layers(maker, norm, getkey, unchecked_types):
    with pytest.raises(ValueError, match="`norm`"):
        maker(key=getkey(), norm=norm)


@makers
def test_keys_decide_the_weights(maker):
    one, again, other = (maker(key=jax.random.key(seed)) for seed in (1, 1, 2))
    for a, b, c in zip(one.weights, again.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.any(a == c)


def test_layers_are_independent(getkey):
    first, second = gf.Diagonal(50, 2, key=getkey()).weights
    assert not np.any(first == second)


# Arguments.


@pytest.mark.parametrize("widths", [(), (5,), (5, 0, 1), (-1, 2), (5, 3, 0)])
def test_widths_of_dense(widths, getkey):
    with pytest.raises(ValueError, match="`widths`"):
        gf.Dense(widths, key=getkey())


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("in_shape", {"in_shape": (0, 5, 5)}),
        ("in_shape", {"in_shape": (2, 5)}),
        ("in_shape", {"in_shape": (2, 5, 5, 1)}),
        ("outputs", {"outputs": 0}),
        ("channels", {"channels": (3, 0)}),
        ("kernel_size", {"kernel_size": 0}),
        ("kernel_size", {"kernel_size": (3,)}),
        ("kernel_size", {"kernel_size": 8}),
        ("kernel_size", {"kernel_size": (3, 6)}),
        ("stride", {"stride": 0}),
        ("stride", {"stride": (1, 1, 1)}),
        ("padding", {"padding": -1}),
        ("padding", {"padding": (0, 0, 0)}),
    ],
)
def test_arguments_of_conv(name, kwargs, getkey, unchecked_types):
    arguments = {"in_shape": (2, 5, 5), "channels": (3, 2), **kwargs}
    with pytest.raises(ValueError, match=f"`{name}`"):
        gf.Conv(**arguments, key=getkey())


@pytest.mark.parametrize(("size", "depth"), [(0, 2), (3, 0), (-1, 1)])
def test_arguments_of_diagonal(size, depth, getkey):
    with pytest.raises(ValueError, match="`size` and `depth`"):
        gf.Diagonal(size, depth, key=getkey())


@pytest.mark.parametrize("smoothing", [-1e-3, -1, np.nan, np.inf])
def test_smoothing_must_be_finite_and_not_negative(smoothing):
    with pytest.raises(ValueError, match="`smoothing`"):
        gf.ReLU(smoothing)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("weights", []),
        ("weights[0]", [(3,), (1, 3)]),
        ("weights[1]", [(3, 2), (1, 3, 1)]),
        ("weights[1]", [(3, 2), (1, 2)]),
        ("weights[2]", [(3, 2), (4, 3), (1, 3)]),
    ],
)
def test_weights_of_dense(name, shapes, unchecked_types):
    with pytest.raises(ValueError) as error:
        gf.Dense.from_weights([jnp.ones(shape) for shape in shapes])
    assert f"`{name}`" in str(error.value)


@pytest.mark.parametrize(
    ("name", "shapes", "kwargs"),
    [
        ("weights", [], {}),
        ("weights", [(3, 2, 3, 3), (12,)], {}),
        ("weights", [(3, 2, 3), (1, 27)], {}),
        ("weights", [(3, 2, 3, 2), (1, 27)], {}),
        ("weights[0]", [(3, 1, 3, 3), (1, 27)], {}),
        ("weights[1]", [(3, 2, 3, 3), (1, 26)], {}),
        ("weights[1]", [(3, 2, 3, 3), (2, 2, 2, 2), (1, 8)], {}),
        ("stride", [(3, 2, 3, 3), (1, 27)], {"stride": (1, 1)}),
        ("padding", [(3, 2, 3, 3), (1, 27)], {"padding": -1}),
        ("kernel_size", [(3, 2, 8, 8), (1, 27)], {}),
    ],
)
def test_weights_of_conv(name, shapes, kwargs, unchecked_types):
    weights = [jnp.ones(shape) for shape in shapes]
    with pytest.raises(ValueError) as error:
        gf.Conv.from_weights(weights, (2, 5, 5), **kwargs)
    assert f"`{name}`" in str(error.value)


@pytest.mark.parametrize("shapes", [[], [(3,), (4,)], [(3, 1), (3, 1)], [(3,), (3, 3)]])
def test_weights_of_diagonal(shapes, unchecked_types):
    with pytest.raises(ValueError, match="`weights`"):
        gf.Diagonal.from_weights([jnp.ones(shape) for shape in shapes])


@kinds
def test_networks_from_their_weights(kind):
    network = network_of(kind, 0.1)
    again = type(network).from_weights(network.weights, **network.config())
    assert eqx.tree_equal(again, network)


def test_reprs(getkey):
    # Of the shapes alone, without the cost of random numbers.
    def assert_repr(make, expected):
        assert repr(eqx.filter_eval_shape(make, getkey())) == expected

    def dense(key):
        return gf.Dense((5, 4, 3), key=key)

    assert_repr(dense, "Dense(5-4-3, ReLU())")
    assert_repr(
        lambda key: gf.Dense((5, 1), key=key, activation=gf.Identity()),
        "Dense(5-1, Identity())",
    )
    assert_repr(
        lambda key: gf.Conv((2, 8, 8), (3, 4), 10, key=key, activation=gf.ReLU(0.1)),
        "Conv(2x8x8: 3-4-10, ReLU(smoothing=0.1))",
    )
    assert_repr(lambda key: gf.Diagonal(5, 3, key=key), "Diagonal(5, 3 layers, ReLU())")
    # A batch of networks reads like one of them.
    assert_repr(
        lambda key: eqx.filter_vmap(dense)(jax.random.split(key, 6)),
        "Dense(5-4-3, ReLU())",
    )


# Transformations.


@kinds
def test_jit_and_vmap(kind):
    x = inputs_for(kind)[0]
    networks = [network_of(kind, 0.1, norms=n) for n in ((1, 2, 3), (0.5, 1, 1))]
    expected = [reference_of(n).outputs(x[None])[0] for n in networks]
    compiled = eqx.filter_jit(lambda network: network(x))
    for network, g in zip(networks, expected, strict=True):
        assert network.in_shape == x.shape
        assert jax.eval_shape(network, x).shape == (network.out_size,) == (1,)
        assert_close(compiled(network), g, 1e-13)
    batch = jax.tree.map(lambda *w: jnp.stack(w), *networks)
    outputs = eqx.filter_jit(eqx.filter_vmap(lambda network: network(x)))(batch)
    assert_close(outputs, np.stack(expected), 1e-13)


@makers
def test_networks_are_made_under_transformations(maker, getkey):
    keys = jax.random.split(getkey(), 3)
    norms = jnp.asarray([0.1, 1.0, 5.0])
    batch = eqx.filter_jit(
        eqx.filter_vmap(lambda key, norm: maker(key=key, norm=norm))
    )(keys, norms)
    for n, norm in enumerate(norms):
        one = maker(key=keys[n], norm=norm)
        assert_close([w[n] for w in batch.weights], one.weights, 1e-14)


# Homogeneity.


@hypothesis.settings(deadline=None, max_examples=10, derandomize=True, database=None)
@hypothesis.given(
    seed=st.integers(0, 10_000),
    # Few shapes: every operation is compiled for each.
    hidden=st.sampled_from([(), (1,), (3, 2)]),
    smoothing=st.sampled_from([0.0, 1e-3, 0.3]),
    exponent=st.floats(-8, 8),
)
def test_degree_one_in_each_layer_and_in_the_input(seed, hidden, smoothing, exponent):
    factor = 10.0**exponent
    keys = jax.random.split(jax.random.key(seed))
    network = gf.Dense((3, *hidden, 2), key=keys[0], activation=gf.ReLU(smoothing))
    x = jax.random.normal(keys[1], (3,))
    # Compared with the sizes of what is summed up in the outputs, which may cancel.
    size = np.prod([np.linalg.norm(w) for w in network.weights]) * np.linalg.norm(x)
    g = network(x)
    np.testing.assert_allclose(
        network(factor * x), factor * g, atol=1e-15 * factor * size
    )
    for k in range(len(network.weights)):
        weights = list(network.weights)
        weights[k] = factor * weights[k]
        scaled = network.with_weights(tuple(weights))(x)
        np.testing.assert_allclose(
            scaled, factor * g, rtol=1e-13, atol=1e-15 * factor * size
        )


@hypothesis.settings(deadline=None, max_examples=25, derandomize=True, database=None)
@hypothesis.given(
    z=st.floats(-3, 3),
    scale=st.floats(0, 5),
    smoothing=st.sampled_from([0.0, 1e-6, 0.1, 1.0]),
    factor=st.floats(0, 100),
)
def test_activations_are_homogeneous(z, scale, smoothing, factor):
    z, scale = jnp.asarray(z), jnp.asarray(scale)
    for activation in (gf.ReLU(smoothing), gf.Identity()):
        a = activation(z, scale)
        np.testing.assert_allclose(
            activation(factor * z, factor * scale), factor * a, rtol=1e-13, atol=1e-300
        )
    relu = gf.ReLU(smoothing)(z, scale)
    assert max(z, 0) <= relu <= max(z, 0) + smoothing * scale / 4


@smoothings
@kinds
def test_a_vanishing_layer_gives_a_vanishing_output(kind, smoothing):
    network, x = network_of(kind, smoothing), inputs_for(kind)[0]
    for k in range(3):
        weights = list(network.weights)
        weights[k] = 0 * weights[k]
        assert jnp.all(network.with_weights(tuple(weights))(x) == 0)


# Edges, where norms vanish.


def dead_after_the_first_layer(network):
    """Weights such that no unit of the first layer responds to positive inputs."""
    first, *others = network.weights
    return network.with_weights((-jnp.abs(first), *others))


@eqx.filter_jit
def first_and_second_derivatives(network, x):
    """By weights and input; and the first ones' derivative along (1, …, 1)."""

    def output(weights, x):
        return network.with_weights(weights)(x)[0]

    gradient = jax.grad(output, argnums=(0, 1))
    point = (network.weights, x)
    along = jax.tree.map(jnp.ones_like, point)
    return jax.jvp(gradient, point, along)


@smoothings
@pytest.mark.parametrize("kind", ["dense", "conv", "diagonal"])
def test_derivatives_are_finite_where_norms_vanish(kind, smoothing):
    network, x = network_of(kind, smoothing), inputs_for(kind)[0]
    weights = list(network.weights)
    weights[0] = weights[0].at[0].set(0.0)  # one unit without weights
    all_zero = tuple(0 * w for w in network.weights)
    for case, at, at_x in [
        ("input", network, 0 * x),
        ("dead units", dead_after_the_first_layer(network), 1 + jnp.abs(x)),
        ("zero unit", network.with_weights(tuple(weights)), x),
        ("zero weights", network.with_weights(all_zero), x),
    ]:
        # Second derivatives too: stabilised solvers ask for the field's Jacobian.
        first, second = first_and_second_derivatives(at, at_x)
        for leaf in jax.tree.leaves((first, second)):
            assert jnp.all(jnp.isfinite(leaf)), case
        reference = reference_of(at)
        expected = reference.pullback(np.asarray(at_x)[None], np.ones((1, 1)))[1]
        assert_close(first[0], expected, 1e-12, case)
        if case == "dead units" and smoothing < 0.1:
            assert at(at_x)[0] == 0.0


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 2, 1), (2, 1, 0), (1, 3, 2)]
)
def test_two_ways_to_convolve(size, stride, padding, getkey):
    """As XLA does it, and as a product of matrices: values and derivatives."""
    image = jax.random.normal(getkey(), (3, 7, 6))
    kernel = jax.random.normal(getkey(), (4, 3, size, size))

    def value_and_gradients(way):
        def function(image, kernel):
            return jnp.sum(jnp.sin(way(image, kernel, stride, padding)))

        return (
            way(image, kernel, stride, padding),
            jax.grad(function, argnums=(0, 1))(image, kernel),
        )

    assert_close(value_and_gradients(by_patches), value_and_gradients(by_xla), 1e-13)
