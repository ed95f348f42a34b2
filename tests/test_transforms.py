"""Runs under `jit`, `vmap` and `grad`, what is compiled anew, and single precision."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from small import (
    NUM_SAVES,
    OBSERVE,
    dataset,
    from_vector,
    loss,
    network,
    problem,
    weights_of,
)

T1 = 2.0
RTOL = 1e-6


def solve(decay=0.1, start=None, **options):
    return gf.solve(
        problem(),
        gf.LagrangeFlow(decay),
        network() if start is None else start,
        T1,
        rtol=options.pop("rtol", RTOL),
        observe=OBSERVE,
        **options,
    )


def row(trajectories, i):
    """One of the runs that `vmap` has made."""
    return jax.tree.map(lambda x: x[i], trajectories)


# Rounding differs from one compilation to the other, and can turn an accepted step into
# a rejected one. So two runs agree up to the tolerance of their steps.
AGREEMENT = 2 * RTOL


def assert_same_weights(network, other):
    network, other = weights_of(network), weights_of(other)
    assert np.linalg.norm(network - other) <= AGREEMENT * np.linalg.norm(other)


# jit and vmap.


THRESHOLD = 2.5


def scaled_start(scale):
    return network().with_weights(tuple(scale * w for w in network().weights))


def solve_until(decay, start):
    return solve(decay, start, until=gf.LossBelow(THRESHOLD))


@eqx.filter_jit
@eqx.filter_vmap
def solve_many(decays, starts):
    return solve_until(decays, starts)


SCALES = jnp.sqrt(jnp.array([0.5, 1.0, 1.6, 1.0]))


def test_many_runs_compiled():
    """Runs of several weight decays and networks, some of which end early."""
    decays = jnp.array([0.0, 0.0, 0.0, 1.0])
    starts = eqx.filter_vmap(scaled_start)(SCALES)
    together = solve_many(decays, starts)
    assert together.ts.shape == (4, NUM_SAVES)
    ends = set()
    for i, decay in enumerate(decays):
        alone, one = solve_until(decay, row(starts, i)), row(together, i)
        assert one.result == alone.result
        stopped = alone.result == gf.RESULTS.event_occurred
        # The times after the end are inf; the end itself, which is the last of `alone`,
        # is in `final`.
        reached = len(alone) - 1 if stopped else NUM_SAVES
        assert 2 <= reached and (reached < NUM_SAVES) == stopped
        np.testing.assert_array_equal(one.ts[:reached], alone.ts[:reached])
        assert np.all(np.isposinf(one.ts[reached:]))
        for name in OBSERVE:
            np.testing.assert_allclose(
                one.observables[name][:reached],
                alone.observables[name][:reached],
                rtol=AGREEMENT,
            )
        ends.add(reached)
        if not stopped:
            assert alone.result == gf.RESULTS.successful
            assert_same_weights(one.final, alone.final)
            continue
        # To the length of a step: one step more or less may have been rejected.
        end = loss(problem(), one.final)
        assert end < THRESHOLD
        np.testing.assert_allclose(end, THRESHOLD, rtol=1e-2)
    assert len(ends) == 4 and NUM_SAVES in ends


def test_failure_inside_a_compiled_function_is_raised():
    decays = jnp.array([0.1, 1.0, jnp.nan, 0.0])
    # JAX decides on the type.
    with pytest.raises(Exception, match="infinite or NaN"):
        jax.block_until_ready(solve_many(decays, eqx.filter_vmap(scaled_start)(SCALES)))


# Derivatives.


def end_loss(decay, vector, **options):
    return loss(
        problem(), solve(decay, from_vector(vector, network()), **options).final
    )


@pytest.mark.slow
def test_reverse_mode():
    decay, vector = jnp.asarray(0.1), jnp.asarray(weights_of(network()))
    options = {"rtol": 1e-8}
    value, (by_decay, by_vector) = jax.value_and_grad(end_loss, argnums=(0, 1))(
        decay, vector, **options
    )
    np.testing.assert_allclose(value, end_loss(decay, vector, **options), rtol=1e-8)
    h = 1e-3
    ends = [end_loss(decay + s * h, vector, **options) for s in (1, -1)]
    np.testing.assert_allclose(by_decay, (ends[0] - ends[1]) / (2 * h), rtol=1e-4)
    # The derivative of an adaptive run is that of its steps, too, which do not go by
    # the weights smoothly. Exact derivatives are tested with descents.
    accuracy = 1e-3 * np.linalg.norm(by_vector)
    for direction in np.random.default_rng(1).normal(size=(3, vector.size)):
        direction = direction / np.linalg.norm(direction)
        ends = [end_loss(decay, vector + s * h * direction, **options) for s in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * h)
        assert abs(by_vector @ direction - difference) <= accuracy


def test_forward_mode():
    decay, vector = jnp.asarray(0.1), jnp.asarray(weights_of(network()))
    _, by_decay = jax.jvp(
        lambda d: end_loss(d, vector, rtol=1e-8, adjoint=diffrax.ForwardMode()),
        (decay,),
        (jnp.ones(()),),
    )
    h = 1e-4
    difference = (
        end_loss(decay + h, vector, rtol=1e-8) - end_loss(decay - h, vector, rtol=1e-8)
    ) / (2 * h)
    np.testing.assert_allclose(by_decay, difference, rtol=1e-4)


# What is compiled anew.


traces = []


class CountedLossBelow(eqx.Module):
    """Notes down every time that it is traced; it is not called when a run runs."""

    loss: float

    def __call__(self, problem, network):
        traces.append("condition")
        return loss(problem, network) < self.loss


def counted_loss(problem, network):
    traces.append("observable")
    return loss(problem, network)


TRACED = {"loss": counted_loss}


def run_traced(
    seed=0, decay=0.1, t0=0.0, t1=T1, ts=None, rtol=1e-4, atol=1e-6, below=0.1, start=1
):
    return gf.solve(
        problem(seed),
        gf.LagrangeFlow(decay),
        network(start),
        t1,
        t0=t0,
        ts=ts,
        rtol=rtol,
        atol=atol,
        observe=TRACED,
        until=(CountedLossBelow(below), gf.Stationary(below / 100)),
    )


def test_solve_is_compiled_once():
    traces.clear()
    first = run_traced()
    assert "condition" in traces
    traces.clear()
    for options in (
        {"seed": 3},
        {"start": 4},
        {"decay": 0.5},
        {"decay": 1},
        {"decay": jnp.asarray(0.2, float)},
        {"t1": 1.5},
        {"t1": 3},
        {"t0": -1.0},
        {"ts": np.linspace(0.1, 0.9, NUM_SAVES)},
        {"rtol": 1e-5},
        {"atol": 1e-9},
        {"below": 3.0},
    ):
        assert not eqx.tree_equal(run_traced(**options), first)
        assert len(traces) == 0, options
    jax.eval_shape(lambda: run_traced(ts=np.linspace(0.0, 1.0, 7)).ts)
    assert "condition" in traces


def descend_traced(rate=0.01, seed=0, decay=0.1, steps=20, below=1.0, data=None):
    return gf.descend(
        gf.Problem(dataset(seed) if data is None else data, gf.SquareLoss()),
        rate,
        network(),
        steps,
        flow=gf.LagrangeFlow(decay),
        observe=TRACED,
        until=CountedLossBelow(below),
        save_steps=range(11),
    )


def test_descend_is_compiled_once():
    traces.clear()
    first = descend_traced()
    assert "condition" in traces
    traces.clear()
    for options in (
        {"rate": 0.02},
        {"rate": jnp.asarray(0.005)},
        {"seed": 3},
        {"decay": 0.5},
        {"steps": 30},
        {"below": 5.3},
    ):
        assert not eqx.tree_equal(descend_traced(**options), first)
        assert len(traces) == 0, options
    whole = dataset()
    fewer = gf.Dataset(whole.inputs[:4], whole.labels[:4])
    jax.eval_shape(lambda: descend_traced(data=fewer).ts)
    assert "condition" in traces


# Descents.


def descend(rate=0.01, where=None, start=None):
    return gf.descend(
        problem() if where is None else where,
        rate,
        network() if start is None else start,
        50,
        flow=gf.GradientFlow(0.1),
        observe=OBSERVE,
        throw=False,
    )


def test_many_learning_rates():
    rates = jnp.array([0.01, 0.02, 1e6])
    together = jax.jit(jax.vmap(descend))(rates)
    for i, rate in enumerate(rates):
        alone, one = descend(rate), row(together, i)
        reached = len(alone)
        assert one.result == alone.result
        np.testing.assert_allclose(one.ts[:reached], alone.ts)
        assert np.all(np.isposinf(one.ts[reached:]))
        np.testing.assert_allclose(
            weights_of(one.final), weights_of(alone.final), rtol=1e-10
        )
    assert alone.result == gf.RESULTS.nonfinite_state and reached < 51


# Single precision.


def in_single_precision(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def test_single_precision():
    single = gf.solve(
        in_single_precision(problem()),
        gf.LagrangeFlow(0.1),
        in_single_precision(network()),
        T1,
        rtol=1e-3,
        observe=OBSERVE,
    )
    assert single.result == gf.RESULTS.successful
    kept = (single.ts, single.networks, single.final, single.observables)
    assert {x.dtype for x in jax.tree.leaves(kept)} == {np.dtype(np.float32)}
    double = solve()
    np.testing.assert_allclose(
        weights_of(single.final), weights_of(double.final), rtol=1e-2, atol=5e-3
    )


def test_single_precision_descent():
    single = descend(
        where=in_single_precision(problem()), start=in_single_precision(network())
    )
    kept = (single.ts, single.networks, single.final, single.observables)
    assert {x.dtype for x in jax.tree.leaves(kept)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        weights_of(single.final), weights_of(descend().final), rtol=1e-3, atol=1e-4
    )
