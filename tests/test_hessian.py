"""The Hessian along a flow's constraint set, against closed forms, dense linear algebra
and differences of losses and gradients that NumPy computes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradflow as gf
from cases import FLOWS, network_of, problem_for, reference_of, slopes_of
from reference import loss
from small import from_vector, network, problem, weights_of

DECAY = 0.3


@eqx.filter_jit
def eigenvalues(problem, network, flow):
    return gf.analysis.hessian_eigenvalues(problem, network, flow=flow)


def value_of(problem, reference, weights, penalty):
    """The loss by NumPy, and the weight decay."""
    outputs = reference.with_weights(weights).outputs(problem.dataset.inputs)
    value = loss("logistic", outputs, np.asarray(problem.dataset.labels))
    return value + DECAY * penalty


@pytest.mark.parametrize("kind", ["dense", "conv", "diagonal"])
def test_the_gradient_flow(kind):
    """Differences of NumPy's gradients."""
    problem, network = problem_for(kind, 1, "logistic"), network_of(kind, 0.1)
    reference, slopes = reference_of(network), slopes_of(problem)

    def gradient(weights):
        at = reference.with_weights(weights)
        inputs = problem.dataset.inputs
        _, pulled = at.pullback(inputs, slopes(at.outputs(inputs)))
        return [g + 2 * DECAY * w for g, w in zip(pulled, weights, strict=True)]

    rng = np.random.default_rng(0)
    vector = [rng.normal(size=w.shape) for w in network.weights]
    step = 1e-5
    ends = [
        gradient(
            [w + s * step * v for w, v in zip(reference.weights, vector, strict=True)]
        )
        for s in (1, -1)
    ]
    product = eqx.filter_jit(gf.analysis.hessian_product)(
        problem,
        network,
        tuple(map(jnp.asarray, vector)),
        flow=gf.GradientFlow(DECAY),
    )
    for found, up, down in zip(product, *ends, strict=True):
        expected = (up - down) / (2 * step)
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize(
    "flow",
    [
        FLOWS["lagrange_last"](DECAY),
        FLOWS["lagrange_all"](DECAY),
        FLOWS["lagrange_last_raw"](DECAY),
        gf.HalpernFlow(flow=FLOWS["lagrange_last_raw"](DECAY)),
    ],
    ids=["last", "all", "raw", "raw within another flow"],
)
def test_along_great_circles(flow):
    """The second derivative of the loss along geodesics of the spheres, by NumPy."""
    problem, network = problem_for("dense", 1, "logistic"), network_of("dense", 0.1)
    reference = reference_of(network)
    state = flow.init(network)
    rng = np.random.default_rng(1)
    vector = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), state)
    rho, directions = np.asarray(state.rho), [np.asarray(v) for v in state.directions]
    turns = [
        np.asarray(u) - v * np.sum(u * v)
        for v, u in zip(directions, vector.directions, strict=True)
    ]

    def along(s):
        norms = rho + s * np.asarray(vector.rho)
        factors = np.broadcast_to(norms, 3) if norms.ndim else [1, 1, norms]
        weights = [
            c * (v * np.cos(s * np.linalg.norm(u)) + u * np.sinc(s * size / np.pi) * s)
            for c, v, u in zip(factors, directions, turns, strict=True)
            for size in [np.linalg.norm(u)]
        ]
        return value_of(problem, reference, weights, np.sum(norms**2))

    step = 1e-3
    # Of fourth order.
    weights_at = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}
    expected = sum(c * along(k * step) for k, c in weights_at.items()) / step**2
    measure = eqx.filter_jit(gf.analysis.hessian_product)
    product = measure(problem, network, vector, flow=flow)
    tangent = gf.PolarState(vector.rho, tuple(map(jnp.asarray, turns)))
    found = ravel_pytree(product)[0] @ ravel_pytree(tangent)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    # The product is tangent itself.
    for v, image in zip(directions, product.directions, strict=True):
        assert abs(np.sum(v * image)) <= 1e-12 * np.linalg.norm(image)


