"""Flows with noise: stationary densities, laws of single paths, and the descents that
they are limits of."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types
from small import linear, network, problem, regression


def samples(problem, flow_of, start, ts, number, rtol=3e-2):
    """The weights of so many paths at the times `ts`."""

    @jax.jit
    @jax.vmap
    def path(key):
        run = gf.solve(
            problem, flow_of(key), start, ts[-1], ts=ts, rtol=rtol, observe={}
        )
        return run.networks.weights

    weights = path(jax.random.split(jax.random.key(0), number))
    return [np.asarray(w) for w in weights]


def test_stationary_covariance_of_a_quadratic():
    """Boltzmann's density is normal, with the covariance T times the inverse Hessian;
    on the way there that of the Ornstein-Uhlenbeck process."""
    inputs, targets = np.array([[1.0, 0.3], [0.2, 0.7]]), np.array([1.0, -1.0])
    minimum, hessian = np.linalg.solve(inputs, targets), 2 * inputs.T @ inputs
    temperature, number, ts = 0.3, 3000, np.array([0.5, 8.0])
    (weights,) = samples(
        regression(inputs, targets),
        lambda key: gf.LangevinFlow(temperature, key=key),
        linear(minimum[None]),
        ts,
        number,
    )
    values, vectors = np.linalg.eigh(hessian)
    assert np.exp(-2 * values[0] * ts[-1]) < 1e-3
    for i, t in enumerate(ts):
        along = (weights[:, i, 0] - minimum) @ vectors
        exact = temperature / values * (1 - np.exp(-2 * values * t))
        deviation = 4 / np.sqrt(number)
        np.testing.assert_allclose(
            np.mean(along**2, axis=0), exact, rtol=deviation * np.sqrt(2)
        )
        assert np.all(np.abs(np.mean(along, axis=0)) < deviation * np.sqrt(exact))


def quadrature(objective, temperature, first, second, functions):
    """Means of functions of two coordinates under Boltzmann's density, on a grid."""
    x, y = np.meshgrid(first, second, indexing="ij")
    density = np.exp(-objective(x, y) / temperature)
    return np.array([np.sum(f(x, y) * density) for f in functions]) / np.sum(density)


def assert_means(values, expected):
    """Up to five standard errors, and those are small."""
    errors = np.std(values, axis=1) / np.sqrt(values.shape[1])
    assert np.all(errors < 0.1 * np.abs(expected))
    np.testing.assert_array_less(np.abs(np.mean(values, axis=1) - expected), 5 * errors)


def test_stationary_density_of_a_double_well():
    """Two layers of one weight have wells at (1, 1) and (-1, -1), with a barrier
    between them; all paths start in one."""
    temperature, decay = 0.5, 0.2
    first, second = samples(
        regression([[1.0]], [1.0]),
        lambda key: gf.LangevinFlow(temperature, gf.GradientFlow(decay), key=key),
        linear([[0.9]], [[0.9]]),
        np.array([20.0]),
        1000,
    )
    a, b = first.ravel(), second.ravel()
    functions = (
        lambda a, b: a * b,
        lambda a, b: a**2 + b**2,
        lambda a, b: (a * b) ** 2,
        lambda a, b: np.exp(-(a**2) - b**2),
        lambda a, b: 1.0 * (a + b > 0),
    )
    grid = np.linspace(-6, 6, 801)
    expected = quadrature(
        lambda a, b: (a * b - 1) ** 2 + decay * (a**2 + b**2),
        temperature,
        grid,
        grid,
        functions,
    )
    assert abs(expected[-1] - 0.5) < 0.01
    assert_means(np.array([f(a, b) for f in functions]), expected)


