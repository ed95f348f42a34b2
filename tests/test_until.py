"""Conditions that end a run."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from small import (
    OBSERVE,
    inseparable,
    loss,
    network,
    outputs,
    problem,
    rho,
    weights_of,
)

T1 = 3.0
FLOW = gf.LagrangeFlow(0.1)
# Of the inseparable data, so that not all training errors vanish.
PROBLEM = gf.Problem(inseparable(), gf.SquareLoss())


class RhoAbove(eqx.Module):
    """A user's own condition."""

    rho: float

    def __call__(self, problem, network):
        return rho(problem, network) > self.rho


def margin_min(problem, network):
    return jnp.min(problem.margins(network))


def accuracy(problem, network):
    return problem.accuracy(network)


OBSERVED = OBSERVE | {
    "margin_min": margin_min,
    "accuracy": accuracy,
    "stationarity": gf.Stationarity(),
}


def solve(where=PROBLEM, *, stationary=0.0, margin=2.0, loss=-1.0, rho=1e9, **options):
    """With one condition of each kind, none of which is met unless asked."""
    conditions = [
        gf.Stationary(stationary),
        gf.MarginAbove(margin),
        gf.LossBelow(loss),
        RhoAbove(rho),
        gf.ZeroTrainingError(),
    ]
    return gf.solve(
        where,
        FLOW,
        network(),
        options.pop("t1", T1),
        rtol=1e-5,
        observe=OBSERVED,
        until=conditions,
        **options,
    )


@pytest.fixture(scope="module")
def unstopped():
    return solve()


def test_condition_never_met(unstopped):
    assert unstopped.result == gf.RESULTS.successful
    assert unstopped.stopped_by is None
    assert len(unstopped) == 101 and unstopped.ts[-1] == T1


# The steps are shorter than this.
STEP = 0.1

# Argument of `solve` -> the name in the report, and what holds from there on only.
STOPS = {
    "stationary": (0.1, "Stationary", lambda o: o["stationarity"] <= 0.1),
    "loss": (4.5, "LossBelow", lambda o: o["loss"] < 4.5),
    "rho": (1.2, "RhoAbove", lambda o: o["rho"] > 1.2),
    "margin": (-0.08, "MarginAbove", lambda o: o["margin_min"] > -0.08),
}


@pytest.mark.parametrize("argument", STOPS)
def test_stops_where_the_condition_is_first_met(argument, unstopped):
    threshold, name, is_met = STOPS[argument]
    trajectory = solve(**{argument: threshold})
    assert trajectory.result == gf.RESULTS.event_occurred
    assert trajectory.stopped_by.startswith(f"{name}(")
    assert f"stopped by {name}(" in repr(trajectory)
    # Conditions are looked at after each step: the last one may have met it earlier.
    ts, met = np.asarray(trajectory.ts), np.asarray(is_met(trajectory.observables))
    before = ts < ts[-1] - STEP
    assert met[-1] and not np.any(met[before]) and np.any(before)
    # The rows are those of the run that went on, and the end.
    reached = len(ts) - 1
    np.testing.assert_array_equal(ts[:-1], unstopped.ts[:reached])
    assert ts[-2] < ts[-1] <= unstopped.ts[reached]
    np.testing.assert_allclose(
        weights_of(trajectory.networks)[:-1],
        weights_of(unstopped.networks)[:reached],
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        weights_of(trajectory[-1]), weights_of(trajectory.final), rtol=1e-13
    )


def test_zero_training_error():
    # Whether this network learns these data is beside the point: they are its own.
    labels = jnp.sign(outputs(problem(), network(seed=5))[:, 0])
    learnable = gf.Problem(
        gf.Dataset(problem().dataset.inputs, labels), gf.SquareLoss()
    )
    trajectory = solve(learnable, t1=100.0)
    assert trajectory.result == gf.RESULTS.event_occurred
    assert trajectory.stopped_by == "ZeroTrainingError()"
    accuracies = np.asarray(trajectory.observables["accuracy"])
    assert accuracies[-1] == 1 and np.all(accuracies[:-1] < 1)
    assert trajectory.observables["margin_min"][-1] > 0


