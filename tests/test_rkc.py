"""The Runge–Kutta–Chebyshev method: coefficients, order, stability, spectral radius."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

import gradflow as gf
from gradflow._solver import rkc, stabilised
from gradflow._solver.chebyshev import Chebyshev
from gradflow._solver.rkc import DAMPING, largest_stiffness, num_stages, second_order
from gradflow._solver.spectral_radius import refine, unknown_spectral_radius
from small import network, problem

# The coefficients.

STAGES = np.arange(2, 301)


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(0, None, None))
def coefficients(stages, dtype, length):
    """What leads to stages 1 to `length`, and the nodes of stages 0 to `length`."""

    def advance(state, j):
        after, stage = state.next(j)
        return after, (stage, state.node(j))

    start = Chebyshev.of_degree_zero(second_order(stages, dtype))
    last, (stage, nodes) = jax.lax.scan(advance, start, jnp.arange(length))
    return stage, jnp.append(nodes, last.node(jnp.asarray(length)))


def expected_coefficients(stages):
    """By Clenshaw's algorithm; one row for each number of stages."""
    w0 = 1 + DAMPING / stages**2
    basis = np.eye(stages[-1] + 1)
    zeroth, first, second = (
        chebyshev.chebval(w0, chebyshev.chebder(basis, m) if m else basis).T
        for m in range(3)
    )
    row = np.arange(len(stages))
    w1 = (first[row, stages] / second[row, stages])[:, None]
    w0 = w0[:, None]
    b = np.empty_like(zeroth)
    b[:, 2:] = second[:, 2:] / first[:, 2:] ** 2
    b[:, :2] = b[:, 2:3]
    mu, nu, mu_tilde, gamma_tilde = np.zeros((4, *b[:, 1:].shape))
    mu[:, 1:] = 2 * b[:, 2:] * w0 / b[:, 1:-1]
    nu[:, 1:] = -b[:, 2:] / b[:, :-2]
    mu_tilde[:, 1:] = 2 * b[:, 2:] * w1 / b[:, 1:-1]
    gamma_tilde[:, 1:] = -(1 - b * zeroth)[:, 1:-1] * mu_tilde[:, 1:]
    # Stage 1 is a step of Euler's method, from Y_0 alone.
    mu[:, 0] = 1
    mu_tilde[:, 0] = b[:, 1] * w1[:, 0]
    nodes = np.zeros_like(b)
    nodes[:, 1] = mu_tilde[:, 0]
    nodes[:, 2:] = w1 * second[:, 2:] / first[:, 2:]
    return {
        "mu": mu,
        "nu": nu,
        "mu_tilde": mu_tilde,
        "gamma_tilde": gamma_tilde,
        "nodes": nodes,
    }


def as_dict(coefficients):
    stage, nodes = coefficients
    names = ("mu", "nu", "mu_tilde", "gamma_tilde")
    return {**{name: getattr(stage, name) for name in names}, "nodes": nodes}


@pytest.fixture(scope="module")
def all_coefficients():
    return as_dict(coefficients(jnp.asarray(STAGES), jnp.float64, 300))


def used(values, first):
    """Of each row those that a step of so many stages uses."""
    reached = np.arange(first, first + values.shape[1])[None] <= STAGES[:, None]
    return np.asarray(values)[reached]


def test_coefficients(all_coefficients):
    for name, expected in expected_coefficients(STAGES).items():
        first = 0 if name == "nodes" else 1
        np.testing.assert_allclose(
            used(all_coefficients[name], first),
            used(expected, first),
            rtol=1e-11,
            atol=1e-14,
            err_msg=name,
        )


def test_order_conditions(all_coefficients):
    """Every stage but the first is exact for a field that is linear in time."""
    mu, nu, mu_tilde, gamma_tilde, nodes = map(np.asarray, all_coefficients.values())
    integral_of_1, integral_of_t = np.zeros((2, *nodes.shape))
    for j in range(nodes.shape[1] - 1):
        for integral, f, f0 in (
            (integral_of_1, 1.0, 1.0),
            (integral_of_t, nodes[:, j], 0.0),
        ):
            integral[:, j + 1] = (
                mu[:, j] * integral[:, j]
                + nu[:, j] * integral[:, j - 1]
                + mu_tilde[:, j] * f
                + gamma_tilde[:, j] * f0
            )
    np.testing.assert_allclose(used(integral_of_1, 0), used(nodes, 0), rtol=1e-11)
    second = integral_of_t[:, 2:], nodes[:, 2:] ** 2 / 2
    np.testing.assert_allclose(*(used(x, 2) for x in second), rtol=1e-11)
    last = np.arange(len(STAGES)), STAGES
    np.testing.assert_allclose(nodes[last], 1, rtol=1e-11)
    np.testing.assert_allclose(integral_of_t[last], 1 / 2, rtol=1e-11)


