"""What is measured along a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from small import dataset, from_vector, network, problem, weights_of

DEFAULT = {"loss", "rho", "rho_layers", "stationarity", "norm_defect"}
MARGINS = {"margin_min", "margin_mean", "accuracy"}


def descend(where, flow, start=None, steps=3, rate=0.01, **options):
    start = network() if start is None else start
    return gf.descend(where, rate, start, steps, flow=flow, **options)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (problem(), DEFAULT | MARGINS | {"rho_eq"}),
        (problem(loss=gf.LogisticLoss("mean")), DEFAULT | MARGINS),
        (
            gf.Problem(
                gf.Dataset(dataset().inputs, np.arange(6.0), regression=True),
                gf.SquareLoss(),
            ),
            DEFAULT | {"rho_eq"},
        ),
    ],
    ids=["square", "logistic", "regression"],
)
def test_default_observables(where, expected):
    flow = gf.LagrangeFlow(0.3)
    assert set(gf.default_observables(where, flow)) == expected
    trajectory = descend(where, flow)
    observed = trajectory.observables
    assert set(observed) == expected
    assert {k for k, v in observed.items() if v.shape != (4,)} == {"rho_layers"}
    assert observed["rho_layers"].shape == (4, 2)
    end = trajectory.final
    np.testing.assert_allclose(observed["loss"][-1], where.value(end), rtol=1e-13)
    norms = [np.linalg.norm(w) for w in end.weights]
    np.testing.assert_allclose(observed["rho_layers"][-1], norms, rtol=1e-13)
    np.testing.assert_allclose(observed["rho"][-1], np.prod(norms), rtol=1e-13)
    assert 0 <= observed["norm_defect"][-1] <= 1e-15
    assert 0.01 < observed["stationarity"][-1] <= 1
    if "rho_eq" in expected:
        equilibrium = gf.analysis.rho_eq(where, end, 0.3)
        np.testing.assert_allclose(observed["rho_eq"][-1], equilibrium, rtol=1e-13)
    if "margin_min" in expected:
        outputs = np.asarray(where.outputs(end))[:, 0]
        margins = where.dataset.labels * outputs / np.prod(norms)
        np.testing.assert_allclose(observed["margin_min"][-1], min(margins), rtol=1e-12)
        np.testing.assert_allclose(
            observed["margin_mean"][-1], np.mean(margins), rtol=1e-12
        )
        np.testing.assert_allclose(observed["accuracy"][-1], np.mean(margins > 0))


def test_own_observables():
    trajectory = descend(
        problem(),
        gf.LagrangeFlow(0.3),
        observe={
            "matrix": lambda problem, network: network.weights[0],
            "count": lambda problem, network: 3,
            "defect": gf.NormDefect(),
        },
    )
    assert set(trajectory.observables) == {"matrix", "count", "defect"}
    np.testing.assert_array_equal(
        trajectory.observables["matrix"], trajectory.networks.weights[0]
    )
    np.testing.assert_array_equal(trajectory.observables["count"], [3, 3, 3, 3])


def test_norm_defect_of_flows_with_and_without_spheres():
    state = gf.PolarState(
        jnp.ones(()), tuple(1.25 * w / jnp.linalg.norm(w) for w in network().weights)
    )
    for flow, at, expected in (
        (gf.LagrangeFlow(), state, 0.25),
        (gf.GradientFlow(), network().weights, 0.0),
    ):
        defect = gf.NormDefect()(gf.Point(problem(), flow, 0.0, at, network()))
        np.testing.assert_allclose(defect, expected, rtol=1e-14)


# Stationarity.


def stationarity(where, flow, at):
    state = flow.init(at)
    return float(
        gf.Stationarity()(gf.Point(where, flow, 0.0, state, flow.to_network(state, at)))
    )


@pytest.mark.parametrize(
    "flow",
    [gf.GradientFlow, gf.PolarGradientFlow, gf.LagrangeFlow, gf.WeightNormFlow],
)
@pytest.mark.parametrize(
    "loss", [gf.SquareLoss(), gf.LogisticLoss(), gf.ExponentialLoss()]
)
def test_stationarity_at_a_random_start(flow, loss):
    value = stationarity(problem(loss=loss), flow(0.1), network(seed=3))
    assert 0.2 < value <= 1


@pytest.mark.parametrize("decay", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("loss", [gf.SquareLoss(), gf.LogisticLoss("mean")])
def test_stationarity_of_one_flow_in_two_coordinates(decay, loss):
    for seed in range(3):
        at = network(seed, norms=(0.5, 3.0))
        values = [
            stationarity(problem(loss=loss), flow(decay), at)
            for flow in (gf.GradientFlow, gf.PolarGradientFlow)
        ]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
        assert values[0] > 0.05


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", [gf.SquareLoss, gf.LogisticLoss])
def test_stationarity_by_hand(loss, reduction):
    decay, rho = 0.4, 3.0
    where = problem(loss=loss(reduction))
    at = network(norms=(2.0, 1.5), activation=gf.ReLU())
    labels, inputs = np.asarray(where.dataset.labels), where.dataset.inputs
    first, last = (np.asarray(w / jnp.linalg.norm(w)) for w in at.weights)
    weight = 1 if reduction == "sum" else 1 / 6

    def outputs(rho, first, last):
        return rho * (jnp.maximum(inputs @ first.T, 0) @ last.T)[:, 0]

    now = np.asarray(outputs(rho, first, last))
    if loss is gf.SquareLoss:
        slopes = weight * 2 * (now - labels)
        reference = weight * -2 * labels
    else:
        slopes = reference = weight * -labels / (1 + np.exp(labels * now))

    def size(slopes, decay):
        """The length of the velocity that these slopes make."""
        by_rho, *by_directions = jax.grad(
            lambda *at: jnp.sum(slopes * outputs(*at)), argnums=(0, 1, 2)
        )(rho, first, last)
        tangents = [
            g - v * np.sum(v * g)
            for v, g in zip((first, last), by_directions, strict=True)
        ]
        squares = sum(np.sum(t**2) for t in tangents)
        return np.sqrt((by_rho + 2 * decay * rho) ** 2 + squares)

    scale = max(size(reference, 0), size(np.abs(reference), 0)) + 2 * decay * rho
    actual = stationarity(where, gf.LagrangeFlow(decay), at)
    np.testing.assert_allclose(actual, size(slopes, decay) / scale, rtol=1e-11)


@pytest.mark.parametrize("flow", [gf.GradientFlow, gf.LagrangeFlow])
def test_stationarity_at_an_equilibrium(flow):
    trajectory = descend(
        problem(),
        flow(0.5),
        steps=20_000,
        observe={"stationarity": gf.Stationarity()},
        save_networks=False,
    )
    values = np.asarray(trajectory.observables["stationarity"])
    assert values[0] > 0.1
    assert values[-1] < 1e-6
    # No collapse to the origin, which is an equilibrium too.
    assert np.linalg.norm(weights_of(trajectory.final)) > 0.5


def interpolated(at, error=0.0):
    """A problem whose targets are the network's outputs, up to `error`."""
    inputs = dataset().inputs
    targets = jax.vmap(at)(inputs)[:, 0] + error
    return gf.Problem(gf.Dataset(inputs, targets, regression=True), gf.SquareLoss())


