"""What homogeneity implies, how the flows are related, and where they start."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import (
    FLOWS,
    NETWORKS,
    SMOOTHINGS,
    assert_close,
    flows_for,
    network_of,
    problem_for,
    reference_of,
    slopes_of,
)

# All smoothings with one output, and one of them with several.
networks = pytest.mark.parametrize(
    ("kind", "outputs", "smoothing"),
    [
        (kind, outputs, smoothing)
        for kind in NETWORKS
        for outputs in (1, 3)
        for smoothing in SMOOTHINGS
        if outputs == 1 or (kind != "diagonal" and smoothing == 0.1)
        if kind != "deep_linear" or smoothing == 0.1
    ],
)
kinds = pytest.mark.parametrize("kind", NETWORKS)
flows = pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in NETWORKS for name in flows_for(kind)]
)


def field(flow, state, problem, network):
    # Not compiled: every flow of a network shares the operations one by one.
    return flow.vector_field(0.0, state, problem, network)


def scaled(weights, factors):
    return tuple(c * w for w, c in zip(weights, factors, strict=True))


# Homogeneity.


class Offset(gf.AbstractActivation):
    """Not homogeneous."""

    gain = 2.0

    def __call__(self, pre_activation, scale):
        del scale
        return jax.nn.relu(pre_activation + 0.1)


@networks
def test_structural_lemma(kind, outputs, smoothing):
    problem = problem_for(kind, outputs)
    network = network_of(kind, smoothing, outputs)
    residual = eqx.filter_jit(gf.analysis.structural_residual)(problem, network)
    assert residual.shape == (3, problem.dataset.num_samples)
    assert jnp.max(residual) <= 1e-12
    # And its sum over the layers.
    residual = eqx.filter_jit(gf.analysis.euler_residual)(problem, network)
    assert residual.shape == (problem.dataset.num_samples,)
    assert jnp.max(residual) <= 1e-12


@pytest.mark.parametrize("kind", ["dense", "conv", "diagonal"])
def test_structural_residual_of_a_network_that_is_not_homogeneous(kind):
    problem = problem_for(kind)
    network = NETWORKS[kind](1, Offset())
    residual = eqx.filter_jit(gf.analysis.structural_residual)(problem, network)
    outputs_of = eqx.filter_jit(lambda network: problem.outputs(network)[:, 0])
    # By central differences: the left side is the derivative by the layer's scale.
    outputs = outputs_of(network)
    total = 0
    for k in range(3):
        step = 1e-6
        factors = np.ones(3)
        ends = []
        for sign in (1, -1):
            factors[k] = 1 + sign * step
            moved = network.with_weights(scaled(network.weights, factors))
            ends.append(outputs_of(moved))
        difference = (ends[0] - ends[1]) / (2 * step) - outputs
        difference = difference / jnp.max(jnp.abs(outputs))
        np.testing.assert_allclose(residual[k], jnp.abs(difference), atol=1e-8)
        total += difference
    euler = eqx.filter_jit(gf.analysis.euler_residual)(problem, network)
    np.testing.assert_allclose(euler, jnp.abs(total), atol=3e-8)
    assert jnp.max(euler) > 1e-2
    assert jnp.max(residual[0]) > 1e-2
    assert jnp.max(residual[1]) > 1e-2
    assert jnp.max(residual[2]) <= 1e-12  # no activation after the last layer


@networks
def test_polar_form(kind, outputs, smoothing):
    """g = rho f, and there and back."""
    problem = problem_for(kind, outputs)
    network = network_of(kind, smoothing, outputs)

    @eqx.filter_jit
    def forms(network):
        polar = gf.Polar.from_network(network)
        f = problem.outputs(polar.directions)
        return polar, polar.scale, f, problem.outputs(network), polar.to_network()

    polar, scale, f, g, back = forms(network)
    np.testing.assert_allclose(
        polar.rho, [np.linalg.norm(w) for w in network.weights], rtol=1e-15
    )
    norms = [np.linalg.norm(w) for w in polar.directions.weights]
    np.testing.assert_allclose(norms, 1.0, rtol=1e-15)
    np.testing.assert_allclose(scale, np.prod(polar.rho), rtol=1e-15)
    assert_close(scale * f, g, 1e-12)
    assert_close(back.weights, network.weights, 1e-15)
    assert jax.tree.structure(back) == jax.tree.structure(network)


@pytest.mark.parametrize("jit", [False, True])
@kinds
def test_a_zero_layer_has_no_direction(kind, jit):
    network = network_of(kind)
    weights = list(network.weights)
    weights[1] = jnp.zeros_like(weights[1])
    network = network.with_weights(tuple(weights))
    for init in (
        gf.Polar.from_network,
        gf.PolarGradientFlow().init,
        gf.LagrangeFlow().init,
        gf.WeightNormFlow().init,
    ):
        with pytest.raises(RuntimeError, match="`network` has a layer whose weights"):
            jax.block_until_ready(
                eqx.filter_jit(init)(network) if jit else init(network)
            )


# Relations between the flows. The vector fields themselves are compared with the
# oracle's in `test_vector_fields.py`.

LOSSES = ("square", "logistic")
losses = pytest.mark.parametrize("loss", LOSSES)


@losses
@kinds
def test_weight_normalisation_with_unit_vectors_is_the_lagrange_flow(kind, loss):
    problem, network = problem_for(kind, 1, loss), network_of(kind, 0.1)
    lagrange = gf.LagrangeFlow(0.3)
    weight_norm = gf.WeightNormFlow(0.3, all_norms=False)
    state = lagrange.init(network)
    assert_close(weight_norm.init(network), state, 1e-15)
    expected = field(lagrange, state, problem, network)
    assert_close(field(weight_norm, state, problem, network), expected, 1e-12)
    # Longer vectors turn more slowly: dV/dt of V = v / |v| goes by 1 / |v|^2.
    weight_norm = gf.WeightNormFlow(0.3, all_norms=False, v_norm=2.5)
    velocity = field(weight_norm, weight_norm.init(network), problem, network)
    assert_close(velocity.rho, expected.rho, 1e-12)
    slower = scaled(velocity.directions, (2.5, 2.5, 2.5))
    assert_close(slower, expected.directions, 1e-12)


@losses
@kinds
def test_weight_normalisation_of_all_norms(kind, loss):
    """With unit vectors g_k dL/dW_k = rho sum d_n df_n/dV_k: the Lagrange flow's."""
    problem, network = problem_for(kind, 1, loss), network_of(kind, 0.1)
    lagrange, weight_norm = gf.LagrangeFlow(0.3, all_norms=True), gf.WeightNormFlow(0.3)
    state = lagrange.init(network)
    assert_close(weight_norm.init(network), state, 1e-15)
    expected = field(lagrange, state, problem, network)
    assert_close(field(weight_norm, state, problem, network), expected, 1e-12)