@pytest.mark.parametrize(
    ("thresholds", "name"),
    [
        ({"loss": 4.5, "rho": 1.9}, "LossBelow"),
        ({"loss": 4.0, "rho": 1.05}, "RhoAbove"),
    ],
)
def test_first_of_several_is_named(thresholds, name):
    trajectory = solve(**thresholds)
    assert trajectory.stopped_by.startswith(f"{name}(")
    values = trajectory.observables
    assert (values["loss"][-1] < thresholds["loss"]) == (name == "LossBelow")
    assert (values["rho"][-1] > thresholds["rho"]) == (name == "RhoAbove")


def test_met_at_the_start():
    trajectory = solve(loss=1e9)
    assert trajectory.result == gf.RESULTS.event_occurred
    assert trajectory.stopped_by.startswith("LossBelow(")
    assert trajectory.ts[-1] <= 0.1  # at the start, or after the first step
    np.testing.assert_allclose(
        weights_of(trajectory[-1]), weights_of(trajectory.final), rtol=1e-13
    )


def test_stops_at_a_time_that_is_saved_anyway(unstopped):
    # The end of a run is saved once, even where it is one of the times asked for.
    stopped = solve(rho=1.2)
    end = float(stopped.ts[-1])
    ts = np.append(np.linspace(0, end, 51), np.linspace(end, T1, 51)[1:])
    again = solve(rho=1.2, ts=ts)
    np.testing.assert_array_equal(again.ts, ts[:51])
    np.testing.assert_allclose(
        weights_of(again.final), weights_of(stopped.final), rtol=1e-12
    )


def test_run_goes_on_from_where_it_stopped(unstopped):
    stopped = solve(rho=1.2)
    rest = gf.solve(
        PROBLEM,
        FLOW,
        stopped.final,
        T1,
        t0=stopped.ts[-1],
        rtol=1e-5,
        observe=OBSERVED,
        until=[
            gf.Stationary(0.0),
            gf.MarginAbove(2.0),
            gf.LossBelow(-1.0),
            RhoAbove(1e9),
            gf.ZeroTrainingError(),
        ],
    )
    np.testing.assert_allclose(
        weights_of(rest.final), weights_of(unstopped.final), rtol=1e-3, atol=1e-4
    )


# Conditions by themselves.


@pytest.mark.parametrize(
    ("condition", "argument"),
    [
        (lambda x: gf.Stationary(x), "tolerance"),
        (lambda x: gf.MarginAbove(x), "margin"),
        (lambda x: gf.LossBelow(x), "loss"),
    ],
    ids=["stationary", "margin", "loss"],
)
def test_bad_thresholds(condition, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        condition(float("nan"))


def test_bad_tolerance():
    with pytest.raises(ValueError, match="`tolerance`"):
        gf.Stationary(-1e-6)


def test_conditions_are_strict():
    value = loss(PROBLEM, network())
    assert not gf.LossBelow(value)(PROBLEM, network())
    assert gf.LossBelow(jnp.nextafter(value, jnp.inf))(PROBLEM, network())
    margin = margin_min(PROBLEM, network())
    assert not gf.MarginAbove(margin)(PROBLEM, network())
    assert gf.MarginAbove(jnp.nextafter(margin, -jnp.inf))(PROBLEM, network())


def small_loss(problem, network):
    return loss(problem, network) < 4.5


@pytest.mark.parametrize("one", [small_loss, [small_loss], (small_loss,)])
def test_single_condition_in_a_descent(one):
    trajectory = gf.descend(PROBLEM, 0.01, network(), 200, observe=OBSERVE, until=one)
    assert trajectory.result == gf.RESULTS.event_occurred
    assert trajectory.stopped_by == "small_loss"
    values = np.asarray(trajectory.observables["loss"])
    assert values[-1] < 4.5 and np.all(values[:-1] >= 4.5)
    assert len(trajectory) > 1
