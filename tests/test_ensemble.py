"""Ensembles: each member as if it were alone, whatever the others do."""

import warnings

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import gradflow as gf
from small import OBSERVE, network, problem, weights_of

T1 = 2.0
RTOL = 1e-5
UNTIL = gf.LossBelow(2.5)
OPTIONS = {"rtol": RTOL, "observe": OBSERVE, "until": UNTIL}

# Two datasets, weight decays and starts; of the last start the loss overflows.
PROBLEMS = [problem(i % 2) for i in range(6)]
DECAYS = [0.0, 0.0, 0.1, 0.1, 1.0, 0.1]
STARTS = [network(1 + i // 2) for i in range(5)] + [network(1, norms=(1e90, 1e90))]
FLOWS = [gf.LagrangeFlow(decay) for decay in DECAYS]
FAILED = 5


@pytest.fixture(scope="module")
def alone():
    members = zip(PROBLEMS, FLOWS, STARTS, strict=True)
    return [gf.solve(*member, T1, throw=False, **OPTIONS) for member in members]


def solve_ensemble(**options):
    with pytest.warns(UserWarning, match=r"1 of 6 members failed: 5 \(nonfinite_state"):
        return gf.solve_ensemble(PROBLEMS, FLOWS, STARTS, T1, **OPTIONS, **options)


def assert_same(member, alone, tolerance):
    assert member.result == alone.result
    assert member.stopped_by == alone.stopped_by
    # A run that is stopped ends with a step, which rounding can turn into another one.
    rows = len(alone) - (alone.stopped_by is not None)
    assert len(member) == len(alone)
    np.testing.assert_array_equal(member.ts[:rows], alone.ts[:rows])
    for name in OBSERVE:
        np.testing.assert_allclose(
            member.observables[name][:rows],
            alone.observables[name][:rows],
            rtol=tolerance,
        )
    ours, theirs = weights_of(member.networks)[:rows], weights_of(alone.networks)[:rows]
    # Of the largest entries: some are so large that their squares overflow.
    distances, sizes = np.max(abs(ours - theirs), axis=1), np.max(abs(theirs), axis=1)
    assert np.all(distances <= tolerance * sizes)
    assert member.final.activation == alone.final.activation


def test_members_in_threads_are_as_alone(alone):
    ensemble = solve_ensemble(lanes=1, workers=2)
    assert len(ensemble) == 6
    stopped = [member.stopped_by is not None for member in alone]
    assert any(stopped) and not all(stopped)
    for member, one in zip(ensemble, alone, strict=True):
        assert_same(member, one, 1e-10)
        np.testing.assert_allclose(member.ts, one.ts, rtol=1e-10)
        assert member.stats.keys() == one.stats.keys()
        assert member.stats["num_steps"] == one.stats["num_steps"]
    assert len(ensemble[FAILED]) == 1


def test_members_in_lanes_are_as_alone(alone):
    """Fewer lanes than members, so that those that end are followed by others."""
    ensemble = solve_ensemble(lanes=3, workers=1)
    for member, one in zip(ensemble, alone, strict=True):
        assert_same(member, one, 10 * RTOL)


def test_table_and_printout(alone):
    ensemble = solve_ensemble(lanes=1, workers=1)
    assert ensemble.failed == (FAILED,)
    table = ensemble.table
    np.testing.assert_array_equal(table["flow.weight_decay"], DECAYS)
    np.testing.assert_array_equal(table["t_end"], [one.ts[-1] for one in alone])
    last = [one.observables["rho"][-1] for one in alone]
    np.testing.assert_allclose(table["rho"], last, rtol=1e-10)
    assert list(table["result"]).count("event_occurred") == sum(
        one.stopped_by is not None for one in alone
    )
    assert {"", "LossBelow(loss=2.5)"} == set(table["stopped_by"])
    text = repr(ensemble)
    assert "1 nonfinite_state (FAILED)" in text and "flow.weight_decay" in text
    with pytest.raises(ValueError, match="no column 'margin'"):
        ensemble.column("margin")
    with pytest.raises(ValueError, match="6 members"):
        ensemble.column([1.0])


def test_failures_can_be_raised():
    with pytest.raises(gf.SolveError, match=r"5 \(nonfinite_state\)") as raised:
        gf.solve_ensemble(
            PROBLEMS, FLOWS, STARTS, T1, lanes=1, workers=1, throw=True, **OPTIONS
        )
    assert len(raised.value.trajectory) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_loses_nothing_that_has_ended(workers):
    kept = {}

    def keep(member, trajectory):
        kept[member] = trajectory
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gf.solve_ensemble(
            PROBLEMS,
            FLOWS,
            STARTS,
            T1,
            lanes=1,
            workers=workers,
            on_end=keep,
            **OPTIONS,
        )
    # The other worker's segment, if there is one, is not cut off.
    assert 2 <= len(kept) <= 1 + workers
    assert all(np.all(np.isfinite(trajectory.ts)) for trajectory in kept.values())


RATES = [0.01, 0.02, 0.04, 1e3, 0.03]
STEPS = 40


def descend_ensemble(rates, **options):
    return gf.descend_ensemble(
        problem(), rates, network(), STEPS, observe=OBSERVE, until=UNTIL, **options
    )


@pytest.fixture(scope="module")
def descents():
    with pytest.warns(UserWarning, match="1 of 5"):
        return descend_ensemble(RATES, lanes=2, workers=1)


def test_descents(descents):
    for member, rate in zip(descents, RATES, strict=True):
        one = gf.descend(
            problem(),
            rate,
            network(),
            STEPS,
            observe=OBSERVE,
            until=UNTIL,
            throw=False,
        )
        assert member.stats["num_steps"] == one.stats["num_steps"]
        assert_same(member, one, 1e-10)
    assert {"successful", "event_occurred", "nonfinite_state"} == set(descents.results)
    np.testing.assert_array_equal(descents.table["optimiser"], RATES)


def test_more_lanes_than_members(descents):
    few = descend_ensemble(RATES[:2], lanes=8, workers=1)
    for member, one in zip(few, descents, strict=False):
        assert_same(member, one, 1e-10)


def test_figure(descents):
    axes = gf.plot.ensemble(descents, x="optimiser", y="loss", colour=[0, 0, 1, 1, 1])
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "optimiser"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["0", "1"]
    medians = [container.lines[0].get_xdata() for container in axes.containers]
    np.testing.assert_array_equal(medians[0], [0.01, 0.02])
    np.testing.assert_array_equal(medians[1], [0.03, 0.04])
    plt.close("all")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((problem(), FLOWS[0], network(), T1), "`problem`, or another"),
        ((problem(), [], network(), T1), "`flow` is empty"),
        ((problem(), FLOWS[:2], STARTS[:3], T1), "`network` has 3 .* `flow` has 2"),
        (
            (problem(), FLOWS[0], [network(), network(activation=gf.ReLU(0.2))], T1),
            "`network` may differ .* member 1 has",
        ),
        (
            ([problem(), problem(loss=gf.LogisticLoss())], FLOWS[0], network(), T1),
            "`problem` may differ",
        ),
        (
            (problem(), [gf.GradientFlow(), gf.LagrangeFlow()], network(), T1),
            "`flow` may differ",
        ),
    ],
)
def test_members_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        gf.solve_ensemble(*arguments, observe=OBSERVE)


def test_numbers_of_lanes_and_workers():
    for name in ("lanes", "workers"):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
            gf.solve_ensemble(problem(), FLOWS, network(), T1, **{name: 0})


def test_not_inside_of_transformations():
    def traced(decay):
        flows = [gf.LagrangeFlow(decay), gf.LagrangeFlow(0.1)]
        return gf.solve_ensemble(problem(), flows, network(), T1).column("rho")

    with pytest.raises(ValueError, match="being traced"), warnings.catch_warnings():
        jax.jit(traced)(jnp.asarray(0.1))