@losses
@kinds
def test_unnormalised_directions_move_by_the_inverse_square_of_the_norm(kind, loss):
    problem, network = problem_for(kind, 1, loss), network_of(kind, 0.1)
    lagrange, polar = gf.LagrangeFlow(0.3, all_norms=True), gf.PolarGradientFlow(0.3)
    state = polar.init(network)
    assert_close(lagrange.init(network), state, 1e-15)
    normalised = field(lagrange, state, problem, network)
    unnormalised = field(polar, state, problem, network)
    assert_close(unnormalised.rho, normalised.rho, 1e-12)
    expected = scaled(normalised.directions, 1 / state.rho**2)
    assert_close(unnormalised.directions, expected, 1e-12)
    # One norm only: the directions move as before, the norm by the sum over layers
    # without the factors rho / rho_k.
    last = gf.LagrangeFlow(0.3)
    velocity = field(last, last.init(network), problem, network)
    assert_close(velocity.directions, normalised.directions, 1e-12)
    scale = jnp.prod(state.rho)
    slope = (normalised.rho[0] + 0.6 * state.rho[0]) * state.rho[0] / scale
    assert_close(velocity.rho, slope - 0.6 * scale, 1e-12)


@losses
@kinds
def test_the_polar_flow_is_the_gradient_flow(kind, loss):
    problem, network = problem_for(kind, 1, loss), network_of(kind, 0.1)
    polar, flow = gf.PolarGradientFlow(0.3), gf.GradientFlow(0.3)
    state = polar.init(network)
    velocity = field(polar, state, problem, network)
    pushed = tuple(
        a * v + r * b
        for a, v, r, b in zip(
            velocity.rho, state.directions, state.rho, velocity.directions, strict=True
        )
    )
    expected = field(flow, flow.init(network), problem, network)
    assert_close(pushed, expected, 1e-12)


