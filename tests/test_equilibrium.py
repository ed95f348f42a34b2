"""The scale: its equilibrium under any loss, its velocity, and its multiplier."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import lambertw

import gradflow as gf
import small
from cases import FLOWS, LOSSES, network_of, problem_for, reference_of
from reference import lagrange_flow_last, slopes_function

rho_eq = eqx.filter_jit(gf.analysis.rho_eq)
losses = pytest.mark.parametrize("loss", LOSSES)


def outputs_for(loss):
    return 3 if loss == "cross_entropy" else 1


def directions_of(network):
    units = [np.asarray(w) / np.linalg.norm(w) for w in network.weights]
    return reference_of(network).with_weights(units)


def one_of_each_sign(network):
    """The network, and the one of the opposite outputs."""
    *others, last = network.weights
    return network, network.with_weights((*others, -last))


def with_outputs(f, layers, loss, scale=1.0, dtype=float):
    """A problem, and a network whose normalised outputs are the numbers `f`."""
    data = gf.Dataset(np.asarray(f, dtype)[:, None], np.ones(len(f), dtype))
    ones = [jnp.ones((1, 1), dtype)] * (layers - 1)
    last = jnp.full((1, 1), scale, dtype)
    network = gf.Dense.from_weights([*ones, last], gf.Identity())
    return gf.Problem(data, LOSSES[loss]()), network


def largest_root(excess, num_norms):
    """By bisection in the last interval of a scan in which the sign changes."""
    if num_norms == 1:
        return brentq(excess, -1e4, 1e4, xtol=1e-14, rtol=1e-14)
    grid = np.geomspace(1e-6, 1e4, 4001)
    signs = np.array([excess(rho) > 0 for rho in grid])
    if signs.all():
        return 0.0
    last = np.flatnonzero(~signs)[-1]
    return brentq(excess, grid[last], grid[last + 1], xtol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("num_norms", [1, 2, 3])
@losses
def test_root_of_the_equation(loss, num_norms):
    """The sign of the outputs decides that of the root, and whether there is one."""
    outputs = outputs_for(loss)
    problem = problem_for("dense", outputs, loss)
    slopes = slopes_function(loss, np.asarray(problem.dataset.labels))
    kinds = set()
    for network in one_of_each_sign(network_of("dense", 0.1, outputs)):
        f = directions_of(network).outputs(problem.dataset.inputs)
        for decay in (0.0, 1e-4, 0.02, 0.2):

            def excess(rho, f=f, decay=decay):
                power = abs(rho) ** (2 / num_norms - 1) * np.sign(rho)
                return np.sum(slopes(rho * f) * f) + 2 * decay * power

            found = rho_eq(problem, network, jnp.asarray(decay), num_norms=num_norms)
            expected = largest_root(excess, num_norms)
            np.testing.assert_allclose(found, expected, rtol=1e-10)
            kinds.add(np.sign(expected))
    assert kinds == ({-1, 1} if num_norms == 1 else {0, 1})


def test_mean_over_the_samples():
    """The sum with N times the weight decay."""
    network = network_of("dense", 0.1)
    for num_norms in (1, 3):
        found, expected = (
            rho_eq(
                problem_for("dense", 1, "logistic", reduction),
                one_of_each_sign(network)[1],
                jnp.asarray(decay),
                num_norms=num_norms,
            )
            for reduction, decay in (("mean", 0.001), ("sum", 0.007))
        )
        assert found > 1
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("num_norms", [1, 2, 3])
def test_one_sample_of_an_exponential_loss(num_norms, size):
    """a exp(-a ρ) = 2 λ ρ^(2/K - 1) by Lambert's function."""
    problem, network = with_outputs([size], 3, "exponential", scale=7.0)
    for decay in (1e-30, 1e-3, 0.1):
        if num_norms == 1:
            expected = lambertw(1 / (2 * decay)).real
        elif num_norms == 2:
            expected = np.log(1 / (2 * decay))
        else:
            q = 1 / 3
            expected = -q * lambertw(-((2 * decay) ** (1 / q)) / q, -1).real
        # In units in which a = 1.
        decay = jnp.asarray(decay * size ** (2 / num_norms))
        found = rho_eq(problem, network, decay, num_norms=num_norms)
        np.testing.assert_allclose(found * size, expected, rtol=1e-11)


