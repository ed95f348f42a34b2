"""Batch normalisation, against hand-written NumPy and finite differences."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradflow as gf
from cases import FLOWS, assert_close
from gradflow.analysis._features import hidden_features

SAMPLES = 9
FORMS = {
    "plain": {},
    "affine": {"affine": True},
    "after": {"after_activation": True},
    "affine_after": {"affine": True, "after_activation": True},
}
forms = pytest.mark.parametrize("form", FORMS)
kinds = pytest.mark.parametrize("kind", ["dense", "conv"])
# Each form once, each with one kind of network.
kinds_and_forms = pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("dense", "plain"),
        ("conv", "affine"),
        ("conv", "after"),
        ("dense", "affine_after"),
    ],
)
# The raw forms do not stay there.
FLOWS_ON_SPHERES = [name for name in FLOWS if "raw" not in name]
flows = pytest.mark.parametrize("flow", FLOWS_ON_SPHERES)


outputs_of = eqx.filter_jit(gf.Problem.outputs)
gradient_of = eqx.filter_jit(gf.Problem.gradient)


@functools.cache
def network_of(kind, form, smoothing=0.0):
    """Two normalised layers and a last one; affine layers away from 1 and 0."""
    activation = gf.ReLU(smoothing)
    if kind == "dense":
        inner = gf.Dense((5, 4, 3, 2), key=jax.random.key(1), activation=activation)
    else:
        inner = gf.Conv(
            (2, 5, 5),
            (3, 2),
            2,
            key=jax.random.key(2),
            kernel_size=(3, 2),
            stride=(2, 1),
            padding=(1, 0),
            activation=activation,
        )
    network = gf.BatchNorm(inner, **FORMS[form])
    keys = jax.random.split(jax.random.key(3), len(network.weights))
    return network.with_weights(
        tuple(
            w + 0.3 * jax.random.normal(key, w.shape)
            for key, w in zip(keys, network.weights, strict=True)
        )
    )


@functools.cache
def problem_of(kind, seed=0, samples=SAMPLES):
    shape = (5,) if kind == "dense" else (2, 5, 5)
    key = jax.random.key(seed)
    inputs = jax.random.normal(key, (samples, *shape))
    labels = jnp.arange(samples) % 2
    dataset = gf.Dataset(inputs, labels, num_classes=2)
    return gf.Problem(dataset, gf.SquareLoss())


def by_hand(network, inputs, statistics=None):
    """The outputs, and the means and variances of the layers, in NumPy loops."""
    weights = [np.asarray(w) for w in network.weights]
    affine = network.affine is not None
    *hidden, last = weights[::2] if affine else weights
    shifts = weights[1::2] if affine else [None] * len(hidden)
    h, found = np.asarray(inputs), []
    for k, (w, shift) in enumerate(zip(hidden, shifts, strict=True)):
        if w.ndim == 2:
            z = np.einsum("oi,ni->no", w, h)
        else:
            stride, padding = network.network.strides[k], network.network.paddings[k]
            z = convolved(h, w, stride, padding)
        if network.after_activation:
            z = np.maximum(z, 0)
        axes = (0, *range(2, z.ndim))
        if statistics is None:
            found.append((z.mean(axes, keepdims=True), z.var(axes, keepdims=True)))
        mean, variance = (statistics or found)[k]
        varies = np.broadcast_to(variance > 0, z.shape)
        z = np.divide(z - mean, np.sqrt(variance), where=varies, out=np.zeros_like(z))
        if shift is not None:
            units = (1, -1, *[1] * (z.ndim - 2))
            z = shift[:, 0].reshape(units) * z + shift[:, 1].reshape(units)
        h = z if network.after_activation else np.maximum(z, 0)
    return h.reshape(len(h), -1) @ last.T, found


def convolved(h, kernel, stride, padding):
    h = np.pad(h, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    size = kernel.shape[-1]
    down, across = (range(0, n - size + 1, stride) for n in h.shape[2:])
    rows = [
        [
            np.einsum("oihw,nihw->no", kernel, h[..., i : i + size, j : j + size])
            for j in across
        ]
        for i in down
    ]
    return np.moveaxis(np.asarray(rows), (0, 1), (2, 3))


# What it is.


@kinds
@forms
def test_outputs_are_those_of_numpy(kind, form):
    network, problem = network_of(kind, form), problem_of(kind)
    expected, _ = by_hand(network, problem.dataset.inputs)
    assert_close(outputs_of(problem, network), expected, 1e-13)
    if form == "affine":
        assert_close(problem.outputs(network), expected, 1e-13)


@kinds_and_forms
def test_fixed_statistics_are_those_of_the_training_samples(kind, form):
    """What goes through with them does not depend on what else does."""
    network, train, test = network_of(kind, form), problem_of(kind), problem_of(kind, 9)
    fixed = train.with_statistics(network)
    assert_close(outputs_of(train, fixed), outputs_of(train, network), 1e-13)
    _, statistics = by_hand(network, train.dataset.inputs)
    inputs = test.dataset.inputs
    expected, _ = by_hand(network, inputs, statistics)
    assert_close(outputs_of(test, fixed), expected, 1e-13)
    assert_close(fixed(inputs[3]), expected[3], 1e-13)
    assert not np.allclose(outputs_of(test, network), expected, rtol=1e-2)
    chunked = gf.Problem(test.dataset, test.loss, batch_size=2)
    assert_close(outputs_of(chunked, fixed), expected, 1e-13)
    assert eqx.tree_equal(train.with_statistics(network.network), network.network)


@kinds_and_forms
def test_absorbed_into_the_weights(kind, form):
    """Without a normalisation it is the same function, also of other inputs. One unit
    has no variance, one a negative scale and one none."""
    network, train = network_of(kind, form), problem_of(kind)
    weights = list(network.weights)
    weights[0] = weights[0].at[1].set(0)
    if "affine" in form:
        weights[1] = weights[1].at[0, 0].set(-0.7).at[2, 0].set(0)
        weights[3] = weights[3].at[0, 0].set(-0.3)
    network = network.with_weights(tuple(weights))
    absorbed = train.with_statistics(network).absorbed()
    assert not isinstance(absorbed.network, gf.BatchNorm)
    _, statistics = by_hand(network, train.dataset.inputs)
    for inputs in (train.dataset.inputs, problem_of(kind, 9).dataset.inputs):
        outputs = jax.vmap(absorbed)(inputs)
        expected, _ = by_hand(network, inputs, statistics)
        assert_close(outputs, expected, 1e-12)
    longer = network.with_weights((7.0 * weights[0], *weights[1:]))
    there = train.with_statistics(longer).absorbed()
    assert_close(there.network.norms, absorbed.network.norms, 1e-12)


def test_absorbed_of_several_networks():
    network, problem = network_of("dense", "after"), problem_of("dense")
    with pytest.raises(ValueError, match="with_statistics"):
        network.absorbed()
    stack = jax.tree.map(lambda w: jnp.stack([w, w**2]), network)
    absorbed = jax.jit(jax.vmap(lambda n: problem.with_statistics(n).absorbed()))(stack)
    first = jax.tree.map(lambda w: w[0], absorbed)
    x = problem.dataset.inputs[0]
    assert_close(first(x), problem.outputs(network)[0], 1e-12)
    assert repr(first) == "Absorbed(Dense(5-4-3-2, ReLU()), after the activation)"


@pytest.mark.parametrize(
    ("kind", "form"), [("conv", "plain"), ("dense", "affine_after")]
)
def test_in_chunks(kind, form):
    """The statistics are those of all samples, and so are their derivatives."""
    network, problem = network_of(kind, form, 0.1), problem_of(kind)
    some = dataclasses.replace(problem, batch_size=5)
    assert_same(some, problem, network)
    kinks = gf.analysis.sliding_units
    np.testing.assert_array_equal(kinks(some, network), kinks(problem, network))


@pytest.mark.parametrize("batch_size", [None, 1])
def test_on_devices(batch_size):
    problem = problem_of("dense", samples=12)
    some = dataclasses.replace(problem, batch_size=batch_size)
    mesh = jax.make_mesh((3,), ("samples",), devices=jax.devices()[:3])
    network = network_of("dense", "affine", 0.1)
    assert_same(gf.shard_samples(some, mesh), problem, network)


def assert_same(some, problem, network):
    """With a unit that does not vary, and one that receives next to nothing."""
    first, *others = network.weights
    first = first.at[0].multiply(TINY).at[1].set(0)
    network = network.with_weights((first, *others))
    slopes = jax.random.normal(jax.random.key(0), (problem.dataset.num_samples, 2))
    assert_close(
        measured(some, network, slopes), measured(problem, network, slopes), 1e-11
    )


TINY = 1e-200


@eqx.filter_jit
def measured(problem, network, slopes):
    gradients = (
        problem.gradient(network),
        problem.pullback(network.with_weights, network.weights, slopes),
    )
    # Its squares would overflow.
    return problem.outputs(network), [
        (first.at[0].multiply(TINY), *others) for first, *others in gradients
    ]


def test_memory_of_chunks():
    """What is kept for the derivatives does not grow with the samples."""
    network = gf.BatchNorm(gf.Dense((5, 64, 64, 2), key=jax.random.key(0)))

    def bytes_of(samples, batch_size):
        of = problem_of("dense", samples=samples)
        of = gf.Problem(of.dataset, of.loss, batch_size=batch_size)
        compiled = jax.jit(lambda n: of.gradient(n)).lower(network).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(2048, 128) < 1.5 * bytes_of(512, 128)
    assert bytes_of(2048, 128) < bytes_of(2048, None) / 4


@kinds
def test_a_minibatch_has_its_own_statistics(kind):
    network, problem = network_of(kind, "plain"), problem_of(kind)
    some = jnp.array([1, 3, 4, 8])
    expected, _ = by_hand(network, problem.dataset.inputs[some])
    assert_close(outputs_of(problem.batch(some), network), expected, 1e-13)


@kinds_and_forms
def test_features_are_normalised(kind, form):
    network, problem = network_of(kind, form), problem_of(kind)
    features = hidden_features(problem, network)
    assert len(features) == 2
    if form != "after":
        return
    for h, w in zip(features, network.weights, strict=False):
        h = np.moveaxis(np.asarray(h).reshape(SAMPLES, w.shape[0], -1), 1, 0)
        h = h.reshape(w.shape[0], -1)
        np.testing.assert_allclose(h.mean(1), 0, atol=1e-14)
        np.testing.assert_allclose(h.var(1), 1, rtol=1e-12)


@kinds_and_forms
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_degrees(kind, form, smoothing):
    """Each layer's weights scale the outputs by the power that `degrees` says, and the
    rows of normalised layers do not matter at all."""
    network, problem = network_of(kind, form, smoothing), problem_of(kind)
    outputs = outputs_of(problem, network)
    expected = (0, 0, 0, 1, 1) if "affine" in form else (0, 0, 1)
    assert network.degrees == expected
    for k, degree in enumerate(network.degrees):
        scaled = list(network.weights)
        scaled[k] = 1.7 * scaled[k]
        there = outputs_of(problem, network.with_weights(tuple(scaled)))
        assert_close(there, 1.7**degree * outputs, 1e-13)
    rows = list(network.weights)
    for k in range(0, len(rows) - 1, 2 if "affine" in form else 1):
        factors = jnp.exp(jax.random.normal(jax.random.key(k), rows[k].shape[:1]))
        rows[k] = jnp.reshape(factors, (-1,) + (1,) * (rows[k].ndim - 1)) * rows[k]
    there = network.with_weights(tuple(rows))
    assert_close(outputs_of(problem, there), outputs, 1e-12)
    assert_close(there.scale, network.scale, 1e-15)
    scaling = [w for w, d in zip(network.weights, network.degrees, strict=True) if d]
    assert_close(network.scale, np.prod([np.linalg.norm(w) for w in scaling]), 1e-15)


@forms
def test_scale_invariance_holds_where_squares_underflow(form):
    network, problem = network_of("dense", form), problem_of("dense")
    tiny = (1e-200 * network.weights[0], *network.weights[1:])
    there = network.with_weights(tiny)
    assert_close(outputs_of(problem, there), outputs_of(problem, network), 1e-12)
    gradient = gradient_of(problem, there)
    assert_close(1e-200 * gradient[0], gradient_of(problem, network)[0], 1e-12)


@kinds_and_forms
def test_a_unit_without_variance_is_normalised_to_zero(kind, form):
    """Constant up to rounding: its normalised value would be rounding of size 1."""
    network, problem = network_of(kind, form), problem_of(kind)
    inputs = problem.dataset.inputs.at[:, 0].set(0.3)
    problem = gf.Problem(
        gf.Dataset(inputs, problem.dataset.labels, num_classes=2), problem.loss
    )
    first = network.weights[0]
    first = first.at[0].set(0).at[0, 0].set(1 / 3)
    if kind == "conv":
        # A pixel in the middle of the kernel, which never meets the padding.
        first = first.at[0].set(0).at[0, 0, 1, 1].set(1 / 3)
    network = network.with_weights((first, *network.weights[1:]))
    outputs, gradient = outputs_of(problem, network), gradient_of(problem, network)
    assert np.all(np.isfinite(outputs))
    assert np.all(gradient[0][0] == 0)
    step = 2 if "affine" in form else 1
    features = network.network.scale_fan_in(
        1, network.weights[step], jnp.ones(first.shape[0]).at[0].set(7.0)
    )
    weights = list(network.weights)
    weights[step] = features
    if "affine" not in form:
        # What the next layer makes of that unit does not matter.
        there = network.with_weights(tuple(weights))
        assert_close(outputs_of(problem, there), outputs, 1e-13)


# Gradients and fields.


@kinds_and_forms
def test_gradients_are_orthogonal_to_normalised_rows(kind, form):
    network, problem = network_of(kind, form), problem_of(kind)
    gradient = gradient_of(problem, network)
    step = 2 if "affine" in form else 1
    for g, w in list(zip(gradient, network.weights, strict=True))[:-1:step]:
        g, w = (np.asarray(x).reshape(len(w), -1) for x in (g, w))
        norms = np.linalg.norm(g, axis=1) * np.linalg.norm(w, axis=1)
        assert np.all(np.abs(np.sum(g * w, axis=1)) < 1e-12 * norms)
        assert np.all(norms > 0)


def finite_differences(function, state):
    flat, unravel = jax.flatten_util.ravel_pytree(state)
    step = 1e-5

    @jax.jit
    @jax.vmap
    def central(direction):
        there, back = flat + step * direction, flat - step * direction
        return (function(unravel(there)) - function(unravel(back))) / (2 * step)

    return unravel(central(jnp.eye(flat.size)))


@pytest.mark.parametrize(
    ("flow", "kind", "form"),
    [
        *((flow, "dense", "affine") for flow in FLOWS_ON_SPHERES),
        ("gradient", "conv", "plain"),
        ("gradient", "conv", "affine"),
        ("gradient", "dense", "after"),
    ],
)
def test_fields_are_those_of_finite_differences(flow, kind, form):
    """Smoothed widely, so that no kink is within a difference."""
    network, problem = network_of(kind, form, 0.5), problem_of(kind)
    flow = FLOWS[flow](0.1)
    state = flow.init(network)
    slopes = finite_differences(
        lambda s: problem.value(flow.to_network(s, network)), state
    )
    expected = flow.velocity(0.0, state, slopes)
    field = jax.jit(lambda s: flow.vector_field(0.0, s, problem, network))
    assert_close(field(state), expected, 1e-6)


@flows
@pytest.mark.parametrize(("kind", "form"), [("dense", "plain"), ("conv", "affine")])
def test_flows_start_from_the_same_function(flow, kind, form):
    network, problem = network_of(kind, form), problem_of(kind)
    flow = FLOWS[flow]()
    start = flow.to_network(flow.init(network), network)
    assert_close(outputs_of(problem, start), outputs_of(problem, network), 1e-12)
    if "Row" not in repr(flow):
        assert_close(start.scale, network.scale, 1e-12)


def row_norms(network):
    step = 1 if network.affine is None else 2
    return [
        np.linalg.norm(np.asarray(w).reshape(*w.shape[:2], -1), axis=2)
        for w in network.weights[:-1:step]
    ]


@pytest.mark.parametrize("form", ["plain", "affine_after"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_row_norms_along_a_solved_flow(form, weight_decay):
    """Conserved without weight decay, and otherwise a factor of exp(-2λt): the gradient
    of the loss is orthogonal to the rows."""
    network, problem = network_of("dense", form, 1e-2), problem_of("dense")
    run = gf.solve(
        problem,
        gf.GradientFlow(weight_decay),
        network,
        0.5,
        ts=[0.0, 0.25, 0.5],
        rtol=1e-8,
        observe={},
    )
    moved = run.networks.weights[0][-1] - run.networks.weights[0][0]
    assert jnp.linalg.norm(moved) > 0.1
    fading = np.exp(-2 * weight_decay * np.asarray(run.ts))[:, None]
    for norms in row_norms(run.networks):
        np.testing.assert_allclose(norms, fading * norms[:1], rtol=1e-6)


def test_lagrange_flow_rests_at_the_equilibrium():
    network, problem = network_of("dense", "plain"), problem_of("dense")
    run = gf.solve(
        problem, gf.LagrangeFlow(0.3), network, 300.0, until=gf.Stationary(1e-5)
    )
    assert run.stopped_by is not None
    final = run.final
    outputs = np.asarray(outputs_of(problem, final))
    outputs = outputs / np.linalg.norm(final.weights[-1])
    targets = np.eye(2)[np.asarray(problem.dataset.labels)]
    expected = np.sum(targets * outputs) / (0.3 + np.sum(outputs**2))
    assert_close(final.scale, expected, 1e-3)
    assert_close(run.observables["rho_eq"][-1], expected, 1e-3)
    gradient = gradient_of(problem, final)
    for g, w in zip(gradient[:-1], final.weights[:-1], strict=True):
        assert np.linalg.norm(g) * np.linalg.norm(w) < 1e-2


def test_momentum_with_minibatches_is_that_of_a_hand_written_loop():
    """PyTorch's: the decay is added to the gradient, and momentum to the sum."""
    problem, network = problem_of("dense", samples=8), network_of("dense", "affine")
    problem = gf.Problem(problem.dataset, gf.SquareLoss("mean"))
    decay, rate, momentum, steps = 0.02, 0.1, 0.9, 6
    sampler = gf.Minibatches(4, key=jax.random.key(5))
    run = gf.descend(
        problem,
        optax.sgd(rate, momentum=momentum),
        network,
        steps,
        flow=gf.GradientFlow(decay / 2),
        sampler=sampler,
    )

    @jax.jit
    @jax.grad
    def slopes_of(weights, inputs, labels):
        outputs = jnp.asarray(inputs)
        *hidden, last = weights[::2]
        for w, shift in zip(hidden, weights[1::2], strict=True):
            z = outputs @ w.T
            z = (z - z.mean(0, keepdims=True)) / z.std(0, keepdims=True)
            outputs = jnp.maximum(shift[:, 0] * z + shift[None, :, 1], 0)
        errors = outputs @ last.T - jax.nn.one_hot(labels, 2, dtype=float)
        return jnp.mean(jnp.sum(errors**2, axis=1))

    with jax.numpy_rank_promotion("allow"):
        weights = network.weights
        velocity = jax.tree.map(jnp.zeros_like, weights)
        state = sampler.init(problem)
        for _ in range(steps):
            batch, state = sampler.sample(problem, state)
            slopes = slopes_of(weights, batch.dataset.inputs, batch.dataset.labels)
            velocity = jax.tree.map(
                lambda v, g, w: momentum * v + g + decay * w, velocity, slopes, weights
            )
            weights = jax.tree.map(lambda w, v: w - rate * v, weights, velocity)
    assert_close(run.final.weights, weights, 1e-12)


