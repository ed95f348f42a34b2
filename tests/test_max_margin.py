"""The smoothed margin and the minimum-norm problem, against support vector machines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import gradflow as gf
import small
from cases import LOSSES, dataset_for, network_of, problem_for
from cases import unchecked_types as unchecked_types
from gradflow.analysis import _nnls
from gradflow.analysis._max_margin import _inverse_logistic

kkt_residual = eqx.filter_jit(gf.analysis.kkt_residual)
smoothed_margin = eqx.filter_jit(gf.analysis.smoothed_margin)
unit_margin = eqx.filter_jit(gf.analysis.unit_margin)
margins_of = eqx.filter_jit(gf.Problem.margins)


@eqx.filter_jit
def outputs_of(network, inputs):
    return jax.vmap(network)(inputs)


def svm(inputs, signs):
    """The w of least norm with y <w, x> >= 1 for all samples, and its multipliers."""
    found = gf.analysis.hard_margin_svm(gf.Dataset(inputs, signs))
    w = np.asarray(found.direction / found.margin)
    return w, np.asarray(found.multipliers / found.margin**2)


def separable(dtype=float, loss=None):
    """A problem of 12 samples in 4 dimensions, its w and its multipliers."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(12, 4))
    signs = np.sign(inputs @ np.array([1.0, -2.0, 0.5, 1.0]))
    w, alpha = svm(inputs, signs)
    assert 1 < np.sum(alpha > 1e-8) < 5
    data = gf.Dataset(jnp.asarray(inputs, dtype), jnp.asarray(signs, dtype))
    return gf.Problem(data, loss or gf.LogisticLoss()), w, alpha


def linear(*weights):
    return gf.Dense.from_weights([jnp.asarray(w) for w in weights], gf.Identity())


def two_layers(w, norms=(1.0, 1.0)):
    """The linear function <w, x> up to scale, with rank one."""
    u = np.array([0.6, 0.0, -0.8])
    v = w / np.linalg.norm(w)
    return linear(norms[0] * np.outer(u, v), norms[1] * u[None])


def wrong(network):
    """The same network with every sample on the wrong side."""
    return network.with_weights((*network.weights[:-1], -network.weights[-1]))


def test_one_layer_is_the_support_vector_machine():
    problem, w, alpha = separable()
    kkt = kkt_residual(problem, linear(7 * w[None]))
    np.testing.assert_allclose(kkt.stationarity, [0], atol=1e-12)
    np.testing.assert_allclose(kkt.complementarity, 0, atol=1e-12)
    # V = w / |w| for the sum of α y x that is w.
    expected = alpha / np.linalg.norm(w)
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-12)
    unit = unit_margin(problem, linear(7 * w[None]))
    np.testing.assert_allclose(unit.weights[0][0], w, rtol=1e-11)


def test_one_layer_away_from_it():
    problem, w, _ = separable()
    v = w / np.linalg.norm(w)
    off = np.random.default_rng(4).normal(size=4)
    off = off - v * (v @ off)
    point = v + 0.05 * off / np.linalg.norm(off)
    kkt = kkt_residual(problem, linear(point[None]))
    q = np.asarray(problem.margins(linear(point[None])))
    assert np.min(q) > 0
    # The fit over the same constraints, directly.
    active = q <= 1.1 * np.min(q)
    a = (problem.dataset.labels[:, None] * problem.dataset.inputs)[active]
    expected, residual = nnls(np.asarray(a).T, point / np.linalg.norm(point))
    assert residual > 0.01
    np.testing.assert_allclose(kkt.stationarity, [residual], rtol=1e-10)
    np.testing.assert_allclose(kkt.multipliers[active], expected, atol=1e-12)
    np.testing.assert_array_equal(kkt.multipliers[~active], 0)
    alpha = np.asarray(kkt.multipliers)
    complementarity = alpha @ (q - np.min(q)) / (alpha @ q)
    np.testing.assert_allclose(kkt.complementarity, complementarity, atol=1e-14)


def test_tolerance_of_the_active_constraints():
    """Without the second-smallest margin the fit is worse."""
    problem, w, alpha = separable()
    tilted = linear((w + 0.01 * np.arange(4.0))[None])
    residuals = [
        float(kkt_residual(problem, tilted, rtol=rtol).stationarity[0])
        for rtol in (0.0, 0.1, 10.0)
    ]
    assert residuals[0] > residuals[1] >= residuals[2]
    only = kkt_residual(problem, tilted, rtol=0.0).multipliers
    assert np.sum(np.asarray(only) > 0) == 1 < np.sum(alpha > 1e-8)


