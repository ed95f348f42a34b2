"""Integration: what is saved, what it costs, and how it fails."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from gradflow._solver import BlockNorms
from small import (
    NUM_SAVES,
    OBSERVE,
    loss,
    network,
    outputs,
    problem,
    weights_of,
)

T1 = 3.0
RTOL = 1e-6
FLOW = gf.LagrangeFlow(weight_decay=0.1)


def solve(**options):
    return gf.solve(
        problem(),
        FLOW,
        network(),
        options.pop("t1", T1),
        rtol=RTOL,
        **{"observe": OBSERVE, **options},
    )


@pytest.fixture(scope="module")
def trajectory():
    return solve()


# What is saved.


def test_default_times(trajectory):
    assert trajectory.result == gf.RESULTS.successful
    assert trajectory.stopped_by is None
    assert len(trajectory) == 101
    np.testing.assert_array_equal(trajectory.ts, np.linspace(0, T1, 101))
    assert trajectory.networks.weights[0].shape == (101, 5, 4)
    assert {k: v.shape for k, v in trajectory.observables.items()} == {
        "loss": (101,),
        "rho": (101,),
    }


def test_starts_from_the_network_given(trajectory):
    start = trajectory[0]
    np.testing.assert_allclose(
        outputs(problem(), start), outputs(problem(), network()), rtol=1e-13
    )
    # The flow's own form of it: the norm is all in the last layer.
    np.testing.assert_allclose(start.norms, [1.0, 0.8 * 1.25], rtol=1e-14)


def test_times_as_asked_up_to_the_end():
    ts = -0.5 + (T1 + 0.5) * np.linspace(0, 1, NUM_SAVES) ** 2
    trajectory = solve(t0=-0.5, ts=ts)
    np.testing.assert_array_equal(trajectory.ts, ts)
    last = weights_of(trajectory[-1])
    np.testing.assert_allclose(last, weights_of(trajectory.final), rtol=1e-12)


def test_times_that_end_before_the_run(trajectory):
    early = solve(ts=np.linspace(0, T1 / 2, NUM_SAVES))
    assert early.ts[-1] == T1 / 2
    assert early.result == gf.RESULTS.successful
    # The steps do not go by what is saved.
    np.testing.assert_array_equal(weights_of(early.final), weights_of(trajectory.final))
    np.testing.assert_allclose(
        weights_of(early.networks)[::2],
        weights_of(trajectory.networks)[:51],
        rtol=1e-11,
        atol=1e-13,
    )
    assert np.linalg.norm(weights_of(early[-1]) - weights_of(early.final)) > 1e-3


def assert_same_solution(network, other):
    """Agreement up to what the errors of the single steps add up to."""
    network, other = weights_of(network), weights_of(other)
    assert np.linalg.norm(network - other) <= 100 * RTOL * np.linalg.norm(other)


def test_flow_is_autonomous(trajectory):
    later = solve(t0=T1, t1=2 * T1)
    assert_same_solution(later.final, trajectory.final)


def test_run_in_two_parts(trajectory):
    first = solve(t1=T1 / 2)
    second = gf.solve(
        problem(), FLOW, first.final, T1, t0=T1 / 2, rtol=RTOL, observe=OBSERVE
    )
    assert_same_solution(second.final, trajectory.final)


def test_observables_are_those_of_the_saved_networks(trajectory):
    for name, fn in OBSERVE.items():
        values = jax.jit(jax.vmap(lambda n, fn=fn: fn(problem(), n)))(
            trajectory.networks
        )
        np.testing.assert_allclose(
            trajectory.observables[name], values, rtol=1e-12, err_msg=name
        )


def test_objective_falls_along_the_flow(trajectory):
    values = trajectory.observables
    objective = values["loss"] + FLOW.weight_decay * values["rho"] ** 2
    assert np.all(np.diff(objective) < 0)


def test_saved_networks_lie_on_the_spheres(trajectory):
    # Most of these times are between two steps, where diffrax interpolates.
    norms = np.linalg.norm(trajectory.networks.weights[0], axis=(1, 2))
    assert np.max(np.abs(norms - 1)) <= 1e-14
    assert 0 < trajectory.stats["max_drift"] < 1e-4


def test_without_networks(trajectory):
    bare = solve(save_networks=False)
    assert bare.networks is None
    np.testing.assert_array_equal(bare.ts, trajectory.ts)
    for name in OBSERVE:
        np.testing.assert_allclose(
            bare.observables[name], trajectory.observables[name], rtol=1e-12
        )
    np.testing.assert_allclose(
        weights_of(bare.final), weights_of(trajectory.final), rtol=1e-12
    )
    with pytest.raises(ValueError, match="`save_networks=True`"):
        bare[0]


def test_progress_bar(trajectory, capfd):
    shown = solve(progress=True)
    jax.effects_barrier()
    captured = capfd.readouterr()
    assert "100.00%" in captured.err + captured.out
    # Another program, which rounds in another way, and so may reject another step: the
    # same up to the error of a run, of rtol = 1e-4.
    for name in OBSERVE:
        np.testing.assert_allclose(
            shown.observables[name], trajectory.observables[name], rtol=1e-5
        )


def test_no_progress_bar_unless_asked(capfd):
    solve()
    jax.effects_barrier()
    assert capfd.readouterr() == ("", "")


# What it costs.


class CountedFlow(gf.GradientFlow):
    """A gradient flow that counts the evaluations of its field."""

    def vector_field(self, t, state, problem, like):
        jax.debug.callback(count_evaluation)
        return super().vector_field(t, state, problem, like)


evaluations = 0
# So short that the first step is accepted: its first evaluation is not repeated.
DT0 = 2**-9


def count_evaluation():
    global evaluations
    evaluations += 1


@pytest.mark.parametrize(
    ("solver", "options", "evaluations_per_step"),
    [
        (diffrax.Bosh3(), {}, 3),
        (diffrax.Heun(), {}, 2),
        (diffrax.Tsit5(), {}, 6),
        (diffrax.Euler(), {"controller": diffrax.ConstantStepSize()}, 1),
    ],
    ids=["bosh3", "heun", "tsit5", "euler"],
)
def test_number_of_gradients(solver, options, evaluations_per_step):
    global evaluations
    evaluations = 0
    trajectory = gf.solve(
        problem(),
        CountedFlow(0.1),
        network(),
        1.0,
        rtol=1e-5,
        dt0=DT0,
        solver=solver,
        observe={},
        **options,
    )
    jax.block_until_ready(trajectory.ts)
    jax.effects_barrier()
    stats = {name: int(value) for name, value in trajectory.stats.items()}
    # One more, before the start, to see that it is finite.
    assert stats["num_gradients"] == evaluations - 1
    first = solver.tableau.fsal if isinstance(solver, diffrax.AbstractERK) else 0
    assert stats["num_gradients"] == first + evaluations_per_step * stats["num_steps"]
    assert stats["num_steps"] == (
        stats["num_accepted_steps"] + stats["num_rejected_steps"]
    )
    if not options:
        assert stats["num_rejected_steps"] > 0  # these have to be counted too
    else:
        assert stats["num_steps"] == 512


@pytest.mark.slow
def test_implicit_solver():
    trajectory = gf.solve(
        problem(),
        FLOW,
        network(),
        T1,
        rtol=1e-4,
        observe={},
        solver=diffrax.Kvaerno3(),
    )
    assert trajectory.result == gf.RESULTS.successful
    assert trajectory.stats["num_gradients"] is None
    explicit = solve().final
    error = np.linalg.norm(weights_of(trajectory.final) - weights_of(explicit))
    assert error < 1e-3
    assert "num_gradients" not in repr(trajectory)


# How it fails.


class BrittleLoss(gf.AbstractLoss):
    """The square loss plus `kink` |g| minus `growth` g^4, with a slope that is NaN for
    |g| above `limit`."""

    kink: jax.Array
    growth: jax.Array
    limit: jax.Array
    reduction: str = eqx.field(static=True, default="sum")
    attains_infimum = True

    def value(self, output, label):
        extra = self.kink * jnp.abs(output) - self.growth * output**4
        return jnp.sum((output - label) ** 2 + extra)

    def log_value(self, output, label):
        return jnp.log(self.value(output, label))

    def slope(self, output, label, log_unit=0.0):
        extra = self.kink * jnp.sign(output) - 4 * self.growth * output**3
        slope = (2 * (output - label) + extra) * jnp.exp(-log_unit)
        return jnp.where(jnp.abs(output) > self.limit, jnp.nan, slope)

    def check(self, dataset):
        del dataset


MAX_STEPS = 3000


def solve_brittle(*, kink=0.0, growth=0.0, limit=np.inf, **options):
    brittle = BrittleLoss(*map(jnp.asarray, (kink, growth, limit)))
    return gf.solve(
        problem(loss=brittle),
        gf.GradientFlow(0.1),
        network(),
        T1,
        max_steps=MAX_STEPS,
        observe={"loss": loss},
        **options,
    )


FAILURES = {
    # The field jumps where an output is 0, and pushes towards it from both sides.
    "max_steps_reached": {"kink": 5.0, "rtol": 1e-8},
    # The weights grow to infinity in finite time.
    "dt_min_reached": {"growth": 5.0, "rtol": 1e-4},
    # Steps that cannot be shortened go beyond where the slopes are defined.
    "nonfinite_state": {
        "limit": 0.5,
        "controller": diffrax.ConstantStepSize(),
        "dt0": 1e-3,
    },
}

failures = pytest.mark.parametrize("name", FAILURES)


def test_brittle_problem_unbroken():
    assert solve_brittle().result == gf.RESULTS.successful


@failures
def test_failure_is_returned(name):
    trajectory = solve_brittle(throw=False, **FAILURES[name])
    assert trajectory.result == getattr(gf.RESULTS, name)
    assert trajectory.stopped_by is None
    assert f"FAILED: {name}" in repr(trajectory)
    # What was reached is there, and nothing else.
    ts = np.asarray(trajectory.ts)
    assert 2 <= len(ts) <= NUM_SAVES
    assert np.all(np.diff(ts) > 0) and 0 < ts[-1] < T1
    np.testing.assert_allclose(ts[:-1], np.linspace(0, T1, 101)[: len(ts) - 1])
    assert trajectory.observables["loss"].shape == ts.shape
    assert np.all(np.isfinite(weights_of(trajectory.networks)))
    np.testing.assert_allclose(
        weights_of(trajectory[-1]), weights_of(trajectory.final), rtol=1e-13
    )
    if name == "max_steps_reached":
        assert trajectory.stats["num_steps"] == MAX_STEPS
    else:
        assert trajectory.stats["num_steps"] < MAX_STEPS


@failures
def test_failure_is_raised(name):
    with pytest.raises(gf.SolveError, match=name) as raised:
        solve_brittle(**FAILURES[name])
    assert len(str(raised.value)) > 100  # causes and a way out
    returned = solve_brittle(throw=False, **FAILURES[name])
    trajectory = raised.value.trajectory
    assert eqx.tree_equal(trajectory, returned)


def test_nonfinite_at_the_start():
    with pytest.raises(gf.SolveError, match="nonfinite_state") as raised:
        solve_brittle(limit=0.0)
    trajectory = raised.value.trajectory
    assert trajectory.result == gf.RESULTS.nonfinite_state
    np.testing.assert_array_equal(trajectory.ts, [0.0])
    np.testing.assert_array_equal(weights_of(trajectory.final), weights_of(network()))
    np.testing.assert_array_equal(weights_of(trajectory[0]), weights_of(network()))


def test_raw_form_leaves_the_spheres():
    # ρ = 9 is above the equilibrium.
    far = network(norms=(3.0, 3.0))
    options = dict(rtol=3e-3, observe=OBSERVE, solver=diffrax.Bosh3())
    raw = gf.LagrangeFlow(0.1, raw=True)
    with pytest.raises(gf.SolveError, match="left_spheres") as raised:
        gf.solve(problem(), raw, far, T1, **options)
    trajectory = raised.value.trajectory
    assert trajectory.result == gf.RESULTS.left_spheres
    assert 0 < trajectory.ts[-1] < T1
    defects = np.abs(np.linalg.norm(trajectory.networks.weights[0], axis=(1, 2)) - 1)
    assert np.all(defects[:-1] < 1e-3) and 1e-3 < defects[-1] < 1e-2
    np.testing.assert_allclose(trajectory.stats["max_drift"], defects[-1], rtol=3e-3)
    # The default form of the same flow.
    tangent = gf.solve(problem(), gf.LagrangeFlow(0.1), far, T1, **options)
    assert tangent.result == gf.RESULTS.successful
    norms = np.linalg.norm(tangent.networks.weights[0], axis=(1, 2))
    assert np.max(np.abs(norms - 1)) <= 1e-12


def test_distance_from_the_spheres_to_give_up_at():
    raw = gf.LagrangeFlow(0.1, raw=True)
    trajectory = gf.solve(
        problem(),
        raw,
        network(norms=(3.0, 3.0)),
        T1,
        rtol=1e-2,
        observe=OBSERVE,
        solver=diffrax.Bosh3(),
        max_defect=1.0,
        throw=False,
    )
    assert trajectory.result == gf.RESULTS.successful
    assert trajectory.stats["max_drift"] > 1e-3


# Arguments that do not fit.


# These take steps of any error once they are at `dtmin`.
FORCED_FLOOR = diffrax.PIDController(rtol=1e-3, atol=1e-6, dtmin=1e-3)
FORCED_FLOORS = [
    FORCED_FLOOR,
    diffrax.ClipStepSizeController(FORCED_FLOOR, step_ts=[1.0]),
    BlockNorms(FORCED_FLOOR, lambda state: state, 0.01),
]

BAD_ARGUMENTS = [
    ("t1", {"t1": 0.0}),
    ("t1", {"t1": -1.0}),
    ("t1", {"t1": 1.0, "t0": 1.0}),
    ("t1", {"t1": float("nan")}),
    ("t1", {"t1": float("inf")}),
    ("t0", {"t0": float("nan")}),
    ("ts", {"ts": [0.0, 2.0, 1.0]}),
    ("ts", {"ts": [0.0, 1.0, 1.0]}),
    ("ts", {"ts": [0.0, float("nan")]}),
    ("ts", {"ts": [-0.1, 1.0]}),
    ("ts", {"ts": [0.0, T1 + 0.1]}),
    ("ts", {"ts": []}),
    ("ts", {"ts": [[0.0, 1.0]]}),
    ("ts", {"ts": 1.0}),
    *(
        (name, {name: value})
        for name in ("rtol", "atol", "dt0", "max_defect")
        for value in (0.0, -1e-3, float("nan"), float("inf"))
    ),
    *(("controller", {"controller": controller}) for controller in FORCED_FLOORS),
    ("max_steps", {"max_steps": 0}),
    ("max_steps", {"max_steps": -1}),
    ("until", {"until": 0.1}),
    ("until", {"until": [gf.LossBelow(0.1), "loss"]}),
    ("network", {"network": gf.Dense((3, 5, 1), key=jax.random.key(1))}),
    ("network", {"network": gf.Dense((4, 5, 2), key=jax.random.key(1))}),
    (
        "network",
        {"network": gf.Conv((1, 4, 4), (2,), key=jax.random.key(1))},
    ),
]


@pytest.mark.parametrize(("name", "options"), BAD_ARGUMENTS)
def test_bad_arguments(name, options):
    options = dict(options)
    start = options.pop("network", network())
    t1 = options.pop("t1", T1)
    with pytest.raises(ValueError, match=f"`{name}`"):
        gf.solve(problem(), FLOW, start, t1, **options)


@pytest.mark.parametrize(
    "flow",
    [gf.GradientFlow, gf.PolarGradientFlow, gf.LagrangeFlow, gf.WeightNormFlow],
)
@pytest.mark.parametrize("weight_decay", [-0.1, float("nan"), float("inf")])
def test_bad_weight_decay(flow, weight_decay):
    with pytest.raises(ValueError, match="`weight_decay`"):
        flow(weight_decay=weight_decay)


def test_bad_norm_of_v():
    with pytest.raises(ValueError, match="`v_norm`"):
        gf.WeightNormFlow(v_norm=0.0)
