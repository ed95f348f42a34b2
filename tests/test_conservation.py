"""What the flows conserve, along solved trajectories."""

import functools

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


@functools.cache
def gradient_flow_of(name, weight_decay):
    """A trajectory, as its times and, for each layer, the weights at all of them."""
    network = NETWORKS[name]
    problem = gf.Problem(teacher_data(shape=network.in_shape), gf.LogisticLoss())
    trajectory = gf.solve(
        problem, gf.GradientFlow(weight_decay), network, 1.5, rtol=RTOL, observe={}
    )
    weights = [np.asarray(w) for w in trajectory.networks.weights]
    return np.asarray(trajectory.ts), weights


@pytest.mark.parametrize("name", NETWORKS)
def test_differences_of_squared_norms(name):
    # Conserved without decay, and multiplied by exp(-4λt) with it (T3 18).
    for weight_decay in (0.0, 0.3):
        ts, weights = gradient_flow_of(name, weight_decay)
        squares = np.stack(
            [np.sum(w.reshape(len(ts), -1) ** 2, axis=1) for w in weights], axis=1
        )
        differences = squares[:, 1:] - squares[:, :1]
        decay = np.exp(-4 * weight_decay * ts)[:, None]
        np.testing.assert_allclose(
            differences, decay * differences[0], atol=30 * RTOL * squares.max()
        )
        # The norms themselves do move, so that the test could fail.
        assert np.max(np.abs(squares - squares[0])) > 1e-2


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_balance_of_deep_linear_networks(weight_decay):
    ts, (first, second, third) = gradient_flow_of("linear", weight_decay)
    decay = np.exp(-4 * weight_decay * ts)[:, None, None]
    for below, above in ((first, second), (second, third)):
        balance = np.swapaxes(above, 1, 2) @ above - below @ np.swapaxes(below, 1, 2)
        np.testing.assert_allclose(balance, decay * balance[0], atol=1e-6)


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
        gf.LagrangeFlow(0.1, spheres=gf.RowSpheres()),
        gf.WeightNormFlow(0.1, v_norm=0.5),
    ],
    ids=repr,
)
def test_solved_trajectories_stay_on_the_spheres(flow):
    # Those with one unit sphere for each layer are looked at in `test_solve.py`.
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
