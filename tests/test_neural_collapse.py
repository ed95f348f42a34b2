"""Neural collapse against its definitions in dense linear algebra, and where it is
complete."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import dataset_for, network_of, problem_for
from cases import unchecked_types as unchecked_types

CENTERS = ("classes", "samples")
neural_collapse = eqx.filter_jit(gf.analysis.neural_collapse)


def hidden_features(network, inputs):
    """Of an exact dense network, by NumPy."""
    layers, h = [], np.asarray(inputs)
    for w in network.weights[:-1]:
        h = np.maximum(h @ np.asarray(w).T, 0)
        layers.append(h)
    return layers


def simplex(num_classes):
    return (np.eye(num_classes) - 1 / num_classes) / np.sqrt(num_classes - 1)


def normalised(x):
    return x / np.linalg.norm(x)


def definitions(h, classes, num_classes, center):
    """From covariance matrices and a pseudo-inverse."""
    clouds = [h[classes == k] for k in range(num_classes)]
    mu = np.stack([cloud.mean(0) for cloud in clouds])
    mu_g = mu.mean(0) if center == "classes" else h.mean(0)
    m = mu - mu_g
    within = sum((c - c.mean(0)).T @ (c - c.mean(0)) for c in clouds) / len(h)
    between = m.T @ m / num_classes
    v = [np.mean(np.sum((c - c.mean(0)) ** 2, 1)) for c in clouds]
    pairs = [(k, j) for k in range(num_classes) for j in range(num_classes) if k != j]
    norms = np.linalg.norm(m, axis=1)
    cosines = [m[k] @ m[j] / norms[k] / norms[j] for k, j in pairs]
    inverse = np.linalg.pinv(between, rcond=1e-10)
    return m, {
        "nc1": np.trace(within @ inverse) / num_classes,
        "variance_ratio": np.trace(within) / np.trace(between),
        "class_distance_variance": np.mean(
            [(v[k] + v[j]) / (2 * np.sum((mu[k] - mu[j]) ** 2)) for k, j in pairs]
        ),
        "nc2_norms": norms.std() / norms.mean(),
        "nc2_angles": np.mean(np.abs(np.array(cosines) + 1 / (num_classes - 1))),
        "nc2_simplex": np.linalg.norm(normalised(m @ m.T) - simplex(num_classes)),
    }


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_against_the_definitions(outputs, center):
    problem = gf.Problem(dataset_for("dense", outputs, samples=40), gf.SquareLoss())
    # Wide enough for as many directions as there are differences of classes.
    network = gf.Dense((5, 8, 6, outputs), key=jax.random.key(3))
    measured = neural_collapse(problem, network, center=center)
    labels = np.asarray(problem.dataset.labels)
    classes, num_classes = (labels > 0, 2) if outputs == 1 else (labels, 3)
    classes = classes.astype(int)
    sizes = np.bincount(classes)
    assert len(set(sizes)) > 1  # or the centers would be the same
    last = np.asarray(network.weights[-1])
    last = np.concatenate([-last, last]) if outputs == 1 else last
    layers = hidden_features(network, problem.dataset.inputs)
    for k, h in enumerate(layers):
        m, expected = definitions(h, classes, num_classes, center)
        for name, value in expected.items():
            found = getattr(measured, name)[k]
            np.testing.assert_allclose(found, value, rtol=1e-8, atol=1e-12)
        mu = np.stack([h[classes == c].mean(0) for c in range(num_classes)])
        nearest = np.argmin(((h[:, None] - mu) ** 2).sum(2), 1)
        predicted = np.argmax(layers[-1] @ last.T, 1)
        np.testing.assert_allclose(measured.nc4[k], np.mean(nearest != predicted))
    nc3 = np.linalg.norm(normalised(last) - normalised(m))
    product = np.linalg.norm(normalised(last @ m.T) - simplex(num_classes))
    np.testing.assert_allclose(measured.nc3, nc3, rtol=1e-10)
    np.testing.assert_allclose(measured.nc3_product, product, rtol=1e-10)
    norms = np.linalg.norm(last, axis=1)
    spread = norms.std() / norms.mean()
    np.testing.assert_allclose(measured.nc2_norms_of_weights, spread, atol=1e-12)


def collapsed():
    """Three classes whose features are three axes, and a last layer dual to them."""
    inputs = np.repeat(np.eye(4)[:3], [2, 3, 4], axis=0)
    data = gf.Dataset(inputs, np.repeat([0, 1, 2], [2, 3, 4]))
    first = np.vstack([2 * np.eye(4)[:3], np.zeros((2, 4))])
    last = np.hstack([np.eye(3) - 1 / 3, np.zeros((3, 2))])
    network = gf.Dense.from_weights([jnp.asarray(first), jnp.asarray(5 * last)])
    return gf.Problem(data, gf.SquareLoss()), network


def test_complete():
    for value in jax.tree.leaves(neural_collapse(*collapsed())):
        np.testing.assert_allclose(value, 0, atol=1e-14)


def test_complete_with_one_output():
    """M112 §5: the features are ± the last layer, up to what both have in common."""
    inputs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    data = gf.Dataset(inputs, np.array([1.0, 1.0, -1.0, -1.0]))
    network = gf.Dense.from_weights([jnp.eye(2), jnp.asarray([[3.0, -3.0]])])
    for value in jax.tree.leaves(
        neural_collapse(gf.Problem(data, gf.SquareLoss()), network)
    ):
        np.testing.assert_allclose(value, 0, atol=1e-14)


def test_one_misplaced_sample():
    """Its own class is nearer than the one that the last layer predicts."""
    problem, network = collapsed()
    first, last = network.weights
    swapped = neural_collapse(problem, network.with_weights((first, last[::-1])))
    np.testing.assert_allclose(swapped.nc4, [6 / 9])
    np.testing.assert_allclose(swapped.nc3, np.sqrt(2))
    np.testing.assert_allclose(swapped.nc1, 0, atol=1e-14)


def test_classes_that_coincide():
    """As at a start from small weights: infinite, and no exception."""
    inputs = np.random.default_rng(0).normal(size=(3, 4))
    data = gf.Dataset(np.tile(inputs, (3, 1)), np.repeat([0, 1, 2], 3))
    network = gf.Dense((4, 6, 3), key=jax.random.key(0))
    problem = gf.Problem(data, gf.SquareLoss())
    assert neural_collapse(problem, network).nc1[0] == jnp.inf


def test_along_a_run():
    problem, network = collapsed()
    run = gf.solve(
        problem,
        gf.GradientFlow(0.1),
        network,
        0.1,
        ts=jnp.linspace(0, 0.1, 3),
        observe={"collapse": gf.analysis.neural_collapse},
    )
    assert run.observables["collapse"].nc1.shape == (3, 1)


def test_what_cannot_collapse(unchecked_types):
    problem, network = collapsed()
    with pytest.raises(ValueError, match="`center`"):
        gf.analysis.neural_collapse(problem, network, center="median")
    with pytest.raises(ValueError, match="hidden layer"):
        shallow = gf.Dense((4, 3), key=jax.random.key(0))
        gf.analysis.neural_collapse(problem, shallow)
    data = gf.Dataset(np.eye(4)[:2], np.array([0, 1]), num_classes=3)
    with pytest.raises(ValueError, match=r"classes \[2\]"):
        gf.analysis.neural_collapse(gf.Problem(data, gf.SquareLoss()), network)
    data = gf.Dataset(np.eye(4)[:2], np.zeros((2, 3)), regression=True)
    with pytest.raises(ValueError, match="regression"):
        gf.analysis.neural_collapse(gf.Problem(data, gf.SquareLoss()), network)
    data = gf.Dataset(np.eye(4)[:2], np.array([0, 0]), num_classes=1)
    first, last = network.weights
    with pytest.raises(ValueError, match="single class"):
        gf.analysis.neural_collapse(
            gf.Problem(data, gf.SquareLoss()), network.with_weights((first, last[:1]))
        )


def test_convolutions():
    measured = neural_collapse(problem_for("conv", 3), network_of("conv", 0.1, 3))
    assert measured.nc1.shape == (2,) and bool(jnp.all(measured.nc1 > 0))


@pytest.mark.parametrize("outputs", [1, 3])
def test_scale_and_precision(outputs):
    """Squares of such features are beyond single precision."""

    def measured(scale):
        problem, network = (
            problem_for("dense", outputs),
            network_of("dense", 0, outputs),
        )
        data = problem.dataset
        labels = data.labels if outputs == 3 else data.labels.astype("float32")
        data = gf.Dataset(
            data.inputs.astype("float32"), labels, num_classes=data.num_classes
        )
        weights = (w.astype("float32") * scale for w in network.weights)
        problem = gf.Problem(data, gf.SquareLoss())
        network = network.with_weights(tuple(weights))
        if outputs == 1:
            collapse = gf.analysis.binary_collapse(problem, network)
            return jax.tree.leaves((collapse, neural_collapse(problem, network)))
        return jax.tree.leaves(neural_collapse(problem, network))

    for value, *others in zip(*map(measured, (1.0, 1e-10, 1e10)), strict=True):
        assert value.dtype == jnp.float32
        for other in others:
            np.testing.assert_allclose(other, value, rtol=1e-4, atol=1e-5)


def test_an_empty_class_that_cannot_be_seen():
    problem, network = collapsed()
    data = gf.Dataset(problem.dataset.inputs, problem.dataset.labels % 2, num_classes=3)
    measured = neural_collapse(gf.Problem(data, gf.SquareLoss()), network)
    for value in (measured.nc1, measured.nc4, measured.nc3):
        assert jnp.all(jnp.isnan(value))


def test_derivatives_where_nothing_can_change():
    """The means of two classes are a simplex, and their last layer has two rows of one
    norm."""
    problem, network = problem_for("dense"), network_of("dense", 0.1)

    def constant(network):
        c = gf.analysis.neural_collapse(problem, network)
        return jnp.sum(c.nc2_norms + c.nc2_simplex) + c.nc2_norms_of_weights

    for gradient in eqx.filter_jit(jax.grad(constant))(network).weights:
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
