"""The Brownian path of stochastic flows, against the statistics of Brownian motion."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow._solver import BrownianTree, DyadicSteps

TIMES = np.array([0.0, 1.3, 1.3, 4.0])
"""Three cells, one of them without length, and the last of the longest steps of another
size than the others."""
PATHS = 100_000
DEVIATIONS = 5 / np.sqrt(PATHS)


def steps(longest=0.7, finer=0):
    return DyadicSteps(jnp.asarray(TIMES), jnp.asarray(longest), jnp.asarray(finer))


@pytest.fixture(scope="module")
def increment():
    path = BrownianTree(steps(), PATHS, jax.random.key(0))
    return jax.jit(lambda t0, t1: path.evaluate(t0, t1, use_levy=True))


def walk(steps, length):
    ends = [jnp.asarray(0.0, steps.times.dtype)]
    advance = eqx.filter_jit(steps.end_of_next)
    while ends[-1] < steps.times[-1]:
        ends.append(advance(ends[-1], jnp.asarray(length, steps.times.dtype)))
        assert len(ends) < 10_000
    return np.array(ends)


@pytest.mark.parametrize("length, smallest", [(100.0, 0.65), (0.3, 0.1625)])
def test_steps(length, smallest):
    """The longest parts that are no longer than asked for, and than the longest."""
    ends = walk(steps(), length)
    parts = np.round(1.3 / smallest).astype(int)
    first = np.linspace(0, 1.3, parts + 1)
    limit = min(length, 0.7)
    second = np.linspace(1.3, 4.0, 2 ** np.ceil(np.log2(2.7 / limit)).astype(int) + 1)
    np.testing.assert_allclose(ends, np.append(first, second[1:]), rtol=1e-14)
    # Not up to rounding.
    assert np.all(np.isin(TIMES, ends))


def test_finer_steps():
    """On the same path, whatever is asked for."""
    np.testing.assert_allclose(walk(steps(finer=1), 9.0), walk(steps(), 0.34))
    coarse, fine = (
        BrownianTree(steps(finer=finer), 3, jax.random.key(0)).evaluate(0.0, 0.325)
        for finer in (0, 1)
    )
    np.testing.assert_array_equal(coarse, fine)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("first_cell", [0, 2])
def test_steps_never_cross(dtype, first_cell):
    """Whatever lengths are asked for, every step is a part of its cell: far from time
    zero too, where times are rounded."""
    times = jnp.asarray(1000 + TIMES, dtype)
    on = DyadicSteps(times, jnp.asarray(1.0, dtype), jnp.asarray(0))
    rng = np.random.default_rng(0)
    advance, find = eqx.filter_jit(on.end_of_next), eqx.filter_jit(on.find)
    t = times[first_cell]
    slack = 64 * np.finfo(dtype).eps * 1004
    for _ in range(100):
        length = 10 ** rng.uniform(np.log10(slack), 0.5)
        end = advance(t, jnp.asarray(length, dtype))
        assert t < end <= times[-1]
        cell, level, place = (int(x) for x in find(t, end))
        whole = float(times[cell + 1] - times[cell])
        begin = float(times[cell]) + whole * place / 2.0**level
        assert cell in (0, 2) and abs(begin - float(t)) <= slack
        assert end - t <= max(length, 2 * slack) * 1.01
        if end == times[-1]:
            break
        t = end


def test_halves_make_up_the_whole(increment):
    whole, left, right = (
        increment(a, b) for a, b in [(1.3, 1.975), (1.3, 1.6375), (1.6375, 1.975)]
    )
    np.testing.assert_allclose(left.W + right.W, whole.W, atol=1e-14)
    # The mean over the time of what is above the chord.
    area = (left.H + right.H) / 2 + (left.W - right.W) / 4
    np.testing.assert_allclose(area, whole.H, atol=1e-14)


def test_increments_are_independent_and_normal(increment):
    """Of steps of several levels, from different wholes and the same."""
    parts = [(0.0, 0.325), (0.325, 0.65), (0.65, 1.3), (1.3, 1.38437500), (2.65, 3.325)]
    columns = []
    for t0, t1 in parts:
        of_step = increment(t0, t1)
        np.testing.assert_allclose(of_step.dt, t1 - t0)
        columns += [
            of_step.W / np.sqrt(t1 - t0),
            of_step.H / np.sqrt((t1 - t0) / 12),
        ]
    columns = np.array(columns)
    covariance = columns @ columns.T / PATHS
    np.testing.assert_allclose(covariance, np.eye(len(columns)), atol=1.5 * DEVIATIONS)
    np.testing.assert_allclose(np.mean(columns, axis=1), 0, atol=DEVIATIONS)
    np.testing.assert_allclose(np.mean(columns**4, axis=1), 3, atol=10 * DEVIATIONS)


def test_another_key_is_another_path(increment):
    other = BrownianTree(steps(), PATHS, jax.random.key(1)).evaluate(0.0, 0.65)
    same = increment(0.0, 0.65).W
    assert abs(np.corrcoef(same, other)[0, 1]) < DEVIATIONS
    with pytest.raises(ValueError, match="increments only"):
        BrownianTree(steps(), PATHS, jax.random.key(1)).evaluate(0.65)