def test_coefficients_in_single_precision(all_coefficients):
    # As many as there can be in single precision.
    stages = jnp.arange(2, 29)
    single = as_dict(coefficients(stages, jnp.float32, 28))
    for name, values in single.items():
        assert values.dtype == jnp.float32
        expected = all_coefficients[name][: len(stages), : values.shape[1]]
        first = 0 if name == "nodes" else 1
        reached = np.arange(first, 29)[None] <= stages[:, None]
        np.testing.assert_allclose(
            values[reached], expected[reached], rtol=3e-5, err_msg=name
        )


def test_number_of_stages():
    stiffness = np.concatenate([[0.0, 1e-3], np.geomspace(0.1, 1e7, 1000)])
    stages = np.asarray(jax.vmap(num_stages)(stiffness))
    np.testing.assert_array_equal(stages, np.round(stages))
    assert np.min(stages) == 2
    # Enough, and without the last one not by much.
    assert np.all(0.65 * (stages**2 - 1) >= stiffness)
    more = stages > 2
    assert np.all(0.645 * ((stages - 1) ** 2 - 1)[more] <= stiffness[more])
    for stages in (2, 5, 28, 10_000):
        assert num_stages(largest_stiffness(stages)) <= stages
        assert num_stages(1.01 * largest_stiffness(stages + 1)) > stages


# Steps of a given number of stages.

FRACTIONS = jnp.linspace(0, 1, 9)


@eqx.filter_jit
def run(field, y0, args, t0, h, num_steps, stages):
    """Steps of equal size: the last state, the last error estimate, and what is between
    the ends of the last step."""
    term, solver = diffrax.ODETerm(field), gf.RKC(max_stages=80)

    def step(i, carry):
        y, state, _, _ = carry
        start, end = t0 + i * h, t0 + (i + 1) * h
        y, error, info, state, _ = solver.step(
            term, start, end, y, args, state, jnp.asarray(False)
        )
        between = solver.interpolation_cls(t0=start, t1=end, **info)
        looks = jax.vmap(lambda fraction: between.evaluate(start + fraction * h))
        return y, state, error, looks(FRACTIONS)

    state = solver.init(term, t0, t0 + h, y0, args)
    nothing = jnp.zeros((len(FRACTIONS), *y0.shape))
    with pytest.MonkeyPatch.context() as patch:
        # Inside of what is compiled, so that nothing is left behind in a cache.
        patch.setattr(rkc, "num_stages", lambda stiffness: stages)
        y, _, error, looks = jax.lax.fori_loop(
            0, num_steps, step, (y0, state, jnp.zeros_like(y0), nothing)
        )
    return y, error, looks


def nonlinear(t, y, args):
    """A logistic equation, a cubic one, one in which time counts, and an oscillator
    with a force."""
    del args
    u, v, w, p, q = y
    return jnp.stack([u * (1 - u), -(v**3), -2 * t * w**2, q, -p + 3 * jnp.cos(2 * t)])


def nonlinear_solution(t):
    return np.stack(
        [
            1 / (1 + 9 * np.exp(-t)),
            1 / np.sqrt(1 + 2 * t),
            1 / (1 + t**2),
            np.sin(t) - np.cos(2 * t),
            np.cos(t) + 2 * np.sin(2 * t),
        ],
        axis=-1,
    )


T0 = 0.3


def run_nonlinear(stages, h, num_steps):
    start = nonlinear_solution(np.float64(T0))
    numbers = map(jnp.asarray, (T0, h, num_steps, float(stages)))
    return run(nonlinear, jnp.asarray(start), None, *numbers)


def fitted_order(hs, errors):
    return np.polyfit(np.log(hs), np.log(errors), 1)[0]


all_stages = pytest.mark.parametrize("stages", [2, 5, 12, 30, 80])


