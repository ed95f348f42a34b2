"""The rules in `descend`, and weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradflow as gf
from gradflow import rules
from small import from_vector, network, problem, weights_of

RATE = 0.02
STEPS = 20
SGD = optax.sgd(RATE)
DECAY = 0.1


def descend(rule, **options):
    options = {"observe": {}, "save_networks": False, **options}
    return gf.descend(problem(), rule, network(), STEPS, **options)


def by_hand(rule):
    weights = network().weights
    gradient = jax.jit(lambda w: problem().gradient(network().with_weights(w)))
    state = rule.init(weights)
    for _ in range(STEPS):
        updates, state = rule.update(gradient(weights), state, weights)
        weights = optax.apply_updates(weights, updates)
    return np.concatenate([np.ravel(w) for w in weights])


def per_layer():
    return optax.multi_transform(
        {"sphere": rules.tangent_gradient(SGD), "decayed": rules.nmgd(RATE, 0.01)},
        ("sphere", "decayed"),
    )


KEY = jax.random.key(0)
RULES = {
    "nmgd": lambda: rules.nmgd(RATE, rules.power_decay(1.0)),
    "anchored": lambda: rules.halpern(
        optax.sgd(RATE, momentum=0.9), rules.power_decay(0.5), network(2).weights
    ),
    "lagrange": lambda: rules.lagrange_multiplier(SGD),
    "coefficient": lambda: rules.coefficient_normalisation(SGD, per_row=True),
    "nested": lambda: rules.halpern(rules.natural_gradient(SGD), 0.01),
    "per layer": per_layer,
    "weight decay": lambda: optax.chain(rules.weight_decay(DECAY), SGD),
    "langevin": lambda: rules.langevin(RATE, 0.01, KEY),
    "kicks": lambda: optax.chain(SGD, rules.kicks(1, 0.25, KEY, relative=True)),
}


@pytest.mark.parametrize("name", RULES)
def test_in_descend(name):
    rule = RULES[name]()
    trajectory = descend(rule)
    np.testing.assert_allclose(
        weights_of(trajectory.final), by_hand(rule), rtol=1e-10, atol=1e-12
    )
    # The time of a step is that of the optimiser inside.
    np.testing.assert_allclose(trajectory.ts, RATE * np.arange(STEPS + 1), rtol=1e-13)
    set_by_hand = descend(rule, learning_rate=3.0)
    np.testing.assert_array_equal(set_by_hand.ts, 3 * np.arange(STEPS + 1))


def test_many_noisy_runs_at_once():
    keys = jax.random.split(KEY, 2)

    def final(key):
        trajectory = descend(rules.langevin(RATE, 0.01, key), learning_rate=RATE)
        return trajectory.final.weights

    both = jax.vmap(final)(keys)
    for k in range(2):
        for of_both, alone in zip(both, final(keys[k]), strict=True):
            np.testing.assert_allclose(of_both[k], alone, rtol=1e-11)
    assert np.all(both[0][0] != both[0][1])


def test_directions_on_spheres():
    """Under the Lagrange flow, with a scale that is free. `descend` projects after each
    step: coefficient normalisation is what it does on its own."""
    flow = gf.LagrangeFlow()
    rule = optax.multi_transform(
        {"scale": SGD, "direction": rules.coefficient_normalisation(SGD)},
        lambda state: jax.tree.map(
            lambda x: "scale" if x.ndim == 0 else "direction", state
        ),
    )
    ruled = descend(rule, flow=flow)
    np.testing.assert_allclose(
        weights_of(ruled.final), weights_of(descend(SGD, flow=flow).final), rtol=1e-11
    )


def test_step_that_no_multiplier_brings_back():
    with pytest.raises(gf.SolveError, match="nonfinite_state"):
        descend(rules.lagrange_multiplier(optax.sgd(1e3)))


def test_weight_decay_is_that_of_the_flow():
    rule = optax.chain(rules.weight_decay(DECAY), SGD)
    np.testing.assert_allclose(
        weights_of(descend(rule).final),
        weights_of(descend(SGD, flow=gf.GradientFlow(DECAY)).final),
        rtol=1e-12,
    )


def test_weight_decay_is_the_gradient_of_the_penalty():
    @jax.jit
    def penalised(vector):
        moved = from_vector(vector, network())
        return problem().value(moved) + DECAY * jnp.sum(vector**2)

    weights, vector = network().weights, weights_of(network())
    rule = rules.weight_decay(DECAY)
    updates, _ = rule.update(problem().gradient(network()), rule.init(weights), weights)
    h = 1e-5
    differences = [
        (penalised(vector + h * e) - penalised(vector - h * e)) / (2 * h)
        for e in np.eye(vector.size)
    ]
    gradient = np.concatenate([np.ravel(u) for u in updates])
    np.testing.assert_allclose(gradient, differences, rtol=1e-8, atol=1e-8)


def test_bad_weight_decay():
    for decay in (-0.1, np.nan):
        with pytest.raises(ValueError, match="`decay`"):
            rules.weight_decay(decay)
    w = jnp.ones(2)
    rule = rules.weight_decay(0.1)
    with pytest.raises(ValueError, match="`params`"):
        rule.update(w, rule.init(w))
