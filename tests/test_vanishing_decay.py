"""The flow of a vanishing weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf
from cases import FLOWS, assert_close, network_of, problem_for
from cases import unchecked_types as unchecked_types

SAMPLES, INPUTS = 4, 9
EXPONENTS = (1.0, 0.75, 0.5)


def least_squares():
    """Fewer samples than weights, and the solution of least norm."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(SAMPLES, INPUTS))
    targets = rng.normal(size=SAMPLES)
    problem = gf.Problem(gf.Dataset(inputs, targets, regression=True), gf.SquareLoss())
    return problem, inputs, targets, np.linalg.pinv(inputs) @ targets


def linear(seed, norm):
    return gf.Dense(
        (INPUTS, 1), key=jax.random.key(seed), activation=gf.Identity(), norm=norm
    )


def integral(exponent, t):
    """Of the decay from 0 to t."""
    if exponent == 1:
        return np.log1p(t)
    return np.expm1((1 - exponent) * np.log1p(t)) / (1 - exponent)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("norm", [1e-2, 1.0, 30.0])
def test_least_norm_from_any_start(exponent, norm):
    problem, inputs, targets, solution = least_squares()
    start = linear(1, norm)
    ts = np.array([1.0, 10.0, 100.0, 1e4])
    flow = gf.HalpernFlow(gf.PowerDecay(exponent))
    run = gf.solve(problem, flow, start, ts[-1], ts=ts, rtol=1e-9, observe={})
    found = np.asarray(run.networks.weights[0])[:, 0]
    w = np.asarray(start.weights[0])[0]
    # The null space has a law of its own.
    null = np.eye(INPUTS) - np.linalg.pinv(inputs) @ inputs
    left = np.exp(-integral(exponent, ts))
    expected = left[:, None] * (null @ w)
    np.testing.assert_allclose(
        found @ null, expected, rtol=1e-6, atol=1e-8 * np.linalg.norm(w)
    )
    # The rest lags behind the root of the total gradient by O(dλ/dt).
    gram = 2 * inputs.T @ inputs
    decay = (1 + ts[-1]) ** -exponent
    at_rest = np.linalg.solve(gram + decay * np.eye(INPUTS), 2 * inputs.T @ targets)
    in_range = found[-1] - null @ found[-1]
    np.testing.assert_allclose(in_range, at_rest, rtol=1e-4)
    assert np.linalg.norm(found[-1] - solution) < (
        2 * decay * np.linalg.norm(solution) + 2 * left[-1] * norm
    )


def test_without_decay_the_null_space_keeps_its_start():
    problem, inputs, _, solution = least_squares()
    start = linear(1, 3.0)
    run = gf.solve(problem, gf.GradientFlow(), start, 1e3, rtol=1e-9, observe={})
    null = np.eye(INPUTS) - np.linalg.pinv(inputs) @ inputs
    w = np.asarray(start.weights[0])[0]
    expected = solution + null @ w
    np.testing.assert_allclose(run.final.weights[0][0], expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["gradient", "polar", "lagrange_all", "lagrange_last"])
def test_constant_decay_is_weight_decay(name):
    """For every flow, in whatever coordinates."""
    problem, network = problem_for("dense"), network_of("dense", 0.1)
    plain = FLOWS[name](0.3)
    halpern = gf.HalpernFlow(lambda t: 0.2 + 0.0 * t, FLOWS[name](0.2))
    state = plain.init(network)
    assert_close(
        halpern.vector_field(5.0, state, problem, network),
        plain.vector_field(5.0, state, problem, network),
        1e-14,
    )


def test_against_another_integrator():
    """One weight: dw/dt = -2 (w - y) - λ(t) w."""
    problem = gf.Problem(
        gf.Dataset(jnp.ones((1, 1)), jnp.asarray([2.0]), regression=True),
        gf.SquareLoss(),
    )
    network = gf.Dense.from_weights((jnp.full((1, 1), -1.0),), gf.Identity())

    def decay(t):
        return 3 * jnp.exp(-t)

    ts = np.linspace(0.5, 4, 8)
    run = gf.solve(problem, gf.HalpernFlow(decay), network, 4.0, ts=ts, rtol=1e-9)
    expected = solve_ivp(
        lambda t, w: -2 * (w - 2) - 3 * np.exp(-t) * w,
        (0, 4),
        [-1.0],
        t_eval=ts,
        rtol=1e-12,
        atol=1e-12,
    )
    weights = np.asarray(run.networks.weights[0])[:, 0, 0]
    np.testing.assert_allclose(weights, expected.y[0], rtol=1e-7)


