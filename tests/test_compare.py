"""A flow beside gradient descent in steps of several sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types
from small import from_vector, mapped, network, problem, weights_of

OFFSET = 0.01


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def quadratic():
    """L = |X w - y|², the largest eigenvalue of its Hessian, and a start that is off
    the minimum along its eigenvector by a hundredth of the minimum's norm."""
    rng = np.random.default_rng(0)
    inputs, solution = rng.normal(size=(8, 3)), rng.normal(size=3)
    dataset = gf.Dataset(inputs, inputs @ solution, regression=True)
    values, vectors = np.linalg.eigh(2 * inputs.T @ inputs)
    start = solution + OFFSET * np.linalg.norm(solution) * vectors[:, -1]
    network = gf.Dense.from_weights((jnp.asarray(start[None]),), gf.Identity())
    prob = gf.Problem(dataset, gf.SquareLoss())
    return prob, network, values[-1], solution, start - solution


@pytest.fixture(scope="module")
def at_the_edge():
    """Steps just below and just above the edge of stability, 120 and 108 of them."""
    prob, start, sharpness, solution, offset = quadratic()
    rates = np.array([0.95, 1.05]) * 2 / sharpness
    comparison = gf.compare(prob, start, 228 / sharpness, rates, rtol=1e-6)
    return comparison, sharpness, solution, offset


@pytest.fixture(scope="module")
def diverged():
    """Steps far above the edge, which multiply the offset by -159."""
    prob, start, sharpness, _, _ = quadratic()
    h = 160 / sharpness
    return gf.compare(prob, start, 200 * h, [h], saves=200)


def test_distances_of_a_quadratic(at_the_edge):
    """The offset after n steps is (1 - h λ)^n of what it was; exp(-λ n h) in the
    flow."""
    comparison, sharpness, solution, offset = at_the_edge
    for h, times, distances in zip(
        comparison.learning_rates,
        comparison.times,
        comparison.distances,
        strict=True,
    ):
        n = np.round(times / h)
        np.testing.assert_allclose(times, n * h, rtol=1e-14)
        assert n[-1] == np.floor(228 / (sharpness * h) + 1e-9)
        flow = np.exp(-sharpness * n * h)
        apart = np.abs((1 - h * sharpness) ** n - flow)
        norms = np.linalg.norm(solution + flow[:, None] * offset, axis=1)
        expected = apart * np.linalg.norm(offset) / norms
        np.testing.assert_allclose(distances, expected, rtol=1e-6, atol=1e-6)


def test_who_leaves(at_the_edge):
    comparison, sharpness, _, _ = at_the_edge
    stays, leaves = comparison.leaves_at
    assert np.isinf(stays)
    # The first saved n with 0.01 * 1.1^n > 0.1: from 25 on.
    n = np.round(comparison.times[1] / comparison.learning_rates[1])
    first = n[n >= 25][0]
    assert comparison.leaves_at_step[1] == first
    np.testing.assert_allclose(leaves, first * comparison.learning_rates[1], rtol=1e-14)
    np.testing.assert_allclose(comparison.sharpness, sharpness, rtol=2e-3)
    np.testing.assert_array_equal(comparison.unstable_at, [np.inf, 0.0])


