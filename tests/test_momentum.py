"""The flow with momentum, against closed forms and mechanics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import gradflow as gf
from cases import unchecked_types as unchecked_types
from gradflow._observables import Point
from small import linear, network, problem, regression


@pytest.mark.parametrize("friction", [0.0, 0.6, 8.0])
def test_oscillator(friction):
    """Undamped, underdamped and overdamped, from rest."""
    run = gf.solve(
        regression([[1.5]], [1.0]),
        gf.MomentumFlow(friction),
        linear([[3.0]]),
        5.0,
        rtol=1e-8,
    )
    offset, square = 3 - 1 / 1.5, 2 * 1.5**2
    roots = np.roots([1, friction, square])
    ts = np.asarray(run.ts)
    modes = [np.exp(r * ts) / r for r in roots]
    x = offset * (modes[0] - modes[1]) / (1 / roots[0] - 1 / roots[1])
    w = np.asarray(run.networks.weights[0])[:, 0, 0]
    np.testing.assert_allclose(w, 1 / 1.5 + x.real, atol=1e-6)


def test_motion_on_a_circle():
    """That of a pendulum, whose mass moves on a spring, in polar coordinates."""
    friction, decay = 0.1, 0.05
    flow = gf.MomentumFlow(friction, gf.LagrangeFlow(decay))
    run = gf.solve(
        regression([[1.0, 0.0]], [1.0]), flow, linear([[-0.5, 1.2]]), 6.0, rtol=1e-9
    )

    def motion(t, state):
        rho, angle, rho_speed, angle_speed = state
        slope = 2 * (rho * np.cos(angle) - 1)
        return [
            rho_speed,
            angle_speed,
            -slope * np.cos(angle) - 2 * decay * rho - friction * rho_speed,
            slope * rho * np.sin(angle) - friction * angle_speed,
        ]

    start = [1.3, np.arctan2(1.2, -0.5), 0.0, 0.0]
    exact = solve_ivp(
        motion, (0, 6), start, t_eval=np.asarray(run.ts), rtol=1e-11, atol=1e-12
    )
    rho, angle, *_ = exact.y
    w = np.asarray(run.networks.weights[0])[:, 0]
    expected = np.stack([rho * np.cos(angle), rho * np.sin(angle)], axis=1)
    np.testing.assert_allclose(w, expected, atol=1e-7)
    assert np.max(run.observables["norm_defect"]) < 1e-12


@pytest.mark.parametrize(
    "flow", [gf.GradientFlow(0.1), gf.LagrangeFlow(0.1), gf.WeightNormFlow(0.1)]
)
def test_law_of_energy(flow):
    """J + |p|^2 / 2 falls by the friction's work, and by nothing else."""
    friction = 0.3
    motion = gf.MomentumFlow(friction, flow)
    prob, net = problem(), network()

    state = motion.project(motion.init(net))
    rng = np.random.default_rng(0)
    push = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), state.momentum)
    state = motion.project(gf.MomentumState(state.position, push))

    def energy(state):
        momentum = jnp.concatenate([p.ravel() for p in jax.tree.leaves(state.momentum)])
        loss = prob.value(motion.to_network(state, net))
        return loss + 0.1 * motion.penalty(state) + momentum @ momentum / 2, momentum

    velocity = motion.vector_field(0.0, state, prob, net)
    _, rate, momentum = jax.jvp(energy, (state,), (velocity,), has_aux=True)
    np.testing.assert_allclose(rate, -friction * momentum @ momentum, rtol=1e-12)
    # On the constraint set for good: its projection has the same velocity.
    along = jax.jvp(motion.project, (state,), (velocity,))[1]
    for a, b in zip(jax.tree.leaves(along), jax.tree.leaves(velocity), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_limit_of_descent_with_momentum():
    """At first order in the root of the step, n steps at the time n root(h)."""
    friction, t = 1.5, 2.0
    prob, net = problem(), network()
    exact = gf.solve(prob, gf.MomentumFlow(friction), net, t, rtol=1e-8, observe={})
    distances = []
    for steps in (100, 200, 400, 800, 1600):
        root = t / steps
        optimiser = optax.sgd(root**2, momentum=1 - friction * root)
        run = gf.descend(prob, optimiser, net, steps, learning_rate=root, observe={})
        distances.append(gf.analysis.relative_distance(run.final, exact.final))
    orders = np.log2(np.array(distances[:-1]) / np.array(distances[1:]))
    np.testing.assert_allclose(orders[1:], 1, atol=0.1)


def test_large_friction_is_the_gradient_flow():
    friction = 300.0
    prob, net = problem(), network()
    slow = gf.solve(
        prob, gf.MomentumFlow(friction), net, friction * 0.5, observe={}, rtol=1e-4
    )
    exact = gf.solve(prob, gf.GradientFlow(), net, 0.5, rtol=1e-7, observe={})
    assert gf.analysis.relative_distance(slow.final, exact.final) < 1e-3


def test_at_rest_neither_force_nor_speed():
    """The oscillator passes its minimum, where there is no force, again and again."""
    prob, start = regression([[1.5]], [1.0]), linear([[3.0]])
    run = gf.solve(prob, gf.MomentumFlow(0.3), start, 200.0, until=gf.Stationary(1e-3))
    assert run.stopped_by == "Stationary(tolerance=0.001)"
    # The amplitude decays at half the friction.
    assert run.ts[-1] > np.log(100) / 0.15
    np.testing.assert_allclose(run.final.weights[0], 1 / 1.5, rtol=1e-2)


def test_sharpness_is_that_of_the_landscape():
    flow, net = gf.GradientFlow(0.1), network()
    moving = gf.MomentumFlow(1.0, flow)
    ours, theirs = (
        gf.Sharpness()(Point(problem(), f, 0.0, f.init(net), net))
        for f in (moving, flow)
    )
    assert ours == theirs


def test_derivative_by_the_friction():
    def end(friction):
        run = gf.solve(
            regression([[1.5]], [1.0]),
            gf.MomentumFlow(friction),
            linear([[3.0]]),
            1.0,
            rtol=1e-8,
            observe={},
        )
        return run.final.weights[0][0, 0]

    slope = jax.grad(end)(0.6)
    difference = (end(0.6 + 1e-4) - end(0.6 - 1e-4)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-4)


def test_what_is_not_allowed(unchecked_types):
    with pytest.raises(ValueError, match="`friction` must not be negative"):
        gf.MomentumFlow(-0.1)
    with pytest.raises(ValueError, match="`flow` must be a `PhysicalFlow`"):
        gf.MomentumFlow(0.1, gf.MomentumFlow(0.1))
    with pytest.raises(ValueError, match="MomentumFlow depends on the physical time"):
        gf.LogTime(gf.MomentumFlow(0.1))
    with pytest.raises(ValueError, match="`flow`: gradient descent with momentum"):
        gf.compare(problem(), network(), 1.0, [0.1], flow=gf.MomentumFlow(0.1))
    with pytest.raises(ValueError, match="`flow`: the law of motion.*Euclidean"):
        gf.solve(
            problem(), gf.MomentumFlow(0.1, gf.PolarGradientFlow()), network(), 1.0
        )
