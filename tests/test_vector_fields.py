"""The vector field of every flow against the oracle's, written out by hand.

Compilation is what costs time here, so one compiled function holds all flows of a
network and takes the smoothing, the weight decay, the loss and the distance from the
spheres as arrays.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow as gf
from cases import (
    CASES,
    FLOWS,
    LOSSES,
    SMOOTHINGS,
    assert_close,
    dataset_for,
    flows_for,
    network_of,
    reference_of,
)
from reference import (
    gradient_flow,
    lagrange_flow_all,
    lagrange_flow_last,
    lagrange_flow_rows,
    polar_gradient_flow,
    slopes_function,
    weight_norm_flow,
)

RTOL = 1e-10
DECAYS = (0.0, 0.3)
ON, OFF = (1.0, 1.0, 1.0), (1.1, 0.8, 1.3)  # norms of the directions
# Compilation goes by the number of flows. The variants of these take the same
# derivatives and then do with them what does not depend on the kind of network: they
# are run where that is cheap, and compared with these for all kinds of networks in
# `test_identities.py`.
CORE = (
    "gradient",
    "polar",
    "lagrange_last",
    "lagrange_last_rows",
    "weight_norm_all_v2.5",
)

networks = pytest.mark.parametrize(
    ("kind", "outputs"), dict.fromkeys((kind, outputs) for kind, outputs, _ in CASES)
)


class AnyReLU(gf.AbstractActivation):
    """One of several smoothings, chosen when the compiled function runs."""

    index: jax.Array
    gain = 2.0

    def __call__(self, pre_activation, scale):
        activations = [gf.ReLU(smoothing) for smoothing in SMOOTHINGS]
        return jax.lax.switch(self.index, activations, pre_activation, scale)


class AnyLoss(gf.AbstractLoss):
    """One of several losses, chosen when the compiled function runs."""

    losses: tuple[gf.AbstractLoss, ...]
    index: jax.Array
    reduction: str = eqx.field(static=True)
    attains_infimum = False

    def value(self, output, label):
        return self._choose("value", output, label)

    def log_value(self, output, label):
        return self._choose("log_value", output, label)

    def slope(self, output, label, log_unit=0.0):
        return self._choose("slope", output, label, log_unit)

    def check(self, dataset):
        for loss in self.losses:
            loss.check(dataset)

    def _choose(self, method, *args):
        methods = [getattr(loss, method) for loss in self.losses]
        return jax.lax.switch(self.index, methods, *args)


def stretch(state, factors):
    """Scales the directions of a state that has any."""
    if isinstance(state, gf.PolarState):
        pairs = zip(state.directions, factors, strict=True)
        return gf.PolarState(state.rho, tuple(c * v for v, c in pairs))
    return state


# Unoptimised code is as exact, and there in half the time.
@eqx.filter_jit(compiler_options={"xla_backend_optimization_level": 0})
def all_fields(states, problem, network, weight_decay):
    return {
        name: FLOWS[name](weight_decay).vector_field(0.0, state, problem, network)
        for name, state in states.items()
    }


def expected_field(name, state, reference, inputs, slopes_fn, decay):
    """The oracle's velocity, as the list of the leaves of the state."""
    if name == "gradient":
        return gradient_flow(reference.with_weights(state), inputs, slopes_fn, decay)
    rho = np.asarray(state.rho)
    if name.startswith("weight_norm"):
        last_only = rho.ndim == 0
        g = np.append(np.ones(len(state.directions) - 1), rho) if last_only else rho
        v = [np.asarray(v) for v in state.directions]
        args = g, v, reference, inputs, slopes_fn, decay
        g_dot, v_dot = weight_norm_flow(*args, last_only=last_only)
        return [g_dot[-1] if last_only else g_dot, *v_dot]
    directions = reference.with_weights(state.directions)
    args = directions, inputs, slopes_fn, decay
    scale = np.prod(rho)
    if name == "polar":
        rho_dot, v_dot = polar_gradient_flow(rho, *args)
    elif "all" in name:
        rho_dot, v_dot = lagrange_flow_all(rho, *args)
    else:
        rho_dot, v_dot = lagrange_flow_last(rho, *args)
    if "rows" in name:  # the raw form is the same on the spheres
        v_dot = lagrange_flow_rows(scale, *args)[1]
    elif "raw" in name:
        v_dot = lagrange_flow_last(scale, *args, raw=True)[1]
    return [rho_dot, *v_dot]


def check_fields(kind, outputs, reduction, flows):
    """Returns the gradient flow's field for every smoothing and loss."""
    dataset = dataset_for(kind, outputs)
    inputs, labels = np.asarray(dataset.inputs), np.asarray(dataset.labels)
    names = [case[2] for case in CASES if case[:2] == (kind, outputs)]
    losses = tuple(LOSSES[name](reduction) for name in names)
    network = network_of(kind, 0.0, outputs)
    on_spheres = {name: FLOWS[name]().init(network) for name in flows}
    gradients = {}
    for index, decay, factors in itertools.product(
        itertools.product(range(len(SMOOTHINGS)), range(len(names))), DECAYS, (ON, OFF)
    ):
        smoothing, loss = SMOOTHINGS[index[0]], names[index[1]]
        if kind == "deep_linear" and smoothing > 0:
            continue
        choices = [jnp.asarray(i) for i in index]
        problem = gf.Problem(dataset, AnyLoss(losses, choices[1], reduction))
        if kind != "deep_linear":
            network = eqx.tree_at(lambda n: n.activation, network, AnyReLU(choices[0]))
        reference = reference_of(network_of(kind, smoothing, outputs))
        slopes_fn = slopes_function(loss, labels, reduction == "mean")
        states = {name: stretch(state, factors) for name, state in on_spheres.items()}
        fields = all_fields(states, problem, network, jnp.asarray(decay))
        for flow, velocity in fields.items():
            if "rows" in flow and factors != ON:
                continue
            state = states[flow]
            assert jax.tree.structure(velocity) == jax.tree.structure(state)
            expected = expected_field(flow, state, reference, inputs, slopes_fn, decay)
            case = (flow, loss, reduction, kind, smoothing, decay, factors)
            assert_close(velocity, expected, RTOL, case)
        gradients[smoothing, loss] = fields["gradient"]
    return gradients


@networks
def test_fields(kind, outputs):
    all_flows = (kind, outputs) in (("dense", 1), ("deep_linear", 3), ("diagonal", 1))
    flows = [name for name in flows_for(kind) if all_flows or name in CORE]
    found = check_fields(kind, outputs, "sum", flows)
    # The smoothing and the loss both matter for what was compared.
    exact, *other_losses = [found[key] for key in found if key[0] == 0.0]
    smoothed = [found[key] for key in found if key[0] == 0.1 and key[1] == "square"]
    assert len(smoothed) == (kind != "deep_linear")
    for other in other_losses + smoothed:
        for a, b in zip(exact, other, strict=True):
            assert jnp.linalg.norm(a - b) > 1e-4 * jnp.linalg.norm(a)


@pytest.mark.parametrize(("kind", "outputs"), [("deep_linear", 3), ("diagonal", 1)])
def test_fields_of_the_mean(kind, outputs):
    # The reduction enters through the slopes, the same way for all networks: with
    # these two, every flow and every loss.
    check_fields(kind, outputs, "mean", flows_for(kind))