@all_stages
def test_order(stages):
    nums = np.array([16, 32, 64, 128])
    ends = np.stack([run_nonlinear(stages, 1 / n, n)[0] for n in nums])
    errors = np.abs(ends - nonlinear_solution(np.float64(T0 + 1)))
    orders = [fitted_order(1 / nums, e) for e in errors.T]
    np.testing.assert_allclose(orders, 2, atol=0.15)


@all_stages
def test_one_step(stages):
    """Within a step all is right to the third order, and so is the error estimate."""
    hs = np.array([1 / 32, 1 / 64, 1 / 128, 1 / 256])
    runs = [run_nonlinear(stages, h, 1) for h in hs]
    _, estimates, looks = map(np.stack, zip(*runs, strict=True))
    errors = looks - nonlinear_solution(T0 + hs[:, None] * np.asarray(FRACTIONS))
    np.testing.assert_allclose(errors[:, 0], 0, atol=1e-15)
    largest = np.max(np.abs(errors), axis=1)
    orders = [fitted_order(hs, e) for e in largest.T]
    np.testing.assert_allclose(orders, 3, atol=0.15)
    # The estimate errs to the safe side.
    ratios = np.abs(estimates / errors[:, -1])
    assert np.all((1 < ratios) & (ratios < 2))


def modes(t, y, args):
    del t
    return args * y


@pytest.mark.parametrize("stages", [2, 3, 5, 12, 30, 79, 80])
def test_stability(stages):
    """One step of y' = λy for many λ at once is the stability polynomial."""
    w0 = 1 + DAMPING / stages**2
    top = np.eye(stages + 1)[stages]
    zeroth, first, second = (
        chebyshev.chebval(w0, chebyshev.chebder(top, m) if m else top) for m in range(3)
    )
    interval = (w0 + 1) * second / first
    np.testing.assert_allclose(interval, 0.653 * (stages**2 - 1), rtol=3e-3)

    z = -interval * np.linspace(0, 1.2, 2401)
    numbers = map(jnp.asarray, (0.0, 1.0, 1, float(stages)))
    values, _, _ = run(modes, jnp.ones(len(z)), jnp.asarray(z), *numbers)
    values = np.asarray(values)
    assert np.all(np.abs(values[z >= -interval]) <= 1 + 1e-12)
    # Between its ends it is damped.
    damped = (z >= -interval) & (z <= (1 - w0) * second / first)
    assert np.all((0.32 < values[damped]) & (values[damped] < 0.97))

    # It ends at 1 for even and at -1 for odd stages, where T_s is as large as this.
    b = second / first**2
    size = zeroth if stages % 2 == 0 else (2 - b * zeroth) / b
    end = (w0 + np.cosh(np.arccosh(size) / stages)) * second / first
    measured = -z[np.abs(values) > 1 + 1e-9][0]
    np.testing.assert_allclose(measured, end, rtol=1e-3)
    if stages not in (3, 5):  # -1 is far from the last minimum
        np.testing.assert_allclose(measured, interval, rtol=0.02)


# The spectral radius.

products = 0


def count_product():
    global products
    products += 1


def field_of(matrix):
    def field(y):
        jax.debug.callback(count_product)
        u, v = y["u"], jnp.ravel(y["v"])
        vector = jnp.concatenate([u, v])
        image = matrix @ vector + vector**3
        return {"u": image[: u.size], "v": image[u.size :].reshape(y["v"].shape)}

    return field


@jax.jit
def refined(matrix, point, estimate, when):
    return refine(field_of(matrix), point, estimate, when=when)


def point_of(vector):
    return {"u": jnp.asarray(vector[:3]), "v": jnp.asarray(vector[3:].reshape(3, 3))}


def spectrum_turned(eigenvalues, seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 12)))
    return jnp.asarray((turn * eigenvalues) @ turn.T)


ALWAYS, NEVER = jnp.asarray(True), jnp.asarray(False)
ORIGIN = point_of(np.zeros(12))
UNKNOWN = unknown_spectral_radius(ORIGIN)