def test_stationary_density_on_a_sphere():
    """With respect to the length of the norm and the angle: not to the area of the
    plane, which those of the weights have."""
    inputs, targets = np.array([[1.0, 0.3], [0.2, 0.7]]), np.array([1.0, -0.5])
    temperature, decay = 0.4, 0.3
    (weights,) = samples(
        regression(inputs, targets),
        lambda key: gf.LangevinFlow(temperature, gf.LagrangeFlow(decay), key=key),
        linear([[0.6, 0.8]]),
        np.array([12.0]),
        2000,
    )

    def plane(f):
        return lambda r, angle: f(r * np.cos(angle), r * np.sin(angle))

    functions = [
        lambda x, y: x,
        lambda x, y: x**2 + y**2,
        lambda x, y: np.exp(-(x**2) - y**2),
        lambda x, y: x * y,
    ]

    def objective(x, y):
        residuals = [
            a * x + b * y - t for (a, b), t in zip(inputs, targets, strict=True)
        ]
        return sum(r**2 for r in residuals) + decay * (x**2 + y**2)

    r, angle = np.linspace(-5, 5, 1001), np.linspace(0, 2 * np.pi, 201)[:-1]
    expected = quadrature(
        plane(objective), temperature, r, angle, [plane(f) for f in functions]
    )
    x, y = weights[:, 0, 0].T
    values = np.array([f(x, y) for f in functions])
    assert_means(values, expected)
    # The other density is another one.
    grid = np.linspace(-5, 5, 501)
    of_weights = quadrature(objective, temperature, grid, grid, functions)
    errors = np.std(values, axis=1) / np.sqrt(values.shape[1])
    assert np.max(np.abs(of_weights - expected) / errors) > 20


@pytest.mark.parametrize(
    "flow, radius", [(gf.LagrangeFlow(), 1.0), (gf.WeightNormFlow(v_norm=2.0), 2.0)]
)
def test_brownian_motion_on_a_sphere(flow, radius):
    """Without a force the mean direction decays as exp(-(n - 1) T t / radius^2), as
    all eigenfunctions of the sphere's Laplacian do at rates of their own."""
    temperature, ts = 0.3, np.array([0.7])
    free = regression([[0.0, 0.0, 0.0]], [0.0])
    (weights,) = samples(
        free,
        lambda key: gf.LangevinFlow(temperature, flow, key=key),
        linear([[4.0, -2.0, 4.0]]),
        ts,
        2000,
    )
    directions = weights[:, 0, 0] / np.linalg.norm(weights[:, 0, 0], axis=1)[:, None]
    start = np.array([2.0, -1.0, 2.0]) / 3
    # The norm moves freely too, and has not come to zero, where it changes its sign.
    assert np.min(np.linalg.norm(weights[:, 0, 0], axis=1)) > 0.5
    along = directions @ start
    law = np.exp(-2 * temperature * ts[0] / radius**2)
    error = np.std(along) / np.sqrt(len(along))
    assert abs(np.mean(along) - law) < 5 * error
    across = directions - along[:, None] * start
    assert np.all(np.abs(np.mean(across, axis=0)) < 5 * error)


def test_conserved_difference_decays_under_label_noise():
    """For two layers of one weight noise moves a^2 and b^2 alike, and what it adds to
    them on average is in proportion to the other one: a^2 - b^2 decays at the rate
    4 h delta^2, on every path."""
    delta, h, ts = 0.5, 0.05, np.linspace(0.0, 20.0, 21)
    flow = gf.LabelNoiseFlow(delta, h, key=jax.random.key(1))
    start = linear([[2.0]], [[0.5]])
    run = gf.solve(
        regression([[1.0]], [1.0]), flow, start, ts[-1], ts=ts, rtol=1e-3, observe={}
    )
    a, b = (np.asarray(w)[:, 0, 0] for w in run.networks.weights)
    law = 3.75 * np.exp(-4 * h * delta**2 * ts)
    np.testing.assert_allclose(a**2 - b**2, law, atol=2e-2)
    # The path is noisy all the time.
    assert np.std((a * b)[5:]) > 0.05


def descents(problem, start, step, delta, flow, t, number):
    steps = int(np.round(t / step))

    @jax.jit
    @jax.vmap
    def descend(key):
        run = gf.descend(
            problem,
            step,
            start,
            steps,
            flow=flow,
            sampler=gf.LabelNoise(delta, key=key),
            save_steps=[steps],
            observe={},
        )
        return run.networks.weights

    weights = descend(jax.random.split(jax.random.key(7), number))
    return [np.asarray(w) for w in weights]


