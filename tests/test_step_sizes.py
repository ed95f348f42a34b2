"""What the default control of the steps takes an error to be relative to."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import gradflow as gf
from small import OBSERVE, network, problem, weights_of

FLOW = gf.GradientFlow(0.1)
RTOL = 1e-4


def solve(factor, t1, rtol=RTOL):
    start = network()
    start = start.with_weights(tuple(factor * w for w in start.weights))
    return gf.solve(problem(), FLOW, start, t1, rtol=rtol, observe=OBSERVE)


def test_weights_of_any_size():
    """While the outputs are small the slopes are constant, so that the flow of two
    layers from weights a thousandth as large is the same, a thousandth as large."""
    small, smaller = solve(1e-6, 1.0), solve(1e-9, 1.0)
    ends = weights_of(small.final), 1e3 * weights_of(smaller.final)
    start = weights_of(small[0])
    assert np.linalg.norm(ends[0] - start) > np.linalg.norm(start)
    distance = np.linalg.norm(ends[1] - ends[0]) / np.linalg.norm(ends[0])
    assert distance < 1e-9
    assert small.stats["num_steps"] == smaller.stats["num_steps"]


def test_error_is_relative_to_the_way():
    """Large weights hardly move in a short time, but that is what the flow is."""
    t1 = 1e-2
    run, tight = solve(3.0, t1), solve(3.0, t1, rtol=1e-9)
    start, end = weights_of(tight[0]), weights_of(tight.final)
    way = np.linalg.norm(end - start)
    assert way < 0.1 * np.linalg.norm(start)
    assert np.linalg.norm(weights_of(run.final) - end) < RTOL * way


def test_steps_grow_without_limit_at_rest():
    steps = [int(solve(1.0, t1).stats["num_steps"]) for t1 in (1e3, 1e4, 1e6)]
    assert steps[1] - steps[0] <= 3
    assert steps[2] - steps[1] <= 5


def test_layer_that_starts_from_zero():
    start = network()
    first, last = start.weights
    start = start.with_weights((first, jnp.zeros_like(last)))
    run, tight = (
        gf.solve(problem(), FLOW, start, 1.0, rtol=rtol, observe=OBSERVE)
        for rtol in (RTOL, 1e-8)
    )
    assert run.result == gf.RESULTS.successful
    distance = jax.jit(gf.analysis.relative_distance)(run.final, tight.final)
    assert distance < 10 * RTOL


def test_error_is_proportional_to_rtol():
    """Also for a method of second order with an estimate of the third, whose error
    would be a power 2/3 of its tolerance."""

    def end(rtol, solver):
        start = network().with_activation(gf.ReLU(0.3))
        run = gf.solve(
            problem(), FLOW, start, 1.0, rtol=rtol, solver=solver, observe=OBSERVE
        )
        return weights_of(run.final)

    exact = end(1e-12, diffrax.Dopri8())
    coarse, fine = (
        np.linalg.norm(end(rtol, gf.RKC()) - exact) / np.linalg.norm(exact)
        for rtol in (1e-4, 1e-7)
    )
    assert fine < 2e-3 * coarse