@pytest.mark.parametrize("seed", range(8))
def test_spectral_radius(seed):
    """Of a negative definite Jacobian, that depends on the point."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(12, 12))
    vector = rng.normal(size=12) / 10
    matrix = -factor @ factor.T - np.diag(3 * vector**2) - 0.1 * np.eye(12)
    jacobian = matrix + np.diag(3 * vector**2)
    expected = np.max(np.abs(np.linalg.eigvals(jacobian)))
    matrix, point = jnp.asarray(matrix), point_of(vector)
    first = refined(matrix, point, UNKNOWN, ALWAYS)
    # The iteration may halt at the second largest eigenvalue for a while.
    assert 0.75 * expected < first.value <= (1 + 1e-12) * expected
    estimate = first
    for _ in range(20):
        earlier, estimate = estimate, refined(matrix, point, estimate, ALWAYS)
        assert estimate.value >= earlier.value
    np.testing.assert_allclose(estimate.value, expected, rtol=0.01)
    # One product each, where nothing has to be found anew.
    last = refined(matrix, point, estimate, ALWAYS)
    assert last.num_jvps == estimate.num_jvps + 1


def test_spectral_radius_of_growth():
    matrix = spectrum_turned(np.append(np.linspace(-3, 0, 11), 7), 1)
    found = refined(matrix, ORIGIN, UNKNOWN, ALWAYS)
    np.testing.assert_allclose(found.value, 7, rtol=0.02)


def test_spectral_radius_of_nothing():
    found = refined(jnp.zeros((12, 12)), ORIGIN, UNKNOWN, ALWAYS)
    assert found.value == 0 and found.num_jvps == 1
    # It still finds what comes later.
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
    matrix = spectrum_turned(-np.arange(12.0), 2)
    later = refined(matrix, ORIGIN, found, ALWAYS)
    np.testing.assert_allclose(later.value, 11, rtol=0.1)


def test_spectral_radius_costs_what_it_says():
    global products
    matrix = spectrum_turned(-np.arange(12.0), 3)
    products = 0
    found = refined(matrix, ORIGIN, UNKNOWN, ALWAYS)
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert 1 < found.num_jvps == products
    kept = refined(matrix, point_of(np.ones(12)), found, NEVER)
    jax.block_until_ready(kept)
    jax.effects_barrier()
    assert eqx.tree_equal(kept, found)
    assert products == found.num_jvps


# Adaptive steps.


def test_too_few_stages():
    with pytest.raises(ValueError, match="`max_stages`"):
        gf.RKC(max_stages=1)


def rates(stiffness):
    return stiffness * np.linspace(0.1, 1, 4), stiffness * np.linspace(0.1, 1, 2)


def stiff(t, y, stiffness):
    """Towards cos t and sin t, at rates that differ from entry to entry."""
    to_cos, to_sin = (stiffness * jnp.asarray(rate) for rate in rates(1.0))
    cos, sin = jnp.cos(t), jnp.sin(t)
    return {"a": -to_cos * (y["a"] - cos) - sin, "b": -to_sin * (y["b"] - sin) + cos}


START = {"a": jnp.linspace(0.5, 1.5, 4), "b": jnp.array([0.0, 0.5])}


def assert_solves_stiff(solution, start, t1, stiffness, atol):
    assert solution.result == diffrax.RESULTS.successful
    to_cos, to_sin = rates(stiffness)
    a = np.cos(t1) + (start["a"] - 1) * np.exp(-to_cos * t1)
    b = np.sin(t1) + start["b"] * np.exp(-to_sin * t1)
    np.testing.assert_allclose(solution.ys["a"][0], a, rtol=0, atol=atol)
    np.testing.assert_allclose(solution.ys["b"][0], b, rtol=0, atol=atol)


@eqx.filter_jit
def solve_stiff(start, t1, stiffness, rtol, solver=gf.RKC()):  # noqa: B008
    return diffrax.diffeqsolve(
        diffrax.ODETerm(stiff),
        solver,
        0.0,
        t1,
        t1 / 100,
        start,
        stiffness,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol / 100),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        max_steps=20_000,
    )


# The last two: backwards in time.
@pytest.mark.parametrize(
    ("t1", "stiffness"), [(2, 1), (2, 1e3), (2, 1e6), (-2, -1), (-2, -1e3)]
)
def test_plain_diffrax(t1, stiffness):
    numbers = jnp.asarray(t1, float), jnp.asarray(stiffness, float)
    rough, fine = (
        solve_stiff(START, *numbers, jnp.asarray(rtol)) for rtol in (1e-3, 1e-5)
    )
    assert_solves_stiff(rough, START, t1, stiffness, 1e-2)
    assert_solves_stiff(fine, START, t1, stiffness, 2e-4)
    # What an explicit method without stages would need.
    assert int(rough.solver_state.num_evaluations) < 50 + abs(t1 * stiffness) / 2
    np.testing.assert_allclose(fine.solver_state.radius.value, abs(stiffness), rtol=0.1)


def test_many_at_once():
    scales = jnp.linspace(-2, 2, 16)
    starts = jax.vmap(lambda c: jax.tree.map(lambda x: c * x, START))(scales)
    stiffnesses = jnp.geomspace(1, 1e4, 16)
    numbers = jnp.asarray(2.0), jnp.asarray(1e-3)
    together = eqx.filter_jit(eqx.filter_vmap(solve_stiff, in_axes=(0, None, 0, None)))(
        starts, numbers[0], stiffnesses, numbers[1]
    )
    for i in range(16):
        row = functools.partial(jax.tree.map, lambda x, i=i: x[i])
        start, one = row(starts), row(eqx.filter(together, eqx.is_array))
        alone = solve_stiff(start, numbers[0], stiffnesses[i], numbers[1])
        for name in START:
            np.testing.assert_allclose(one.ys[name], alone.ys[name], rtol=1e-9)
        assert one.stats["num_steps"] == alone.stats["num_steps"]
        assert one.solver_state.num_evaluations == alone.solver_state.num_evaluations


def test_half_the_spectral_radius(monkeypatch):
    """Steps that are not stable are rejected; nothing blows up."""

    def half(*args, **kwargs):
        found = refine(*args, **kwargs)
        return eqx.tree_at(lambda radius: radius.value, found, found.value / 2)

    monkeypatch.setattr(stabilised, "refine", half)
    numbers = map(jnp.asarray, (2.0, 1e3, 1e-3))
    # Of other stages than elsewhere, so that neither finds what the other has compiled.
    solution = solve_stiff(START, *numbers, gf.RKC(max_stages=9_999))
    assert_solves_stiff(solution, START, 2.0, 1e3, 3e-3)
    assert solution.stats["num_rejected_steps"] > 10
    assert solution.solver_state.radius.value < 600


# Derivatives, in steps of fixed size: the stages are whole numbers, so that they are
# those of the steps.


def end_norm(start, rates, solver=gf.RKC(), **options):  # noqa: B008
    end = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, rates: -rates * (y + y**3 - jnp.cos(t))),
        solver,
        0.0,
        0.5,
        1 / 40,
        start,
        rates,
        stepsize_controller=diffrax.ConstantStepSize(),
        saveat=diffrax.SaveAt(t1=True, solver_state=True),
        **options,
    )
    return jnp.sum(jnp.square(end.ys)), end.solver_state.num_evaluations


POINT = jnp.array([0.9, 1.2, -0.4]), jnp.array([1.0, 20.0, 200.0])


@pytest.fixture(scope="module")
def difference_quotients():
    fn = jax.jit(end_norm)
    _, num_evaluations = fn(*POINT)
    assert num_evaluations > 20 * 3  # more than the fewest stages
    quotients = []
    for which in range(2):
        for i, x in enumerate(POINT[which]):
            ends = []
            for sign in (1, -1):
                point = list(POINT)
                point[which] = point[which].at[i].add(sign * 1e-5 * x)
                end, same = fn(*point)
                assert same == num_evaluations
                ends.append(end)
            quotients.append((ends[0] - ends[1]) / (2e-5 * x))
    return np.array(quotients)


def test_reverse_mode(difference_quotients):
    gradient = jax.jit(
        jax.grad(end_norm, argnums=(0, 1), has_aux=True),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    derivatives = jnp.concatenate(gradient(*POINT)[0])
    np.testing.assert_allclose(derivatives, difference_quotients, rtol=1e-6, atol=1e-9)


def test_forward_mode(difference_quotients):
    options = {"solver": gf.RKC(scan_kind="lax"), "adjoint": diffrax.ForwardMode()}
    jacobian = jax.jacfwd(
        lambda *point: end_norm(*point, **options), argnums=(0, 1), has_aux=True
    )
    derivatives = jnp.concatenate(jax.jit(jacobian)(*POINT)[0])
    np.testing.assert_allclose(derivatives, difference_quotients, rtol=1e-6, atol=1e-9)


# In `gradflow.solve`.


def linear(dtype=float):
    """Linear regression, one sample for each weight, with the rates 2 x²."""
    rates = np.array([1.0, 30.0, 300.0, 1e5])
    inputs = jnp.asarray(np.diag(np.sqrt(rates / 2)), dtype)
    labels = jnp.array([1.0, -1.0, 1.0, 1.0], dtype)
    data = gf.Dataset(inputs, labels, regression=True)
    limit = np.asarray(labels) / np.sqrt(rates / 2)
    # The stiffest starts where it ends: its decay would need shorter steps than times
    # in single precision have.
    start = np.array([[0.5, 0.2, -0.3, limit[-1]]])

    def exact(t):
        return limit + (start[0] - limit) * np.exp(-rates * t)

    network = gf.Dense.from_weights([jnp.asarray(start, dtype)])
    return gf.Problem(data, gf.SquareLoss()), network, rates, exact


def test_single_precision():
    problem, network, rates, exact = linear(jnp.float32)
    trajectory = gf.solve(
        problem, gf.GradientFlow(), network, 10.0, rtol=1e-3, observe={}
    )
    weights = trajectory.networks.weights[0][:, 0]
    assert weights.dtype == jnp.float32
    expected = exact(np.asarray(trajectory.ts, float)[:, None])
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(
        trajectory.stats["spectral_radius"], rates[-1], rtol=1e-3
    )
    stats = {name: float(value) for name, value in trajectory.stats.items()}
    # Most steps are as long as 28 stages let them be.
    stages = (stats["num_gradients"] - 2 * stats["num_jvps"]) / stats["num_steps"]
    assert 24 < stages <= 28
    assert stats["num_rejected_steps"] < 0.02 * stats["num_steps"]


def test_stage_limit_of_single_precision():
    """A step that would need more stages is rejected, at the price of two."""
    solver, rate, y0 = gf.RKC(), -jnp.ones(2, jnp.float32), jnp.ones(2, jnp.float32)

    @jax.jit
    def step(h):
        term, zero = diffrax.ODETerm(modes), jnp.zeros_like(h)
        state = solver.init(term, zero, h, y0, rate)
        _, error, _, state, _ = solver.step(
            term, zero, h, y0, rate, state, jnp.asarray(False)
        )
        return jnp.max(error), state.num_evaluations - 1  # of the start

    for stages in (5, 28):
        h = 0.99 * largest_stiffness(stages + 1) / 1.1
        error, taken = step(h.astype(jnp.float32))
        assert jnp.isfinite(error) and taken == stages
    error, taken = step((1.01 * largest_stiffness(29) / 1.1).astype(jnp.float32))
    assert error == np.inf and taken == 2


def test_few_stages():
    problem, network, rates, exact = linear()
    t1, solver = 0.05, gf.RKC(max_stages=5)
    trajectory = gf.solve(
        problem, gf.GradientFlow(), network, t1, rtol=1e-4, solver=solver, observe={}
    )
    expected = exact(np.asarray(trajectory.ts)[:, None])
    weights = trajectory.networks.weights[0][:, 0]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-3)
    stats = {name: float(value) for name, value in trajectory.stats.items()}
    assert stats["num_steps"] > t1 * rates[-1] / (0.653 * (5**2 - 1))
    # They are not found by trial and error.
    assert stats["num_rejected_steps"] < 5
    assert stats["num_gradients"] - 2 * stats["num_jvps"] <= 5 * stats["num_steps"]


evaluations = 0


def count_evaluation():
    global evaluations
    evaluations += 1


class CountedFlow(gf.GradientFlow):
    """A gradient flow that counts the evaluations of its field."""

    def vector_field(self, t, state, problem, like):
        jax.debug.callback(count_evaluation)
        return super().vector_field(t, state, problem, like)


def test_number_of_gradients():
    global evaluations
    evaluations = 0
    # A first step so long that it is rejected.
    trajectory = gf.solve(
        problem(), CountedFlow(0.1), network(), 2.0, rtol=1e-4, dt0=1.0, observe={}
    )
    jax.block_until_ready(trajectory.ts)
    jax.effects_barrier()
    stats = {name: int(value) for name, value in trajectory.stats.items()}
    assert stats["num_rejected_steps"] > 0
    assert stats["num_jvps"] > 1
    # One before the start, to see that it is finite; and each product counts as two.
    assert stats["num_gradients"] == evaluations - 1 + stats["num_jvps"]
    assert stats["num_steps"] == (
        stats["num_accepted_steps"] + stats["num_rejected_steps"]
    )