# What is made of it.


@kinds_and_forms
def test_structural_lemma(kind, form):
    network, problem = network_of(kind, form), problem_of(kind)
    for residual in (gf.analysis.structural_residual, gf.analysis.euler_residual):
        assert np.max(eqx.filter_jit(residual)(problem, network)) < 1e-12


def test_gradients_of_samples_add_up():
    network, problem = network_of("dense", "affine"), problem_of("dense")
    jacobian = jax.jit(jax.jacrev(lambda w: problem.outputs(network.with_weights(w))))(
        network.weights
    )
    flat = np.concatenate(
        [np.asarray(j).reshape(SAMPLES * 2, -1) for j in jacobian], axis=1
    )
    kernel = gf.analysis.tangent_kernel(problem, network)
    assert_close(kernel.reshape(SAMPLES * 2, SAMPLES * 2), flat @ flat.T, 1e-12)
    # ∂f/∂A for the affine layer before the last: the sine of the angle to A itself.
    residual = gf.analysis.sample_residual(problem, network)[-2]
    slopes = np.asarray(jacobian[-2])
    unit = np.asarray(network.weights[-2] / jnp.linalg.norm(network.weights[-2]))
    along = np.einsum("ncij,ij->nc", slopes, unit)[..., None, None] * unit
    rest, whole = (np.linalg.norm(x, axis=(2, 3)) for x in (slopes - along, slopes))
    seen = np.any(whole > 0, axis=1)
    assert np.all(np.isnan(residual) == ~seen) and np.sum(seen) > SAMPLES / 2
    sines = rest[seen] / whole[seen]
    np.testing.assert_allclose(residual[seen], sines.max(axis=1), rtol=1e-10)


