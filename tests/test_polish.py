"""Critical points and their Hessians, against closed forms and dense linear algebra."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradflow as gf
from small import dataset, from_vector, network, weights_of

LINEAR = gf.Identity()
DECAY = 0.1


def diagonal(w):
    """The network `w1 w2 + w3 w4` on the sample (1, 1)."""
    w = jnp.asarray(w)
    return gf.Diagonal.from_weights((w[::2], w[1::2]), activation=LINEAR)


# exp(-w1 w2 - w3 w4) + λ|w|², T3 Theorem 7.
EXPONENTIAL = gf.Problem(
    gf.Dataset(jnp.ones((1, 2)), jnp.ones(1)), gf.ExponentialLoss()
)


@pytest.fixture(scope="module")
def symmetric():
    """From next to the minimum."""
    return gf.polish(
        EXPONENTIAL, gf.GradientFlow(DECAY), diagonal([0.9, 0.8, 0.7, 0.75])
    )


def test_degenerate_minimum_in_closed_form(symmetric):
    # Critical where exp(-f) = 2λ, with w1 = w2 and w3 = w4. The Hessian is 2λ times
    # [[1, -1], [-1, 1]] twice, and 2λ (w2, w1, w4, w3)⊗² added to that.
    w = weights_of(symmetric.network)
    f = np.log(1 / (2 * DECAY))
    np.testing.assert_allclose(w[:2], w[2:], rtol=1e-12)
    np.testing.assert_allclose(w @ w, 2 * f, rtol=1e-12)
    expected = 2 * DECAY * np.array([0, 2, 2, 2 * f])
    np.testing.assert_allclose(
        symmetric.eigenvalues, np.sort(expected), rtol=1e-10, atol=1e-12
    )
    assert symmetric.result == gf.RESULTS.successful
    assert symmetric.kind == "degenerate"
    assert symmetric.num_negative == 0 and symmetric.num_zero == 1
    assert symmetric.stationarity <= 1e-12 < symmetric.stationarity_before


def test_the_saddle_at_the_origin(symmetric):
    # The eigenvalues there are 2λ ± 1, each of them twice. The loss has a minimum,
    # towards which the flow leaves.
    start = 1e-2 * np.array([1.0, 0.9, -0.3, 0.5])
    flow = gf.GradientFlow(DECAY)
    point = gf.polish(EXPONENTIAL, flow, diagonal(start), max_distance=2.0)
    assert np.linalg.norm(weights_of(point.network)) <= 1e-12
    expected = [2 * DECAY - 1, 2 * DECAY - 1, 2 * DECAY + 1, 2 * DECAY + 1]
    np.testing.assert_allclose(point.eigenvalues, expected, rtol=1e-12)
    assert point.kind == "saddle" and point.num_negative == 2
    np.testing.assert_allclose(point.distance, 1, rtol=1e-10)
    near = gf.polish(EXPONENTIAL, flow, diagonal(start), throw=False)
    assert near.result == gf.RESULTS.not_critical and near.distance > 0.2


def test_the_minimum_at_the_origin():
    start = diagonal([0.01, 0.02, 0.03, -0.02])
    point = gf.polish(EXPONENTIAL, gf.GradientFlow(0.8), start, max_distance=2.0)
    np.testing.assert_allclose(point.eigenvalues, [0.6, 0.6, 2.6, 2.6], rtol=1e-12)
    assert point.kind == "minimum" and point.is_minimum


SQUARE = gf.Problem(dataset(), gf.SquareLoss())
FLOWS = {
    "gradient": gf.GradientFlow(DECAY),
    "lagrange_all": gf.LagrangeFlow(DECAY, all_norms=True),
}
SLOW_FLOWS = {
    "polar": gf.PolarGradientFlow(DECAY),
    "weight_norm": gf.WeightNormFlow(DECAY, v_norm=2.5),
    "lagrange": gf.LagrangeFlow(DECAY),
    "lagrange_raw": gf.LagrangeFlow(DECAY, raw=True),
    "lagrange_rows": gf.LagrangeFlow(DECAY, spheres=gf.RowSpheres()),
    "weight_norm_last": gf.WeightNormFlow(DECAY, all_norms=False),
}


def dense_eigenvalues(flow, state, like, sphere_axes):
    """Of the Riemannian Hessian, from all second derivatives, the multipliers of the
    spheres and a basis of their tangent space."""
    x, unravel = ravel_pytree(state)

    def objective(x):
        state = unravel(x)
        loss = SQUARE.value(like.with_weights(flow.weights(state)))
        return loss + DECAY * flow.penalty(state)

    gradient = np.array(jax.jit(jax.grad(objective))(x))
    hessian = np.array(jax.jit(jax.hessian(objective))(x))
    metric = np.ones(x.size)
    normals = []
    if not isinstance(flow, gf.GradientFlow):
        start = state.rho.size
        for k, v in enumerate(state.directions):
            index = np.arange(start, start + v.size).reshape(v.shape)
            start += v.size
            if isinstance(flow, gf.PolarGradientFlow):
                metric[index] = np.square(state.rho[k])
            rows = index if sphere_axes == "rows" and k == 0 else [np.ravel(index)]
            for row in rows:
                # The second fundamental form of the sphere that this is a part of.
                v = np.array(x)[row]
                hessian[row, row] -= gradient[row] @ v / (v @ v)
                normals.append(np.zeros(x.size))
                normals[-1][row] = v
    basis = np.eye(x.size)
    if normals:
        _, _, right = np.linalg.svd(np.array(normals))
        basis = right[len(normals) :].T
    root = basis / np.sqrt(metric)[:, None]
    return np.linalg.eigvalsh(root.T @ hessian @ root)


@functools.cache
def settled(flow):
    if not isinstance(flow, gf.GradientFlow):
        return gf.solve(SQUARE, flow, network(), 200.0, observe={}).final

    def descend(_, weights):
        slopes = jax.grad(lambda w: SQUARE.value(network().with_weights(w)))(weights)
        pairs = zip(weights, slopes, strict=True)
        return tuple(w - 0.05 * (s + 2 * DECAY * w) for w, s in pairs)

    # A fifth of the time to compile that a run takes.
    weights = jax.lax.fori_loop(0, 1000, descend, network().weights)
    return network().with_weights(weights)


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FLOWS]


@pytest.mark.parametrize("name", [*FLOWS, *SLOWLY])
def test_every_flow_against_the_dense_hessian(name):
    flow = (FLOWS | SLOW_FLOWS)[name]
    # A flow with the same objective has the same critical points.
    is_same = name in FLOWS or name in ("polar", "weight_norm")
    near = settled(FLOWS["gradient"] if is_same else flow)
    point = gf.polish(SQUARE, flow, near)
    assert point.stationarity <= 1e-12 < point.stationarity_before
    # What is on the spheres stays there.
    if not isinstance(flow, gf.GradientFlow):
        assert flow.defect(point.state) < 1e-14
    field = flow.vector_field(0.0, point.state, SQUARE, network())
    assert jnp.linalg.norm(ravel_pytree(field)[0]) < 1e-11
    axes = "rows" if "rows" in name else "all"
    expected = dense_eigenvalues(flow, point.state, network(), axes)
    found = np.array(point.eigenvalues)
    found = found[np.isfinite(found)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * expected[-1])
    assert point.num_negative == np.sum(expected < -point.zero)
    assert point.num_zero == np.sum(np.abs(expected) <= point.zero)


@pytest.mark.slow
def test_digits_to_rounding():
    data = gf.datasets.digits((3, 8), per_class=6)
    problem = gf.Problem(data, gf.SquareLoss())
    key = jax.random.key(0)
    start = gf.Dense((65, 8, 8, 1), key=key, activation=gf.ReLU(1e-2), norm=1.0)
    flow = gf.LagrangeFlow(weight_decay=1.0)
    trajectory = gf.solve(problem, flow, start, 10.0, observe={})
    point = gf.polish(problem, flow, trajectory.final)
    assert point.stationarity < 1e-4 * point.stationarity_before
    assert point.stationarity <= 1e-12
    assert point.distance < 1e-2
    # Far fewer than the 593 coordinates, and the ends of the spectrum all the same.
    x, unravel = ravel_pytree(point.state)

    def objective(x):
        state = flow.project(unravel(x))
        return problem.value(start.with_weights(flow.weights(state))) + flow.penalty(
            state
        )

    values = np.linalg.eigvalsh(jax.jit(jax.hessian(objective))(x))
    np.testing.assert_allclose(point.largest, values[-1], rtol=1e-10)
    np.testing.assert_allclose(point.smallest, values[0], rtol=0, atol=point.zero)
    assert point.num_hvps <= 100 * (point.num_steps + 1)


def test_failures_are_not_called_critical_points():
    # Without weight decay this loss has no critical point but the origin.
    start = diagonal([0.9, 0.8, 0.7, 0.75])
    flow = gf.GradientFlow(0.0)
    point = gf.polish(EXPONENTIAL, flow, start, throw=False)
    assert point.result == gf.RESULTS.not_critical
    assert point.kind == "not critical" and "FAILED: not_critical" in repr(point)
    with pytest.raises(gf.PolishError, match="not_critical.*weight_decay") as error:
        gf.polish(EXPONENTIAL, flow, start)
    np.testing.assert_array_equal(error.value.point.stationarity, point.stationarity)
    infinite = diagonal([np.inf, 1.0, 1.0, 1.0])
    point = gf.polish(EXPONENTIAL, flow, infinite, throw=False)
    assert point.result == gf.RESULTS.nonfinite_state


def three_samples(inputs, labels):
    data = gf.Dataset(np.array(inputs), np.array(labels), regression=True)
    return gf.Problem(data, gf.SquareLoss())


# Samples on either side of the kink of the first unit, both of which push it there. The
# second is not in use.
SLIDING = three_samples(
    [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [-1.0, -1.0, 1.0]
)
SLIDER = (jnp.array([[0.005, 1.0, 0.0], [0.0, 0.0, 0.0]]), jnp.array([[1.0, 0.0]]))


def test_a_unit_that_slides_along_its_kink():
    # The gradient jumps from one side to the other: nothing but the origin, where the
    # unit is dead, is critical.
    start = gf.Dense.from_weights(SLIDER, gf.ReLU())
    with pytest.raises(gf.PolishError, match="sliding.*`max_distance`") as error:
        gf.polish(SLIDING, gf.GradientFlow(DECAY), start)
    assert error.value.point.result == gf.RESULTS.not_critical


def test_a_unit_that_slides_in_a_smoothed_kink():
    start = gf.Dense.from_weights(SLIDER, gf.ReLU(1e-2))
    point = gf.polish(SLIDING, gf.GradientFlow(DECAY), start)
    assert abs(point.network.weights[0][0, 0]) < 1e-12
    assert 0 < point.distance < 0.2


@pytest.mark.parametrize(("decay", "kind"), [(1.6, "degenerate"), (0.3, "saddle")])
def test_negative_eigenvalues_of_a_dead_unit(decay, kind):
    # The second unit fits the third sample alone. The first is so small that it is
    # dead, and has the first two samples on its side. Its output weight and they make
    # the Hessian [[2λ, g], [g, 2λ]] with g = (4, 0, 0). But towards g, on either side,
    # only one of the two is active, and the other half of g is not there.
    inputs = np.array([[1.0, 0.05, -1.0], [-1.0, 0.05, -1.0], [0.0, -0.05, 1.0]])
    problem = three_samples(inputs, [1.0, -1.0, 4.0])
    size = np.linalg.norm(inputs[2])
    b = np.sqrt((4 - decay / size) / size)
    weights = (
        jnp.array([[0.0, 1e-9, 0.0], b * inputs[2] / size]),
        jnp.array([[0.0, b]]),
    )
    start = gf.Dense.from_weights(weights, gf.ReLU(1e-2))
    point = gf.polish(problem, gf.GradientFlow(decay), start, rtol=1e-6)
    assert point.num_steps == 0
    same, other = 2 * (size * b) ** 2, 2 * (2 * b**2 * size - 4) * size
    expected = 2 * decay + np.array([-4, 0, 0, 4, 0, 0, same + other, same - other])
    np.testing.assert_allclose(point.eigenvalues, np.sort(expected), atol=1e-6)
    assert point.num_negative == 1 and point.kind == kind

    def objective(vector):
        near = from_vector(vector, start)
        penalty = sum(jnp.sum(jnp.square(w)) for w in near.weights)
        return problem.value(near) + decay * penalty

    here = weights_of(start)
    steps = 1e-4 * np.random.default_rng(0).normal(size=(10000, 8))
    at = here + np.concatenate([np.zeros((1, 8)), steps])
    values = np.array(jax.jit(jax.vmap(objective))(at))
    changes = values[1:] - values[0]
    assert bool(np.any(changes < -1e-12)) == (kind == "saddle")


def test_under_jit_and_vmap():
    flow = gf.GradientFlow(DECAY)
    starts = jnp.array([[0.9, 0.8, 0.7, 0.75], [0.01, 0.009, -0.003, 0.005]])

    @eqx.filter_jit
    @jax.vmap
    def polished(w):
        return gf.polish(EXPONENTIAL, flow, diagonal(w), max_distance=2.0)

    points = polished(starts)
    np.testing.assert_array_equal(points.num_negative, [0, 2])
    np.testing.assert_array_equal(points.is_saddle, [False, True])
    np.testing.assert_allclose(points.largest, [0.4 * np.log(5), 1.2], rtol=1e-10)
    with pytest.raises(ValueError, match="`kind`"):
        _ = points.kind
    assert jax.tree.map(lambda x: x[1], points).kind == "saddle"


@pytest.mark.slow
def test_single_precision():
    def single(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    problem = dataclasses.replace(EXPONENTIAL, dataset=single(EXPONENTIAL.dataset))
    start = single(diagonal([0.9, 0.8, 0.7, 0.75]))
    point = gf.polish(problem, gf.GradientFlow(DECAY), start)
    assert point.network.weights[0].dtype == point.eigenvalues.dtype == jnp.float32
    assert point.stationarity <= 1.2e-4
    assert point.kind == "degenerate" and point.num_zero == 1


@pytest.mark.parametrize(
    "options, match",
    [
        ({"rtol": 1e-17}, "`rtol`"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"subspace": 0}, "`subspace`"),
    ],
)
def test_arguments_that_do_not_fit(options, match):
    with pytest.raises(ValueError, match=match):
        gf.polish(EXPONENTIAL, gf.GradientFlow(), diagonal([1.0] * 4), **options)
