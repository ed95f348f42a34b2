"""Runs that cannot arrive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from gradflow._solver.outlook import first_outlook


def last_step(costs, *, step, end=1e6, max_steps=10_000):
    """The number of steps, of costs per unit of time, until there is no hope."""
    outlook = first_outlook(jnp.asarray(end))
    for i, cost in enumerate(costs):
        outlook = outlook.after(step * (i + 1), jnp.asarray(cost), max_steps)
        if outlook.is_hopeless():
            return i + 1
    return None


def test_hope():
    # 1e6 evaluations may be taken, 1e6 times the cost are needed.
    assert last_step(np.full(500, 2.0), step=1.0) == 301
    assert last_step(np.full(500, 0.9), step=1.0) is None
    assert last_step(np.geomspace(2.0, 4.0, 500), step=1.0) == 301
    # It is long, but gets better. Later it does not.
    easing = np.geomspace(200.0, 20.0, 500)
    assert last_step(easing, step=1.0) is None
    for_good = np.append(easing, np.full(700, 20.0))
    assert 500 < last_step(for_good, step=1.0) < 1_200
    # A hard piece that is soon over.
    assert last_step([2.0] * 290 + [0.5] + [2.0] * 290, step=1.0) is None
    # The steps that were taken are not there any more.
    assert last_step(np.full(10_000, 0.9), step=0.0) > 1_000


def test_two_layers_in_loss_time():
    """Their norms grow exponentially."""
    problem = gf.Problem(gf.datasets.digits(per_class=5), gf.ExponentialLoss())
    with pytest.raises(gf.SolveError, match="too_stiff.*LogTime") as caught:
        gf.solve(
            problem,
            gf.LossTime(gf.GradientFlow()),
            gf.Dense((65, 4, 1), key=jax.random.key(0), norm=1.0),
            1e4,
            rtol=1e-3,
            max_steps=5_000,
            observe={"log_loss": gf.Problem.log_value},
        )
    trajectory = caught.value.trajectory
    assert trajectory.result == gf.RESULTS.too_stiff
    assert trajectory.stats["num_steps"] < 5_000
    assert trajectory.stats["num_gradients"] < 100 * 5_000
    # It had come far.
    assert 0 < trajectory.ts[-1] < 1e4
    assert trajectory.observables["log_loss"][-1] < -1e4
    assert np.all(np.isfinite(trajectory.final.weights[0]))