def test_critical_points_by_the_degrees_of_the_layers():
    """Of layers whose scale does not matter the whole gradient is the residual."""
    network, problem = network_of("dense", "affine"), problem_of("dense")
    outputs = outputs_of(problem, network)
    total = jnp.sum(problem.slopes(outputs) * outputs) / network.scale
    residual = gf.analysis.representation_residual(problem, network)
    rests = gf.analysis.stationarity_residual(problem, network)
    assert_close(residual, rests / jnp.abs(total), 1e-12)
    sines = np.asarray(gf.analysis.sample_residual(problem, network))
    sines = sines[np.array(network.degrees) == 0]
    np.testing.assert_allclose(sines[np.isfinite(sines)], 1, rtol=1e-14)
    assert np.sum(np.isfinite(sines)) > SAMPLES


def test_clock_of_the_scale():
    """It goes by the layers whose scale matters: where all samples are classified
    correctly, by the logarithm of their product."""
    network, problem = network_of("dense", "affine"), problem_of("dense")
    labels = jnp.argmax(outputs_of(problem, network), axis=1)
    dataset = gf.Dataset(problem.dataset.inputs, labels, num_classes=2)
    problem = gf.Problem(dataset, gf.CrossEntropyLoss())
    for flow in (gf.GradientFlow(), gf.LagrangeFlow(), gf.LagrangeFlow(all_norms=True)):
        clock = gf.LogRho(flow)

        @jax.jit
        def pace(state, clock=clock):
            def log_scale(state):
                return jnp.log(clock.to_network(state, network).scale)

            velocity = clock.vector_field(0.0, state, problem, network)
            return jax.jvp(log_scale, (state,), (velocity,))[1]

        assert_close(pace(clock.init(network)), 1.0, 1e-12)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e307])
