"""Sliding along kinks that are exact, `smoothing=0`, or narrower than the steps: a run
ends as `chattering` and not well."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from small import weights_of
from test_kinks import SIZE, SLIDING, one_unit, sliding_solution, two_samples

CONSTANT = diffrax.ConstantStepSize()
FLOORED = diffrax.PIDController(rtol=1e-4, atol=1e-6, dtmin=1e-6, force_dtmin=False)
METHODS = {
    "rkc": {},
    "tsit5": {"solver": diffrax.Tsit5()},
    "tsit5_constant": {"solver": diffrax.Tsit5(), "controller": CONSTANT, "dt0": 1e-3},
    "heun_floored": {"solver": diffrax.Heun(), "controller": FLOORED},
    "euler": {"solver": diffrax.Euler(), "controller": CONSTANT, "dt0": 1e-3},
}
methods = pytest.mark.parametrize("method", METHODS)

T1 = 1.5
# It comes to the kink at this time, after it has started off it.
ARRIVAL = 0.16
OFF = 0.05


def solve(start, problem=SLIDING, method="rkc", **options):
    return gf.solve(
        problem,
        gf.GradientFlow(),
        start,
        T1,
        **{"rtol": 1e-4, "observe": {}, "smoothing": 0, **METHODS[method], **options},
    )


@methods
def test_sliding_ends_soon(method):
    with pytest.raises(gf.SolveError, match="chattering.*`smoothing`") as raised:
        solve(one_unit(0.0, SIZE, SIZE), method=method)
    trajectory = raised.value.trajectory
    assert trajectory.result == gf.RESULTS.chattering
    assert "FAILED: chattering" in repr(trajectory)
    assert 20 <= trajectory.stats["num_accepted_steps"] <= 60
    assert 0 < trajectory.ts[-1] < T1
    np.testing.assert_allclose(
        weights_of(trajectory.final),
        sliding_solution(np.asarray(trajectory.ts[-1])),
        atol=3e-3,
    )
    # Not before the kink is reached.
    off = solve(one_unit(OFF, SIZE, SIZE), method=method, throw=False)
    assert off.result == gf.RESULTS.chattering
    assert ARRIVAL < off.ts[-1] < ARRIVAL + 0.1


def crossing_pair():
    """The unit goes through both samples' kinks: off the first, whose label is -1 and
    beyond which nothing holds it, and onto the second."""
    return two_samples(-1.0, 1.0, (-0.6, 0.8))


CROSSING = one_unit(0.2, 0.05, 0.5)


@methods
def test_crossing_is_no_chatter(method):
    trajectory = solve(CROSSING, crossing_pair(), method)
    assert trajectory.result == gf.RESULTS.successful
    inputs = np.asarray(crossing_pair().dataset.inputs)
    rows = np.asarray(trajectory.networks.weights[0])[:, 0]
    sides = rows @ inputs.T > 0
    # One crossing of each.
    assert np.all(np.sum(sides[1:] != sides[:-1], axis=0) == 1)
    narrow = solve(CROSSING, crossing_pair(), smoothing=1e-6)
    np.testing.assert_allclose(
        weights_of(trajectory.final), weights_of(narrow.final), atol=5e-3
    )


def test_many_steps_are_no_chatter():
    trajectory = solve(CROSSING, crossing_pair(), "euler", dt0=1e-5)
    assert trajectory.result == gf.RESULTS.successful
    assert trajectory.stats["num_accepted_steps"] > 100_000


def test_implicit_solver_does_not_succeed():
    trajectory = solve(
        one_unit(OFF, SIZE, SIZE), solver=diffrax.Kvaerno3(), throw=False
    )
    assert trajectory.result in (gf.RESULTS.chattering, gf.RESULTS.dt_min_reached)


def test_steps_over_the_width_of_a_kink():
    """Smooth as it is, the field is too stiff for a method whose error estimate does
    not see it; one whose estimate does gets through."""
    start, width = one_unit(OFF, SIZE, SIZE), {"smoothing": 3e-4}
    blind = solve(start, method="tsit5", throw=False, **width)
    assert blind.result == gf.RESULTS.chattering
    assert ARRIVAL < blind.ts[-1] < ARRIVAL + 0.1
    reference = solve(start, **width)
    careful = solve(start, solver=diffrax.Heun(), **width)
    distance = gf.analysis.relative_distance(careful.final, reference.final)
    assert distance < 1e-3


# Under transformations.


def euler(start, **options):
    return solve(start, method="euler", dt0=1e-2, throw=False, **options)


def test_side_by_side():
    """A unit that slides beside one that does not."""
    starts = one_unit(0.0, SIZE, SIZE), one_unit(OFF, SIZE, -SIZE)
    together = eqx.filter_jit(eqx.filter_vmap(euler))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    )
    ends = []
    for i, start in enumerate(starts):
        one, alone = jax.tree.map(lambda x, i=i: x[i], together), euler(start)
        assert one.result == alone.result
        np.testing.assert_allclose(
            weights_of(one.final), weights_of(alone.final), rtol=1e-12
        )
        ends.append(alone.result == gf.RESULTS.successful)
    assert ends == [False, True]


@pytest.mark.parametrize("adjoint", [None, diffrax.ForwardMode()], ids=str)
def test_derivatives(adjoint):
    def end(size):
        start = CROSSING.with_weights(tuple(size * w for w in CROSSING.weights))
        final = euler(start, problem=crossing_pair(), adjoint=adjoint).final
        return jnp.sum(jnp.concatenate([jnp.ravel(w) for w in final.weights]) ** 2)

    derivative = jax.grad if adjoint is None else jax.jacfwd
    step = 1e-6
    expected = (end(1.0 + step) - end(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(derivative(end)(1.0), expected, rtol=1e-6)


def test_failing_compiled_run_is_raised():
    run = eqx.filter_jit(lambda start: solve(start, method="euler").ts)
    with pytest.raises(Exception, match="chatters"):
        jax.block_until_ready(run(one_unit(0.0, SIZE, SIZE)))
