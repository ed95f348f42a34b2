"""Values, gradients and margins of a problem, and what is analysed of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import (
    CASES,
    LOSSES,
    NETWORKS,
    SMOOTHINGS,
    assert_close,
    dataset_for,
    inputs_for,
    network_of,
    problem_for,
    reference_of,
    slopes_of,
)
from reference import lagrange_flow_last, log_loss, loss, rho_eq, slopes_function

NETWORK_CASES = list(dict.fromkeys((kind, outputs) for kind, outputs, _ in CASES))
networks = pytest.mark.parametrize(("kind", "outputs"), NETWORK_CASES)
kinds = pytest.mark.parametrize("kind", NETWORKS)
REDUCTIONS = ("sum", "mean")
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


def directions_of(network):
    """The oracle's network with unit norms."""
    reference = reference_of(network)
    return reference.with_weights([w / np.linalg.norm(w) for w in reference.weights])


def regression_problem(outputs=2, reduction="sum"):
    inputs = inputs_for("dense")
    targets = jax.random.normal(jax.random.key(20), (len(inputs), outputs))
    return gf.Problem(
        gf.Dataset(inputs, targets, regression=True), gf.SquareLoss(reduction)
    )


@eqx.filter_jit
def outputs_of(problem, network):
    return problem.outputs(network)


@eqx.filter_jit
def values_and_gradient(problems, network, gradient_of):
    """For several problems with the same data, in one compilation; the gradient, which
    takes most of it, of one of them."""
    values = {
        case: {
            "value": problem.value(network),
            "log_value": problem.log_value(network),
            "slopes": problem.slopes(problem.outputs(network)),
        }
        for case, problem in problems.items()
    }
    return values, problems[gradient_of].gradient(network)


@pytest.mark.parametrize(
    ("kind", "outputs", "smoothing"),
    [
        (*network, smoothing)
        for network in NETWORK_CASES
        for smoothing in SMOOTHINGS
        if network[0] != "deep_linear" or smoothing == 0.0
    ],
)
def test_outputs(kind, outputs, smoothing):
    problem, network = problem_for(kind, outputs), network_of(kind, smoothing, outputs)
    expected = reference_of(network).outputs(problem.dataset.inputs)
    assert_close(outputs_of(problem, network), expected, 1e-13)


# Other smoothings: the outputs in the test above. The gradients of all losses, for all
# smoothings: as the field of the gradient flow in `test_vector_fields.py`.
@networks
def test_values_and_gradient(kind, outputs):
    names = [name for *network, name in CASES if network == [kind, outputs]]
    problems = {
        (name, reduction): problem_for(kind, outputs, name, reduction)
        for name in names
        for reduction in REDUCTIONS
    }
    network = network_of(kind, 0.1, outputs)
    actual, gradient = values_and_gradient(problems, network, (names[-1], "mean"))
    reference = reference_of(network)
    for (name, reduction), problem in problems.items():
        case, mean = (name, reduction), reduction == "mean"
        inputs, labels = problem.dataset.inputs, np.asarray(problem.dataset.labels)
        g = reference.outputs(inputs)
        found = actual[case]
        assert_close(found["value"], loss(name, g, labels, mean), 1e-12, case)
        log = log_loss(name, g, labels, mean)
        np.testing.assert_allclose(
            found["log_value"], log, rtol=1e-12, err_msg=str(case)
        )
        d = slopes_of(problem)(g)
        assert_close(found["slopes"], d, 1e-12, case)
    d = slopes_of(problems[names[-1], "mean"])(g)
    assert_close(gradient, reference.pullback(inputs, d)[1], 1e-10)


@reductions
def test_values_and_gradients_of_regression(reduction):
    problem = regression_problem(2, reduction)
    network = gf.Dense((5, 4, 2), key=jax.random.key(21))
    targets, mean = np.asarray(problem.dataset.labels), reduction == "mean"
    reference, inputs = reference_of(network), problem.dataset.inputs
    g = reference.outputs(inputs)
    values, gradient = values_and_gradient({"all": problem}, network, "all")
    assert_close(values["all"]["value"], loss("square", g, targets, mean), 1e-12)
    d = slopes_function("square", targets, mean)(g)
    assert_close(gradient, reference.pullback(inputs, d)[1], 1e-10)