def test_divergence_is_no_exception(diverged):
    (descent,), (distances,) = diverged.descents, diverged.distances
    assert descent.result == gf.RESULTS.nonfinite_state
    taken = int(descent.stats["num_steps"])
    # The largest number is 10^308.25.
    assert abs(taken - 308.25 / np.log10(159)) < 3
    assert len(distances) == 201
    # The squares in the distance overflow at half of the way.
    assert np.all(np.isfinite(distances[: taken // 2 - 3]))
    assert np.all(np.isinf(distances[taken + 1 :]))
    assert np.isinf(diverged.final_distances[0]) and not diverged.is_fitted[0]
    np.testing.assert_array_equal(diverged.leaves_at, diverged.learning_rates)


def test_what_it_looks_like(at_the_edge, diverged):
    comparison, *_ = at_the_edge
    stays, leaves = repr(comparison).splitlines()[2:4]
    assert stays.split()[3:] == ["-", "-"]
    assert leaves.split()[3:] == [f"{float(comparison.leaves_at[1]):.6g}", "0"]
    row = repr(diverged).splitlines()[2]
    assert row.split()[2] == "inf" and row.endswith("diverged")
    assert "order not known, with 0 of 1" in repr(diverged)


def test_flow_on_the_disk(at_the_edge, tmp_path):
    comparison = at_the_edge[0]
    on_disk = dataclasses.replace(comparison, flow=mapped(comparison.flow, tmp_path))
    assert repr(on_disk) == repr(comparison)
    np.testing.assert_array_equal(on_disk.unstable_at, comparison.unstable_at)


def test_figure(at_the_edge, diverged):
    comparison, *_ = at_the_edge
    axes = gf.plot.comparison(comparison)
    *curves, dotted, tolerance = axes.lines
    assert [line.get_label()[:3] for line in curves] == ["$h$", "$h$"]
    for curve, times, distances in zip(
        curves, comparison.times, comparison.distances, strict=True
    ):
        np.testing.assert_array_equal(curve.get_xdata(), times[1:])
        np.testing.assert_array_equal(curve.get_ydata(), distances[1:])
    # Only the second is unstable, and from the start.
    assert dotted.get_linestyle() == ":" and dotted.get_xdata()[0] == 0
    assert np.array_equal(dotted.get_color(), curves[1].get_color())
    assert tolerance.get_ydata()[0] == 0.1
    assert axes.get_yscale() == "log" and axes.get_xlabel() and axes.get_ylabel()
    curve, cross, *_ = gf.plot.comparison(diverged).lines
    assert np.all(np.isfinite(curve.get_ydata()))
    assert cross.get_marker() == "x"
    assert cross.get_xdata()[0] == curve.get_xdata()[-1]


@pytest.fixture(scope="module")
def stable():
    """Numbers of steps that are multiples of the number of saves."""
    rates = 0.5 / np.array([32, 64, 128, 256])
    return gf.compare(
        problem(), network(), 0.5, rates, flow=gf.LagrangeFlow(0.1), saves=16
    )


def test_first_order(stable):
    assert np.all(stable.is_fitted)
    h, distances = stable.learning_rates, stable.final_distances
    np.testing.assert_allclose(
        stable.order, np.polyfit(np.log(h), np.log(distances), 1)[0], rtol=1e-10
    )
    assert abs(stable.order - 1) < 0.1
    assert f"order {stable.order:.3f}, from 4 of 4" in repr(stable)


def test_same_times(stable):
    assert len(stable.flow) == 17
    for descent, times, distances in zip(
        stable.descents, stable.times, stable.distances, strict=True
    ):
        np.testing.assert_allclose(times, stable.flow.ts, rtol=1e-14)
        np.testing.assert_array_equal(times, descent.ts)
        for i in (0, 7, 16):
            np.testing.assert_allclose(
                distances[i],
                gf.analysis.relative_distance(descent[i], stable.flow[i]),
                rtol=1e-12,
            )


def test_distances_below_the_error_are_not_fitted(stable):
    between = jnp.sqrt(stable.final_distances[1] * stable.final_distances[2])
    coarse = dataclasses.replace(stable, error=between / 10)
    np.testing.assert_array_equal(coarse.is_fitted, [True, True, False, False])
    coarse = dataclasses.replace(stable, error=stable.final_distances[1] / 10)
    assert np.isnan(coarse.order) and "not known, with 1 of 4" in repr(coarse)


def test_when_it_becomes_unstable(stable):
    """At the first saved time at which the sharpness is above 2 / h."""
    ramp = dataclasses.replace(
        stable.flow, observables={"sharpness": jnp.linspace(100.0, 260.0, 17)}
    )
    comparison = dataclasses.replace(stable, flow=ramp)
    # 2 / h is 128 and 256; the ramp is 130 at its fourth time.
    np.testing.assert_array_equal(
        comparison.unstable_at, [ramp.ts[3], ramp.ts[16], np.inf, np.inf]
    )


def test_exact_network():
    """The kinks that integration smooths are no part of the sharpness."""
    # The first unit is at its kink for the first input.
    weights = jnp.array([[0.0, 0.6, 0.5], [1.2, 0.2, 0.9]]), jnp.array([[1.0, 2.0]])
    start = gf.Dense.from_weights(weights)
    data = gf.Dataset(jnp.eye(3), jnp.array([1.0, -1.0, 1.0]))
    prob = gf.Problem(data, gf.SquareLoss())
    # 0.3 / 0.1 is less than 3.
    comparison = gf.compare(prob, start, 0.3, [0.1], saves=3)
    assert comparison.descents[0].stats["num_steps"] == 3

    def sharpness(network):
        def value(vector):
            return prob.value(from_vector(vector, network))

        hessian = jax.jit(jax.hessian(value))(jnp.asarray(weights_of(network)))
        return np.linalg.eigvalsh(hessian)[-1]

    smoothed = start.with_activation(comparison.flow.final.activation)
    assert sharpness(smoothed) > 100 * sharpness(start)
    # Power iteration stops when it changes by less than 1e-3.
    np.testing.assert_allclose(comparison.sharpness[0], sharpness(start), rtol=1e-2)


def test_what_is_not_allowed(unchecked_types):
    arguments = problem(), network(), 1.0
    with pytest.raises(ValueError, match="`learning_rates` must be a vector"):
        gf.compare(*arguments, 0.1)
    with pytest.raises(ValueError, match="`learning_rates` must be positive"):
        gf.compare(*arguments, [0.1, -0.1])
    with pytest.raises(ValueError, match="a step of 2.0 is longer than `t1`"):
        gf.compare(*arguments, [0.1, 2.0])
    with pytest.raises(ValueError, match="`flow` has a clock"):
        gf.compare(*arguments, [0.1], flow=gf.LossTime(gf.GradientFlow()))
    with pytest.raises(ValueError, match="`saves`"):
        gf.compare(*arguments, [0.1], saves=0)
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        gf.compare(*arguments, [0.1], tolerance=0.0)
    with pytest.raises(ValueError, match="outside of `jit`"):
        jax.jit(lambda t1: gf.compare(problem(), network(), t1, [0.1]).order)(1.0)
