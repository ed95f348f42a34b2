"""The oracle itself: checked by complex steps through naive loops, and by identities.

The naive forward passes below are written once more, one unit at a time, for complex
weights: a perturbation ``1e-30 i`` of one weight then yields derivatives to rounding,
and never moves a pre-activation across a kink.
"""

import itertools

import numpy as np
import pytest

from reference import (
    LOSSES,
    ReferenceConv,
    ReferenceDense,
    ReferenceDiagonal,
    gradient_flow,
    lagrange_flow_all,
    lagrange_flow_last,
    lagrange_flow_rows,
    log_loss,
    log_loss_slopes,
    loss,
    polar_gradient_flow,
    rho_eq,
    sample_losses,
    slopes,
    slopes_function,
    smoothed_relu,
    smoothed_relu_slopes,
    square_equal_norms_rho_rate,
    square_lagrange_flow,
    square_multiplier,
    square_rho_rate,
    weight_norm_flow,
)

SMOOTHINGS = (0.0, 1e-3, 0.1, 0.6)
KINDS = ("dense", "deep", "multi", "conv", "diagonal")
STEP = 1e-30


# Naive forward passes, for real or complex weights, one sample.


def naive_norm(a):
    return np.sqrt(np.sum(a * a))


def naive_unit(w, h, smoothing, identity):
    z = np.sum(w * h)
    if identity:
        return z
    s = smoothing * naive_norm(w) * naive_norm(h)
    if z.real >= s.real and z.real > 0:
        return z
    if z.real <= -s.real or s.real == 0:
        return 0.0 * z
    return (z + s) ** 2 / (4 * s)


def naive_dense(network, weights, x):
    h = x.astype(complex)
    for matrix in weights[:-1]:
        h = np.array(
            [naive_unit(row, h, network.smoothing, network.identity) for row in matrix]
        )
    return weights[-1] @ h


def naive_diagonal(network, weights, x):
    matrices = [np.diag(w) for w in weights[:-1]] + [weights[-1][None]]
    return naive_dense(network, matrices, x)


def naive_conv(network, weights, x):
    image = x.astype(complex)
    for kernels, stride, padding in zip(
        weights[:-1], network.strides, network.paddings, strict=True
    ):
        channels, height, width = image.shape
        kh, kw = kernels.shape[2:]
        rows = range(-padding, height + padding - kh + 1, stride)
        cols = range(-padding, width + padding - kw + 1, stride)
        out = np.zeros((len(kernels), len(rows), len(cols)), dtype=complex)
        for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(cols)):
            patch = np.zeros((channels, kh, kw), dtype=complex)
            for a, b in itertools.product(range(kh), range(kw)):
                if 0 <= top + a < height and 0 <= left + b < width:
                    patch[:, a, b] = image[:, top + a, left + b]
            for c, kernel in enumerate(kernels):
                out[c, i, j] = naive_unit(
                    kernel, patch, network.smoothing, network.identity
                )
        image = out
    features = [
        image[c, i, j]
        for c in range(image.shape[0])
        for i in range(image.shape[1])
        for j in range(image.shape[2])
    ]
    return weights[-1] @ np.array(features)


NAIVE = {
    ReferenceDense: naive_dense,
    ReferenceDiagonal: naive_diagonal,
    ReferenceConv: naive_conv,
}


def naive_outputs(network, weights, inputs):
    return np.array([NAIVE[type(network)](network, weights, x) for x in inputs])


def complex_step_jacobian(network, inputs):
    weights = [w.astype(complex) for w in network.weights]
    jacobian = []
    for w in weights:
        columns = []
        for index in np.ndindex(w.shape):
            kept = w[index]
            w[index] = kept + 1j * STEP
            columns.append(naive_outputs(network, weights, inputs).imag / STEP)
            w[index] = kept
        stacked = np.stack(columns, axis=-1)
        jacobian.append(stacked.reshape(*stacked.shape[:2], *w.shape))
    return jacobian


# Examples.