@reductions
@pytest.mark.parametrize("name", ["exponential", "logistic"])
def test_logarithm_and_its_gradient_where_the_loss_underflows(name, reduction):
    """d log L / dW with the weights of a soft-max over the samples."""
    dataset = dataset_for("dense")
    labels = np.asarray(dataset.labels)
    # All samples right, by margins between 1000 and 1006.
    inputs = (labels * (1000.0 + np.arange(len(labels))))[:, None]
    problem = gf.Problem(
        gf.Dataset(jnp.asarray(inputs), dataset.labels), LOSSES[name](reduction)
    )
    network = gf.Dense.from_weights([jnp.asarray([[1.0]])])
    assert problem.value(network) == 0.0
    margins = 1000.0 + np.arange(len(labels))
    total = np.sum(np.exp(1000.0 - margins))
    expected = np.log(total) - 1000.0
    expected -= np.log(len(labels)) if reduction == "mean" else 0.0
    np.testing.assert_allclose(problem.log_value(network), expected, rtol=1e-13)
    gradient = jax.grad(lambda w: problem.log_value(network.with_weights(w)))(
        network.weights
    )
    weights = np.exp(1000.0 - margins) / total
    np.testing.assert_allclose(gradient[0], [[-np.sum(weights * margins)]], rtol=1e-12)


@kinds
def test_pullback_by_other_parameters(kind):
    """By the scale of each layer: <W_k, dL/dW_k>, the same for all layers."""
    problem, network = problem_for(kind), network_of(kind, 0.1)

    def to_network(factors):
        pairs = zip(factors, network.weights, strict=True)
        return network.with_weights(tuple(c * w for c, w in pairs))

    actual = jax.jit(lambda factors: problem.pullback(to_network, factors))(jnp.ones(3))
    g = reference_of(network).outputs(problem.dataset.inputs)
    expected = np.full(3, np.sum(slopes_of(problem)(g) * g))
    assert_close(actual, expected, 1e-12)


@eqx.filter_jit
def margins_and_accuracy(problem, network):
    return problem.margins(network), problem.accuracy(network)


@networks
def test_margins(kind, outputs):
    problem = problem_for(kind, outputs)
    network = network_of(kind, 0.1, outputs)
    f = directions_of(network).outputs(problem.dataset.inputs)
    labels = np.asarray(problem.dataset.labels)
    if outputs == 1:
        expected = labels * f[:, 0]
    else:
        expected = np.array(
            [f[n, y] - max(np.delete(f[n], y)) for n, y in enumerate(labels)]
        )
    margins, accuracy = margins_and_accuracy(problem, network)
    np.testing.assert_allclose(margins, expected, rtol=1e-11, atol=1e-14)
    assert accuracy == np.mean(expected > 0)
    # Of degree 0 in each layer.
    for k in range(3):
        weights = list(network.weights)
        weights[k] = 3.7 * weights[k]
        scaled = network.with_weights(tuple(weights))
        again, _ = margins_and_accuracy(problem, scaled)
        np.testing.assert_allclose(again, margins, rtol=1e-13)


def test_accuracy_counts_ties_as_errors():
    inputs = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    dataset = gf.Dataset(inputs, jnp.asarray([1.0, 1.0, 1.0, 1.0]))
    problem = gf.Problem(dataset, gf.SquareLoss())
    network = gf.Dense.from_weights([jnp.asarray([[2.0, 0.0]])])
    np.testing.assert_array_equal(problem.margins(network), [1.0, 0.0, 1.0, -1.0])
    assert problem.accuracy(network) == 0.5
    nothing = network.with_weights((jnp.zeros((1, 2)),))
    assert problem.accuracy(nothing) == 0.0

    dataset = gf.Dataset(inputs, jnp.asarray([0, 1, 2, 2]))
    problem = gf.Problem(dataset, gf.CrossEntropyLoss())
    weights = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    network = gf.Dense.from_weights([weights])
    # The outputs: (1, 0, 1), (0, 1, 0), (1, 1, 1), (-1, 0, -1).
    np.testing.assert_allclose(
        problem.margins(network) * np.sqrt(3), [0.0, 1.0, 0.0, -1.0], atol=1e-15
    )
    assert problem.accuracy(network) == 0.25