@pytest.mark.parametrize("all_norms", [False, True])
@pytest.mark.parametrize("spheres", [gf.MatrixSpheres(), gf.RowSpheres()], ids=repr)
@kinds
def test_raw_is_tangent_on_the_spheres(kind, spheres, all_norms):
    if kind == "diagonal" and isinstance(spheres, gf.RowSpheres):
        return
    problem, network = problem_for(kind), network_of(kind, 0.1)
    raw, tangent = [
        gf.LagrangeFlow(0.3, all_norms=all_norms, spheres=spheres, raw=raw)
        for raw in (True, False)
    ]
    state = tangent.init(network)
    expected = field(tangent, state, problem, network)
    assert_close(field(raw, state, problem, network), expected, 1e-12)
    # The two differ as soon as the state is off the spheres.
    state = gf.PolarState(state.rho, scaled(state.directions, (1.1, 0.8, 1.3)))
    velocities = [field(flow, state, problem, network) for flow in (raw, tangent)]
    for a, b in zip(velocities[0].directions, velocities[1].directions, strict=True):
        assert jnp.linalg.norm(a - b) > 1e-3 * jnp.linalg.norm(b)


@pytest.mark.parametrize("times_equilibrium", [0.3, 3.0])
@kinds
def test_off_the_spheres(kind, times_equilibrium):
    """d|V|^2/dt = 2 rho (sum d_n f_n) (|V|^2 - 1): attracting below the equilibrium of
    rho, repelling above; the tangent form keeps the norms."""
    problem, network = problem_for(kind), network_of(kind, 0.1)
    directions = gf.Polar.from_network(network).directions.weights
    factors = jnp.asarray((1.1, 0.8, 1.3))
    directions = scaled(directions, factors)
    start = network.with_weights(directions)
    if gf.analysis.rho_eq(problem, start) < 0:  # make the data averagely separable
        directions = (*directions[:-1], -directions[-1])
        start = network.with_weights(directions)
    equilibrium = gf.analysis.rho_eq(problem, start) / jnp.prod(factors)
    rho = times_equilibrium * equilibrium
    state = gf.PolarState(rho, directions)

    f = reference_of(start).outputs(problem.dataset.inputs)
    d_f = np.sum(slopes_of(problem)(float(rho) * f) * f)
    assert np.sign(d_f) == np.sign(times_equilibrium - 1)
    raw = field(gf.LagrangeFlow(raw=True), state, problem, network)
    tangent = field(gf.LagrangeFlow(), state, problem, network)
    for v, a, b, c in zip(
        directions, raw.directions, tangent.directions, factors, strict=True
    ):
        rate = 2 * jnp.sum(v * a)
        np.testing.assert_allclose(rate, 2 * rho * d_f * (c**2 - 1), rtol=1e-11)
        towards_the_sphere = bool((rate > 0) == (c < 1))
        assert towards_the_sphere == (times_equilibrium < 1)
        assert jnp.abs(jnp.sum(v * b)) <= 1e-14 * jnp.linalg.norm(v) * jnp.linalg.norm(
            a
        )
        assert jnp.linalg.norm(b) > 1e-3 * jnp.linalg.norm(a)


def test_raw_rows_off_the_spheres():
    """Row by row, with r = -<v, df/dv> rho: d|v|^2/dt = 2 r (1 - |v|^2)."""
    problem, network = problem_for("dense"), network_of("dense", 0.1)
    flow = gf.LagrangeFlow(spheres=gf.RowSpheres(), raw=True)
    state = flow.init(network)
    factors = jnp.asarray((1.1, 0.8, 1.3, 0.6))[:, None]
    first = factors * state.directions[0]
    state = gf.PolarState(state.rho, (first, *state.directions[1:]))
    reference = reference_of(network).with_weights(state.directions)
    inputs, rho = problem.dataset.inputs, float(state.rho)
    d = slopes_of(problem)(rho * reference.outputs(inputs))
    r = -rho * np.sum(first * reference.pullback(inputs, d)[1][0], axis=1)
    velocity = field(flow, state, problem, network).directions[0]
    rates = 2 * jnp.sum(first * velocity, axis=1)
    expected = 2 * r * (1 - jnp.sum(first**2, axis=1))
    np.testing.assert_allclose(rates, expected, rtol=1e-11, atol=1e-14)
    assert np.sum(np.abs(r) > 1e-4) >= 2  # not all of the units are dead


# Starting states.