def test_label_noise_is_the_limit_of_descent():
    """Means over the noise differ by the order of the step: by a fourth for a fourth of
    the step and twice the noise, to which the same flow belongs."""
    prob = regression([[1.0, 0.2], [-0.3, 0.8], [0.4, -0.9]], [1.0, -0.5, 0.3])
    start = gf.Dense.from_weights(
        (jnp.array([[1.2, 0.4], [-0.5, 0.9]]), jnp.array([[0.6, -0.7]])), gf.ReLU(0.3)
    )
    flow, t, number, step, delta = gf.LagrangeFlow(0.02), 3.0, 2000, 0.15, 0.5
    noisy = samples(
        prob,
        lambda key: gf.LabelNoiseFlow(delta, step, flow, key=key),
        start,
        np.array([t]),
        number,
    )
    coarse = descents(prob, start, step, delta, flow, t, number)
    fine = descents(prob, start, step / 4, 2 * delta, flow, t, number)
    quiet = gf.solve(prob, flow, start, t, ts=[t], rtol=1e-6, observe={})

    def statistics(weights):
        """The squares of the layers, and where they are with respect to the start."""
        squares = [np.sum(w[:, 0] ** 2, axis=(1, 2)) for w in weights]
        along = [
            np.sum(w[:, 0] * np.asarray(v), axis=(1, 2))
            for w, v in zip(weights, start.weights, strict=True)
        ]
        return np.array(squares + along)

    ours, theirs, finer = (statistics(w) for w in (noisy, coarse, fine))
    error = np.std(ours, axis=1) * np.sqrt(2 / number)
    far = np.mean(theirs, axis=1) - np.mean(ours, axis=1)
    near = np.mean(finer, axis=1) - np.mean(ours, axis=1)
    without = statistics([np.asarray(w)[None] for w in quiet.networks.weights])[:, 0]
    shift = np.abs(np.mean(ours, axis=1) - without)
    assert np.max(np.abs(far) / error) > 5 and np.max(shift / error) > 20
    assert np.all(np.abs(near) < 0.4 * np.abs(far) + 4 * error)


def test_error_is_that_of_the_path():
    """Of the same noise, at every tolerance. The estimate is from a run of four times
    the tolerance. With steps four times as long, order two makes it 15 errors.
    """
    ts = np.linspace(0.2, 2, 10)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def solve(key, rtol):
        return gf.solve(
            regression([[1.0]], [1.0]),
            gf.LabelNoiseFlow(0.5, 0.05, key=key),
            linear([[2.0]], [[0.5]]),
            2.0,
            ts=ts,
            rtol=rtol,
            observe={},
            error=True,
        )

    keys = jax.random.split(jax.random.key(0), 20)
    finest = solve(keys, 1e-5)
    errors, distance = [], jax.vmap(jax.vmap(gf.analysis.relative_distance))
    for rtol in (1e-2, 1e-3, 1e-4):
        run = solve(keys, rtol)
        errors.append(np.mean(distance(run.networks, finest.networks)))
        assert 0.5 < np.mean(run.error) / errors[-1] < 15
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_error_of_a_run_that_stopped():
    prob, start = regression([[1.0]], [1.0]), linear([[0.9]], [[0.9]])
    flow = gf.LangevinFlow(0.5, gf.GradientFlow(0.2), key=jax.random.key(0))

    def has_crossed(problem, network):
        return network.weights[0][0, 0] < 0

    run = gf.solve(
        prob, flow, start, 50.0, rtol=1e-3, until=has_crossed, error=True, observe={}
    )
    assert np.all(np.isfinite(run.error)) and np.all(run.error[1:] > 0)
    assert run.stopped_by == "has_crossed"
    assert run.ts[-1] < 50 and run.final.weights[0] < 0
    assert 1e-6 < np.max(run.error) < 2e-2


def test_no_temperature_is_the_flow():
    flow = gf.LagrangeFlow(0.1)
    cold = gf.LangevinFlow(0.0, flow, key=jax.random.key(0))
    cold = gf.solve(problem(), cold, network(), 1.0)
    exact = gf.solve(problem(), flow, network(), 1.0, rtol=1e-8)
    assert gf.analysis.relative_distance(cold.final, exact.final) < 3e-4
    assert set(cold.observables) == set(exact.observables)
    for name, values in cold.observables.items():
        np.testing.assert_allclose(
            values, exact.observables[name], rtol=5e-3, atol=1e-3
        )


def test_annealing():
    """Under a decay of 1 / (1 + t) the variance along the null space obeys
    v' = 2 T - 2 v / (1 + t)."""
    temperature, t, number = 0.2, 3.0, 2000
    (weights,) = samples(
        regression([[1.0, 0.0]], [1.0]),
        lambda key: gf.LangevinFlow(temperature, gf.HalpernFlow(), key=key),
        linear([[1.0, 0.0]]),
        np.array([t]),
        number,
    )
    exact = 2 * temperature * ((1 + t) ** 3 - 1) / 3 / (1 + t) ** 2
    np.testing.assert_allclose(
        np.var(weights[:, 0, 0, 1]), exact, rtol=4 * np.sqrt(2 / number)
    )