def test_accuracy_keeps_single_precision():
    inputs = jnp.asarray([[1.0], [-1.0]], "float32")
    problem = gf.Problem(
        gf.Dataset(inputs, jnp.asarray([1, -1], "float32")), gf.LogisticLoss("mean")
    )
    network = gf.Dense.from_weights([jnp.ones((1, 1), "float32")])
    for quantity in (problem.value, problem.log_value, problem.margins):
        assert quantity(network).dtype == jnp.float32
    assert problem.accuracy(network).dtype == jnp.float32
    assert problem.gradient(network)[0].dtype == jnp.float32


def test_regression_has_no_margins():
    problem = regression_problem(2)
    network = gf.Dense((5, 2), key=jax.random.key(22))
    for quantity in (problem.margins, problem.accuracy):
        with pytest.raises(ValueError, match="Regression"):
            quantity(network)


@pytest.mark.parametrize(
    ("dataset", "network"),
    [
        (("dense", 1), ("conv", 1)),
        (("conv", 1), ("dense", 1)),
        (("dense", 1), ("dense", 3)),
        (("dense", 3), ("dense", 1)),
        (("dense", 3), ("diagonal", 1)),
        (("conv", 3), ("conv", 1)),
    ],
)
def test_networks_that_do_not_fit_the_data(dataset, network):
    problem = problem_for(*dataset)
    network = network_of(network[0], 0.0, network[1])
    for use in (problem.check, problem.outputs, problem.value, problem.gradient):
        with pytest.raises(ValueError, match="`network`"):
            use(network)


# Analysis.


@eqx.filter_jit
def rho_eq_and_rate_there(problem, network, weight_decay):
    rho = gf.analysis.rho_eq(problem, network, weight_decay)
    flow = gf.LagrangeFlow(weight_decay)
    state = gf.PolarState(rho, flow.init(network).directions)
    return rho, flow.vector_field(0.0, state, problem, network).rho


# The reduction enters through the slopes, the same way for all networks.
@pytest.mark.parametrize(
    ("kind", "outputs", "reduction"),
    [(*network, "sum") for network in NETWORK_CASES]
    + [("dense", 1, "mean"), ("dense", 3, "mean")],
)
def test_rho_eq(kind, outputs, reduction):
    problem = problem_for(kind, outputs, "square", reduction)
    network = network_of(kind, 0.1, outputs)
    directions = directions_of(network)
    inputs, labels = problem.dataset.inputs, np.asarray(problem.dataset.labels)
    f = directions.outputs(inputs)
    y = labels if outputs == 1 else np.eye(outputs)[labels]
    samples = len(labels) if reduction == "mean" else 1
    doubled = network.with_weights(tuple(2 * w for w in network.weights))
    for decay in (0.0, 0.4):
        expected = rho_eq(f, y, samples * decay)
        args = (problem, network, jnp.asarray(decay))
        actual, rate = rho_eq_and_rate_there(*args)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
        # It is where the oracle's flow has no drho/dt, and the library's too.
        rates = [
            lagrange_flow_last(rho, directions, inputs, slopes_of(problem), decay)[0]
            for rho in (float(actual), 0.0)
        ]
        assert abs(rates[0]) <= 1e-13 * abs(rates[1])
        assert abs(rate) <= 1e-13 * abs(rates[1])
        # Of any scale of the network.
        again, _ = rho_eq_and_rate_there(problem, doubled, jnp.asarray(decay))
        np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_rho_eq_of_regression():
    problem = regression_problem(2)
    network = gf.Dense((5, 4, 2), key=jax.random.key(21))
    f = directions_of(network).outputs(problem.dataset.inputs)
    expected = rho_eq(f, problem.dataset.labels, 0.2)
    actual = gf.analysis.rho_eq(problem, network, 0.2)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