def test_norms_whose_squares_are_not_numbers(size):
    network = network_of("dense", "plain")
    weights = (size * network.weights[0], *network.weights[1:])
    there = network.with_weights(weights)
    assert_close(there.norms[0] / size, network.norms[0], 1e-14)
    assert_close(there.scale, network.scale, 1e-14)
    gradient = jax.grad(lambda w: there.with_weights(w).norms[0])(weights)
    assert_close(gradient[0], network.weights[0] / network.norms[0], 1e-14)


def test_balance_of_units():
    """Normalised units keep their norm, which is all that is left of the balance."""
    network, problem = network_of("conv", "plain"), problem_of("conv")
    for balance, w in zip(
        gf.analysis.unit_balance(problem, network), network.weights, strict=False
    ):
        np.testing.assert_allclose(balance, -jnp.sum(w**2, axis=(1, 2, 3)), rtol=1e-14)


@forms
def test_polar_form(form):
    network = network_of("dense", form)
    polar = gf.Polar.from_network(network)
    assert_close(polar.scale, network.scale, 1e-14)
    assert_close(polar.rho, network.norms, 1e-15)
    assert_close(polar.to_network().weights, network.weights, 1e-15)
    rho_of_all = gf.analysis.product_of_norms(problem_of("dense"), network)
    assert_close(rho_of_all, jnp.prod(network.norms), 1e-14)