def example(kind, smoothing=0.0, identity=False, seed=0, samples=3):
    """A network and inputs of unit norm."""
    rng = np.random.default_rng(seed)
    options = {"smoothing": smoothing, "identity": identity}
    shape = (5,)
    if kind == "dense":
        shapes = [(6, 5), (4, 6), (1, 4)]
        network = ReferenceDense([rng.normal(size=s) for s in shapes], **options)
    elif kind == "deep":
        shapes = [(6, 5), (5, 6), (4, 5), (1, 4)]
        network = ReferenceDense([rng.normal(size=s) for s in shapes], **options)
    elif kind == "multi":
        shapes = [(7, 5), (6, 7), (3, 6)]
        network = ReferenceDense([rng.normal(size=s) for s in shapes], **options)
    elif kind == "conv":
        shape = (2, 4, 4)
        # 4 x 4 -> 3 x 3 -> 2 x 2, where the last column of the padded 5 x 5 is not used
        shapes = [(2, 2, 2, 2), (3, 2, 3, 2), (2, 12)]
        weights = [rng.normal(size=s) for s in shapes]
        network = ReferenceConv(weights, strides=(1, 2), paddings=(0, 1), **options)
    else:
        weights = [rng.normal(size=5) for _ in range(3)]
        weights[0] = np.abs(weights[0]) * np.array([1, 1, -1, 1, 1])
        network = ReferenceDiagonal(weights, **options)
    inputs = rng.normal(size=(samples, *shape))
    norms = np.sqrt(np.sum(inputs**2, axis=tuple(range(1, inputs.ndim))))
    inputs /= norms.reshape(-1, *(1,) * (inputs.ndim - 1))
    return network, inputs


def normalised(network):
    """rho (L,), and the network of the unit-norm directions."""
    rho = np.array([np.linalg.norm(w) for w in network.weights])
    pairs = zip(network.weights, rho, strict=True)
    return rho, network.with_weights([w / r for w, r in pairs])


def example_labels(name, network, inputs, seed=1):
    rng = np.random.default_rng(seed)
    shape = network.outputs(inputs).shape
    if name == "cross_entropy":
        return rng.integers(shape[1], size=shape[0])
    if name == "square":
        return rng.normal(size=shape)
    return rng.choice([-1.0, 1.0], size=shape)


