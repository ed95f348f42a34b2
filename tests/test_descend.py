"""Gradient descent against loops written by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types
from small import OBSERVE, from_vector, loss, network, problem, rho, weights_of

DECAY = 0.1
RATE = 0.02
STEPS = 20
# The loops below know the exact rectifier.
EXACT = gf.ReLU()
# One object, so that what is compiled for it is found again.
SGD = optax.sgd(RATE)


def start():
    return network(activation=EXACT)


def descend(optimiser=RATE, steps=STEPS, **options):
    options = {"flow": gf.GradientFlow(DECAY), "observe": OBSERVE, **options}
    return gf.descend(problem(), optimiser, start(), steps, **options)


@pytest.fixture(scope="module")
def trajectory():
    return descend()


def total_loss(first, last):
    """The square loss of two layers, written out."""
    data = problem().dataset
    outputs = jnp.maximum(data.inputs @ first.T, 0) @ last.T
    return jnp.sum((outputs[:, 0] - data.labels) ** 2)


def descend_by_hand(steps):
    first, last = start().weights
    gradients = jax.jit(jax.grad(total_loss, argnums=(0, 1)))
    path = [(first, last)]
    for _ in range(steps):
        by_first, by_last = gradients(first, last)
        first = first - RATE * (by_first + 2 * DECAY * first)
        last = last - RATE * (by_last + 2 * DECAY * last)
        path.append((first, last))
    return path


def normalised_descent_by_hand(steps):
    first, last = start().weights
    scale = np.linalg.norm(first) * np.linalg.norm(last)
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    gradients = jax.jit(
        jax.grad(lambda scale, v, w: total_loss(v, scale * w), argnums=(0, 1, 2))
    )
    path = [(first, scale * last)]
    for _ in range(steps):
        by_scale, *by_directions = gradients(scale, first, last)
        scale = scale - RATE * (by_scale + 2 * DECAY * scale)
        stepped = []
        for v, g in zip((first, last), by_directions, strict=True):
            v = v - RATE * (g - v * np.sum(v * g))
            stepped.append(v / np.linalg.norm(v))
        first, last = stepped
        path.append((first, scale * last))
    return path


def assert_path(trajectory, path):
    for k in (0, 1):
        expected = np.stack([weights[k] for weights in path])
        np.testing.assert_allclose(
            trajectory.networks.weights[k], expected, rtol=1e-11, atol=1e-13
        )


def test_gradient_descent(trajectory):
    assert trajectory.result == gf.RESULTS.successful
    assert trajectory.stopped_by is None
    assert_path(trajectory, descend_by_hand(STEPS))
    np.testing.assert_allclose(trajectory.ts, RATE * np.arange(STEPS + 1), rtol=1e-14)
    np.testing.assert_array_equal(
        weights_of(trajectory.final), weights_of(trajectory[-1])
    )
    assert trajectory.stats == {"num_steps": STEPS, "num_gradients": STEPS}


def test_normalised_descent():
    trajectory = descend(flow=gf.LagrangeFlow(DECAY))
    assert_path(trajectory, normalised_descent_by_hand(STEPS))
    # For a long time.
    long = descend(
        flow=gf.LagrangeFlow(DECAY), steps=2000, save_steps=range(0, 2001, 100)
    )
    norms = np.linalg.norm(long.networks.weights[0], axis=(1, 2))
    assert np.max(np.abs(norms - 1)) <= 1e-12


def test_observables(trajectory):
    values = [total_loss(*trajectory[n].weights) for n in (0, 7, STEPS)]
    np.testing.assert_allclose(
        trajectory.observables["loss"][np.array([0, 7, STEPS])], values, rtol=1e-12
    )
    norms = [np.linalg.norm(w, axis=(1, 2)) for w in trajectory.networks.weights]
    np.testing.assert_allclose(
        trajectory.observables["rho"], norms[0] * norms[1], rtol=1e-12
    )


def test_without_networks_and_with_a_progress_bar(trajectory, capfd):
    bare = descend(save_networks=False, progress=True)
    jax.effects_barrier()
    captured = capfd.readouterr()
    assert "100.00%" in captured.err + captured.out
    assert bare.networks is None
    for name in OBSERVE:
        np.testing.assert_allclose(
            bare.observables[name], trajectory.observables[name], rtol=1e-13
        )
    np.testing.assert_allclose(
        weights_of(bare.final), weights_of(trajectory.final), rtol=1e-13
    )


def test_a_progress_bar_ends_with_the_run(capfd):
    """It is not drawn again for each of the points that are left."""
    stopped = descend(
        observe={}, save_networks=False, progress=True, until=gf.LossBelow(1e6)
    )
    jax.effects_barrier()
    assert len(stopped) == 1
    assert capfd.readouterr().err.count("\r") < STEPS / 2


def test_number_and_optimiser_are_the_same(trajectory):
    optax_sgd = descend(SGD)
    np.testing.assert_allclose(optax_sgd.ts, trajectory.ts, rtol=1e-14)
    np.testing.assert_allclose(
        weights_of(optax_sgd.networks),
        weights_of(trajectory.networks),
        rtol=1e-12,
        atol=1e-14,
    )


@pytest.mark.parametrize(
    "optimiser",
    [optax.adam(RATE), optax.sgd(RATE, momentum=0.9), optax.adamw(RATE)],
    ids=["adam", "momentum", "adamw"],
)
def test_optimisers(optimiser):
    trajectory = descend(optimiser, observe={}, save_networks=False)
    np.testing.assert_allclose(trajectory.ts, RATE * np.arange(STEPS + 1), rtol=1e-6)
    gradients = jax.jit(
        jax.grad(
            lambda w: total_loss(*w) + DECAY * sum(jnp.sum(x**2) for x in w),
        )
    )
    weights = start().weights
    state = optimiser.init(weights)
    for _ in range(STEPS):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradients(weights), state, weights)
        weights = optax.apply_updates(weights, updates)
    np.testing.assert_allclose(
        weights_of(trajectory.final),
        np.concatenate([np.ravel(w) for w in weights]),
        rtol=1e-9,
        atol=1e-11,
    )


def test_clock_can_be_set():
    slow = descend(SGD, learning_rate=1.0)
    np.testing.assert_array_equal(slow.ts, np.arange(STEPS + 1))


def test_default_saves():
    # All steps where there are few (above); otherwise 101 of them.
    trajectory = descend(steps=1000, observe={}, save_networks=False)
    np.testing.assert_allclose(trajectory.ts, RATE * np.arange(0, 1001, 10))


def test_save_steps(trajectory):
    some = descend(save_steps=[0, 3, 7])
    np.testing.assert_allclose(some.ts, RATE * np.array([0, 3, 7]), rtol=1e-14)
    np.testing.assert_allclose(
        weights_of(some.networks),
        weights_of(trajectory.networks)[np.array([0, 3, 7])],
        rtol=1e-13,
    )
    # The run goes on to its end.
    np.testing.assert_allclose(
        weights_of(some.final), weights_of(trajectory.final), rtol=1e-13
    )
    late = descend(save_steps=[5, 6, STEPS])
    np.testing.assert_allclose(late.ts, RATE * np.array([5, 6, STEPS]), rtol=1e-14)


class RhoAbove(eqx.Module):
    rho: float

    def __call__(self, problem, network):
        return rho(problem, network) > self.rho


def test_until(trajectory):
    threshold = 0.5 * float(
        trajectory.observables["rho"][8] + trajectory.observables["rho"][9]
    )
    stopped = descend(until=RhoAbove(threshold), save_steps=[0, 4, 15, 20])
    assert stopped.result == gf.RESULTS.event_occurred
    assert stopped.stopped_by.startswith("RhoAbove(")
    np.testing.assert_allclose(stopped.ts, RATE * np.array([0, 4, 9]), rtol=1e-14)
    assert stopped.stats["num_steps"] == 9
    np.testing.assert_allclose(
        weights_of(stopped.final), weights_of(trajectory[9]), rtol=1e-13
    )
    np.testing.assert_array_equal(weights_of(stopped[-1]), weights_of(stopped.final))


def test_until_met_at_the_start():
    stopped = descend(until=RhoAbove(0.0), save_steps=[0, 4, 15, 20])
    assert stopped.result == gf.RESULTS.event_occurred
    np.testing.assert_array_equal(stopped.ts, [0.0])
    assert stopped.stats["num_steps"] == 0


def test_stationary():
    stopped = gf.descend(
        problem(),
        0.02,
        network(),
        20_000,
        flow=gf.LagrangeFlow(1.0),
        until=gf.Stationary(1e-3),
        observe={"stationarity": gf.Stationarity()},
        save_networks=False,
    )
    assert stopped.stopped_by.startswith("Stationary(")
    stationarity = np.asarray(stopped.observables["stationarity"])
    assert stationarity[-1] <= 1e-3 and np.all(stationarity[:-1] > 1e-3)


def test_divergence_is_a_failure():
    with pytest.raises(gf.SolveError, match="nonfinite_state") as raised:
        descend(1e6)
    trajectory = raised.value.trajectory
    assert trajectory.result == gf.RESULTS.nonfinite_state
    steps = int(trajectory.stats["num_steps"])
    assert 1 <= steps < STEPS
    np.testing.assert_array_equal(trajectory.ts, 1e6 * np.arange(steps + 1))
    assert np.all(np.isfinite(weights_of(trajectory.networks)))
    assert np.all(np.isfinite(weights_of(trajectory.final)))
    assert "FAILED: nonfinite_state" in repr(trajectory)
    returned = descend(1e6, throw=False)
    np.testing.assert_array_equal(
        weights_of(returned.networks), weights_of(trajectory.networks)
    )
    assert returned.result == gf.RESULTS.nonfinite_state


def test_derivatives():
    like = start()

    def end(decay, weights):
        final = gf.descend(
            problem(),
            RATE,
            from_vector(weights, like),
            STEPS,
            flow=gf.LagrangeFlow(decay),
            observe=OBSERVE,
            save_steps=[STEPS],
        ).final
        return loss(problem(), final)

    decay, weights = jnp.asarray(DECAY), jnp.asarray(weights_of(like))
    by_decay, by_weights = jax.jit(jax.grad(end, argnums=(0, 1)))(decay, weights)
    h = 1e-6
    difference = (end(decay + h, weights) - end(decay - h, weights)) / (2 * h)
    np.testing.assert_allclose(by_decay, difference, rtol=1e-6)
    for direction in np.random.default_rng(0).normal(size=(3, weights.size)):
        forth, back = weights + h * direction, weights - h * direction
        difference = (end(decay, forth) - end(decay, back)) / (2 * h)
        np.testing.assert_allclose(by_weights @ direction, difference, rtol=1e-6)


# Arguments that do not fit.


def per_layer():
    return optax.multi_transform(
        {"fast": optax.sgd(0.1), "slow": optax.sgd(0.01)}, ("fast", "slow")
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("optimiser", {"optimiser": r}) for r in (0.0, -0.1, 0, np.nan, np.inf)),
        ("optimiser", {"optimiser": per_layer()}),
        *(
            ("learning_rate", {"optimiser": optax.sgd(0.1), "learning_rate": r})
            for r in (0.0, -0.1, float("nan"))
        ),
        ("learning_rate", {"optimiser": optax.sgd(0.0)}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": -1}),
        ("save_steps", {"save_steps": []}),
        ("save_steps", {"save_steps": [[0, 1]]}),
        ("save_steps", {"save_steps": 3}),
        ("save_steps", {"save_steps": [0, 2, 1]}),
        ("save_steps", {"save_steps": [0, 1, 1]}),
        ("save_steps", {"save_steps": [0.0, 1.0]}),
        ("save_steps", {"save_steps": [-1, 1]}),
        ("save_steps", {"save_steps": [0, STEPS + 1]}),
        ("until", {"until": 1.0}),
    ],
)
def test_bad_arguments(name, options):
    with pytest.raises(ValueError, match=f"`{name}`"):
        descend(**options)


def test_optimiser_that_needs_more_than_gradients():
    with pytest.raises(ValueError, match="`optimiser`"):
        jax.eval_shape(lambda: descend(optax.lbfgs()).ts)


def test_network_that_does_not_fit():
    with pytest.raises(ValueError, match="`network`"):
        gf.descend(problem(), 0.1, gf.Dense((3, 1), key=jax.random.key(0)), 1)


def test_clock_that_cannot_be_read(unchecked_types):
    prob, net = problem(), network()
    schedule = optax.linear_schedule(0.0, 0.1, 5)
    warm_up = optax.sgd(schedule)
    with pytest.raises(ValueError, match="warms up from 0.*`learning_rate`"):
        gf.descend(prob, warm_up, net, 10)
    for wrong, message in ((schedule, "schedule belongs"), (np.ones(2), "single")):
        with pytest.raises(ValueError, match=f"`learning_rate`.*{message}"):
            gf.descend(prob, warm_up, net, 10, learning_rate=wrong)
