"""What the flows conserve, along solved trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf

RTOL = 1e-8


def teacher_data(num_samples=8, shape=(4,)):
    inputs = jax.random.normal(jax.random.key(1), (num_samples, *shape))
    teacher = jnp.sum(jnp.sin(3 * inputs), axis=tuple(range(1, inputs.ndim)))
    return gf.Dataset(inputs, jnp.sign(teacher))


NETWORKS = {
    "dense": gf.Dense(
        (4, 6, 5, 1), key=jax.random.key(2), activation=gf.ReLU(0.1), norm=(1, 2, 1.5)
    ),
    "linear": gf.Dense(
        (4, 3, 3, 1), key=jax.random.key(3), activation=gf.Identity(), norm=(1, 2, 1)
    ),
    "conv": gf.Conv(
        (1, 4, 4),
        (3,),
        key=jax.random.key(4),
        activation=gf.ReLU(0.1),
        norm=(1.0, 1.5),
    ),
    "diagonal": gf.Diagonal(4, 3, key=jax.random.key(5), activation=gf.ReLU(0.1)),
}


def squared_norms(problem, network):
    del problem
    return jnp.square(network.norms)


def matrix_balance(problem, network):
    del problem
    first, second, third = network.weights
    return jnp.stack(
        [second.T @ second - first @ first.T, third.T @ third - second @ second.T]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_differences_of_squared_norms(name):
    # Conserved without decay, and multiplied by exp(-4λt) with it (T3 18).
    network = NETWORKS[name]
    problem = gf.Problem(teacher_data(shape=network.in_shape), gf.LogisticLoss())
    for weight_decay in (0.0, 0.3):
        trajectory = gf.solve(
            problem,
            gf.GradientFlow(weight_decay),
            network,
            1.5,
            rtol=RTOL,
            observe={"squares": squared_norms},
        )
        squares = np.asarray(trajectory.observables["squares"])
        differences = squares[:, 1:] - squares[:, :1]
        decay = np.exp(-4 * weight_decay * np.asarray(trajectory.ts))[:, None]
        np.testing.assert_allclose(
            differences, decay * differences[0], atol=30 * RTOL * squares.max()
        )
        # The norms themselves do move, so that the test could fail.
        assert np.max(np.abs(squares - squares[0])) > 1e-2


def test_balance_of_deep_linear_networks():
    network = NETWORKS["linear"]
    problem = gf.Problem(teacher_data(), gf.SquareLoss())
    balance = gf.solve(
        problem,
        gf.GradientFlow(),
        network,
        1.5,
        rtol=RTOL,
        observe={"balance": matrix_balance},
    ).observables["balance"]
    np.testing.assert_allclose(
        balance, jnp.broadcast_to(balance[0], balance.shape), atol=1e-6
    )


def test_weight_norm_conserves_v():
    # The field itself, integrated by SciPy without any projection.
    flow = gf.WeightNormFlow(0.2, v_norm=1.7)
    network = NETWORKS["dense"]
    problem = gf.Problem(teacher_data(), gf.SquareLoss())
    flat, unravel = jax.flatten_util.ravel_pytree(flow.init(network))

    @jax.jit
    def field(y):
        velocity = flow.vector_field(0.0, unravel(y), problem, network)
        return jax.flatten_util.ravel_pytree(velocity)[0]

    solution = solve_ivp(
        lambda t, y: field(y), (0, 2.0), np.asarray(flat), rtol=1e-10, atol=1e-12
    )
    end = unravel(jnp.asarray(solution.y[:, -1]))
    for v in end.directions:
        np.testing.assert_allclose(jnp.linalg.norm(v), 1.7, rtol=1e-8)
    start = unravel(flat)
    assert jnp.linalg.norm(end.directions[0] - start.directions[0]) > 1e-2


@pytest.mark.parametrize(
    "flow",
    [
        gf.LagrangeFlow(0.1),
        gf.LagrangeFlow(0.1, spheres=gf.RowSpheres()),
        gf.WeightNormFlow(0.1, v_norm=0.5),
        gf.PolarGradientFlow(0.1),
    ],
    ids=repr,
)
def test_solved_trajectories_stay_on_the_spheres(flow):
    problem = gf.Problem(teacher_data(), gf.SquareLoss())
    trajectory = gf.solve(
        problem,
        flow,
        NETWORKS["dense"],
        1.0,
        rtol=1e-4,
        observe={"defect": gf.NormDefect()},
    )
    assert jnp.max(trajectory.observables["defect"]) < 1e-14
    # Each step does leave them, by no more than its error.
    assert 1e-14 < trajectory.stats["max_drift"] < 1e-3