@pytest.mark.parametrize("flow", [gf.GradientFlow, gf.LagrangeFlow])
def test_stationarity_at_an_interpolating_network(flow):
    at = network(norms=(2.0, 2.0))
    values = [stationarity(interpolated(at, e), flow(), at) for e in (1e-2, 1e-4, 1e-6)]
    # It goes like the residual.
    np.testing.assert_allclose(values[1] / values[0], 1e-2, rtol=0.05)
    np.testing.assert_allclose(values[2] / values[1], 1e-2, rtol=1e-3)
    assert stationarity(interpolated(at), flow(), at) < 1e-12


def test_small_exponential_loss_is_not_stationary():
    # The directions still move when the gradients are small.
    labels = jnp.sign(jax.vmap(network())(dataset().inputs)[:, 0])
    where = gf.Problem(gf.Dataset(dataset().inputs, labels), gf.ExponentialLoss())
    values = []
    for norm in (10.0, 15.0):
        at = network(norms=(norm, norm))
        assert where.value(at) < 6
        values.append(stationarity(where, gf.LagrangeFlow(), at))
    assert min(values) > 0.05


@pytest.mark.parametrize("seed", [1, 3])
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian(seed):
    where, start = problem(), network(seed, norms=(0.3, 0.3))
    flow = gf.GradientFlow()

    def objective(vector):
        return where.value(from_vector(vector, start))

    hessian = jax.jit(jax.hessian(objective))(jnp.asarray(weights_of(start)))
    eigenvalues = np.linalg.eigvalsh(hessian)
    # Growth dominates in one case, and is not what is asked for.
    assert (-eigenvalues[0] > eigenvalues[-1]) == (seed == 3)
    point = gf.Point(where, flow, 0.0, flow.init(start), start)
    sharpness = jax.jit(lambda: gf.Sharpness(rtol=1e-6)(point))()
    np.testing.assert_allclose(sharpness, eigenvalues[-1], rtol=1e-3)
