"""Solutions against closed forms and other integrators, at the right order."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf

SOLVERS = {diffrax.Heun(): 2, diffrax.Bosh3(): 3, diffrax.Tsit5(): 5}


relative_distance = eqx.filter_jit(gf.analysis.relative_distance)


def fitted_order(hs, errors):
    return np.polyfit(np.log(hs), np.log(errors), 1)[0]


@pytest.fixture(scope="module")
def modes():
    """Two diagonal linear layers on the unit vectors: every mode is on its own."""
    targets = jnp.array([0.5, 1.0, 1.7])
    start = jnp.array([0.3, 0.1, 0.9])
    network = gf.Diagonal.from_weights((start, start), activation=gf.Identity())
    data = gf.Dataset(jnp.eye(3), targets, regression=True)
    return gf.Problem(data, gf.SquareLoss()), network, targets, start**2


def closed_form(t, targets, products):
    # u = w² obeys u' = 4u(s - u), a logistic equation.
    return targets / (1 + (targets / products - 1) * jnp.exp(-4 * targets * t))


def products(problem, network):
    del problem
    return network.weights[0] * network.weights[1]


def test_deep_linear_closed_form(modes):
    problem, network, targets, start = modes
    trajectory = gf.solve(
        problem,
        gf.GradientFlow(),
        network,
        3.0,
        rtol=1e-9,
        observe={"products": products},
    )
    exact = closed_form(trajectory.ts[:, None], targets[None], start[None])
    np.testing.assert_allclose(
        trajectory.observables["products"], exact, rtol=1e-7, atol=0
    )


def test_order_against_the_closed_form(modes):
    # Of one solver; the orders of the others are those of the projected ones below.
    problem, network, targets, start = modes
    solver = diffrax.Bosh3()
    hs = np.array([1 / 8, 1 / 16, 1 / 32, 1 / 64])
    exact = closed_form(1.0, targets, start)
    errors = []
    for h in hs:
        final = gf.solve(
            problem,
            gf.GradientFlow(),
            network,
            1.0,
            ts=[1.0],
            solver=solver,
            controller=diffrax.ConstantStepSize(),
            dt0=h,
            observe={},
        ).final
        errors.append(jnp.linalg.norm(products(problem, final) - exact))
    assert -0.25 < fitted_order(hs, errors) - SOLVERS[solver] < 1


@pytest.fixture(scope="module")
def dense_problem():
    inputs = jax.random.normal(jax.random.key(1), (8, 4))
    labels = jnp.sign(jnp.sin(3 * inputs[:, 0]) + inputs[:, 1])
    return gf.Problem(gf.Dataset(inputs, labels), gf.LogisticLoss())


def scipy_reference(problem, flow, network, t1):
    flat, unravel = jax.flatten_util.ravel_pytree(flow.init(network))

    @jax.jit
    def field(y):
        velocity = flow.vector_field(0.0, unravel(y), problem, network)
        return jax.flatten_util.ravel_pytree(velocity)[0]

    solution = solve_ivp(
        lambda t, y: field(y),
        (0, t1),
        np.asarray(flat),
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
    )
    assert solution.success
    end = jnp.asarray(solution.y[:, -1])
    return jax.jit(lambda y: flow.to_network(unravel(y), network))(end)


@pytest.fixture(scope="module")
def projected(dense_problem):
    """A flow on spheres, a network, and where it is taken to."""
    flow = gf.LagrangeFlow(0.1)
    network = gf.Dense(
        (4, 5, 3, 1), key=jax.random.key(7), activation=gf.Identity(), norm=1.0
    )
    return flow, network, scipy_reference(dense_problem, flow, network, 1.0)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_projection_keeps_the_order(dense_problem, projected, solver):
    flow, network, reference = projected
    hs = np.array([1 / 8, 1 / 16, 1 / 32, 1 / 64])
    errors = []
    for h in hs:
        trajectory = gf.solve(
            dense_problem,
            flow,
            network,
            1.0,
            ts=[1.0],
            solver=solver,
            controller=diffrax.ConstantStepSize(),
            dt0=h,
            observe={},
        )
        errors.append(relative_distance(trajectory.final, reference))
    # Tsit5's leading error is so small that the next one, of order 6, still shows.
    assert -0.25 < fitted_order(hs, errors) - SOLVERS[solver] < 1


FLOWS = [
    gf.GradientFlow(0.1),
    gf.LagrangeFlow(0.1),
    gf.LagrangeFlow(0.1, all_norms=True),
    gf.WeightNormFlow(0.1),
]


@pytest.fixture(scope="module")
def smooth_network():
    return gf.Dense(
        (4, 5, 3, 1), key=jax.random.key(8), activation=gf.ReLU(0.3), norm=1.2
    )


@pytest.mark.parametrize("flow", FLOWS, ids=repr)
def test_solution_and_descent_against_scipy(dense_problem, smooth_network, flow):
    reference = scipy_reference(dense_problem, flow, smooth_network, 2.0)

    def distance(trajectory):
        return relative_distance(trajectory.final, reference)

    rough, fine = (
        distance(
            gf.solve(dense_problem, flow, smooth_network, 2.0, rtol=rtol, observe={})
        )
        for rtol in (1e-4, 1e-9)
    )
    assert rough < 1e-3
    assert fine < 1e-7

    # Gradient descent approaches the flow linearly in its step.
    steps = np.array([50, 100, 200, 400, 800])
    distances = [
        distance(
            gf.descend(
                dense_problem,
                2.0 / n,
                smooth_network,
                int(n),
                flow=flow,
                save_steps=[n],
                observe={},
            )
        )
        for n in steps
    ]
    assert abs(fitted_order(2.0 / steps, distances) - 1) < 0.05


def test_the_same_flow_in_two_coordinates(dense_problem, smooth_network):
    one, other = (
        gf.solve(dense_problem, flow, smooth_network, 2.0, rtol=1e-9, observe={})
        for flow in (gf.GradientFlow(0.1), gf.PolarGradientFlow(0.1))
    )
    distances = jax.vmap(relative_distance)(one.networks, other.networks)
    assert jnp.max(distances) < 1e-7


def test_unit_weight_norm_is_the_lagrange_flow(dense_problem, smooth_network):
    one, other, third = (
        gf.solve(dense_problem, flow, smooth_network, 2.0, rtol=1e-8, observe={}).final
        for flow in (
            gf.LagrangeFlow(0.1),
            gf.WeightNormFlow(0.1, all_norms=False),
            gf.WeightNormFlow(0.1, all_norms=False, v_norm=2.0),
        )
    )
    assert relative_distance(one, other) < 1e-7
    # With longer v the directions are slower: another path.
    assert relative_distance(one, third) > 1e-3


def test_equilibrium_of_the_scale(dense_problem, smooth_network):
    problem = gf.Problem(dense_problem.dataset, gf.SquareLoss())
    trajectory = gf.solve(
        problem,
        gf.LagrangeFlow(0.5),
        smooth_network,
        200.0,
        rtol=1e-6,
        observe={},
        until=gf.Stationary(1e-5),
    )
    assert trajectory.result == gf.RESULTS.event_occurred

    @eqx.filter_jit
    def at_the_end(network):
        rho_eq = gf.analysis.rho_eq(problem, network, 0.5)
        residual = gf.analysis.stationarity_residual(problem, network)
        return jnp.prod(network.norms) / rho_eq, jnp.max(residual)

    ratio, residual = at_the_end(trajectory.final)
    assert abs(ratio - 1) < 1e-5
    assert residual < 1e-3