@pytest.mark.parametrize("loss", ["square", "exponential"])
def test_largest_weight_decay(loss):
    """Where the roots of three norms vanish, as two that meet."""
    problem, network = with_outputs([1.0], 3, loss)
    q = 1 / 3
    if loss == "square":  # (1 - x) x^q = λ
        peak = q / (1 + q)
        largest = (1 - peak) * peak**q
    else:  # exp(-x) x^q = 2 λ
        peak, largest = q, np.exp(-q) * q**q / 2
    below = rho_eq(problem, network, jnp.asarray(largest * (1 - 1e-12)), num_norms=3)
    above = rho_eq(problem, network, jnp.asarray(largest * (1 + 1e-12)), num_norms=3)
    np.testing.assert_allclose(below, peak, rtol=1e-5)
    assert above == 0


def test_largest_of_four_roots():
    """Two samples on scales far apart make two humps."""
    f, num_norms, decay = np.array([1.0, 1e-3]), 5, 0.0075
    problem, network = with_outputs(f, num_norms, "exponential")

    def excess(rho):
        return 2 * decay * rho ** (2 / num_norms - 1) - np.sum(f * np.exp(-rho * f))

    signs = np.array([excess(rho) > 0 for rho in np.geomspace(1e-4, 1e5, 2001)])
    assert np.sum(signs[1:] != signs[:-1]) == 4
    found = rho_eq(problem, network, jnp.asarray(decay), num_norms=num_norms)
    np.testing.assert_allclose(found, largest_root(excess, num_norms), rtol=1e-11)
    assert found > 300


@pytest.mark.parametrize("num_norms", [1, 2, 3])
@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_without_weight_decay(loss, num_norms):
    def equilibrium(f):
        return rho_eq(*with_outputs(f, 3, loss), jnp.asarray(0.0), num_norms=num_norms)

    assert equilibrium([1.0, 0.5, 1e-9]) == jnp.inf
    # -exp(-ρ) + b exp(b ρ) = 0; far beyond where the first of them underflows.
    if loss == "exponential":
        for b in (0.5, 1e-3, 1e-9):
            found = equilibrium([1.0, -b, 0.0])
            np.testing.assert_allclose(found, -np.log(b) / (1 + b), rtol=1e-12)
    # Every scale does, and no positive one.
    assert jnp.isnan(equilibrium([0.0, 0.0, 0.0]))
    found = equilibrium([-1.0, -0.5, 0.0])
    assert found == (-jnp.inf if num_norms == 1 else 0)
    found = equilibrium([-1.0, 1.0, 0.0])
    assert found == 0


def test_cross_entropy_of_separated_classes():
    data = gf.Dataset(np.eye(3), np.arange(3))
    separating = gf.Dense.from_weights([jnp.eye(3), jnp.eye(3)])
    problem = gf.Problem(data, gf.CrossEntropyLoss())
    for num_norms in (1, 2):
        found = rho_eq(problem, separating, jnp.asarray(0.0), num_norms=num_norms)
        assert found == jnp.inf
        # With f = 1/√9 and 0: 2 exp(-ρ/3) = 2 λ ρ^(2/K - 1) at large scales.
        decay = 1e-200
        found = rho_eq(problem, separating, jnp.asarray(decay), num_norms=num_norms)
        power = 2 / num_norms - 1
        expected = -3 * (np.log(decay) + power * np.log(found))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_outputs_of_zero():
    problem, network = with_outputs([0.0, 0.0], 2, "square")
    for num_norms in (1, 2):
        assert jnp.isnan(rho_eq(problem, network, 0.0, num_norms=num_norms))
        assert rho_eq(problem, network, 0.1, num_norms=num_norms) == 0