def close(actual, expected, rtol):
    """Agreement relative to the largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.max(np.abs(expected), initial=0.0)
    assert np.max(np.abs(actual - expected), initial=0.0) <= rtol * scale


def difference(function, array, step=1e-6):
    """Central differences of a scalar function of an array."""
    array = np.array(array, dtype=np.float64)
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        up = function(array)
        array[index] = kept - step
        down = function(array)
        array[index] = kept
        result[index] = (up - down) / (2 * step)
    return result


networks = pytest.mark.parametrize(
    ("kind", "smoothing", "identity"),
    [(k, s, False) for k in KINDS for s in SMOOTHINGS]
    + [(k, 0.1, True) for k in KINDS],
)


# Units.


def test_smoothed_relu_values():
    z = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        smoothed_relu(z, 2.0), [0, 0, 1 / 8, 4 / 8, 9 / 8, 2, 3]
    )
    np.testing.assert_array_equal(smoothed_relu(z, 0.0), np.maximum(z, 0))
    by_z, by_s = smoothed_relu_slopes(z, 2.0)
    np.testing.assert_array_equal(by_z, [0, 0, 1 / 4, 1 / 2, 3 / 4, 1, 1])
    np.testing.assert_allclose(by_s, [0, 0, 3 / 16, 1 / 4, 3 / 16, 0, 0])
    by_z, by_s = smoothed_relu_slopes(z, 0.0)
    np.testing.assert_array_equal(by_z, z > 0)
    np.testing.assert_array_equal(by_s, 0 * z)


def test_smoothed_relu_slopes_by_complex_step_and_euler():
    z = np.linspace(-1.5, 1.5, 37)[:, None]
    s = np.array([0.0, 1e-300, 1e-6, 0.3, 1.0])
    by_z, by_s = smoothed_relu_slopes(z, s)
    np.testing.assert_allclose(z * by_z + s * by_s, smoothed_relu(z, s), atol=1e-15)
    gap = smoothed_relu(z, s) - np.maximum(z, 0)
    assert np.all(gap >= 0) and np.all(gap <= s / 4)
    for i, j in np.ndindex(by_z.shape):
        zij, sij = z[i, 0], s[j]
        if abs(zij) < sij and sij > 1e-100:

            def middle(z, s):
                return (z + s) ** 2 / (4 * s)

            assert by_z[i, j] == pytest.approx(middle(zij + 1j * STEP, sij).imag / STEP)
            assert by_s[i, j] == pytest.approx(middle(zij, sij + 1j * STEP).imag / STEP)


# Networks.


@networks
def test_outputs_and_jacobian_by_complex_step(kind, smoothing, identity):
    network, inputs = example(kind, smoothing, identity)
    outputs = naive_outputs(network, network.weights, inputs)
    np.testing.assert_array_equal(outputs.imag, 0.0)
    close(network.outputs(inputs), outputs.real, 1e-13)
    assert np.all(np.abs(outputs) > 1e-8)  # nothing dead, the check is not empty
    jacobian = network.jacobian(inputs)
    for actual, expected in zip(
        jacobian, complex_step_jacobian(network, inputs), strict=True
    ):
        close(actual, expected, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_all_pieces_of_the_smoothed_relu_are_met(kind, monkeypatch):
    import reference.diagonal
    import reference.smoothing

    pieces = set()

    def watched(z, s):
        pieces.update(np.unique(np.sign(z) * (np.abs(z) >= s)))
        return smoothed_relu(z, s)

    monkeypatch.setattr(reference.smoothing, "smoothed_relu", watched)
    monkeypatch.setattr(reference.diagonal, "smoothed_relu", watched)
    network, inputs = example(kind, 0.1)
    network.outputs(inputs)
    assert pieces == {-1.0, 0.0, 1.0}


@networks
def test_jacobian_by_central_differences(kind, smoothing, identity):
    """Without the naive code: differences of ``outputs`` along random directions."""
    network, inputs = example(kind, smoothing, identity, seed=3)
    jacobian = network.jacobian(inputs)
    rng = np.random.default_rng(4)
    for k, w in enumerate(network.weights):
        direction = rng.normal(size=w.shape)
        step = 1e-6
        ends = []
        for sign in (1, -1):
            moved = list(network.weights)
            moved[k] = w + sign * step * direction
            ends.append(network.with_weights(moved).outputs(inputs))
        expected = (ends[0] - ends[1]) / (2 * step)
        actual = np.tensordot(jacobian[k], direction, axes=w.ndim)
        # 2e-8 is what rounding allows; edges of the smooth zone cost up to step/width
        close(actual, expected, 1e-7 if smoothing != 1e-3 else 1e-5)


@networks
def test_pullback_is_the_contracted_jacobian(kind, smoothing, identity):
    network, inputs = example(kind, smoothing, identity)
    cotangents = np.random.default_rng(5).normal(size=network.outputs(inputs).shape)
    outputs, gradients = network.pullback(inputs, cotangents)
    np.testing.assert_array_equal(outputs, network.outputs(inputs))
    jacobian = network.jacobian(inputs)
    for g, j, w in zip(gradients, jacobian, network.weights, strict=True):
        assert j.shape == (*cotangents.shape, *w.shape)
        close(g, np.tensordot(cotangents, j, axes=2), 1e-13)


@networks
def test_structural_lemma(kind, smoothing, identity):
    """<W_k, dg/dW_k> = g for each layer, sample and output (T3 3, M112 1)."""
    network, inputs = example(kind, smoothing, identity, samples=6)
    outputs = network.outputs(inputs)
    for w, j in zip(network.weights, network.jacobian(inputs), strict=True):
        inner = np.tensordot(j, w, axes=w.ndim)
        size = np.tensordot(np.abs(j), np.abs(w), axes=w.ndim)
        assert np.all(np.abs(inner - outputs) <= 1e-12 * np.abs(outputs) + 1e-15 * size)


@networks
def test_homogeneity(kind, smoothing, identity):
    """g = rho f and dg/dW_k = (rho / rho_k) df/dV_k; degree one in the inputs too."""
    network, inputs = example(kind, smoothing, identity)
    outputs = network.outputs(inputs)
    rho, directions = normalised(network)
    close(outputs, np.prod(rho) * directions.outputs(inputs), 1e-13)
    close(network.outputs(7.5e120 * inputs), 7.5e120 * outputs, 1e-13)
    for r, j, v in zip(
        rho, network.jacobian(inputs), directions.jacobian(inputs), strict=True
    ):
        close(j, np.prod(rho) / r * v, 1e-12)


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_diagonal_is_dense_with_diagonal_matrices(smoothing, identity):
    network, inputs = example("diagonal", smoothing, identity, samples=7)
    dense = ReferenceDense(
        [np.diag(w) for w in network.weights[:-1]] + [network.weights[-1][None]],
        smoothing,
        identity,
    )
    close(network.outputs(inputs), dense.outputs(inputs), 1e-14)
    ours, theirs = network.jacobian(inputs), dense.jacobian(inputs)
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        close(a, np.diagonal(b, axis1=-2, axis2=-1), 1e-13)
    close(ours[-1], theirs[-1][:, :, 0], 1e-13)


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_conv_with_full_kernels_is_dense(smoothing, identity):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s) for s in [(4, 2, 3, 3), (3, 4, 1, 1), (2, 3)]]
    inputs = rng.normal(size=(5, 2, 3, 3))
    conv = ReferenceConv(weights, (1, 2), (0, 0), smoothing, identity)
    flat = [w.reshape(len(w), -1) for w in weights]
    dense = ReferenceDense(flat, smoothing, identity)
    close(conv.outputs(inputs), dense.outputs(inputs.reshape(5, -1)), 1e-13)
    for a, b in zip(
        conv.jacobian(inputs), dense.jacobian(inputs.reshape(5, -1)), strict=True
    ):
        close(a.reshape(b.shape), b, 1e-13)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_dead_units_dead_layers_and_kinks(smoothing):
    inputs = np.array([[1.0, 2.0], [0.0, 0.0], [-2.0, 1.0]])
    # The third sample is on the kink of the first unit; the second row is zero.
    weights = [np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]]), np.ones((1, 3))]
    network = ReferenceDense(weights, smoothing)
    first, last = network.jacobian(inputs)
    assert np.all(np.isfinite(first)) and np.all(np.isfinite(last))
    np.testing.assert_array_equal(first[:, 0, 1], 0.0)
    np.testing.assert_array_equal(first[1], 0.0)
    np.testing.assert_array_equal(last[1], 0.0)
    assert last[2, 0, 0, 0] == pytest.approx(smoothing * 5.0 / 4)
    half = 0.5 * inputs[2] + smoothing / 4 * np.array([1.0, 2.0])  # |h| / |w| = 1
    np.testing.assert_allclose(first[2, 0, 0], half if smoothing else 0.0)
    # All units of the first layer dead: everything is zero.
    weights = [-np.ones((3, 2)), np.ones((2, 3)), np.ones((1, 2))]
    dead = ReferenceDense(weights, smoothing)
    inputs = np.array([[1.0, 1.0], [0.5, 2.0]])
    np.testing.assert_array_equal(dead.outputs(inputs), 0.0)
    for j in dead.jacobian(inputs):
        np.testing.assert_array_equal(j, 0.0)


def test_misuse_is_refused():
    network, inputs = example("multi")
    with pytest.raises(ValueError, match="cotangents"):
        network.pullback(inputs, np.ones((len(inputs), 1)))
    with pytest.raises(ValueError, match="shapes"):
        network.with_weights(network.weights[::-1])
    with pytest.raises(ValueError, match="classes"):
        slopes("cross_entropy", np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match="unknown"):
        loss("hinge", np.zeros((2, 1)), np.ones(2))
    with pytest.raises(ValueError, match="rows"):
        diagonal, inputs = example("diagonal")
        lagrange_flow_rows(1.0, diagonal, inputs, slopes_function("square", np.ones(3)))


# Losses.


def loss_example(name, outputs, samples=5):
    rng = np.random.default_rng(2)
    g = 3 * rng.normal(size=(samples, outputs))
    if name == "cross_entropy" or (name == "square" and outputs == 3):
        return g, rng.integers(outputs, size=samples)
    if name == "square":
        return g, rng.normal(size=samples)
    return g, rng.choice([-1.0, 1.0], size=samples if outputs == 1 else g.shape)


LOSS_CASES = [(n, c) for n in LOSSES for c in (1, 3) if (n, c) != ("cross_entropy", 1)]


@pytest.mark.parametrize(("name", "outputs"), LOSS_CASES)
def test_losses_from_their_definitions(name, outputs):
    g, labels = loss_example(name, outputs)
    total = 0.0
    for n in range(len(g)):
        y = labels[n]
        if name == "cross_entropy":
            total -= np.log(np.exp(g[n, y]) / np.sum(np.exp(g[n])))
            continue
        for c in range(outputs):
            target = np.ravel(y)[c] if np.size(y) > 1 else y
            if name == "square" and outputs > 1:
                target = float(c == y)
            total += {
                "square": (g[n, c] - target) ** 2,
                "exponential": np.exp(-target * g[n, c]),
                "logistic": np.log(1 + np.exp(-target * g[n, c])),
            }[name]
    assert loss(name, g, labels) == pytest.approx(total, rel=1e-13)
    assert loss(name, g, labels, mean=True) == pytest.approx(total / len(g), rel=1e-13)
    assert np.sum(sample_losses(name, g, labels)) == pytest.approx(total, rel=1e-13)
    assert log_loss(name, g, labels) == pytest.approx(np.log(total), rel=1e-12)
    assert log_loss(name, g, labels, mean=True) == pytest.approx(
        np.log(total / len(g)), rel=1e-12
    )


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(("name", "outputs"), LOSS_CASES)
def test_slopes_by_central_differences(name, outputs, mean):
    g, labels = loss_example(name, outputs)
    expected = difference(lambda g: loss(name, g, labels, mean), g)
    close(slopes(name, g, labels, mean), expected, 1e-7)
    close(slopes_function(name, labels, mean)(g), expected, 1e-7)
    expected = difference(lambda g: log_loss(name, g, labels, mean), g)
    close(log_loss_slopes(name, g, labels), expected, 1e-7)
    close(
        log_loss_slopes(name, g, labels) * loss(name, g, labels, mean),
        slopes(name, g, labels, mean),
        1e-13,
    )


@pytest.mark.filterwarnings("error")
def test_losses_at_large_outputs():
    y = np.array([1.0, -1.0])
    right, wrong = np.array([[800.0], [-900.0]]), np.array([[-800.0], [900.0]])
    assert loss("logistic", wrong, y) == 1700.0
    np.testing.assert_array_equal(slopes("logistic", wrong, y), [[-1.0], [1.0]])
    assert 0.0 <= loss("logistic", right, y) < 1e-300
    for name in ("exponential", "logistic"):
        assert log_loss(name, right, y) == -800.0
        np.testing.assert_allclose(
            log_loss_slopes(name, right, y), [[-1.0], [np.exp(-100.0)]], rtol=1e-12
        )
    assert log_loss("exponential", wrong, y) == 900.0
    assert log_loss("logistic", wrong, y) == pytest.approx(np.log(1700.0))
    assert slopes("exponential", np.array([[60.0]]), [1]) == pytest.approx(
        -np.exp(-60.0), rel=1e-14
    )
    assert np.isinf(loss("exponential", wrong, y))
    # log log(1 + e^-m) across the switch of formulas, by the series of log1p.
    for m in (25.0, 29.999, 30.0, 30.001, 45.0, 700.0):
        x = np.exp(-m)
        expected = -m + np.log1p(-x / 2 + x**2 / 3)
        actual = log_loss("logistic", [[m]], [1.0])
        assert actual == pytest.approx(expected, rel=1e-15, abs=0)
    # Two classes: cross-entropy is the logistic loss of the difference.
    for m in (-1e4, -700.0, -3.0, 0.0, 2.0, 40.0, 700.0, 1e4):
        g = np.array([[m + 5.0, 5.0]])
        two, one = ("cross_entropy", g, [0]), ("logistic", [[m]], [1.0])
        np.testing.assert_allclose(loss(*two), loss(*one), rtol=1e-13)
        np.testing.assert_allclose(log_loss(*two), log_loss(*one), rtol=1e-13)
        d = slopes("logistic", [[m]], [1.0])[0, 0]
        np.testing.assert_allclose(slopes(*two), [[d, -d]], rtol=1e-13)
        d = log_loss_slopes("logistic", [[m]], [1.0])[0, 0]
        np.testing.assert_allclose(log_loss_slopes(*two), [[d, -d]], rtol=1e-12)
    g = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        slopes("cross_entropy", g, [2, 0]), [[1, 0, -1], [-2 / 3, 1 / 3, 1 / 3]]
    )
    assert loss("cross_entropy", g, [2, 0]) == pytest.approx(2e4 + np.log(3.0))


# Flows.

FLOWS = [
    (kind, name)
    for kind in ("dense", "multi", "conv", "diagonal")
    for name in LOSSES
    if name != "cross_entropy" or kind in ("multi", "conv")
]
flows = pytest.mark.parametrize(("kind", "name"), FLOWS)


def flow_example(kind, name, scale=1.0):
    """Smoothed network with sum-of-samples slopes, at outputs of order ``scale``."""
    network, inputs = example(kind, 0.1, samples=4)
    rho, _ = normalised(network)
    f = network.outputs(inputs)
    factor = (scale / np.max(np.abs(f))) ** (1 / len(rho))
    network = network.with_weights([factor * w for w in network.weights])
    labels = example_labels(name, network, inputs)
    return network, inputs, labels, slopes_function(name, labels)


def assert_lists_close(actual, expected, rtol):
    for a, b in zip(actual, expected, strict=True):
        close(a, b, rtol)


def tangent(v, x):
    return x - v * np.sum(v * x) / np.sum(v * v)


@flows
def test_gradient_flow_descends_the_regularised_loss(kind, name):
    network, inputs, labels, slopes_fn = flow_example(kind, name)
    flow = gradient_flow(network, inputs, slopes_fn, 0.3)
    for k in range(len(network.weights)):

        def objective(w, k=k):
            weights = [*network.weights[:k], w, *network.weights[k + 1 :]]
            g = network.with_weights(weights).outputs(inputs)
            decay = sum(np.sum(u * u) for u in weights)
            return loss(name, g, labels) + 0.3 * decay

        close(flow[k], -difference(objective, network.weights[k]), 1e-6)


@flows
def test_polar_flow_is_the_gradient_flow(kind, name):
    network, inputs, _, slopes_fn = flow_example(kind, name, scale=2.0)
    rho, directions = normalised(network)
    rho_dot, v_dot = polar_gradient_flow(rho, directions, inputs, slopes_fn, 0.3)
    rebuilt = [
        a * v + r * b
        for a, v, r, b in zip(rho_dot, directions.weights, rho, v_dot, strict=True)
    ]
    assert_lists_close(rebuilt, gradient_flow(network, inputs, slopes_fn, 0.3), 1e-11)


@flows
def test_norms_of_layers_grow_at_one_rate(kind, name):
    """d|W_k|^2/dt = -2 sum d_n g_n - 4 lam |W_k|^2 (T3 18, M112 Lemma 3)."""
    network, inputs, _, slopes_fn = flow_example(kind, name)
    g = network.outputs(inputs)
    common = -2 * np.sum(slopes_fn(g) * g)
    flow = gradient_flow(network, inputs, slopes_fn, 0.3)
    for w, w_dot in zip(network.weights, flow, strict=True):
        expected = common - 1.2 * np.sum(w * w)
        assert 2 * np.sum(w * w_dot) == pytest.approx(expected, rel=1e-10)


@flows
def test_lagrange_flow_is_the_projected_gradient(kind, name):
    network, inputs, labels, slopes_fn = flow_example(kind, name)
    norms, directions = normalised(network)
    rho = float(np.prod(norms))
    rho_dot, v_dot = lagrange_flow_last(rho, directions, inputs, slopes_fn, 0.3)

    def objective(rho, weights):
        g = rho * directions.with_weights(weights).outputs(inputs)
        return loss(name, g, labels) + 0.3 * rho**2

    vs = directions.weights
    expected = -difference(lambda r: objective(r, vs), rho)
    assert rho_dot == pytest.approx(float(expected), rel=1e-6)
    for k, v in enumerate(vs):
        gradient = difference(
            lambda u, k=k: objective(rho, [*vs[:k], u, *vs[k + 1 :]]), v
        )
        close(v_dot[k], -tangent(v, gradient), 1e-6)


@flows
def test_raw_and_tangent_forms(kind, name):
    network, inputs, _, slopes_fn = flow_example(kind, name)
    norms, directions = normalised(network)
    rho = float(np.prod(norms))
    on_sphere = [
        lagrange_flow_last(rho, directions, inputs, slopes_fn, 0.3, raw)
        for raw in (False, True)
    ]
    assert on_sphere[0][0] == on_sphere[1][0]
    assert_lists_close(on_sphere[0][1], on_sphere[1][1], 1e-11)
    # Off the spheres: d|V|^2/dt = 2 rho (sum d f) (|V|^2 - 1), and 0.
    off = directions.with_weights([1.1 * v for v in directions.weights])
    f = off.outputs(inputs)
    rate = 2 * rho * np.sum(slopes_fn(rho * f) * f) * (1.1**2 - 1)
    raw = lagrange_flow_last(rho, off, inputs, slopes_fn, raw=True)[1]
    tangents = lagrange_flow_last(rho, off, inputs, slopes_fn)[1]
    for v, a, b in zip(off.weights, raw, tangents, strict=True):
        assert 2 * np.sum(v * a) == pytest.approx(rate, rel=1e-9)
        assert abs(np.sum(v * b)) <= 1e-13 * np.linalg.norm(a)


@flows
def test_all_scales_free(kind, name):
    """T3 12-14: rho_k as in the polar flow; V_k as with the scale on the last layer."""
    network, inputs, _, slopes_fn = flow_example(kind, name)
    rho, directions = normalised(network)
    rho_dot, v_dot = lagrange_flow_all(rho, directions, inputs, slopes_fn, 0.3)
    polar = polar_gradient_flow(rho, directions, inputs, slopes_fn, 0.3)
    last = lagrange_flow_last(np.prod(rho), directions, inputs, slopes_fn, 0.3)
    close(rho_dot, polar[0], 1e-13)
    assert_lists_close(v_dot, last[1], 1e-13)
    # The unnormalised directions move 1 / rho_k^2 times as fast (T3 88).
    faster = [v / r**2 for v, r in zip(v_dot, rho, strict=True)]
    assert_lists_close(polar[1], faster, 1e-13)


@pytest.mark.parametrize(
    ("kind", "name"), [case for case in FLOWS if case[0] != "diagonal"]
)
def test_row_spheres(kind, name):
    network, inputs, labels, slopes_fn = flow_example(kind, name)
    weights = []
    for w in network.weights[:-1]:
        norms = np.linalg.norm(w.reshape(len(w), -1), axis=1)
        weights.append(w / norms.reshape(-1, *(1,) * (w.ndim - 1)))
    weights.append(network.weights[-1] / np.linalg.norm(network.weights[-1]))
    directions = network.with_weights(weights)
    rho_dot, v_dot = lagrange_flow_rows(0.7, directions, inputs, slopes_fn, 0.3)

    def objective(rho, weights):
        g = rho * directions.with_weights(weights).outputs(inputs)
        return loss(name, g, labels) + 0.3 * rho**2

    expected = -difference(lambda r: objective(r, weights), 0.7)
    assert rho_dot == pytest.approx(float(expected), rel=1e-6)
    for k, v in enumerate(weights):
        gradient = difference(
            lambda u, k=k: objective(0.7, [*weights[:k], u, *weights[k + 1 :]]), v
        )
        if k < len(weights) - 1:
            pairs = zip(v, gradient, strict=True)
            expected = -np.stack([g - row * np.sum(row * g) for row, g in pairs])
        else:
            expected = -tangent(v, gradient)
        close(v_dot[k], expected, 1e-6)


@pytest.mark.parametrize("last_only", [False, True])
@flows
def test_weight_norm_flow_descends(kind, name, last_only):
    network, inputs, labels, slopes_fn = flow_example(kind, name)
    v = [1.3 * w for w in network.weights]
    g = np.linspace(0.8, 1.4, len(v))
    g_dot, v_dot = weight_norm_flow(
        g, v, network, inputs, slopes_fn, 0.3, last_only=last_only
    )

    def objective(g, v, decay=0.3):
        pairs = zip(g, v, strict=True)
        built = network.with_weights([s * a / np.linalg.norm(a) for s, a in pairs])
        return loss(name, built.outputs(inputs), labels) + decay * np.sum(g * g)

    expected = -difference(lambda g: objective(g, v), g)
    if last_only:
        expected[:-1] = 0.0
    close(g_dot, expected, 1e-6)
    for k, a in enumerate(v):
        expected = -difference(lambda u, k=k: objective(g, [*v[:k], u, *v[k + 1 :]]), a)
        close(v_dot[k], expected, 1e-6)
        assert abs(np.sum(a * v_dot[k])) <= 1e-13 * np.linalg.norm(a)


@flows
def test_weight_norm_with_unit_vectors_is_the_lagrange_flow(kind, name):
    network, inputs, _, slopes_fn = flow_example(kind, name)
    norms, directions = normalised(network)
    rho = float(np.prod(norms))
    g = np.ones(len(norms))
    g[-1] = rho
    g_dot, v_dot = weight_norm_flow(
        g, directions.weights, network, inputs, slopes_fn, 0.3, last_only=True
    )
    rho_dot, expected = lagrange_flow_last(rho, directions, inputs, slopes_fn, 0.3)
    np.testing.assert_array_equal(g_dot[:-1], 0.0)
    assert g_dot[-1] == pytest.approx(rho_dot, rel=1e-11)
    # dL/dW_k = (rho / g_k) sum d f_V: for every layer g_k dL/dW_k = rho sum d f_V.
    assert_lists_close(v_dot, expected, 1e-11)


@pytest.mark.parametrize("rho", [0.01, 0.7, 30.0])
@pytest.mark.parametrize("kind", ["dense", "deep", "diagonal"])
def test_square_loss_formulas(kind, rho):
    """SQ 1, 3-5 and M112 28 against the general formulas."""
    network, inputs = example(kind, 0.1, samples=4)
    _, directions = normalised(network)
    y = np.array([1.0, -1.0, 1.0, 0.3])
    slopes_fn = slopes_function("square", y)
    special = square_lagrange_flow(rho, directions, inputs, y, 0.3)
    general = lagrange_flow_last(rho, directions, inputs, slopes_fn, 0.3, raw=True)
    assert special[0] == pytest.approx(general[0], rel=1e-12)
    assert_lists_close(special[1], general[1], 1e-11)
    # Off the spheres the raw forms are still the same.
    off = directions.with_weights([0.9 * v for v in directions.weights])
    special = square_lagrange_flow(rho, off, inputs, y, 0.3)
    general = lagrange_flow_last(rho, off, inputs, slopes_fn, 0.3, raw=True)
    assert_lists_close(special[1], general[1], 1e-11)

    f = directions.outputs(inputs)
    d_f = np.sum(slopes_fn(rho * f) * f)
    assert 2 * square_multiplier(rho, f, y) == pytest.approx(-rho * d_f, rel=1e-12)
    assert square_rho_rate(rho, f, y) == pytest.approx(-d_f, rel=1e-12)
    equilibrium = rho_eq(f, y, 0.3)
    zero = lagrange_flow_last(equilibrium, directions, inputs, slopes_fn, 0.3)[0]
    assert abs(zero) <= 1e-14 * np.sum(np.abs(y[:, None] * f))

    depth = len(directions.weights)
    equal = np.full(depth, rho ** (1 / depth))
    rho_dot, _ = polar_gradient_flow(equal, directions, inputs, slopes_fn)
    total = np.sum(rho / equal * rho_dot)
    assert total == pytest.approx(
        square_equal_norms_rho_rate(rho, depth, f, y), rel=1e-11
    )


def test_sum_and_mean():
    network, inputs, labels, _ = flow_example("multi", "cross_entropy")
    summed = gradient_flow(network, inputs, slopes_function("cross_entropy", labels))
    mean = gradient_flow(
        network, inputs, slopes_function("cross_entropy", labels, mean=True)
    )
    assert_lists_close(mean, [w / len(labels) for w in summed], 1e-13)