@pytest.mark.parametrize("norms", [(1.0, 1.0), (0.1, 30.0)])
def test_two_linear_layers(norms):
    problem, w, alpha = separable()
    network = two_layers(w, norms)
    kkt = kkt_residual(problem, network)
    np.testing.assert_allclose(kkt.stationarity, [0, 0], atol=1e-12)
    np.testing.assert_allclose(kkt.complementarity, 0, atol=1e-12)
    expected = alpha / np.linalg.norm(w)
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-12)
    # The same function with two ranks is none.
    other = linear(np.vstack([np.eye(2, 4), w]), [[0.0, 0.0, 1.0]])
    assert np.all(np.asarray(kkt_residual(problem, other).stationarity) > 0.01)


@pytest.mark.parametrize(("kind", "outputs"), [("dense", 1), ("dense", 3), ("conv", 3)])
def test_unit_margin(kind, outputs):
    # Labels that the network gets right.
    network = network_of(kind, 0.1, outputs)
    inputs = dataset_for(kind, outputs).inputs
    g = np.asarray(outputs_of(network, inputs))
    labels = np.argmax(g, axis=1) if outputs == 3 else np.sign(g[:, 0])
    classes = 3 if outputs == 3 else None
    data = gf.Dataset(inputs, labels, num_classes=classes)
    problem = gf.Problem(data, gf.SquareLoss())
    gamma = np.min(np.asarray(margins_of(problem, network)))
    assert gamma > 0
    unit = unit_margin(problem, network)
    # Of the outputs: their margins normalised, times ρ.
    rho = np.prod(np.asarray(unit.norms))
    np.testing.assert_allclose(np.min(margins_of(problem, unit)) * rho, 1, rtol=1e-12)
    np.testing.assert_allclose(unit.norms, gamma ** (-1 / 3), rtol=1e-12)
    np.testing.assert_allclose(rho * gamma, 1, rtol=1e-12)
    scaled = np.asarray(outputs_of(unit, inputs)) / g
    np.testing.assert_allclose(scaled, scaled[0, 0], rtol=1e-9)


def test_multipliers_are_the_gradient():
    """ReLU layers: the fit beats any other choice, such as the slopes, and both give
    the residual that the gradients of one sample after the other give."""
    network = network_of("dense", 0.1, 3)
    inputs = dataset_for("dense", 3).inputs
    labels = np.argmax(np.asarray(outputs_of(network, inputs)), axis=1)
    data = gf.Dataset(inputs, labels, num_classes=3)
    problem = gf.Problem(data, gf.CrossEntropyLoss())
    units = tuple(w / jnp.linalg.norm(w) for w in network.weights)

    @eqx.filter_jit
    @jax.jacobian
    def jacobian(weights):
        outputs = jax.vmap(network.with_weights(weights))(inputs)
        own = outputs[np.arange(7), labels]
        return own[:, None] - outputs

    by_layer = jacobian(units)
    totals = []
    for options in ({"rtol": 100.0}, {"multipliers": "slopes"}):
        kkt = kkt_residual(problem, network, **options)
        alpha = np.asarray(kkt.multipliers)
        assert np.all(alpha >= 0) and np.any(alpha > 0)
        np.testing.assert_array_equal(alpha[np.arange(7), labels], 0)
        expected = [
            np.linalg.norm(v - np.tensordot(alpha, j, 2))
            for v, j in zip(units, by_layer, strict=True)
        ]
        np.testing.assert_allclose(kkt.stationarity, expected, rtol=1e-10)
        totals.append(np.sum(np.square(expected)))
    assert totals[0] < totals[1]