def test_derivative_by_the_temperature():
    """On a quadratic each path is the root of the temperature times a fixed one."""
    prob, start = regression([[1.0]], [0.0]), linear([[0.0]])

    def end(temperature):
        run = gf.solve(
            prob,
            gf.LangevinFlow(temperature, key=jax.random.key(3)),
            start,
            1.0,
            controller=diffrax.ConstantStepSize(),
            dt0=0.01,
            observe={},
        )
        return run.final.weights[0][0, 0]

    value, slope = jax.value_and_grad(end)(0.4)
    np.testing.assert_allclose(slope, value / 0.8, rtol=1e-10)
    assert abs(value) > 1e-3


def test_single_precision():
    prob = problem()
    dataset = gf.Dataset(
        np.asarray(prob.dataset.inputs, np.float32), prob.dataset.labels
    )
    start = network()
    start = start.with_weights(tuple(w.astype(jnp.float32) for w in start.weights))
    flow = gf.LangevinFlow(0.1, gf.LagrangeFlow(0.1), key=jax.random.key(0))
    run = gf.solve(
        gf.Problem(dataset, gf.SquareLoss()), flow, start, 1.0, rtol=1e-2, observe={}
    )
    assert run.final.weights[0].dtype == jnp.float32
    assert np.all(np.isfinite(run.final.weights[0]))


def test_counts():
    flow = gf.LangevinFlow(0.1, key=jax.random.key(0))
    run = gf.solve(problem(), flow, network(), 1.0, rtol=1e-2, observe={})
    assert run.stats["num_gradients"] == 3 * run.stats["num_steps"]
    assert run.stats["num_accepted_steps"] >= 100


def test_what_is_not_allowed(unchecked_types):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`temperature` must not be negative"):
        gf.LangevinFlow(-1.0, key=key)
    with pytest.raises(ValueError, match="`delta` must not be negative"):
        gf.LabelNoiseFlow(-1.0, 0.1, key=key)
    with pytest.raises(ValueError, match="`step` must be positive"):
        gf.LabelNoiseFlow(1.0, 0.0, key=key)
    for make in (
        gf.LangevinFlow,
        lambda *args, key: gf.LabelNoiseFlow(0.1, *args, key=key),
    ):
        with pytest.raises(ValueError, match="`flow` must be a `PhysicalFlow`"):
            make(0.1, gf.LossTime(gf.GradientFlow()), key=key)
    langevin = gf.LangevinFlow(0.1, key=key)
    with pytest.raises(ValueError, match="LangevinFlow depends on the physical time"):
        gf.LogTime(langevin)
    with pytest.raises(ValueError, match="`flow`: Boltzmann's density.*Euclidean"):
        gf.solve(
            problem(),
            gf.LangevinFlow(0.1, gf.PolarGradientFlow(), key=key),
            network(),
            1.0,
        )
    with pytest.raises(ValueError, match="`solver` must be one for noise"):
        gf.solve(problem(), langevin, network(), 1.0, solver=gf.RKC())
    logistic = problem(loss=gf.LogisticLoss())
    with pytest.raises(ValueError, match="label noise is for the square loss"):
        gf.solve(logistic, gf.LabelNoiseFlow(0.1, 0.1, key=key), network(), 1.0)
    with pytest.raises(ValueError, match="`flow`: .*noise"):
        gf.descend(problem(), 0.1, network(), 10, flow=langevin)
    with pytest.raises(ValueError, match="`flow`: .*noise"):
        gf.compare(problem(), network(), 1.0, [0.1], flow=langevin)


def test_same_noise_at_every_tolerance():
    """Of an exact network too, which is smoothed by the tolerance."""
    start = network(activation=gf.ReLU())
    flow = gf.LangevinFlow(0.02, key=jax.random.key(0))
    fine, coarse = (
        gf.solve(problem(), flow, start, 1.0, rtol=rtol, observe={})
        for rtol in (1e-4, 3e-2)
    )
    other = gf.LangevinFlow(0.02, key=jax.random.key(1))
    other = gf.solve(problem(), other, start, 1.0, rtol=3e-2, observe={})
    apart = gf.analysis.relative_distance(coarse.final, fine.final)
    assert apart < 0.1 * gf.analysis.relative_distance(other.final, fine.final)