@pytest.mark.parametrize("num_norms", [1, 3])
def test_single_precision(num_norms):
    f, decay = [1.0, 0.3, -0.1], 1e-4
    found, expected = (
        rho_eq(
            *with_outputs(f, 3, "logistic", dtype=dtype),
            jnp.asarray(decay, dtype),
            num_norms=num_norms,
        )
        for dtype in (np.float32, np.float64)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("num_norms", [1, 3])
@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_derivatives(loss, num_norms):
    problem, network = problem_for("dense", 1, loss), network_of("dense", 0.1)
    network = one_of_each_sign(network)[1]
    directions = [
        np.random.default_rng(3).normal(size=w.shape) for w in network.weights
    ]

    @jax.jit
    def moved(step, decay):
        weights = zip(network.weights, directions, strict=True)
        there = network.with_weights(tuple(w + step * d for w, d in weights))
        return gf.analysis.rho_eq(problem, there, decay, num_norms=num_norms)

    at = jnp.asarray(0.0), jnp.asarray(1e-3)
    slopes = jax.grad(moved, (0, 1))(*at)
    for slope, step in zip(slopes, ((1e-5, 0.0), (0.0, 1e-7)), strict=True):
        up, down = (
            moved(*(x + sign * h for x, h in zip(at, step, strict=True)))
            for sign in (1, -1)
        )
        np.testing.assert_allclose(slope, (up - down) / (2 * sum(step)), rtol=1e-6)


def test_arguments_that_do_not_fit():
    arguments = problem_for("dense"), network_of("dense")
    with pytest.raises(ValueError, match="`weight_decay`"):
        gf.analysis.rho_eq(*arguments, -0.1)
    with pytest.raises(ValueError, match="`weight_decay`"):
        gf.analysis.rho_dot(*arguments, -0.1)
    for num_norms in (0, 4):
        with pytest.raises(ValueError, match="`num_norms`.*matters, 3"):
            gf.analysis.rho_eq(*arguments, num_norms=num_norms)


# The equilibria of the flows.


@pytest.mark.parametrize("name", FLOWS)
def test_norms_of_a_flow_at_rest(name):
    """Where the norms are those that the observable says, no norm of the flow moves."""
    problem, flow = problem_for("dense"), FLOWS[name](0.004)
    network = one_of_each_sign(network_of("dense", 0.1))[1]
    observe = gf.default_observables(problem, flow)["rho_eq"]
    state = flow.init(network)
    start = flow.to_network(state, network)
    equilibrium = observe(gf.Point(problem, flow, 0.0, state, start))
    assert equilibrium > 1
    # All the flow's norms are equal there.
    norms = flow.norms(state)
    factor = equilibrium / jnp.prod(start.norms) * jnp.prod(norms)
    norm = factor ** (1 / norms.size)
    if name == "gradient":
        at = tuple(norm * w / jnp.linalg.norm(w) for w in state)
        there = flow.to_network(at, network)
        velocity = flow.vector_field(0.0, at, problem, network)
        rates = [jnp.sum(w * v) for w, v in zip(at, velocity, strict=True)]
    else:
        at = gf.PolarState(jnp.full_like(state.rho, norm), state.directions)
        there = flow.to_network(at, network)
        rates = flow.vector_field(0.0, at, problem, network).rho
    np.testing.assert_allclose(jnp.prod(there.norms), equilibrium, rtol=1e-12)
    np.testing.assert_allclose(rates, 0, atol=1e-14)
    np.testing.assert_allclose(flow.norms(at), norm, rtol=1e-13)
    # From anywhere: the penalty is the sum of the squares of the norms.
    np.testing.assert_allclose(jnp.sum(norms**2), flow.penalty(state), rtol=1e-13)


@pytest.mark.parametrize(
    ("flow", "num_norms"), [(gf.GradientFlow, 2), (gf.LagrangeFlow, 1)]
)
@losses
def test_run_to_rest(loss, flow, num_norms):
    """The scale ends at the root of its own equation, and not at the other one."""
    outputs = outputs_for(loss)
    problem, decay = problem_for("dense", outputs, loss), 0.03
    network = gf.Dense((5, 4, outputs), key=jax.random.key(5), activation=gf.ReLU(0.1))
    trajectory = gf.descend(
        problem, 0.02, network, 6000, flow=flow(decay), observe={}, save_networks=False
    )
    rho = jnp.prod(trajectory.final.norms)
    assert rho > 0.5
    own, other = (
        rho_eq(problem, trajectory.final, jnp.asarray(decay), num_norms=k)
        for k in (num_norms, 3 - num_norms)
    )
    np.testing.assert_allclose(rho, own, rtol=1e-5)
    assert abs(rho / other - 1) > 1e-2


# The velocity of the scale, and the multiplier.


@losses
def test_velocity(loss):
    """Against the flow written out by hand, and towards the equilibrium always."""
    outputs = outputs_for(loss)
    problem, decay = problem_for("dense", outputs, loss), 0.05
    slopes = slopes_function(loss, np.asarray(problem.dataset.labels))
    rho_dot = eqx.filter_jit(gf.analysis.rho_dot)
    for network in one_of_each_sign(network_of("dense", 0.1, outputs)):
        equilibrium = rho_eq(problem, network, jnp.asarray(decay))
        scales = [0.2, 1.0, 7.0, *np.abs(equilibrium) * np.array([0.9, 1.1])]
        signs = set()
        for rho in scales:
            factor = (rho / jnp.prod(network.norms)) ** (1 / 3)
            at = network.with_weights(tuple(factor * w for w in network.weights))
            found = rho_dot(problem, at, jnp.asarray(decay))
            expected, _ = lagrange_flow_last(
                float(rho), directions_of(at), problem.dataset.inputs, slopes, decay
            )
            np.testing.assert_allclose(found, expected, rtol=1e-11)
            assert np.sign(found) == np.sign(equilibrium - rho)
            signs.add(float(np.sign(found)))
        assert signs == ({-1, 1} if equilibrium > 0 else {-1})


@losses
def test_multiplier(loss):
    """It makes the raw velocity of every layer orthogonal to the layer."""
    outputs = outputs_for(loss)
    problem, network = (
        problem_for("dense", outputs, loss),
        network_of("dense", 0.1, outputs),
    )
    nu = gf.analysis.multiplier(problem, network)
    labels, inputs = np.asarray(problem.dataset.labels), problem.dataset.inputs
    unit, rho = directions_of(network), float(jnp.prod(network.norms))
    d = slopes_function(loss, labels)(rho * unit.outputs(inputs))
    _, gradients = unit.pullback(inputs, d)
    for v, gradient in zip(unit.weights, gradients, strict=True):
        raw = -rho * gradient - 2 * float(nu) * v
        assert abs(np.sum(v * raw)) <= 1e-13
    assert abs(nu) > 1e-2


# Growth.


def test_violations_of_made_up_series():
    rho = jnp.asarray(
        [1.0, 2.0, 1.5, 4.0, 5.0, 4.0, 3.9, 3.9 - 1e-9, 2.0, jnp.nan, 1.0]
    )
    rest = jnp.asarray([3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 9.0, 9.0, 9.0, 9.0, jnp.inf])
    found = gf.analysis.growth_violations(rho, rest)
    # Falls below, rises above, falls below once more; crossing is allowed.
    expected = [1, 3, 7]
    np.testing.assert_array_equal(np.flatnonzero(found), expected)
    found = gf.analysis.growth_violations(rho, rest, rtol=1e-10)
    np.testing.assert_array_equal(np.flatnonzero(found), [1, 3, 6, 7])
    falling = jnp.asarray([3.0, 2.0])
    for rest, answer in ((jnp.inf, True), (2.5, False), (1.0, False), (-1.0, False)):
        found = gf.analysis.growth_violations(falling, jnp.full(2, rest))
        np.testing.assert_array_equal(found, [answer])
    with pytest.raises(ValueError, match="`rtol`"):
        gf.analysis.growth_violations(falling, falling, rtol=-1.0)


@pytest.mark.parametrize("norm", [0.1, 3.0])
def test_growth_along_a_run(norm):
    """From a small start up, from a large one down."""
    run = gf.descend(
        small.problem(),
        1e-3,
        small.network(norms=(norm, norm)),
        2000,
        flow=gf.LagrangeFlow(0.1),
    )
    rho, rest = run.observables["rho"], run.observables["rho_eq"]
    assert (rho[0] < rest[0]) == (norm < 1)
    assert abs(rho[-1] - rho[0]) > 0.5
    assert not jnp.any(gf.analysis.growth_violations(rho, rest))
    assert jnp.any(gf.analysis.growth_violations(rho[::-1], rest[::-1]))