def test_slopes_as_multipliers():
    problem, w, _ = separable(loss=gf.ExponentialLoss())
    point = 3 * w / np.linalg.norm(w)
    kkt = kkt_residual(problem, linear(point[None]), multipliers="slopes")
    a = np.asarray(problem.dataset.labels[:, None] * problem.dataset.inputs)
    weights = np.exp(-a @ point)
    total, v = a.T @ weights, point / 3
    alpha = weights * (v @ total) / (total @ total)
    np.testing.assert_allclose(kkt.multipliers, alpha, rtol=1e-11)
    residual = np.linalg.norm(v - a.T @ alpha)
    np.testing.assert_allclose(kkt.stationarity, [residual], rtol=1e-10)
    q = a @ v
    complementarity = alpha @ (q - np.min(q)) / (alpha @ q)
    np.testing.assert_allclose(kkt.complementarity, complementarity, rtol=1e-10)
    # A loss far below the smallest number: the worst sample has all of the weight.
    kkt = kkt_residual(problem, linear(1e6 * point[None]), multipliers="slopes")
    assert np.all(np.isfinite(np.asarray(kkt.multipliers)))
    np.testing.assert_allclose(kkt.complementarity, 0, atol=1e-9)


def simplex(loss=None):
    """One sample for each of three classes, and the linear network of least norm."""
    data = gf.Dataset(np.eye(3), np.arange(3))
    return gf.Problem(data, loss or gf.CrossEntropyLoss()), linear(np.eye(3) - 1 / 3)


@pytest.mark.parametrize("multipliers", ["least_squares", "slopes"])
def test_simplex_of_classes(multipliers):
    """Σ_j (e_n - e_j) e_n' over the six constraints is 3 (I - 1/3)."""
    problem, network = simplex()
    kkt = kkt_residual(problem, network, multipliers=multipliers)
    np.testing.assert_allclose(kkt.stationarity, [0], atol=1e-14)
    np.testing.assert_allclose(kkt.complementarity, 0, atol=1e-14)
    expected = (1 - np.eye(3)) / (3 * 2**0.5)  # |I - 1/3| is the root of 2
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-14)
    # All margins of I - 1/3 are 1 already.
    unit = unit_margin(problem, network.with_weights((5 * network.weights[0],)))
    np.testing.assert_allclose(unit.weights[0], network.weights[0], rtol=1e-13)
    # The identity has the same margins, and a larger norm.
    off = kkt_residual(problem, linear(np.eye(3)), multipliers=multipliers)
    np.testing.assert_allclose(off.stationarity, [3**-0.5], rtol=1e-12)


def test_single_precision():
    problem, w, alpha = separable(jnp.float32)
    network = two_layers(w)
    network = network.with_weights(
        tuple(x.astype(jnp.float32) for x in network.weights)
    )
    kkt = kkt_residual(problem, network)
    assert {x.dtype for x in jax.tree.leaves(kkt)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(kkt.stationarity, [0, 0], atol=1e-5)
    expected = alpha / np.linalg.norm(w)
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-5)
    for found in (smoothed_margin(problem, network), unit_margin(problem, network)):
        assert {x.dtype for x in jax.tree.leaves(eqx.filter(found, eqx.is_array))} == {
            jnp.dtype("float32")
        }


def test_several_networks():
    """Under maps of all kinds, and for more samples than weights or the reverse."""
    problem, w, _ = separable()
    rng = np.random.default_rng(5)
    points = jnp.asarray(w + 0.02 * rng.normal(size=(3, 4)))

    def measure(point):
        network = linear(point[None])
        kkt = gf.analysis.kkt_residual(problem, network)
        return kkt, gf.analysis.smoothed_margin(problem, network)

    single = [eqx.filter_jit(measure)(point) for point in points]
    expected = jax.tree.map(lambda *x: np.stack(x), *single)
    for mapped in (
        jax.vmap(measure),
        lambda x: jax.lax.map(measure, x),
        lambda x: jax.lax.map(measure, x, batch_size=2),
    ):
        found = eqx.filter_jit(mapped)(points)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected
        )
    few = gf.Problem(
        gf.Dataset(problem.dataset.inputs[:2], problem.dataset.labels[:2]),
        gf.LogisticLoss(),
    )
    best, alpha = svm(np.asarray(few.dataset.inputs), np.asarray(few.dataset.labels))
    kkt = kkt_residual(few, linear(best[None]))
    np.testing.assert_allclose(kkt.stationarity, [0], atol=1e-12)
    expected = alpha / np.linalg.norm(best)
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-12)


