"""Flows with a clock: the same path, to where plain time does not get."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types

CLOCKS = {
    "loss": (gf.LossTime, 8.0),
    "length": (gf.ArcLength, 4.0),
    "log_rho": (gf.LogRho, 1.5),
    "log_time": (gf.LogTime, 2.0),
}
LOSSES = {
    "exponential": gf.ExponentialLoss(),
    "logistic": gf.LogisticLoss(),
    "mean": gf.LogisticLoss("mean"),
}


def digits_problem(per_class, loss):
    return gf.Problem(gf.datasets.digits(per_class=per_class), loss)


def log_loss(problem, network):
    return problem.log_value(network)


def smallest_margin(problem, network):
    return jnp.min(problem.margins(network))


def rho(problem, network):
    del problem
    return jnp.prod(network.norms)


def linear(key, norm=1.0):
    return gf.Dense((65, 1), key=key, activation=gf.Identity(), norm=norm)


def scalar_network(layers, scale):
    """One weight a layer, all equal, whose product is `scale`."""
    weight = jnp.full((1, 1), scale ** (1 / layers))
    return gf.Dense.from_weights((weight,) * layers, activation=gf.Identity())


def one_sample(loss=None):
    dataset = gf.Dataset(jnp.ones((1, 1)), jnp.ones(1))
    return gf.Problem(dataset, loss or gf.ExponentialLoss())


# The path.


@pytest.mark.parametrize(
    "clock, loss",
    [*((clock, "logistic") for clock in CLOCKS), ("loss", "exponential")]
    + [("log_rho", "mean")],
)
def test_field_is_the_plain_one_at_another_pace(clock, loss):
    """The velocity of a clock over its pace, and the growth of its time."""
    problem = digits_problem(3, LOSSES[loss])
    network = gf.Dense((65, 4, 1), key=jax.random.key(1), activation=gf.ReLU(0.1))
    plain = gf.LagrangeFlow(weight_decay=0.3, all_norms=True)
    flow = CLOCKS[clock][0](plain)
    state = flow.init(network)
    state = dataclasses.replace(state, time_times_objective=jnp.asarray(0.7))
    t = 0.4

    @jax.jit
    def fields(state):
        return (
            flow.vector_field(t, state, problem, network),
            plain.vector_field(0.0, state.inner, problem, network),
        )

    clocked, velocity = fields(state)
    value = problem.value(network)
    weights = network.weights

    def moved(h):
        return plain.weights(
            jax.tree.map(lambda s, v: s + h * v, state.inner, velocity)
        )

    h = 1e-5
    speed = [(a - b) / (2 * h) for a, b in zip(moved(h), moved(-h), strict=True)]
    outputs = problem.outputs(network)
    slopes = problem.slopes(outputs)
    paces = {
        "loss": value,
        "length": jnp.sqrt(sum(jnp.sum(s**2) for s in speed)),
        "log_rho": jnp.sum(jnp.abs(slopes * outputs))
        * sum(1 / jnp.sum(w**2) for w in weights),
        "log_time": jnp.exp(-t),
    }
    for a, b in zip(
        jax.tree.leaves(clocked.inner), jax.tree.leaves(velocity), strict=True
    ):
        np.testing.assert_allclose(a, b / paces[clock], rtol=1e-7, atol=1e-9)

    def objective_at(h):
        at_h = network.with_weights(moved(h))
        return problem.value(at_h) + 0.3 * jnp.sum(at_h.norms**2)

    growth = (objective_at(h) - objective_at(-h)) / (2 * h)
    # d(t J)/dt, with t = 0.7 / J.
    objective = objective_at(0)
    expected = (objective + 0.7 / objective * growth) / paces[clock]
    np.testing.assert_allclose(clocked.time_times_objective, expected, rtol=1e-6)


# Of the others the times of growth are known, below.
@pytest.mark.parametrize("clock", ["loss", "length"])
def test_same_path_and_time_as_without_a_clock(clock):
    problem = digits_problem(10, gf.LogisticLoss())
    network = gf.Dense(
        (65, 6, 1), key=jax.random.key(2), activation=gf.ReLU(0.1), norm=0.8
    )
    make, t1 = CLOCKS[clock]
    run = gf.solve(
        problem,
        make(gf.GradientFlow()),
        network,
        t1,
        ts=np.linspace(0, t1, 6),
        rtol=1e-7,
        observe={"rho": rho},
    )
    times = np.exp(np.asarray(run.log_ts))
    assert times[0] == 0
    plain = gf.solve(
        problem,
        gf.GradientFlow(),
        network,
        times[-1],
        ts=times,
        rtol=1e-7,
        observe={"rho": rho},
    )
    np.testing.assert_allclose(plain.log_ts[1:], np.log(times[1:]))
    assert run.observables["rho"][-1] > 1.1 * run.observables["rho"][0]
    for i in range(6):
        distance = gf.analysis.relative_distance(run[i], plain[i])
        assert distance < 2e-6


def test_time_of_equal_scale():
    """When a scale is reached, by the clock and in plain time."""
    clock, t1 = gf.LogRho, 5.0
    problem = digits_problem(10, gf.ExponentialLoss())
    network = gf.Dense(
        (65, 6, 1), key=jax.random.key(2), activation=gf.ReLU(0.1), norm=0.8
    )

    def rate(problem, network):
        """Of log rho."""
        gradient = problem.gradient(network)
        return sum(
            -jnp.sum(g * w) / jnp.sum(w**2)
            for g, w in zip(gradient, network.weights, strict=True)
        )

    options = {"rtol": 1e-7, "observe": {"rho": rho, "rate": rate}}
    ts = np.linspace(t1 / 6, t1, 6)
    run = gf.solve(problem, clock(gf.GradientFlow()), network, t1, ts=ts, **options)
    times = np.exp(np.asarray(run.log_ts))
    assert times[-1] > 10
    plain = gf.solve(
        problem, gf.GradientFlow(), network, times[-1], ts=times, **options
    )
    late = np.log(run.observables["rho"] / plain.observables["rho"])
    late /= np.asarray(plain.observables["rate"]) * times
    error = late / np.maximum(np.abs(np.log(times)), 1)
    assert np.max(np.abs(error)) < 1e-6


def test_log_time_is_that_of_the_clock():
    """What is integrated beside the state against what this clock shows."""
    problem = digits_problem(10, gf.ExponentialLoss())
    run = gf.solve(
        problem,
        gf.LogTime(gf.GradientFlow()),
        linear(jax.random.key(3)),
        1e5,
        ts=[1e-3, 1.0, 30.0, 1e3, 1e5],
        rtol=1e-8,
        observe={},
    )
    ts = np.asarray(run.ts)
    expected = ts + np.log(-np.expm1(-ts))
    np.testing.assert_allclose(run.log_ts, expected, rtol=1e-6, atol=1e-5)


def test_log_time_goes_on_where_the_loss_underflows():
    options = {"rtol": 1e-8, "observe": {}}
    start = scalar_network(1, 0.5)
    run = gf.solve(one_sample(), gf.LossTime(gf.GradientFlow()), start, 2e3, **options)
    assert one_sample().value(run.final) == 0
    start = jnp.logaddexp(0, run.log_ts[-1])
    clock = gf.LogTime(gf.GradientFlow())
    rest = gf.solve(
        one_sample(), clock, run.final, 1e4, t0=start, ts=[start, 1e4], **options
    )
    np.testing.assert_allclose(rest.log_ts[0], run.log_ts[-1], rtol=1e-12)
    expected = gf.analysis.rho_of_log_time(1e4, 0.5)
    np.testing.assert_allclose(rho(None, rest.final), expected, rtol=1e-7)


# To infinity.


@pytest.mark.parametrize(
    "flow, law", [(gf.LagrangeFlow(all_norms=True), 3), (gf.LagrangeFlow(), 1)]
)
def test_closed_form_of_growth(flow, law):
    """Over 1,000 decades of time. One norm grows as that of a single layer does."""
    log_ts = np.geomspace(1.0, 2303.0, 9)
    run = gf.solve(
        one_sample(),
        gf.LogTime(flow),
        scalar_network(3, 0.5),
        log_ts[-1],
        ts=log_ts,
        rtol=1e-9,
        observe={"rho": rho},
    )
    expected = [
        gf.analysis.rho_of_log_time(t, 0.5, layers=law)
        for t in log_ts + np.log(-np.expm1(-log_ts))
    ]
    np.testing.assert_allclose(run.observables["rho"], expected, rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
def test_time_of_growth(layers):
    """The other way round: the time at which a scale is reached."""
    run = gf.solve(
        one_sample(),
        gf.LogRho(gf.GradientFlow()),
        scalar_network(layers, 0.5),
        12.0,
        ts=np.linspace(1, 12, 9),
        rtol=1e-8,
        observe={"rho": rho},
    )
    np.testing.assert_allclose(run.observables["rho"], 0.5 * np.exp(run.ts), rtol=1e-6)
    expected = [
        gf.analysis.log_time_of_rho(r, 0.5, layers=layers)
        for r in run.observables["rho"]
    ]
    np.testing.assert_allclose(run.log_ts, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "loss, clock, t1",
    [
        (gf.ExponentialLoss(), gf.LogTime, 5.6e6),
        (gf.LogisticLoss("mean"), gf.LossTime, 2e8),
    ],
)
def test_linear_network_becomes_the_support_vector_machine(loss, clock, t1):
    problem = digits_problem(10, loss)
    svm = gf.analysis.hard_margin_svm(problem.dataset)
    for seed, norm in ((0, 1e-3), (1, 1.0), (2, 50.0)):
        run = gf.solve(
            problem,
            clock(gf.GradientFlow()),
            linear(jax.random.key(seed), norm),
            t1,
            ts=[t1],
            observe={"log_loss": log_loss, "margin": smallest_margin},
        )
        assert run.observables["log_loss"][-1] / np.log(10) < -1e6
        gap = 1 - run.observables["margin"][-1] / svm.margin
        assert 0 < gap < 1e-7
        direction = run.final.weights[0][0] / run.final.norms[0]
        assert np.linalg.norm(direction - svm.direction) < 1e-5


@pytest.mark.parametrize(
    "flow, log_t",
    [(gf.GradientFlow(), 500.0), (gf.LagrangeFlow(), 40.0)],
    ids=["gradient", "lagrange"],
)
def test_smoothed_margin_never_decreases(flow, log_t):
    problem = digits_problem(5, gf.LogisticLoss())
    network = gf.Dense((65, 8, 1), key=jax.random.key(4), norm=1.0)
    run = gf.solve(
        problem,
        gf.LogTime(flow),
        network,
        log_t,
        ts=np.linspace(20, log_t, 25),
        rtol=1e-4,
        observe={
            "log_loss": log_loss,
            "smoothed": gf.analysis.smoothed_margin,
            "margin": smallest_margin,
        },
    )
    smoothed, margin = run.observables["smoothed"], run.observables["margin"]
    assert run.observables["log_loss"][-1] < -0.8 * log_t
    assert np.all(np.diff(smoothed) > -1e-6 * smoothed[-1])
    assert np.all(smoothed <= margin)


def test_classes_to_infinity():
    dataset = gf.datasets.digits((0, 1, 2), per_class=5)
    problem = gf.Problem(dataset, gf.CrossEntropyLoss())
    network = gf.Dense((65, 8, 3), key=jax.random.key(5), norm=1.0)
    run = gf.solve(
        problem,
        gf.LogRho(gf.GradientFlow()),
        network,
        9.0,
        rtol=1e-3,
        observe={"log_loss": log_loss, "smoothed": gf.analysis.smoothed_margin},
    )
    assert run.observables["log_loss"][-1] < -1000
    late = run.observables["smoothed"][run.observables["log_loss"] < 0]
    assert len(late) > 10
    assert np.all(np.diff(late) > -1e-6 * late[-1])


# With weight decay.


@pytest.mark.parametrize("clock", ["log_rho", "length"])
def test_equilibrium_of_the_scale(clock):
    problem = digits_problem(10, gf.ExponentialLoss())
    decay = 1e-3
    run = gf.solve(
        problem,
        CLOCKS[clock][0](gf.LagrangeFlow(weight_decay=decay)),
        linear(jax.random.key(6)),
        {"length": 100.0, "log_rho": 30.0}[clock],
        ts=[0.0],
        rtol=1e-6,
        observe={},
    )
    expected = gf.analysis.rho_eq(problem, run.final, decay)
    np.testing.assert_allclose(rho(problem, run.final), expected, rtol=1e-6)
    names = {"length": gf.RESULTS.at_rest, "log_rho": gf.RESULTS.successful}
    assert run.result == names[clock]


def test_equilibrium_of_two_layers():
    """Of all norms, and of the directions: each layer is the sum of the samples'
    gradients that the slopes make (M112 59)."""
    problem = digits_problem(5, gf.ExponentialLoss())
    network = gf.Dense(
        (65, 8, 1), key=jax.random.key(4), norm=1.0, activation=gf.ReLU(1e-2)
    )
    run = gf.solve(
        problem,
        gf.LogTime(gf.GradientFlow(1e-3)),
        network,
        1e5,
        ts=[0.0],
        rtol=1e-5,
        observe={},
    )
    assert run.result == gf.RESULTS.at_rest
    expected = gf.analysis.rho_eq(problem, run.final, 1e-3, num_norms=2)
    np.testing.assert_allclose(rho(problem, run.final), expected, rtol=1e-6)
    np.testing.assert_allclose(*run.final.norms, rtol=1e-6)
    residual = gf.analysis.representation_residual(problem, run.final)
    assert np.all(residual < 1e-6) and expected > 10


def test_less_decay_comes_nearer_to_the_largest_margin():
    problem = digits_problem(5, gf.ExponentialLoss())
    svm = gf.analysis.hard_margin_svm(problem.dataset)
    distances = []
    for decay in (1e-2, 1e-60):
        run = gf.solve(
            problem,
            gf.LogTime(gf.LagrangeFlow(weight_decay=decay)),
            linear(jax.random.key(7)),
            1e5,
            ts=[0.0],
            observe={},
        )
        assert run.result == gf.RESULTS.at_rest
        direction = run.final.weights[0][0] / run.final.norms[0]
        distances.append(np.linalg.norm(direction - svm.direction))
    assert distances[1] < distances[0] / 25
    assert distances[1] < 0.03


@pytest.mark.parametrize(
    "clock, t1", [(gf.LogTime, np.log(6.0)), (gf.ArcLength, 950.0)]
)
def test_decay_from_where_the_loss_underflows(clock, t1):
    r"""$\dot w = -w$ up to $e^{-w}$, from a loss of $e^{-1000}$."""
    run = gf.solve(
        one_sample(),
        clock(gf.GradientFlow(weight_decay=0.5)),
        scalar_network(1, 1e3),
        t1,
        ts=[t1],
        rtol=1e-7,
        observe={"rho": rho},
    )
    t = np.exp(run.log_ts[-1])
    assert 2 < t < 6
    np.testing.assert_allclose(run.observables["rho"][-1], 1e3 * np.exp(-t), rtol=1e-4)


# Paths that do not lead to infinity.


def solve_named(problem, clock, network):
    with pytest.raises(gf.SolveError) as caught:
        gf.solve(problem, clock[0](gf.GradientFlow()), network, clock[1])
    return caught.value.trajectory.result


def test_label_error():
    inputs = jnp.asarray([[1.0, 0.2], [1.0, -0.1], [0.9, 0.1], [1.0, 0.05]])
    inputs = inputs / jnp.linalg.norm(inputs, axis=1, keepdims=True)
    dataset = gf.Dataset(inputs, jnp.asarray([1.0, 1.0, -1.0, 1.0]))
    problem = gf.Problem(dataset, gf.LogisticLoss())
    network = gf.Dense((2, 1), key=jax.random.key(8), activation=gf.Identity())
    assert solve_named(problem, (gf.LossTime, 1e6), network) == gf.RESULTS.positive_loss


def test_dead_network():
    network = gf.Dense((65, 4, 1), key=jax.random.key(9))
    first, last = network.weights
    dead = network.with_weights((-jnp.abs(first), last))
    problem = digits_problem(3, gf.ExponentialLoss())
    assert solve_named(problem, (gf.LogRho, 1.5), dead) == gf.RESULTS.dead_network


def test_decayed_to_nothing():
    """At rest, and not dead."""
    run = gf.solve(
        digits_problem(3, gf.ExponentialLoss()),
        gf.LogTime(gf.GradientFlow(20.0)),
        gf.Dense((65, 4, 1), key=jax.random.key(9), norm=1e-150),
        50.0,
        ts=[0.0],
        observe={},
    )
    assert run.result == gf.RESULTS.at_rest
    assert run.final.norms[0] < 1e-150


def test_clock_of_a_clock(unchecked_types):
    with pytest.raises(ValueError, match="`flow` has a clock"):
        gf.LogTime(gf.LossTime(gf.GradientFlow()))
    with pytest.raises(ValueError, match="`flow`"):
        gf.LogTime(gf.GradientFlow)


# Around.


def test_stationarity_where_the_loss_underflows():
    """It does not depend on the scale of a network of one layer."""
    problem = digits_problem(5, gf.ExponentialLoss())
    network = linear(jax.random.key(10))
    run = gf.solve(
        problem,
        gf.LossTime(gf.GradientFlow()),
        network,
        1e7,
        ts=[1e3, 1e7],
        observe={"stationarity": gf.Stationarity(), "loss": gf.Problem.value},
    )
    early, late = run.observables["stationarity"]
    assert run.observables["loss"][-1] == 0
    assert 0.1 < late / early < 10


def test_sharpness_and_hessian_are_those_without_a_clock():
    problem = digits_problem(3, gf.LogisticLoss())
    network = gf.Dense((65, 1), key=jax.random.key(11), activation=gf.Identity())
    plain = gf.GradientFlow(weight_decay=0.1)
    runs = [
        gf.solve(problem, flow, network, 1e-3, ts=[0.0], observe={"s": gf.Sharpness()})
        for flow in (plain, gf.LossTime(plain))
    ]
    np.testing.assert_allclose(*(run.observables["s"] for run in runs), rtol=1e-6)
    eigenvalues = [
        gf.analysis.hessian_eigenvalues(problem, network, flow=flow)
        for flow in (plain, gf.LossTime(plain))
    ]
    np.testing.assert_allclose(*eigenvalues, rtol=1e-10, atol=1e-12)


def test_descent_with_a_clock_is_normalised_descent():
    """In loss time gradient descent divides the gradient by the loss."""
    problem = digits_problem(5, gf.ExponentialLoss())
    network = linear(jax.random.key(12))
    run = gf.descend(problem, 0.1, network, 1, flow=gf.LossTime(gf.GradientFlow()))
    (gradient,) = problem.gradient(network)
    expected = network.weights[0] - 0.1 * gradient / problem.value(network)
    np.testing.assert_allclose(run.final.weights[0], expected, rtol=1e-12)
