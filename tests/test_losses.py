"""Losses of one example: values, logarithms and slopes, for outputs of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import LOSSES, dataset_for
from cases import unchecked_types as unchecked_types
from reference import log_loss, log_loss_slopes, sample_losses, slopes

# From 1e-4 to 1e4 in absolute value. Not at the roots of a loss or of its logarithm,
# where relative errors mean nothing.
SIZES = np.concatenate([np.geomspace(1e-4, 1e4, 24), [36.5, 37.5, 700.0, 709.0, 746.0]])
OUTPUTS = np.concatenate([-SIZES, [0.0], SIZES])
# Below this a float64 has no full precision; XLA may flush what is there to zero.
TINY = np.finfo(np.float64).tiny

losses = pytest.mark.parametrize("name", LOSSES)


def examples(name):
    """Outputs (N, C) and labels (N,)."""
    if name == "cross_entropy":
        rest = np.array(jax.random.normal(jax.random.key(0), (len(OUTPUTS), 3)))
        rest[:, 0] = OUTPUTS
        # The large output is in turn the right one and a wrong one, and all three
        # outputs are large in the end.
        g = np.concatenate([rest, rest, OUTPUTS[:, None] * [1.0, 0.7, -0.2]])
        labels = np.repeat([0, 1, 2], len(OUTPUTS))
        return g, labels.astype(np.int32)
    g = np.concatenate([OUTPUTS, OUTPUTS])[:, None]
    return g, np.repeat([1.0, -1.0], len(OUTPUTS))


def soft_max_minus_one_hot(g, labels):
    """Without the oracle's logarithms of size 1e4, which cost it four digits."""
    wide = np.longdouble(g)
    weights = np.exp(wide - np.max(wide, axis=1, keepdims=True))
    own = labels[:, None] == np.arange(g.shape[1])
    others = np.where(own, 0, weights)
    d = np.where(own, -np.sum(others, axis=1, keepdims=True), others)
    return np.float64(d / np.sum(weights, axis=1, keepdims=True))


def every(function, g, labels):
    return np.asarray(jax.jit(jax.vmap(function))(jnp.asarray(g), jnp.asarray(labels)))


@losses
def test_values_and_slopes(name):
    g, labels = examples(name)
    loss = LOSSES[name]()
    expected = sample_losses(name, g, labels)
    values = every(loss.value, g, labels)
    assert values.shape == (len(g),)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=TINY)
    # Overflow only where the true value is not finite.
    assert np.array_equal(np.isinf(values), np.isinf(expected))
    d = every(loss.slope, g, labels)
    assert d.shape == g.shape
    if name == "cross_entropy":
        expected = soft_max_minus_one_hot(g, labels)
    else:
        expected = slopes(name, g, labels)
    np.testing.assert_allclose(d, expected, rtol=1e-12, atol=TINY)


@losses
def test_logarithms(name):
    g, labels = examples(name)
    logs = every(LOSSES[name]().log_value, g, labels)
    expected = [log_loss(name, g[n : n + 1], labels[n : n + 1]) for n in range(len(g))]
    assert np.all(np.isfinite(expected))
    # Where the loss is near 1 its logarithm is near 0, and as exact as the loss is.
    np.testing.assert_allclose(logs, expected, rtol=1e-12, atol=1e-14)


@losses
def test_slopes_are_the_derivatives(name):
    g, labels = examples(name)
    loss = LOSSES[name]()
    derivatives = every(jax.grad(loss.value), g, labels)
    assert not np.any(np.isnan(derivatives))
    np.testing.assert_allclose(
        every(loss.slope, g, labels), derivatives, rtol=1e-12, atol=TINY
    )


@losses
def test_derivatives_of_the_logarithm(name):
    """d log L / dg, finite where L itself under- or overflows."""
    g, labels = examples(name)
    actual = every(jax.grad(LOSSES[name]().log_value), g, labels)
    expected = np.concatenate(
        [log_loss_slopes(name, g[n : n + 1], labels[n : n + 1]) for n in range(len(g))]
    )
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ["exponential", "logistic"])
def test_logarithm_where_the_loss_underflows(name):
    loss = LOSSES[name]()
    one = jnp.asarray(1.0)
    right, wrong = jnp.asarray([1000.0]), jnp.asarray([-1000.0])
    assert loss.value(right, one) == 0.0
    np.testing.assert_allclose(loss.log_value(right, one), -1000.0, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss.log_value)(right, one), -1.0, rtol=1e-12)
    expected = 1000.0 if name == "exponential" else np.log(1000.0)
    np.testing.assert_allclose(loss.log_value(wrong, one), expected, rtol=1e-12)


def test_cross_entropy_where_it_underflows():
    loss, label = gf.CrossEntropyLoss(), jnp.asarray(1)
    g = jnp.asarray([0.0, 1000.0, 0.0])
    assert loss.value(g, label) == 0.0
    expected = np.log(2.0) - 1000.0
    np.testing.assert_allclose(loss.log_value(g, label), expected, rtol=1e-12)
    np.testing.assert_allclose(
        jax.grad(loss.log_value)(g, label), [0.5, -1.0, 0.5], rtol=1e-12
    )