def test_many_samples():
    """Matrices of megabytes get to the host and back."""
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(600, 20))
    signs = np.sign(inputs[:, 0])
    inputs[:, 0] += signs  # a margin that the oracle resolves
    w, alpha = svm(inputs, signs)
    problem = gf.Problem(gf.Dataset(inputs, signs), gf.LogisticLoss())
    # Of all within a tenth of the margin there are more than the 20 that are unique.
    kkt = kkt_residual(problem, two_layers(w), rtol=1e-9)
    np.testing.assert_allclose(kkt.stationarity, [0, 0], atol=1e-12)
    expected = alpha / np.linalg.norm(w)
    np.testing.assert_allclose(kkt.multipliers, expected, atol=1e-12)


def test_what_is_not_found(monkeypatch):
    def out_of_iterations(*_):
        raise RuntimeError

    monkeypatch.setattr(_nnls, "nnls", out_of_iterations)
    problem, network = simplex()
    kkt = eqx.filter_jit(lambda *at: gf.analysis.kkt_residual(*at))(problem, network)
    for value in jax.tree.leaves(kkt):
        assert np.all(np.isnan(value))


@pytest.mark.parametrize("multipliers", ["least_squares", "slopes"])
def test_without_a_margin(multipliers):
    problem, w, _ = separable()
    for at in (wrong(two_layers(w)), two_layers(w, (0.0, 1.0)), linear(0 * w[None])):
        kkt = kkt_residual(problem, at, multipliers=multipliers)
        for value in (*jax.tree.leaves(kkt), *unit_margin(problem, at).weights):
            assert np.all(np.isnan(value))


def inverse(loss, total):
    """ℓ^{-1} as it is written, for moderate losses."""
    if isinstance(loss, gf.ExponentialLoss):
        return -np.log(total)
    return -np.log(np.expm1(total))