def test_whole_numbers_are_times_too():
    for t in (3, jnp.asarray(3)):
        np.testing.assert_allclose(gf.PowerDecay(0.5)(t), 1 / 2, rtol=1e-15)
        np.testing.assert_allclose(gf.PowerDecay()(t), 1 / 4, rtol=1e-15)
    flow = gf.HalpernFlow(gf.PowerDecay(0.5))
    np.testing.assert_allclose(flow.weight_decay_at(3), 1 / 4, rtol=1e-15)


def test_observables_know_the_present_decay():
    """At the equilibrium of the present decay the flow stands still, and ρ is ρ_eq."""
    dataset = gf.Dataset(jnp.ones((1, 1)), jnp.ones(1))
    problem = gf.Problem(dataset, gf.SquareLoss())
    decay = gf.PowerDecay(0.5)
    t = 8.0  # a decay of 1/3, half of it in ρ_eq
    rho = 1 / (1 + 1 / 6)
    network = gf.Dense.from_weights((jnp.full((1, 1), rho),), gf.Identity())
    run = gf.solve(problem, gf.HalpernFlow(decay), network, t + 1e-6, t0=t, ts=[t])
    np.testing.assert_allclose(run.observables["rho_eq"], rho, rtol=1e-14)
    assert run.observables["stationarity"] < 1e-15


def test_critical_points_are_those_of_the_decay_in_the_end():
    """One weight, L = (w - 1)² + λ w²: at rest in 1 / (1 + λ)."""
    problem = gf.Problem(gf.Dataset(jnp.ones((1, 1)), jnp.ones(1)), gf.SquareLoss())
    network = gf.Dense.from_weights((jnp.full((1, 1), 0.8),), gf.Identity())
    flow = gf.HalpernFlow(gf.PowerDecay(0.5), gf.GradientFlow(0.1))
    point = gf.polish(problem, flow, network)
    np.testing.assert_allclose(point.network.weights[0], 1 / 1.1, rtol=1e-12)
    assert point.kind == "minimum"


def test_descent_is_norm_minimising_descent():
    """w - h (∇L + λ w), with the flow's decay at the time of the step."""
    problem, inputs, targets, _ = least_squares()
    start = linear(2, 1.0)
    h, steps = 1e-2, 20
    run = gf.descend(problem, h, start, steps, flow=gf.HalpernFlow(gf.PowerDecay()))
    w = np.asarray(start.weights[0])[0]
    for n in range(steps):
        gradient = 2 * inputs.T @ (inputs @ w - targets)
        w = w - h * (gradient + w / (1 + n * h))
    np.testing.assert_allclose(run.final.weights[0][0], w, rtol=1e-12)


def test_derivative_by_the_exponent():
    problem, _, _, _ = least_squares()
    start = linear(1, 2.0)

    def end(exponent):
        flow = gf.HalpernFlow(gf.PowerDecay(exponent))
        run = gf.solve(problem, flow, start, 5.0, ts=[5.0], rtol=1e-8, observe={})
        return jnp.sum(run.final.weights[0] ** 2)

    h = 1e-3
    expected = (end(0.6 + h) - end(0.6 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(end)(0.6), expected, rtol=1e-4)


def test_what_is_not_allowed(unchecked_types):
    with pytest.raises(ValueError, match=r"`exponent`.*\(0, 1\]"):
        gf.PowerDecay(1.5)
    with pytest.raises(ValueError, match="`exponent`"):
        gf.PowerDecay(0.0)
    with pytest.raises(ValueError, match="`decay` must be a function"):
        gf.HalpernFlow(0.1)
    with pytest.raises(ValueError, match="`decay` must not be negative"):
        gf.HalpernFlow(lambda t: -1.0)
    with pytest.raises(ValueError, match="`flow` must be a .*PhysicalFlow"):
        gf.HalpernFlow(flow=gf.LossTime(gf.GradientFlow()))
    with pytest.raises(ValueError, match="HalpernFlow depends on the physical time"):
        gf.LogTime(gf.HalpernFlow())
