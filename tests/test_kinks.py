"""Exact rectifiers in `solve`: smoothed for the run, followed where they slide."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import network_of, problem_for
from reference import smoothed_relu
from reference.conv import extract_patches
from small import network, problem, rho, weights_of

FLOW = gf.GradientFlow(0.1)
T1 = 2.0
EXACT = network(activation=gf.ReLU())

traces = []


def loss(problem, network):
    traces.append("loss")
    return problem.value(network)


def solve(start=EXACT, **options):
    return gf.solve(
        problem(), FLOW, start, T1, observe={"loss": loss, "rho": rho}, **options
    )


# Which width.


def assert_smoothed_by(trajectory, smoothing):
    np.testing.assert_allclose(trajectory.stats["smoothing"], smoothing, rtol=1e-15)
    for each in (trajectory.networks, trajectory.final, trajectory[3]):
        assert each.activation == gf.ReLU(smoothing)


@pytest.fixture(scope="module")
def trajectory():
    return solve(rtol=1e-3)


def distance(trajectory, other):
    difference = weights_of(trajectory.final) - weights_of(other.final)
    return np.linalg.norm(difference)


def test_width_follows_the_tolerance(trajectory):
    assert_smoothed_by(trajectory, 3 * 1e-3)
    assert "loss" in traces
    traces.clear()
    # Not compiled anew, for other widths either.
    wider = solve(rtol=1e-3, smoothing=1e-2)
    assert_smoothed_by(wider, 1e-2)
    assert 1e-4 < distance(wider, trajectory) < 0.1
    finer = solve(rtol=1e-4)
    assert_smoothed_by(finer, 3 * 1e-4)
    assert 1e-4 < distance(finer, trajectory) < 0.01
    from_arrays = solve(rtol=jnp.asarray(1e-3), smoothing=jnp.asarray(1e-2))
    assert eqx.tree_equal(from_arrays, wider)
    assert traces == []


losses = jax.jit(jax.vmap(lambda network: problem().value(network)))


def test_observables_are_those_of_the_networks(trajectory):
    # The kinks have widened within a tenth of a time in which the weights change.
    late = np.asarray(trajectory.ts) > T1 / 4
    observed = np.asarray(trajectory.observables["loss"])
    expected = losses(trajectory.networks)
    np.testing.assert_allclose(observed[late], expected[late], rtol=1e-12)
    narrow = gf.ReLU(1e-3 * trajectory.final.activation.smoothing)
    expected = losses(trajectory.networks.with_activation(narrow))
    np.testing.assert_allclose(observed[0], expected[0], rtol=1e-12)
    assert np.all(np.abs(observed - expected)[late] > 1e-6)


# Steps of a fixed size, which compile faster.
EULER = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize()}


def test_no_smoothing(trajectory):
    exact = solve(smoothing=0, dt0=1e-3, throw=False, **EULER)
    assert_smoothed_by(exact, 0.0)
    # From t = 0.2 on a unit slides.
    assert exact.result == gf.RESULTS.chattering and exact.ts[10] == trajectory.ts[10]
    difference = weights_of(exact.networks)[10] - weights_of(trajectory.networks)[10]
    # Up to the width of the kinks, and not by rounding alone.
    assert 1e-5 < np.linalg.norm(difference) < 3e-3


@pytest.mark.parametrize("activation", [gf.ReLU(0.1), gf.Identity()])
def test_other_networks_are_left_alone(activation):
    start = network(activation=activation)
    trajectory = solve(start, dt0=0.1, **EULER)
    assert trajectory.stats["smoothing"] == getattr(activation, "smoothing", 0.0)
    assert trajectory.final.activation == trajectory.networks.activation == activation
    for smoothing in (0, 1e-3):
        with pytest.raises(ValueError, match="`smoothing`"):
            solve(start, smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [-1e-3, -1, float("nan"), float("inf")])
def test_bad_width(smoothing):
    with pytest.raises(ValueError, match="`smoothing`"):
        solve(rtol=1e-3, smoothing=smoothing)


def test_tolerance_that_is_traced():
    def end(rtol, **options):
        return solve(rtol=rtol, **options).final.weights

    with pytest.raises(ValueError, match="traced.*`smoothing`"):
        jax.eval_shape(end, jnp.asarray(1e-3))
    with pytest.raises(ValueError, match="traced.*`smoothing`"):
        jax.eval_shape(lambda x: end(1e-3, smoothing=x), jnp.asarray(1e-3))
    for smoothing in (1e-2, 0.0):
        traced = jax.eval_shape(lambda x, s=smoothing: end(x, smoothing=s), 1e-3)
        assert [w.shape for w in traced] == [w.shape for w in EXACT.weights]


# Sliding along a kink.


def two_samples(first, second, direction):
    """The inputs (1, 0) and `direction`, with their labels."""
    inputs = jnp.array([(1.0, 0.0), direction])
    return gf.Problem(gf.Dataset(inputs, jnp.array([first, second])), gf.SquareLoss())


def one_unit(along, across, out):
    """One hidden unit, whose pre-activation for the first sample is `along`."""
    weights = jnp.array([[along, across]]), jnp.array([[out]])
    return gf.Dense.from_weights(weights)


def follow(problem, start, t1, rtol):
    return gf.solve(problem, gf.GradientFlow(), start, t1, rtol=rtol, observe={})


P, Q, SIZE = 0.6, 0.8, 0.3
SLIDING = two_samples(-1.0, 1.0, (P, Q))


def sliding_solution(t):
    r"""The weights $(w_1, w_2, a)$ of $g(x) = a \sigma(w \cdot x)$.

    On $w_1 = 0$ the second sample, of input $(p, q)$ and label 1, pulls with
    $F = 2 (1 - a q w_2) a (p, q)$: towards $w_1 > 0$. There the first, of input
    $(1, 0)$ and label -1, pulls with $-2 a (1, 0)$, which is stronger as long as
    $(1 - a q w_2) p < 1$. So the unit slides along $w_1 = 0$ with the part $\alpha$ of
    the first sample's pull that leaves $\dot w_1 = 0$, and as that pull has no other
    component and $\sigma(0) = 0$, with

    $$\dot w_2 = 2 (1 - a q w_2) a q, \quad \dot a = 2 (1 - a q w_2) q w_2.$$

    From $w_2 = a$ it stays there, and $r = a w_2$ obeys $\dot r = 4 q r (1 - q r)$, a
    logistic equation.
    """
    r = (1 / Q) / (1 + (1 / (Q * SIZE**2) - 1) * np.exp(-4 * Q * t))
    return np.stack([np.zeros_like(r), np.sqrt(r), np.sqrt(r)], axis=-1)


def test_sliding():
    distances = []
    for rtol in (1e-2, 1e-3, 1e-4, 1e-5):
        trajectory = follow(SLIDING, one_unit(0.0, SIZE, SIZE), 1.5, rtol)
        weights = weights_of(trajectory.networks)
        exact = sliding_solution(np.asarray(trajectory.ts))
        distances.append(np.max(np.linalg.norm(weights - exact, axis=1)))
        assert distances[-1] <= 10 * trajectory.stats["smoothing"] + 20 * rtol
        counts = gf.analysis.sliding_units(SLIDING, trajectory.final)
        np.testing.assert_array_equal(counts, [1])
    assert np.all(np.diff(distances) < 0)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("rtol", [1e-3, 1e-4])
def test_kink_that_repels(side, rtol):
    """A unit that starts on one side of a kink that repels stays there, even if the
    smoothed kink, at its full width, would take it to the other."""
    problem = two_samples(1.0, 1.0, (-0.2, np.sqrt(0.96)))
    # The second sample pulls with 2 (1 - g) 0.2 a towards w_1 < 0, and the first with
    # 2 a away from it, which half of it, as within the width, is enough to outweigh.
    along = 0.1 * (3 * rtol * 0.6) * side
    trajectory = follow(problem, one_unit(along, 0.6, 0.6), 3.0, rtol)
    path = side * weights_of(trajectory.networks)[:, 0]
    assert np.all(path > 0) and path[-1] > 0.05


# Which units slide.


def count_dense(network, inputs, width):
    h, counts = inputs, []
    for weight in map(np.asarray, network.weights[:-1]):
        z = h @ weight.T
        scale = np.linalg.norm(h, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
        counts.append(np.sum(np.abs(z) < width * scale))
        h = smoothed_relu(z, network.activation.smoothing * scale)
    return counts


def count_conv(network, inputs, width):
    h, counts = inputs, []
    for weight, stride, padding in zip(
        network.weights[:-1], network.strides, network.paddings, strict=True
    ):
        kernels = np.asarray(weight).reshape(len(weight), -1)
        patches, places = extract_patches(h, weight.shape[2:], stride, padding)
        z = patches @ kernels.T
        scale = np.linalg.norm(patches, axis=2)[..., None]
        scale = scale * np.linalg.norm(kernels, axis=1)
        counts.append(np.sum(np.abs(z) < width * scale))
        h = smoothed_relu(z, network.activation.smoothing * scale)
        h = np.swapaxes(h, 1, 2).reshape(len(h), -1, *places)
    return counts


COUNTS = {"dense": count_dense, "conv": count_conv}


@pytest.mark.parametrize("kind", COUNTS)
def test_sliding_units(kind):
    units, data = network_of(kind, 0.1), problem_for(kind)
    inputs = np.asarray(data.dataset.inputs)

    @jax.jit
    def count(width):
        return (
            gf.analysis.sliding_units(data, units, width=width),
            gf.analysis.sliding_units(data, units),
        )

    totals = []
    for width in (0.03, 0.3, 1.0):
        given, of_the_network = count(width)
        expected = COUNTS[kind](units, inputs, width)
        np.testing.assert_array_equal(given, expected)
        totals.append(sum(expected))
    assert 0 < totals[0] < totals[1] < totals[2]
    np.testing.assert_array_equal(of_the_network, COUNTS[kind](units, inputs, 0.1))


def test_sliding_units_without_a_width():
    for activation in (gf.ReLU(), gf.Identity()):
        with pytest.raises(ValueError, match="`width`"):
            gf.analysis.sliding_units(problem(), network(activation=activation))
    with pytest.raises(ValueError, match="`width`"):
        gf.analysis.sliding_units(problem(), network(), width=-1e-3)


def test_sliding_units_without_hidden_layers():
    linear = gf.Dense.from_weights([jnp.ones((1, 4))])
    counts = gf.analysis.sliding_units(problem(), linear, width=0.1)
    assert counts.shape == (0,)