@kinds_and_forms
def test_saved_and_loaded(kind, form, tmp_path):
    network, problem = network_of(kind, form), problem_of(kind)
    run = gf.descend(problem, 1e-3, network, 3)
    run.save(tmp_path / "run.npz")
    again = gf.Trajectory.load(tmp_path / "run.npz")
    assert eqx.tree_equal(again.final, run.final)
    assert eqx.tree_equal(again.networks, run.networks)
    made = gf.BatchNorm.from_weights(network.weights, **network.config())
    assert eqx.tree_equal(made, network)


def test_transformations():
    network, problem = network_of("dense", "affine", 0.1), problem_of("dense")
    stack = jax.tree.map(lambda w: jnp.stack([w, 2 * w, 0.3 * w]), network)
    values = jax.jit(jax.vmap(problem.value))(stack)
    doubled = jax.tree.map(lambda w: 2 * w, network)
    value = jax.jit(lambda network: problem.value(network))
    singles = [value(network), value(doubled)]
    assert_close(values[:2], jnp.stack(singles), 1e-14)
    tangent = jax.tree.map(jnp.ones_like, network.weights)

    @jax.jit
    def along(s):
        there = [w + s * u for w, u in zip(network.weights, tangent, strict=True)]
        return problem.value(network.with_weights(tuple(there)))

    _, forward = jax.jvp(along, (0.0,), (1.0,))
    slope = jax.jit(jax.grad(along))
    second = jax.jit(jax.grad(slope))(0.0)
    assert_close(forward, (along(1e-5) - along(-1e-5)) / 2e-5, 1e-7)
    assert_close(second, (slope(1e-5) - slope(-1e-5)) / 2e-5, 1e-6)