@pytest.mark.parametrize("decay", [1e-3, 0.05, 0.3])
def test_degenerate_minimum(decay):
    """T3 Theorem 7: exp(-w1 w2 - w3 w4) + λ|w|², flat where exp(-f) = 2λ."""
    where = gf.Problem(gf.Dataset(jnp.ones((1, 2)), jnp.ones(1)), gf.ExponentialLoss())
    f = -np.log(2 * decay)
    first, second = np.sqrt(f) * np.cos(0.6), np.sqrt(f) * np.sin(0.6)
    network = gf.Diagonal.from_weights(
        (jnp.asarray([first, second]),) * 2, activation=gf.Identity()
    )
    found = eigenvalues(where, network, gf.GradientFlow(decay))
    expected = 2 * decay * np.array([0, 2, 2, 2 * f])
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-12, atol=1e-15)
    assert gf.analysis.num_near_zero(found) == 1


def test_determinant_of_the_example():
    """T3 (64), corrected, at points that are not critical."""
    where = gf.Problem(gf.Dataset(jnp.ones((1, 2)), jnp.ones(1)), gf.ExponentialLoss())
    for seed in range(5):
        w = np.random.default_rng(seed).normal(size=4)
        f, lam = w[0] * w[1] + w[2] * w[3], 0.3
        network = gf.Diagonal.from_weights(
            (jnp.asarray(w[::2]), jnp.asarray(w[1::2])), activation=gf.Identity()
        )
        found = np.prod(eigenvalues(where, network, gf.GradientFlow(lam)))
        square = 4 * lam**2 * np.exp(2 * f)
        expected = np.exp(-4 * f) * (square - 1)
        expected *= square + 2 * lam * np.exp(f) * (w @ w) + 2 * f - 1
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.fixture(scope="module")
def rest():
    """A critical point of the gradient flow. The units are linear: dead ones of a
    rectifier network have no second derivative."""
    flow, start = gf.GradientFlow(DECAY), network(activation=gf.Identity())
    return gf.polish(problem(), flow, gf.solve(problem(), flow, start, 20.0).final)


@pytest.mark.parametrize("flow", [gf.GradientFlow(DECAY), gf.PolarGradientFlow(DECAY)])
def test_rates_of_return(rest, flow):
    """Minus the eigenvalues of the field's Jacobian. In polar coordinates, where the
    metric is not Euclidean, they are those of the same flow."""
    assert jnp.min(rest.network.norms) > 0.1
    rest = rest.network
    vector, unravel = ravel_pytree(flow.init(rest))

    @jax.jit
    def field(x):
        at = flow.project(unravel(x))
        return ravel_pytree(flow.vector_field(0.0, at, problem(), rest))[0]

    step = 1e-6
    columns = [
        (field(vector + step * e) - field(vector - step * e)) / (2 * step)
        for e in np.eye(vector.size)
    ]
    rates = -np.linalg.eigvals(np.stack(columns, axis=1))
    found = np.asarray(eigenvalues(problem(), rest, flow))
    assert np.all(np.isinf(found[25:])) and np.all(np.isfinite(found[:25]))
    # Off its spheres the field is that of the projected point: more zeros.
    normal = np.zeros(vector.size - 25)
    expected = np.sort(np.append(found[:25], normal))
    np.testing.assert_allclose(np.sort(rates.real), expected, atol=1e-7 * found[24])
    cartesian = eigenvalues(problem(), rest, gf.GradientFlow(DECAY))
    np.testing.assert_allclose(found[:25], cartesian, atol=1e-9 * np.max(found[:25]))


@pytest.mark.parametrize(
    ("name", "spheres"),
    [("lagrange_all_rows", 4 + 3 + 1), ("weight_norm_all_v2.5", 3), ("gradient", 0)],
)
def test_normal_directions_are_left_out(name, spheres):
    where, network = problem_for("dense", 1, "logistic"), network_of("dense", 0.1)
    flow = FLOWS[name](DECAY)
    state, unravel = ravel_pytree(flow.init(network))

    @jax.jit
    def matrix():
        def product(e):
            return gf.analysis.hessian_product(where, network, unravel(e), flow=flow)

        return jax.vmap(lambda e: ravel_pytree(product(e))[0])(jnp.eye(state.size))

    expected = np.linalg.eigvalsh(matrix())
    found = np.asarray(eigenvalues(where, network, flow))
    assert np.all(np.isinf(found[state.size - spheres :]))
    # The products are zero along the normals.
    found = np.sort(np.where(np.isinf(found), 0, found))
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.max(found))


