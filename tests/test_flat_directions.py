"""Zero eigenvalues of the Hessian beside those that theory counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import null_space

import gradflow as gf
from cases import network_of, problem_for

LINEAR = gf.Identity()


def linear(matrices):
    return gf.Dense.from_weights([jnp.asarray(m) for m in matrices], LINEAR)


def measured(where, network, weight_decay=0.0, rtol=1e-9):
    """Zero eigenvalues at a critical point; the gradient has to vanish there."""
    speed, found = _speed_and_eigenvalues(
        where, network, gf.GradientFlow(jnp.asarray(weight_decay))
    )
    assert speed <= 1e-9
    assert found[0] >= -1e-9 * found[-1]
    return int(gf.analysis.num_near_zero(found, rtol=rtol))


@eqx.filter_jit
def _speed_and_eigenvalues(where, network, flow):
    field = flow.vector_field(0.0, network.weights, where, network)
    found = gf.analysis.hessian_eigenvalues(where, network, flow=flow)
    return jnp.max(jnp.abs(ravel_pytree(field)[0])), found


def predicted(where, network, weight_decay=0.0):
    return gf.analysis.flat_directions(where, network, weight_decay)


def whitened(outputs, seed=0):
    """Least squares of the distance of W_L ... W_1 to a matrix, which is returned."""
    rng = np.random.default_rng(seed)
    inputs = np.linalg.qr(rng.normal(size=(8, 5)))[0]
    frame, _ = np.linalg.qr(rng.normal(size=(8, outputs)))
    # The more of the targets the inputs explain, the larger the singular values.
    frame = inputs @ np.linalg.qr(inputs.T @ frame)[0]
    targets = frame * np.array([1.5, 1.0, 0.3])[:outputs]
    labels = targets[:, 0] if outputs == 1 else targets
    data = gf.Dataset(jnp.asarray(inputs), jnp.asarray(labels), regression=True)
    return gf.Problem(data, gf.SquareLoss()), targets.T @ inputs


def regularised_minimum(matrix, widths, weight_decay, seed=0):
    """In closed form. Balanced layers have the same singular values q, on the singular
    vectors of the matrix, and (s - q^L) q^(L - 2) = λ for each of its own ones s."""
    u, singular, vt = np.linalg.svd(matrix, full_matrices=False)
    depth = len(widths) + 1
    values = []
    for s in singular:
        # q^(2L - 2) - s q^(L - 2) + λ, of which the largest root is the minimum.
        polynomial = np.zeros(2 * depth - 1)
        polynomial[0] = 1
        polynomial[depth] -= s
        polynomial[-1] += weight_decay
        roots = np.roots(polynomial)
        real = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 1e-9)].real
        best = max(real, default=0.0)

        def value(q, s=s):
            return (q**depth - s) ** 2 + weight_decay * depth * q**2

        values.append(best if value(best) < value(0.0) else 0.0)
    rng = np.random.default_rng(seed)
    bases = [
        np.linalg.qr(rng.normal(size=(d, d)))[0][:, : len(singular)] for d in widths
    ]
    ends = [vt.T, *bases, u]
    layers = [
        above @ np.diag(values) @ below.T
        for below, above in zip(ends[:-1], ends[1:], strict=True)
    ]
    return linear(layers), int(np.sum(np.array(values) > 0))


@pytest.mark.parametrize("widths", [(4,), (4, 6)])
@pytest.mark.parametrize(
    ("outputs", "weight_decay", "rank"), [(1, 0.1, 1), (3, 0.02, 3), (3, 0.35, 2)]
)
def test_regularised_linear_networks(widths, outputs, weight_decay, rank):
    """Orthogonal orbits, with one and with several outputs."""
    where, matrix = whitened(outputs, seed=4)
    network, found_rank = regularised_minimum(matrix, widths, weight_decay)
    assert found_rank == rank
    expected = sum(rank * (2 * d - rank - 1) // 2 for d in widths)
    assert predicted(where, network, weight_decay).symmetry == expected
    assert measured(where, network, weight_decay) == expected


@pytest.mark.parametrize("widths", [(3,), (3, 3)])
def test_unregularised_linear_networks(widths):
    """At full rank: GL(d) of each hidden layer."""
    where, matrix = whitened(3)
    rng = np.random.default_rng(2)
    upper = [rng.normal(size=(3, 3)) for _ in widths]
    product = np.linalg.multi_dot([*upper[::-1], np.eye(3)])
    network = linear([np.linalg.solve(product, matrix), *upper])
    expected = 9 * len(widths)
    assert predicted(where, network).symmetry == expected
    assert measured(where, network) == expected


@pytest.mark.parametrize("seed", range(6))
def test_orbits_of_any_rank(seed):
    """The dimension of the orbit, by the rank of the infinitesimal action."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 6, size=4)
    layers = []
    for below, above in zip(widths[:-1], widths[1:], strict=True):
        rank = rng.integers(1, min(below, above) + 1)
        layers.append(rng.normal(size=(above, rank)) @ rng.normal(size=(rank, below)))
    first, second, third = widths[1], widths[2], layers
    columns = []
    for layer, width in ((1, first), (2, second)):
        for e in np.eye(width * width):
            generator = e.reshape(width, width)
            moved = [np.zeros_like(w) for w in third]
            moved[layer - 1] = generator @ third[layer - 1]
            moved[layer] = -third[layer] @ generator
            columns.append(np.concatenate([m.ravel() for m in moved]))
    action = np.stack(columns, axis=1)
    expected = action.shape[1] - null_space(action, rcond=1e-10).shape[1]
    data = gf.Dataset(
        jnp.ones((1, widths[0])), jnp.ones((1, widths[3])), regression=True
    )
    where = gf.Problem(data, gf.SquareLoss())
    assert predicted(where, linear(layers)).symmetry == expected