def test_repr():
    network = network_of("dense", "affine")
    assert repr(network) == "BatchNorm(Dense(5-4-3-2, ReLU()), affine)"
    fixed = problem_of("dense").with_statistics(network_of("dense", "after"))
    assert repr(fixed) == (
        "BatchNorm(Dense(5-4-3-2, ReLU()), after the activation, fixed statistics)"
    )


# What it is not.


def test_what_needs_a_batch():
    network, problem = network_of("dense", "plain"), problem_of("dense")
    with pytest.raises(ValueError, match="with_statistics"):
        network(problem.dataset.inputs[0])
    with pytest.raises(ValueError, match="batch of one"):
        problem.batch(jnp.array([2])).outputs(network)
    with pytest.raises(ValueError, match="`batch_size`"):
        network.with_statistics(problem.dataset.inputs, 0)
    with pytest.raises(ValueError, match="`inputs`"):
        gf.analysis.tangent_kernel(problem, network, inputs=problem.dataset.inputs[:2])


def test_fixed_statistics_are_not_trained():
    problem = problem_of("dense")
    fixed = problem.with_statistics(network_of("dense", "plain"))
    for run in (
        lambda: gf.solve(problem, gf.GradientFlow(), fixed, 1.0),
        lambda: gf.descend(problem, 0.1, fixed, 3),
        lambda: gf.polish(problem, gf.GradientFlow(0.1), fixed),
        lambda: gf.analysis.stationarity_residual(problem, fixed),
        lambda: gf.analysis.representation_residual(problem, fixed),
        lambda: gf.analysis.sample_residual(problem, fixed),
        lambda: gf.analysis.linearised_outputs(problem, fixed, jnp.ones(2)),
    ):
        with pytest.raises(ValueError, match="fixed statistics"):
            run()


@pytest.mark.parametrize(
    "measure",
    [
        gf.analysis.layer_balance,
        gf.analysis.matrix_balance,
        gf.analysis.path_norm,
        gf.analysis.spectral_complexity,
        gf.analysis.unit_margin,
        gf.analysis.kkt_residual,
        gf.analysis.flat_directions,
        gf.analysis.asymmetry,
    ],
)
def test_what_is_not_defined(measure):
    with pytest.raises(ValueError, match="normalised over a batch"):
        measure(problem_of("dense"), network_of("dense", "affine"))


def test_networks_that_cannot_be_normalised():
    dense = gf.Dense((5, 4, 1), key=jax.random.key(0))
    with pytest.raises(ValueError, match="`network`"):
        gf.BatchNorm(gf.Dense((5, 1), key=jax.random.key(0)))
    with pytest.raises(ValueError, match="`network`"):
        gf.BatchNorm(gf.BatchNorm(dense))
    with pytest.raises(ValueError, match="`network`"):
        gf.BatchNorm(gf.Diagonal(5, 3, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="`weights`"):
        gf.BatchNorm.from_weights(dense.weights, dense, affine=True)
