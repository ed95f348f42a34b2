"""The last layer at rest, by definition and in constructed networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import CASES, network_of, problem_for, slopes_of

DECAY = 0.05
relation = eqx.filter_jit(gf.analysis.classifier_relation)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(
    ("outputs", "loss"), [case[1:] for case in CASES if case[0] == "dense"]
)
def test_residual_is_that_of_the_flow(outputs, loss, reduction):
    """Whose velocity is 2 λ (Ŵ - W)."""
    problem = problem_for("dense", outputs, loss, reduction)
    network = network_of("dense", outputs=outputs)
    flow = gf.GradientFlow(DECAY)
    velocity = flow.vector_field(0.0, flow.init(network), problem, network)[-1]
    expected = jnp.linalg.norm(velocity) / (2 * DECAY * network.norms[-1])
    found = gf.analysis.classifier_residual(problem, network, DECAY)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_against_the_definitions(reduction):
    problem = problem_for("dense", 3, "square", reduction)
    network = network_of("dense", outputs=3)
    h, labels = np.asarray(problem.dataset.inputs), np.asarray(problem.dataset.labels)
    *hidden, last = [np.asarray(w) for w in network.weights]
    for w in hidden:
        h = np.maximum(h @ w.T, 0)
    outputs = h @ last.T
    found = relation(problem, network, DECAY)
    exact = -slopes_of(problem)(outputs).T @ h / (2 * DECAY)
    epsilon = np.mean([1 - outputs[n, c] for n, c in enumerate(labels)])
    weight = 1 / len(h) if reduction == "mean" else 1.0
    frame = [weight * epsilon / DECAY * h[labels == c].sum(0) for c in range(3)]
    for name, expected in (("exact", exact), ("frame", np.stack(frame))):
        residual = np.linalg.norm(last - expected) / np.linalg.norm(last)
        np.testing.assert_allclose(getattr(found, name), residual, rtol=1e-12)
    np.testing.assert_allclose(found.epsilon, epsilon, rtol=1e-12)
    np.testing.assert_allclose(found.norms, np.linalg.norm(last, axis=1), rtol=1e-12)
    assert len(set(np.bincount(labels))) > 1  # no simplex for unequal classes
    assert jnp.isnan(found.simplex) and jnp.all(jnp.isnan(found.simplex_norms))


def collapsed(features, last, counts, reduction="sum"):
    """A network with the given features of each class, and the given last layer."""
    classes = np.repeat(np.arange(len(counts)), counts)
    data = gf.Dataset(np.eye(len(counts))[classes], classes)
    weights = [jnp.asarray(w) for w in (features.T, last)]
    network = gf.Dense.from_weights(weights, gf.Identity())
    return gf.Problem(data, gf.SquareLoss(reduction)), network


@pytest.mark.parametrize(
    ("counts", "reduction"),
    [((4, 4, 4), "sum"), ((4, 4, 4), "mean"), ((9, 4, 1), "sum")],
)
def test_orthogonal_frame(counts, reduction):
    """h = s_c e_c and W_c = w_c e_c: rest at λ w_c = N_c ε s_c and w_c s_c = 1 - ε."""
    weight = 1 / sum(counts) if reduction == "mean" else 1.0
    sizes, epsilon = weight * np.array(counts), 0.1
    last = np.sqrt(sizes * epsilon * (1 - epsilon) / DECAY)
    features = np.diag((1 - epsilon) / last)
    found = relation(*collapsed(features, np.diag(last), counts, reduction), DECAY)
    np.testing.assert_allclose(found.epsilon, epsilon, rtol=1e-12)
    np.testing.assert_allclose([found.exact, found.frame], 0, atol=1e-14)
    np.testing.assert_allclose(found.frame_norms, last, rtol=1e-12)
    np.testing.assert_allclose(found.norms, last, rtol=1e-12)
    if len(set(counts)) == 1:
        assert found.simplex > 0.1
        ratio = np.sqrt((1 - 1.5 * epsilon) / (1 - epsilon))
        np.testing.assert_allclose(found.simplex_norms, ratio * last, rtol=1e-12)


def test_simplex_without_biases():
    """As in M112 (54) to the last digit, and yet not at rest: its outputs add up to 0,
    not to 1."""
    simplex = np.eye(3) - 1 / 3
    size, samples, epsilon = 0.7, 4, 0.1
    scale = (1 - epsilon) / size / (2 / 3)
    decay = 3 * samples * epsilon / 2 * size / scale
    problem, network = collapsed(size * simplex, scale * simplex, (samples,) * 3)
    found = relation(problem, network, decay)
    np.testing.assert_allclose(found.epsilon, epsilon, rtol=1e-12)
    np.testing.assert_allclose(found.simplex, 0, atol=1e-14)
    assert found.exact > 0.1 and found.frame > 0.1


def test_simplex_around_a_common_feature():
    """Where a last feature that all classes share stands for a bias that does not
    decay, the outputs are 1 - ε and ε / (C - 1), and (54) and (55) are at rest in the
    other features."""
    simplex, samples, epsilon = np.eye(3) - 1 / 3, 4, 0.1
    # Of the centred part: W_c = κ (μ_c - μ_G), and outputs 1/3 less.
    kappa = 3 * samples * epsilon / (2 * DECAY)
    size = np.sqrt((1 - epsilon - 1 / 3) / (kappa * 2 / 3))
    last = kappa * size * simplex
    norms = np.sqrt(samples / DECAY * (epsilon - 1.5 * epsilon**2))
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), norms, rtol=1e-12)
    features = np.hstack([size * simplex, np.full((3, 1), 1e6)])
    last = np.hstack([last, np.full((3, 1), 1e-6 / 3)])
    found = relation(*collapsed(features, last, (samples,) * 3), DECAY)
    np.testing.assert_allclose(found.epsilon, epsilon, rtol=1e-9)
    np.testing.assert_allclose([found.simplex, found.exact], 0, atol=1e-6)
    np.testing.assert_allclose(found.simplex_norms, norms, rtol=1e-9)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-9)


def test_arguments_that_do_not_fit():
    problem, network = problem_for("dense", 3), network_of("dense", outputs=3)
    for measure in (gf.analysis.classifier_relation, gf.analysis.classifier_residual):
        with pytest.raises(ValueError, match="`weight_decay`"):
            measure(problem, network, 0.0)
        with pytest.raises(ValueError, match="hidden layer"):
            measure(problem, gf.Dense((5, 3), key=jax.random.key(0)), DECAY)
    for other in (problem_for("dense", 3, "cross_entropy"), problem_for("dense")):
        with pytest.raises(ValueError, match="classifier_residual"):
            gf.analysis.classifier_relation(other, network, DECAY)
