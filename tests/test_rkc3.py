"""The two-step method: coefficients, order, stability, and when it falls back."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp

import gradflow as gf
from gradflow._solver.rkc3 import (
    largest_stiffness,
    num_stages,
    third_order,
)
from gradflow._solver.stabilised import AbstractStabilised
from gradflow._solver.stages import Start, run_stages
from small import network, problem, weights_of

STAGES = np.array([3, 4, 5, 12, 30, 80], np.int32)
RATIOS = np.array([0.5, 1.0, 1.7, 10.0])


START = jnp.array([1.0, 0.5, 0.8])
RATES = jnp.array([1.0, 2.0, 1.0])


def field(t, y, args):
    """Nonlinear, not autonomous, no gradient."""
    a, b, c = args
    return jnp.stack(
        [
            -a * y[0] ** 3 + jnp.cos(3 * t) * y[1],
            -b * y[1] + y[0] * y[2],
            -c * y[2] ** 2 * y[0] + jnp.sin(t),
        ]
    )


def pairs(*arrays):
    return [jnp.asarray(x.ravel()) for x in np.meshgrid(*arrays, indexing="ij")]


class Altered(AbstractStabilised):
    """`RKC3` with a wrong spectral radius, and `stages` at least."""

    factor: jax.Array
    stages: jax.Array
    max_stages: int = 100
    scan_kind: None = None
    fewest_stages = 3

    def order(self, terms):
        return 3

    def error_order(self, terms):
        return 3

    def num_stages(self, stiffness, ratio):
        wanted = gf.RKC3().num_stages(self.factor * stiffness, ratio)
        return jnp.maximum(self.stages, wanted)

    def largest_stiffness(self, stages):
        return gf.RKC3().largest_stiffness(stages)

    def scheme(self, stages, ratio):
        return gf.RKC3().scheme(stages, ratio)


# One step.

schemes = eqx.filter_jit(jax.vmap(third_order))


def test_scalars():
    stages, ratios = pairs(STAGES, RATIOS)
    scheme = jax.tree.map(np.asarray, schemes(stages, ratios))
    for i, (s, q) in enumerate(zip(*map(np.asarray, (stages, ratios)), strict=True)):
        w0, w1, g = scheme.w0[i], scheme.w1[i], scheme.previous_weight[i]
        basis = np.eye(s + 1)[s]
        value, first, second, third = (
            chebyshev.chebval(w0, chebyshev.chebder(basis, m) if m else basis)
            for m in range(4)
        )
        a = scheme.last_weight[i] * w1 * second / first**2
        # Of e^z by itself and e^{-qz}.
        conditions = (
            a * first - g * q,
            a * w1 * second + g * q**2,
            a * w1**2 * third - g * q**3,
        )
        np.testing.assert_allclose(value, 5 / 4, rtol=1e-11)
        np.testing.assert_allclose(conditions, 1, rtol=1e-10)
        assert abs(g) < 0.8  # zero stability


def test_order_conditions():
    """All of them up to the third order: a step is exact where every derivative of
    the third order is constant."""

    def polynomials(t, y):
        u, v, *_ = y
        return jnp.stack([jnp.ones_like(t), u, jnp.square(u), v, jnp.square(t)])

    @eqx.filter_jit
    @jax.vmap
    def end(stages, q):
        start = Start(
            y=jnp.zeros(5),
            previous=jnp.stack([-q, q**2 / 2, -(q**3) / 3, -(q**3) / 6, -(q**3) / 3]),
            derivative=jnp.zeros(5),
            is_fresh=jnp.asarray(True),
        )
        scheme = third_order(stages, q)
        end, _, _ = run_stages(
            polynomials, scheme, jnp.asarray(1.0), start, max_stages=80, kind="lax"
        )
        return end

    ends = end(*pairs(STAGES, RATIOS))
    np.testing.assert_allclose(
        ends, np.tile([1, 1 / 2, 1 / 3, 1 / 6, 1 / 3], (len(ends), 1)), rtol=1e-10
    )


def test_stability_interval():
    fractions = np.linspace(0, 1.1, 1101)

    @eqx.filter_jit
    @jax.vmap
    def amplification(stages, ratio, fraction):
        """What becomes of a state, and of the one before it."""
        scheme = third_order(stages, ratio)
        z = -fraction * largest_stiffness(stages.astype(float), ratio)
        start = Start(jnp.asarray(1.0), jnp.asarray(0.0), z, jnp.asarray(False))
        now, _, _ = run_stages(
            lambda t, y: z * y,
            scheme,
            jnp.asarray(1.0),
            start,
            max_stages=80,
            kind="lax",
        )
        return now, scheme.previous_weight

    now, previous = map(np.asarray, amplification(*pairs(STAGES, RATIOS, fractions)))
    root = np.sqrt(now**2 + 4 * previous + 0j)
    sizes = np.maximum(np.abs(now + root), np.abs(now - root)) / 2
    sizes = np.reshape(sizes, (len(STAGES), len(RATIOS), -1))
    stable = sizes <= 1 + 1e-9
    assert np.all(stable[..., fractions <= 1])
    # Of three, four and five stages the interval is up to 1.65 times as long.
    ends = fractions[np.argmin(stable[STAGES >= 12], axis=-1)]
    assert np.all(ends > 1) and np.all(ends < 1.025)


def test_number_of_stages():
    stiffness, ratio = pairs(np.geomspace(1e-3, 1e7, 300), RATIOS)
    stages = jax.jit(jax.vmap(num_stages))(stiffness, ratio)
    np.testing.assert_array_equal(stages, np.round(stages))
    assert np.min(stages) == 3
    largest = jax.jit(jax.vmap(largest_stiffness))
    assert np.all(largest(stages, ratio) >= stiffness)
    assert np.all((largest(stages - 1, ratio) <= stiffness)[stages > 3])
    # Whatever the ratio, the first step included.
    ratio = jnp.array([0.0, 0.3, *RATIOS])
    for limit in (3, 5, 28, 1000):
        stiffness = 0.999 * gf.RKC3().largest_stiffness(limit)
        wanted = jax.vmap(lambda q, x=stiffness: gf.RKC3().num_stages(x, q))(ratio)
        assert np.all(wanted <= limit)
    with pytest.raises(ValueError, match="at least 3"):
        gf.RKC3(max_stages=2)


def test_single_precision():
    stages, ratios = pairs(STAGES, RATIOS)
    double = schemes(stages, ratios)
    single = schemes(stages, ratios.astype(jnp.float32))
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert a.dtype in (jnp.float32, stages.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_falls_back_to_one_step():
    """After a jump, and where a step is more than twice as long as the last one."""
    term = diffrax.ODETerm(field)
    no_jump = jnp.asarray(False)

    @eqx.filter_jit
    def second_steps(ratios, jumps):
        state = gf.RKC3().init(term, 0.0, 0.1, START, RATES)
        y, _, _, state, _ = gf.RKC3().step(term, 0.0, 0.1, START, RATES, state, no_jump)

        def second_step(solver):
            def of(ratio, jump):
                t1 = 0.1 + 0.1 / ratio
                y1, error, *_ = solver.step(term, 0.1, t1, y, RATES, state, jump)
                return jnp.concatenate([y1, error])

            return jax.vmap(of)(ratios, jumps)

        return second_step(gf.RKC3()), second_step(gf.RKC())

    ratios, jumps = pairs(np.array([0.3, 0.48, 0.5, 1.0, 5.0]), np.array([False, True]))
    two, one = second_steps(ratios, jumps)
    is_same = np.isclose(two, one, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(
        is_same, np.repeat(jumps | (ratios < 0.49), 6).reshape(-1, 6)
    )


# Many steps.


@eqx.filter_jit
def march(solver, ts, rates):
    """The states after steps that end at the times `ts[1:]`."""
    term = diffrax.ODETerm(field)

    def step(carry, ends):
        y, state = carry
        y, _, _, state, _ = solver.step(
            term, *ends, y, rates, state, jnp.asarray(False)
        )
        return (y, state), y

    state = solver.init(term, ts[0], ts[1], START, rates)
    _, ys = jax.lax.scan(step, (START, state), (ts[:-1], ts[1:]))
    return ys


def test_order():
    cycles = np.array([[1.0, 1.0, 1.0], [1.0, 1.3, 0.7]])
    stages = np.array([5.0, 12.0, 30.0, 80.0])
    levels = np.array([24, 48, 96])
    # All of as many steps, of which the coarser ones need a part.
    times = np.cumsum(np.tile(cycles, 32), axis=1)
    times = np.append(np.zeros((2, 1)), times, axis=1)
    ts = jnp.asarray(times[:, None] / levels[:, None])
    by_stages = eqx.filter_vmap(
        lambda ts, s: march(Altered(jnp.asarray(0.0), s), ts, RATES), in_axes=(None, 0)
    )
    by_level = eqx.filter_vmap(by_stages, in_axes=(0, None))
    by_cycle = eqx.filter_vmap(by_level, in_axes=(0, None))
    states = np.asarray(by_cycle(ts, jnp.asarray(stages)))
    exact = solve_ivp(
        lambda t, y: np.asarray(field(t, y, RATES)),
        (0, 1),
        START,
        method="DOP853",
        rtol=1e-11,
        atol=1e-13,
    ).y[:, -1]
    ends = np.stack(
        [states[:, i, :, level - 1] for i, level in enumerate(levels)], axis=-2
    )
    errors = np.linalg.norm(ends - exact, axis=-1)
    orders = -np.diff(np.log2(errors), axis=-1)
    assert np.all(np.abs(orders[..., -1] - 3) < 0.15)


def test_gradient():
    # Two steps that fall back, and a short one at the end.
    ts = jnp.array([0.0, 0.1, 0.2, 0.25, 0.5, 0.7, 0.7 + 1e-7])

    def distance(rates):
        return jnp.sum(jnp.square(march(gf.RKC3(max_stages=30), ts, rates)[-1]))

    slopes = eqx.filter_jit(jax.grad(distance))(RATES)
    eps = 1e-5
    shifts = eps * jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    up, down = eqx.filter_jit(jax.vmap(distance))(RATES[None] + shifts).reshape(2, 3)
    np.testing.assert_allclose(slopes, (up - down) / (2 * eps), rtol=1e-7)


@eqx.filter_jit
def solve_stiff(factor, rtol):
    def stiff(t, y, args):
        del args
        return -jnp.array([1.0, 30.0, 1000.0]) * (y - jnp.cos(t)) - y**3

    return diffrax.diffeqsolve(
        diffrax.ODETerm(stiff),
        Altered(factor, jnp.asarray(2.0)),
        0.0,
        3.0,
        0.01,
        START,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol),
        max_steps=10_000,
    )


def test_vmap():
    factors, rtols = jnp.array([1.0, 1.0, 1.2]), jnp.array([1e-3, 1e-5, 1e-4])
    together = eqx.filter_vmap(solve_stiff)(factors, rtols)
    for i in range(3):
        alone = solve_stiff(factors[i], rtols[i])
        np.testing.assert_allclose(alone.ys, together.ys[i], rtol=1e-11)
        assert alone.stats["num_steps"] == together.stats["num_steps"][i]


def test_too_small_a_spectral_radius():
    """Half of it leads to rejections, not to blow-up."""
    right, wrong = (
        solve_stiff(jnp.asarray(factor), jnp.asarray(1e-5)) for factor in (1.0, 0.45)
    )
    np.testing.assert_allclose(wrong.ys, right.ys, rtol=1e-4)
    rejected, more = (int(s.stats["num_rejected_steps"]) for s in (right, wrong))
    assert rejected < more < 0.5 * wrong.stats["num_steps"]


def test_solve_with_projections():
    """The order is the same where every step ends with a projection."""
    runs = [
        gf.solve(
            problem(),
            gf.LagrangeFlow(0.1),
            network(activation=gf.Identity()),
            2.0,
            ts=[2.0],
            observe={},
            solver=gf.RKC3(max_stages=20),
            controller=diffrax.ConstantStepSize(),
            dt0=2 / number,
        )
        for number in (160, 320, 2560)
    ]
    coarse, fine, reference = (weights_of(run.final) for run in runs)
    errors = [np.linalg.norm(x - reference) for x in (coarse, fine)]
    assert abs(np.log2(errors[0] / errors[1]) - 3) < 0.15
    stats = runs[1].stats
    assert stats["max_drift"] > 0
    # The first step, of two stages, evaluates the field at its start too.
    assert stats["num_gradients"] == 3 * 320 + 2 * stats["num_jvps"]