# The loss enters through the slopes: all networks, and all losses.
@pytest.mark.parametrize(
    ("kind", "outputs", "name"),
    [case for case in CASES if case[0] == "dense" or case[2] == "square"],
)
def test_stationarity_residual(kind, outputs, name):
    problem, network = problem_for(kind, outputs, name), network_of(kind, 0.1, outputs)
    inputs, directions = problem.dataset.inputs, directions_of(network)
    d = slopes_of(problem)(reference_of(network).outputs(inputs))
    expected = []
    for v, gradient in zip(
        directions.weights, directions.pullback(inputs, d)[1], strict=True
    ):
        expected.append(np.linalg.norm(gradient - v * np.sum(v * gradient)))
    actual = eqx.filter_jit(gf.analysis.stationarity_residual)(problem, network)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_stationarity_residual_at_a_stationary_point():
    """One layer, one sample: the direction of the sample."""
    x = jnp.asarray([[0.6, 0.8]])
    problem = gf.Problem(gf.Dataset(x, jnp.asarray([1.0])), gf.LogisticLoss())
    network = gf.Dense.from_weights([3.0 * x])
    assert gf.analysis.stationarity_residual(problem, network)[0] <= 1e-16
    turned = gf.Dense.from_weights([3.0 * x[:, ::-1]])
    # f = 0.96, and the part of x orthogonal to V is sqrt(1 - 0.96^2) = 0.28 long.
    expected = 0.28 / (1 + np.exp(3 * 0.96))
    actual = gf.analysis.stationarity_residual(problem, turned)
    np.testing.assert_allclose(actual, [expected], rtol=1e-13)


@networks
def test_relative_distance(kind, outputs):
    network = network_of(kind, 0.0, outputs)
    other = network.with_weights(
        tuple(jnp.asarray(np.asarray(w)[::-1] + 0.1) for w in network.weights)
    )
    flat, other_flat = [
        np.concatenate([np.ravel(w) for w in n.weights]) for n in (network, other)
    ]
    expected = np.linalg.norm(flat - other_flat) / np.linalg.norm(other_flat)
    distance = eqx.filter_jit(gf.analysis.relative_distance)
    np.testing.assert_allclose(distance(network, other), expected, rtol=1e-14)
    assert distance(network, network) == 0.0
    # For the networks of a trajectory, by vmap.
    stack = jax.tree.map(lambda *w: jnp.stack(w), network, other)
    distances = eqx.filter_jit(
        eqx.filter_vmap(gf.analysis.relative_distance, in_axes=(0, None))
    )(stack, other)
    np.testing.assert_allclose(distances, [expected, 0.0], rtol=1e-14)


def test_direction_angles():
    """Of layers turned by known angles, small ones too, and scaled."""
    rng = np.random.default_rng(5)
    angles = np.array([1e-12, 0.3, np.pi])
    weights, turned = [], []
    for shape, angle in zip([(3, 4), (3, 3), (1, 3)], angles, strict=True):
        v, u = np.linalg.qr(rng.normal(size=(np.prod(shape), 2)))[0].T
        weights.append(jnp.asarray(2.5 * v.reshape(shape)))
        w = np.cos(angle) * v + np.sin(angle) * u
        turned.append(jnp.asarray(0.1 * w.reshape(shape)))
    network, other = map(gf.Dense.from_weights, (weights, turned))
    found = eqx.filter_jit(gf.analysis.direction_angles)(network, other)
    np.testing.assert_allclose(found, angles, rtol=1e-7, atol=3e-16)
    stack = jax.tree.map(lambda *w: jnp.stack(w), network, other)
    along = eqx.filter_vmap(gf.analysis.direction_angles, in_axes=(0, None))
    np.testing.assert_allclose(
        eqx.filter_jit(along)(stack, other),
        [angles, np.zeros(3)],
        rtol=1e-3,
        atol=1e-15,
    )