def test_interpolation():
    """At least P - NC zeros where the square loss vanishes; a smoothed ReLU network
    that computes its own targets."""
    inputs = jax.random.normal(jax.random.key(0), (6, 4))
    network = gf.Dense((4, 5, 2), key=jax.random.key(1), activation=gf.ReLU(0.1))
    targets = jax.vmap(network)(inputs)
    where = gf.Problem(gf.Dataset(inputs, targets, regression=True), gf.SquareLoss())
    counts = predicted(where, network)
    assert counts.interpolation == 30 - 12
    assert counts.symmetry == 5
    assert measured(where, network) == 30 - 12
    # The Hessian is the Gauss-Newton matrix.
    found = gf.analysis.gauss_newton_eigenvalues(where, network)
    everything = gf.analysis.hessian_eigenvalues(where, network)
    np.testing.assert_allclose(found, everything[-12:], rtol=1e-9)


def test_units():
    """Rescalings of units, as many as rows of the hidden layers."""
    for kind, expected in (("dense", 4 + 3), ("conv", 3 + 2), ("diagonal", 5 + 5)):
        where, network = problem_for(kind), network_of(kind)
        assert predicted(where, network).symmetry == expected
        assert predicted(where, network, 0.1).symmetry == 0
    # Two layers with many samples have no others.
    network = gf.Dense((3, 4, 1), key=jax.random.key(1), activation=gf.ReLU(0.0))
    inputs = jax.random.normal(jax.random.key(0), (400, 3))
    targets = jax.vmap(network)(inputs)
    where = gf.Problem(gf.Dataset(inputs, targets, regression=True), gf.SquareLoss())
    assert measured(where, network) == predicted(where, network).symmetry == 4


def test_transformed_and_bad_arguments():
    where, network = problem_for("deep_linear"), network_of("deep_linear")
    compiled = eqx.filter_jit(gf.analysis.flat_directions)(where, network, 0.1)
    # One output: 4 + 3 hidden units; the matrices of a random network have full rank.
    assert compiled.symmetry == 6 + 3
    with pytest.raises(ValueError, match="`weight_decay`"):
        predicted(where, network, -1.0)
    with pytest.raises(ValueError, match="`rtol`"):
        gf.analysis.flat_directions(where, network, rtol=-1.0)
    conv = network_of("conv").with_activation(LINEAR)
    with pytest.raises(ValueError, match="convolutions"):
        predicted(problem_for("conv"), conv)


def test_without_hidden_layers():
    where, matrix = whitened(3)
    counts = predicted(where, linear([matrix]), 0.1)
    assert counts.symmetry == 0 and counts.interpolation == 0


def test_smoothed_kinks_tie_the_scales_of_lower_units():
    """Rescaling a unit leaves the function as it is, or not."""
    where = problem_for("dense")
    for smoothing, free in ((0.0, (1, 2)), (0.1, (2,))):
        network, count = network_of("dense", smoothing), 0
        for layer in (1, 2):
            factors = jnp.ones(network.weights[layer - 1].shape[0]).at[0].set(3.0)
            weights = list(network.weights)
            weights[layer] = network.scale_fan_in(layer, weights[layer], factors)
            weights[layer - 1] = weights[layer - 1] / factors[:, None]
            rescaled = network.with_weights(tuple(weights))
            change = where.outputs(rescaled) - where.outputs(network)
            is_free = np.max(np.abs(change)) < 1e-14
            assert is_free == (layer in free)
            count += is_free * factors.size
        assert predicted(where, network).symmetry == count
