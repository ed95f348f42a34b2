"""The flow that gradient descent of a finite step follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf
from cases import FLOWS, assert_close, network_of, problem_for
from cases import unchecked_types as unchecked_types
from small import network, problem

TIME = 0.5
STEPS = (16, 32, 64, 128)


def one_weight(start=-1.0, target=2.0):
    """L = (w - y)², with the slope 2 (w - y)."""
    data = gf.Dataset(jnp.ones((1, 1)), jnp.asarray([target]), regression=True)
    network = gf.Dense.from_weights((jnp.full((1, 1), start),), gf.Identity())
    return gf.Problem(data, gf.SquareLoss()), network


def distances(flow, loss):
    """Of descents from their flow and from their modified flow, both integrated by
    SciPy."""
    prob, start = problem(loss=loss), network(activation=gf.ReLU(0.5))
    flat, unravel = jax.flatten_util.ravel_pytree(flow.init(start))

    @jax.jit
    def fields(step, y):
        modified = gf.ModifiedFlow(step, flow)
        states = [
            f.vector_field(0.0, unravel(y), prob, start) for f in (flow, modified)
        ]
        return jnp.stack([jax.flatten_util.ravel_pytree(s)[0] for s in states])

    def end(which, step):
        solution = solve_ivp(
            lambda t, y: np.asarray(fields(step, y))[which],
            (0, TIME),
            np.asarray(flat),
            method="DOP853",
            rtol=1e-8,
            atol=1e-10,
        )
        assert solution.success
        return flow.to_network(unravel(jnp.asarray(solution.y[:, -1])), start)

    exact = end(0, 1.0)
    pairs = []
    for steps in STEPS:
        h = TIME / steps
        last = gf.descend(
            prob, h, start, steps, flow=flow, save_steps=[steps], observe={}
        ).final
        pairs.append(
            [gf.analysis.relative_distance(last, e) for e in (exact, end(1, h))]
        )
    return np.array(pairs).T


@pytest.mark.parametrize("loss", [gf.SquareLoss(), gf.LogisticLoss()], ids=repr)
@pytest.mark.parametrize(
    "flow",
    [gf.GradientFlow(0.1), gf.LagrangeFlow(0.1), gf.WeightNormFlow(0.1, v_norm=1.5)],
    ids=lambda flow: type(flow).__name__,
)
def test_orders(flow, loss):
    plain, modified = distances(flow, loss)
    hs = TIME / np.array(STEPS)
    assert abs(np.polyfit(np.log(hs), np.log(plain), 1)[0] - 1) < 0.1
    assert abs(np.polyfit(np.log(hs), np.log(modified), 1)[0] - 2) < 0.1
    assert np.all(modified < 0.2 * plain)


@pytest.mark.parametrize("flow", ["polar", "lagrange_last_raw"])
def test_orders_in_other_coordinates(flow):
    plain, modified = distances(FLOWS[flow](0.1), gf.SquareLoss())
    hs = TIME / np.array(STEPS)
    assert abs(np.polyfit(np.log(hs), np.log(plain), 1)[0] - 1) < 0.1
    assert abs(np.polyfit(np.log(hs), np.log(modified), 1)[0] - 2) < 0.1


@pytest.mark.parametrize("loss", ["square", "logistic", "cross_entropy"])
def test_field_is_the_gradient_of_the_modified_loss(loss):
    outputs, weight_decay, h = 3 if loss == "cross_entropy" else 1, 0.3, 0.05
    prob = problem_for("dense", outputs, loss)
    net = network_of("dense", 0.1, outputs)

    def total(weights):
        squares = sum(jnp.sum(w**2) for w in weights)
        return prob.value(net.with_weights(weights)) + weight_decay * squares

    def modified(weights):
        gradient = jax.grad(total)(weights)
        return total(weights) + h / 4 * sum(jnp.sum(g**2) for g in gradient)

    flow = gf.ModifiedFlow(h, gf.GradientFlow(weight_decay))
    field = jax.jit(lambda w: flow.vector_field(0.0, w, prob, net))(net.weights)
    assert_close(
        [-v for v in field], jax.jit(jax.grad(modified))(net.weights), rtol=1e-12
    )


def test_one_weight():
    """e = w - y is multiplied by 1 - 2h in each step, and decays at the rate 2 + 2h in
    the modified flow: -log(1 - 2h) / h to next order."""
    prob, start = one_weight()
    h, ts = 0.01, np.linspace(0, 2, 5)
    run = gf.solve(prob, gf.ModifiedFlow(h), start, 2.0, ts=ts, rtol=1e-10, observe={})
    found = np.asarray(run.networks.weights[0])[:, 0, 0] - 2
    np.testing.assert_allclose(found, -3 * np.exp(-(2 + 2 * h) * ts), rtol=1e-8)
    descent = -3 * (1 - 2 * h) ** np.round(ts / h)
    # The next term of the logarithm is 8h²/3.
    np.testing.assert_allclose(found / descent, np.exp(8 / 3 * h**2 * ts), rtol=2e-5)


def test_decay_that_depends_on_the_time():
    """One weight without a slope: w' = -λ w, so w'' = (λ² - λ') w. The step is taken
    with the λ at its beginning."""
    data = gf.Dataset(jnp.zeros((1, 1)), jnp.zeros(1), regression=True)
    prob = gf.Problem(data, gf.SquareLoss())
    start = gf.Dense.from_weights((jnp.full((1, 1), 3.0),), gf.Identity())
    flow = gf.ModifiedFlow(0.1, gf.HalpernFlow(gf.PowerDecay(1.0)))
    (field,) = flow.vector_field(1, start.weights, prob, start)
    decay, slope = 1 / 2, -1 / 4
    expected = -decay * 3 - 0.05 * (decay**2 - slope) * 3
    np.testing.assert_allclose(field, [[expected]], rtol=1e-14)


def test_tangent_to_the_spheres():
    flow = gf.ModifiedFlow(0.02, gf.LagrangeFlow(0.1))
    start = network(activation=gf.ReLU(0.5))
    state = flow.init(start)
    velocity = jax.jit(lambda s: flow.vector_field(0.0, s, problem(), start))(state)
    for v, u in zip(state.directions, velocity.directions, strict=True):
        assert abs(jnp.sum(v * u)) < 1e-13 * jnp.linalg.norm(u)


def test_what_is_not_allowed(unchecked_types):
    with pytest.raises(ValueError, match="`step` must be positive"):
        gf.ModifiedFlow(0.0)
    with pytest.raises(ValueError, match="`flow` must be a .*PhysicalFlow"):
        gf.ModifiedFlow(0.1, gf.LossTime(gf.GradientFlow()))
    with pytest.raises(ValueError, match="`flow` must be a .*PhysicalFlow"):
        gf.ModifiedFlow(0.1, gf.ModifiedFlow(0.1))
    with pytest.raises(ValueError, match="ModifiedFlow depends on the physical time"):
        gf.LogTime(gf.ModifiedFlow(0.1))