def test_extremes_of_a_large_network():
    """At 990 weights, against NumPy's eigenvalues of the whole matrix."""
    where = gf.Problem(gf.datasets.digits((3, 8), per_class=10), gf.SquareLoss())
    network = gf.Dense(
        (65, 15, 1), key=jax.random.key(3), activation=gf.ReLU(0.1), norm=2.0
    )
    assert sum(w.size for w in network.weights) == 990
    x, labels = where.dataset.inputs, where.dataset.labels

    @jax.jit
    @jax.hessian
    def matrix(vector):
        g = jax.vmap(from_vector(vector, network))(x)[:, 0]
        return jnp.sum((g - labels) ** 2) + 0.1 * jnp.sum(vector**2)

    expected = np.linalg.eigvalsh(matrix(jnp.asarray(weights_of(network))))
    found = eqx.filter_jit(gf.analysis.extreme_eigenvalues)(
        where, network, flow=gf.GradientFlow(0.1)
    )
    size = np.max(np.abs(expected))
    assert abs(found.smallest - expected[0]) <= 1e-6 * size
    assert abs(found.largest - expected[-1]) <= 1e-6 * size
    assert found.smallest_error <= 1e-3 * size
    assert found.largest_error <= 1e-3 * size


def test_extremes_of_a_small_space():
    """Ritz values lie inside of the spectrum, eigenvalues within the errors."""
    where, network = problem_for("dense", 1, "logistic"), network_of("dense", 0.1)
    flow = gf.LagrangeFlow(DECAY)
    everything = np.asarray(eigenvalues(where, network, flow))
    everything = everything[np.isfinite(everything)]
    for subspace in (5, 1000):
        found = eqx.filter_jit(gf.analysis.extreme_eigenvalues)(
            where, network, flow=flow, subspace=subspace, key=jax.random.key(subspace)
        )
        for value, error in (
            (found.smallest, found.smallest_error),
            (found.largest, found.largest_error),
        ):
            tiny = 1e-12 * np.max(np.abs(everything))
            assert everything[0] - tiny <= value <= everything[-1] + tiny
            assert np.min(np.abs(everything - value)) <= error + tiny
    np.testing.assert_allclose(found.smallest, everything[0], rtol=1e-10)
    np.testing.assert_allclose(found.largest, everything[-1], rtol=1e-10)


def test_near_zero():
    values = jnp.asarray([-3.0, -1e-9, 0.0, 2e-8, 1e-3, 2.0, jnp.inf])
    assert gf.analysis.num_near_zero(values) == 3
    assert gf.analysis.num_near_zero(values, rtol=1e-3) == 4
    assert gf.analysis.num_near_zero(values, rtol=0.0) == 1


def test_bad_arguments():
    where, network = problem_for("dense"), network_of("dense", 0.1)
    with pytest.raises(ValueError, match="`subspace`"):
        gf.analysis.extreme_eigenvalues(where, network, subspace=0)
    with pytest.raises(ValueError, match="`rtol`"):
        gf.analysis.num_near_zero(jnp.ones(2), rtol=-1.0)
    with pytest.raises(ValueError, match="`network`"):
        gf.analysis.hessian_eigenvalues(where, network_of("conv", 0.1))
    with pytest.raises(ValueError, match="`vector`"):
        gf.analysis.hessian_product(where, network, network.weights[:-1])


def test_small_eigenvalues_keep_their_digits():
    r"""One direction $x$ fitted by $\rho x$: $e^{-\rho \langle V, x \rangle}$ has the
    second derivatives $e^{-\rho}$ by $\rho$ and $\rho e^{-\rho}$ along the sphere."""
    data = gf.Dataset(np.full((2, 4), 0.5), np.ones(2))
    where, flow = gf.Problem(data, gf.ExponentialLoss("mean")), gf.LagrangeFlow()
    fitted = gf.Dense.from_weights([jnp.full((1, 4), 30.0)])
    expected = np.exp(-60) * np.array([1, 60, 60, 60])
    found = eigenvalues(where, fitted, flow)
    np.testing.assert_allclose(found[:4], expected, rtol=1e-10)
    assert found[4] == jnp.inf
    ends = gf.analysis.extreme_eigenvalues(where, fitted, flow=flow)
    np.testing.assert_allclose(ends.smallest, expected[0], rtol=1e-10)
    np.testing.assert_allclose(ends.largest, expected[-1], rtol=1e-10)
