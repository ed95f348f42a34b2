"""The estimated error of a run against the true one."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf

TS = jnp.asarray([0.0, 1.0, 3.0])


@pytest.fixture(scope="module")
def problem():
    return gf.Problem(gf.datasets.digits((3, 8), per_class=5), gf.SquareLoss())


def network(seed, activation):
    return gf.Dense(
        (65, 4, 1), key=jax.random.key(seed), activation=activation, norm=0.5
    )


def solve(problem, start, **options):
    return gf.solve(
        problem, gf.LagrangeFlow(0.1), start, TS[-1], ts=TS, observe={}, **options
    )


def distances(trajectory, other):
    return np.asarray(
        jax.vmap(gf.analysis.relative_distance)(trajectory.networks, other.networks)
    )


@pytest.mark.parametrize("activation", [gf.Identity(), gf.ReLU()], ids=repr)
def test_the_true_error_is_about_the_estimate(problem, activation):
    true, estimated = [], []
    for seed in range(6):
        start = network(seed, activation)
        trajectory = solve(problem, start, rtol=1e-3, error=True)
        assert trajectory.error is not None
        estimated.append(trajectory.error)
        # Its own error is a hundredth of what is measured, and hard kinks cost steps.
        tight = solve(problem, start, rtol=1e-5)
        true.append(distances(trajectory, tight))
    true, estimated = np.stack(true), np.stack(estimated)
    np.testing.assert_array_equal(estimated[:, 0], 0)
    assert np.all(true[:, 1:] > 0)
    ratios = true[:, 1:] / estimated[:, 1:]
    assert np.mean(ratios < 3) >= 0.9
    assert np.mean(ratios > 0.05) >= 0.9  # of some use


def test_error_of_a_run_that_stops_early(problem):
    start = network(0, gf.ReLU())

    def falls(problem, network):
        return problem.value(network) < 8.0

    trajectory = solve(problem, start, rtol=1e-3, error=True, until=falls)
    assert trajectory.stopped_by == "falls"
    assert trajectory.error.shape == trajectory.ts.shape
    assert np.all(np.isfinite(trajectory.error)) and trajectory.error[-1] > 0


def test_error_without_networks_under_transformations_and_in_a_file(problem, tmp_path):
    # Without kinks, at which rounding decides which way a run goes on.
    start = network(0, gf.ReLU(0.1))
    trajectory = solve(problem, start, rtol=1e-3, error=True)

    @jax.jit
    def error(weights):
        moved = start.with_weights(weights)
        return solve(problem, moved, rtol=1e-3, error=True, save_networks=False).error

    np.testing.assert_allclose(error(start.weights), trajectory.error, rtol=1e-6)
    trajectory.save(tmp_path / "run.npz")
    again = gf.Trajectory.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.error, trajectory.error)
    assert "error: about" in repr(again)
    assert solve(problem, start, rtol=1e-3).error is None


def test_error_needs_tolerances_to_change(problem):
    with pytest.raises(ValueError, match="`error` takes a second run"):
        solve(
            problem,
            network(0, gf.ReLU()),
            error=True,
            controller=diffrax.ConstantStepSize(),
            dt0=0.1,
        )