@pytest.mark.parametrize("margin", [1.0, 20.0, 40.0, 300.0, 700.0])
def test_cross_entropy_slopes_of_a_confident_example(margin):
    """Exact to rounding in each entry, also in the one where softmax - 1 cancels."""
    g, label = jnp.asarray([0.0, margin, -1.0]), jnp.asarray(1)
    others = np.asarray([1.0, 0.0, np.exp(-1.0)]) * np.exp(-margin)
    total = np.sum(others)
    expected = (others - np.asarray([0.0, total, 0.0])) / (1 + total)
    d = gf.CrossEntropyLoss().slope(g, label)
    np.testing.assert_allclose(d, expected, rtol=1e-13, atol=0.0)


def test_square_loss_of_classes_is_of_one_hot_targets():
    g = jnp.asarray([0.3, -0.2, 2.0])
    loss = gf.SquareLoss()
    classes, target = jnp.asarray(2), jnp.asarray([0.0, 0.0, 1.0])
    np.testing.assert_allclose(loss.value(g, classes), 0.09 + 0.04 + 1.0, rtol=1e-15)
    np.testing.assert_allclose(loss.slope(g, classes), [0.6, -0.4, 2.0], rtol=1e-15)
    assert loss.value(g, classes) == loss.value(g, target)
    assert loss.log_value(g, classes) == loss.log_value(g, target)


def test_logarithm_of_the_square_loss_at_its_extremes():
    loss, zero = gf.SquareLoss(), jnp.zeros(2)
    assert loss.log_value(zero, zero) == -jnp.inf
    for size in (1e-200, 1e200):
        g = jnp.asarray([size, -size])
        expected = np.log(2) + 2 * np.log(size)
        np.testing.assert_allclose(loss.log_value(g, zero), expected, rtol=1e-14)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_derivative_of_that_logarithm(size):
    g = jnp.asarray([size, -size])
    gradient = jax.grad(gf.SquareLoss().log_value)(g, jnp.zeros(2))
    np.testing.assert_allclose(gradient, [1 / size, -1 / size], rtol=1e-12)


def test_logarithm_of_the_sum_at_an_exactly_fitted_sample():
    """The sum has a finite logarithm with a finite derivative: 2 r / sum r^2."""
    inputs = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    dataset = gf.Dataset(inputs, jnp.asarray([0.5, 2.0]), regression=True)
    problem = gf.Problem(dataset, gf.SquareLoss())
    network = gf.Dense.from_weights([jnp.asarray([[0.5, 1.0]])])
    np.testing.assert_allclose(problem.log_value(network), 0.0, atol=1e-15)

    def log_value(weights):
        return problem.log_value(network.with_weights(weights))

    (gradient,) = jax.grad(log_value)(network.weights)
    np.testing.assert_allclose(gradient, [[0.0, -2.0]], rtol=1e-14)


@losses
def test_single_precision_stays(name):
    g, labels = examples(name)
    g32 = jnp.asarray(g, "float32")
    if name != "cross_entropy":
        labels = jnp.asarray(labels, "float32")
    loss = LOSSES[name]()
    for method, shape in (("value", ()), ("log_value", ()), ("slope", g.shape[1:])):
        out = jax.jit(jax.vmap(getattr(loss, method)))(g32, jnp.asarray(labels))
        assert out.dtype == jnp.float32
        assert out.shape == (len(g), *shape)
        assert not np.any(np.isnan(out))
    # At moderate outputs, right to single precision.
    some = np.all(np.abs(g) < 30, axis=1)
    g32, labels = np.asarray(g32)[some], np.asarray(labels)[some]
    exact = sample_losses(name, g32, labels)
    np.testing.assert_allclose(every(loss.value, g32, labels), exact, rtol=1e-5)
    np.testing.assert_allclose(
        every(loss.slope, g32, labels), slopes(name, g32, labels), rtol=1e-5, atol=1e-37
    )


@losses
def test_reduction_must_be_sum_or_mean(name, unchecked_types):
    with pytest.raises(ValueError, match="`reduction`"):
        LOSSES[name](reduction="max")
    assert LOSSES[name]().reduction == "sum"
    assert LOSSES[name]("mean").reduction == "mean"


def test_which_losses_attain_their_infimum():
    attained = {name: cls.attains_infimum for name, cls in LOSSES.items()}
    assert attained.pop("square")
    assert not any(attained.values())


@pytest.mark.parametrize(
    ("name", "kind_of_labels"),
    [
        ("exponential", "classes"),
        ("exponential", "targets"),
        ("logistic", "classes"),
        ("logistic", "targets"),
        ("cross_entropy", "signs"),
        ("cross_entropy", "targets"),
    ],
)
def test_losses_refuse_labels_that_they_are_not_defined_for(name, kind_of_labels):
    signs = dataset_for("dense")
    dataset = {
        "signs": signs,
        "classes": dataset_for("dense", outputs=3),
        "targets": gf.Dataset(signs.inputs, 0.3 * signs.labels, regression=True),
    }[kind_of_labels]
    with pytest.raises(ValueError, match="`loss`"):
        gf.Problem(dataset, LOSSES[name]())
    gf.Problem(dataset, gf.SquareLoss())  # defined for all
