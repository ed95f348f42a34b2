"""Runs that cannot arrive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from gradflow._solver.outlook import first_outlook


def last_step(costs, *, end=1e6):
    """The number of steps, one long and of costs per unit of time, until there is no
    hope."""
    outlook = first_outlook(jnp.asarray(end), jnp.asarray(1e6))
    for i, cost in enumerate(costs):
        outlook = outlook.after(i + 1, jnp.asarray(cost))
        if outlook.is_hopeless():
            return i + 1
    return None


def test_hope():
    # 1e6 evaluations may be taken, 1e6 times the cost are needed.
    assert last_step(np.full(500, 2.0)) == 301
    assert last_step(np.full(500, 0.9)) is None
    assert last_step(np.geomspace(2.0, 4.0, 500)) == 301
    # It is long, but gets better. Later it does not.
    easing = np.geomspace(200.0, 20.0, 500)
    assert last_step(easing) is None
    for_good = np.append(easing, np.full(700, 20.0))
    assert 500 < last_step(for_good) < 1_200
    # A hard piece that is soon over.
    assert last_step([2.0] * 290 + [0.5] + [2.0] * 290) is None


def solve_in_loss_time(**options):
    """Two layers, whose norms grow exponentially."""
    return gf.solve(
        gf.Problem(gf.datasets.digits(per_class=2), gf.ExponentialLoss()),
        gf.LossTime(gf.GradientFlow()),
        gf.Dense((65, 4, 1), key=jax.random.key(0), norm=1.0),
        1e7,
        rtol=1e-3,
        max_steps=5_000,
        observe={"log_loss": gf.Problem.log_value},
        **options,
    )


def test_two_layers_in_loss_time():
    with pytest.raises(gf.SolveError, match="too_stiff.*LogTime") as caught:
        solve_in_loss_time()
    trajectory = caught.value.trajectory
    assert trajectory.result == gf.RESULTS.too_stiff
    assert trajectory.stats["num_steps"] < 5_000
    assert trajectory.stats["num_gradients"] < 100 * 5_000
    # It had come far.
    assert 0 < trajectory.ts[-1] < 1e7
    assert trajectory.observables["log_loss"][-1] < -1e4
    assert np.all(np.isfinite(trajectory.final.weights[0]))


def test_runs_that_stop_before():
    """`t1` is only a bound there."""
    run = solve_in_loss_time(
        until=lambda problem, network: problem.log_value(network) < -1e6
    )
    assert run.result == gf.RESULTS.event_occurred