@flows
def test_the_start_is_the_same_function(kind, name):
    problem, flow = problem_for(kind), FLOWS[name]()
    for smoothing in (0.0, 0.1):
        network = network_of(kind, smoothing)
        state = flow.init(network)
        start = flow.to_network(state, network)
        assert jax.tree.structure(start) == jax.tree.structure(network)
        g, expected = problem.outputs(start), problem.outputs(network)
        if "rows" in name and smoothing and kind != "deep_linear":
            continue  # see below
        assert_close(g, expected, 1e-12)
        if "last" in name:
            assert state.rho.shape == ()
        if "rows" not in name and "last" in name:
            assert_close(state.rho, jnp.prod(network.norms), 1e-15)
        assert_close(flow.weights(state), start.weights, 0.0)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_row_spheres_change_a_smoothed_function_by_the_smoothing(kind):
    problem, flow = problem_for(kind), gf.LagrangeFlow(spheres=gf.RowSpheres())
    errors = []
    for smoothing in (1e-1, 1e-2, 1e-3):
        network = network_of(kind, smoothing)
        g = problem.outputs(network)
        start = problem.outputs(flow.to_network(flow.init(network), network))
        errors.append(float(jnp.linalg.norm(start - g) / jnp.linalg.norm(g)))
    assert errors[0] > 1e-6  # it does change
    assert all(e <= s for e, s in zip(errors, (1e-1, 1e-2, 1e-3), strict=True))


@flows
def test_states_are_on_their_spheres(kind, name):
    flow, network = FLOWS[name](), network_of(kind)
    state = flow.init(network)
    assert flow.defect(state) <= 1e-15
    if name == "gradient":
        assert eqx.tree_equal(flow.project(state), state)
        return
    size = 2.5 if "v2.5" in name else 1.0
    for k, v in enumerate(state.directions):
        rows = "rows" in name and k < 2
        axes = tuple(range(1 if rows else 0, v.ndim))
        squares = jnp.sum(v**2, axis=axes)
        np.testing.assert_allclose(squares, size**2, rtol=1e-14)
    # Off the spheres, in the last layer or in one unit of the first.
    off = gf.PolarState(state.rho, scaled(state.directions, (1.0, 1.02, 0.7)))
    np.testing.assert_allclose(flow.defect(off), 0.3, rtol=1e-13)
    if "rows" in name:
        first = state.directions[0].at[1].multiply(1.4)
        one_unit = gf.PolarState(state.rho, (first, *state.directions[1:]))
        np.testing.assert_allclose(flow.defect(one_unit), 0.4, rtol=1e-13)
    projected = flow.project(off)
    if "raw" in name:
        assert eqx.tree_equal(projected, off)
        return
    assert_close(projected, state, 1e-14)
    assert flow.defect(projected) <= 1e-15
    assert_close(flow.project(projected), projected, 1e-15)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("kind", ["dense", "deep_linear", "conv"])
def test_a_dead_row_has_no_direction(kind, jit):
    network = network_of(kind)
    init = gf.LagrangeFlow(spheres=gf.RowSpheres()).init
    init = eqx.filter_jit(init) if jit else init
    weights = list(network.weights)
    weights[0] = weights[0].at[1].set(0.0)
    with pytest.raises(RuntimeError, match="`network`: a unit of layer 0"):
        jax.block_until_ready(init(network.with_weights(tuple(weights))))
    last = jnp.zeros_like(network.weights[-1])
    with pytest.raises(RuntimeError, match="`network`: the last layer"):
        jax.block_until_ready(init(network.with_weights((*network.weights[:-1], last))))


def test_a_diagonal_network_has_no_rows():
    flow = gf.LagrangeFlow(spheres=gf.RowSpheres())
    with pytest.raises(ValueError, match="`spheres`"):
        flow.init(network_of("diagonal"))


@pytest.mark.parametrize("name", FLOWS)
def test_weight_decay_must_not_be_negative(name):
    with pytest.raises(ValueError, match="`weight_decay`"):
        FLOWS[name](-1e-3)


@pytest.mark.parametrize("v_norm", [0.0, -1.0, float("nan")])
def test_v_norm_must_be_positive(v_norm):
    with pytest.raises(ValueError, match="`v_norm`"):
        gf.WeightNormFlow(v_norm=v_norm)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("dense", "conv") for name in FLOWS]
)
def test_single_precision_stays(kind, name):
    """Under the 64-bit mode of the tests, and with a 64-bit weight decay."""
    problem, network = jax.tree.map(
        lambda x: x.astype("float32") if eqx.is_inexact_array(x) else x,
        (problem_for(kind), network_of(kind, 0.1)),
    )

    def everything(problem, network):
        flow = FLOWS[name](jnp.asarray(0.3))
        state = flow.init(network)
        velocity = flow.vector_field(0.0, state, problem, network)
        return state, velocity, flow.project(state), flow.defect(state)

    shapes = eqx.filter_eval_shape(everything, problem, network)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_sample_residuals_do_not_depend_on_the_norms():
    problem, network = problem_for("dense"), network_of("dense")
    expected = gf.analysis.sample_residual(problem, network)
    for scale in (1e-90, 1e90):
        weights = tuple(w * scale for w in network.weights)
        found = gf.analysis.sample_residual(problem, network.with_weights(weights))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