@pytest.mark.parametrize("name", ["exponential", "logistic", "cross_entropy"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_smoothed_margin(name, scale):
    outputs = 3 if name == "cross_entropy" else 1
    network = network_of("dense", 0.1, outputs, norms=(scale, 1.6, 1.2))
    problem = problem_for("dense", outputs, name)
    total = np.asarray(problem.value(network))
    expected = inverse(problem.loss, total) / (scale * 1.6 * 1.2)
    found = smoothed_margin(problem, network)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    averaged = problem_for("dense", outputs, name, "mean")
    np.testing.assert_allclose(smoothed_margin(averaged, network), found, rtol=1e-11)
    assert found <= np.min(problem.margins(network))


@pytest.mark.parametrize("name", ["exponential", "logistic", "cross_entropy"])
def test_smoothed_margin_of_large_networks(name):
    """It tends to the smallest margin from below, at most log(N (C - 1)) / ρ away."""
    if name == "cross_entropy":
        problem, network = simplex()
        count = 6
    else:
        problem, w, _ = separable(loss=LOSSES[name]())
        network, count = two_layers(w), 12
    smallest = np.min(problem.margins(network))
    unit = network.with_weights(tuple(w / jnp.linalg.norm(w) for w in network.weights))
    for scale in (1e2, 1e6, 1e7):
        first, *others = unit.weights
        large = unit.with_weights((scale * first, *others))
        found = smoothed_margin(problem, large)
        assert smallest - np.log(count) / scale <= found * (1 + 1e-14)
        assert found <= smallest * (1 + 1e-14)
    assert problem.log_value(large) < -1e6


def test_smoothed_margin_of_large_losses():
    """Every sample on the wrong side: the loss grows in proportion to the scale."""
    problem, w, _ = separable()
    network = wrong(two_layers(w, (1e4, 1.0)))
    total = np.sum(np.asarray(problem.dataset.inputs) @ w * problem.dataset.labels)
    expected = -total / np.linalg.norm(w)
    np.testing.assert_allclose(smoothed_margin(problem, network), expected, rtol=1e-9)


def test_inverse_of_the_logistic_loss():
    """Across the threshold of its small losses, and where it is 0."""
    logs = np.linspace(-40, 5, 1001)
    expected = -np.log(np.expm1(np.exp(logs)))
    found = jax.jit(jax.vmap(_inverse_logistic))(jnp.asarray(logs))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    slopes = jax.jit(jax.vmap(jax.grad(_inverse_logistic)))(jnp.asarray([-1e7, 3.0]))
    loss = np.exp(3.0)
    expected = [-1, -loss / -np.expm1(-loss)]
    np.testing.assert_allclose(slopes, expected, rtol=1e-13)


@pytest.mark.parametrize("flow", [gf.GradientFlow(), gf.LagrangeFlow()])
def test_smoothed_margin_never_decreases(flow):
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(6, 4))
    data = gf.Dataset(inputs, np.sign(inputs @ np.array([1.0, 1.0, 0.0, 0.0])))
    problem = gf.Problem(data, gf.LogisticLoss())
    network = small.network(activation=gf.Identity())
    observe = {"smoothed": gf.analysis.smoothed_margin, "loss": small.loss}
    run = gf.solve(problem, flow, network, 50.0, observe=observe)
    values = np.asarray(run.observables["smoothed"])
    below = np.asarray(run.observables["loss"]) < np.log(2)
    assert 20 < np.sum(below)
    steps = np.diff(values[below])
    assert np.all(steps >= -1e-9) and values[-1] > 2 * values[below][0] > 0


def test_kkt_along_a_run():
    """Balanced layers of rank one stay so, and turn to the support vector machine."""
    problem, _, _ = separable()
    inputs, labels = problem.dataset.inputs[:6], problem.dataset.labels[:6]
    problem = gf.Problem(gf.Dataset(inputs, labels), gf.LogisticLoss())
    v = np.array([1.0, -1.0, 1.0, 1.0]) / 2
    network = linear(np.outer(np.full(5, 5**-0.5), v), np.full((1, 5), 5**-0.5))
    observe = {"kkt": gf.analysis.kkt_residual}
    run = gf.solve(problem, gf.GradientFlow(), network, 1e6, observe=observe)
    residuals = np.asarray(run.observables["kkt"].stationarity)
    assert residuals.shape == (101, 2)
    # No margin at the start, and then a slow way, as that of log(t).
    assert np.all(np.isnan(residuals[0]))
    assert np.all(np.diff(residuals[1:], axis=0) < 0)
    # With rank one the layers are a vector and a number.
    end = np.asarray(run[-1].weights[1] @ run[-1].weights[0])[0]
    end = end / np.linalg.norm(end)
    a = np.asarray(labels[:, None] * inputs)
    a = a[a @ end <= 1.1 * np.min(a @ end)]
    alpha, _ = nnls(np.vstack([a.T, a @ end]), np.append(end, 1.0))
    expected = [np.linalg.norm(end - a.T @ alpha), abs(1 - a @ end @ alpha)]
    np.testing.assert_allclose(residuals[-1], expected, rtol=1e-6)


def test_lagrange_flow_gets_to_it():
    """Its directions do not slow down as the norms grow."""
    problem = gf.Problem(gf.datasets.digits(per_class=5), gf.ExponentialLoss())
    network = gf.Dense((65, 8, 8, 1), key=jax.random.key(1), norm=1.0)

    def residuals(flow):
        run = gf.solve(
            problem,
            gf.LogTime(flow),
            network,
            600.0,
            ts=[200.0, 600.0],
            rtol=1e-3,
            observe={"kkt": lambda p, n: gf.analysis.kkt_residual(p, n, rtol=2e-2)},
        )
        return np.max(run.observables["kkt"].stationarity, axis=1)

    found = residuals(gf.LagrangeFlow(all_norms=True))
    assert found[0] < 1e-2 and found[1] < 1e-4
    assert residuals(gf.GradientFlow())[-1] > 1e-2


def test_what_is_not_defined(unchecked_types):
    problem, network = simplex(gf.SquareLoss())
    with pytest.raises(ValueError, match="not for SquareLoss"):
        gf.analysis.smoothed_margin(problem, network)
    with pytest.raises(ValueError, match="square loss"):
        gf.analysis.kkt_residual(problem, network, multipliers="slopes")
    with pytest.raises(ValueError, match="`multipliers`"):
        gf.analysis.kkt_residual(problem, network, multipliers="gram")
    with pytest.raises(ValueError, match="`rtol`"):
        gf.analysis.kkt_residual(problem, network, rtol=-0.1)
    data = gf.Dataset(np.eye(3), np.eye(3), regression=True)
    regression = gf.Problem(data, gf.SquareLoss())
    for measure in (gf.analysis.kkt_residual, gf.analysis.unit_margin):
        with pytest.raises(ValueError, match="[Rr]egression"):
            measure(regression, network)
