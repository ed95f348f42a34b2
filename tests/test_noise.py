"""Noise in the weights, against the statistics of the Euler chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow import rules


def run(rule, start, gradient, steps):
    """All parameters along a descent."""

    def advance(carry, _):
        w, state = carry
        updates, state = rule.update(gradient(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    _, path = jax.lax.scan(advance, (start, rule.init(start)), length=steps)
    return jax.tree.map(lambda w, path: jnp.concatenate([w[None], path]), start, path)


def zero(w):
    return jax.tree.map(jnp.zeros_like, w)


def test_stationary_variance():
    """On `a w^2 / 2` the chain has the factor `1 - eta a`, so the variance
    `2 eta T / (1 - (1 - eta a)^2)`, and that is the correlation of two steps."""
    rate, temperature, chains = 0.4, 0.7, 20_000
    curvatures = np.array([0.5, 1.0, 2.0])

    @jax.jit
    @jax.vmap
    def end(key):
        rule = rules.langevin(rate, temperature, key)
        return run(rule, jnp.zeros(3), lambda w: curvatures * w, 60)[-2:]

    ends = np.asarray(end(jax.random.split(jax.random.key(0), chains)))
    factor = 1 - rate * curvatures
    exact = temperature / (curvatures * (1 - rate * curvatures / 2))
    # Of the start at 0 nothing is left.
    assert np.all(factor**118 < 1e-9)
    deviations = 4 / np.sqrt(chains)
    before, after = ends[:, 0], ends[:, 1]
    assert np.all(np.abs(after.mean(0)) < deviations * np.sqrt(exact))
    # The variance of a normal variable's square is twice its own, squared.
    np.testing.assert_allclose(
        np.mean(after**2, axis=0), exact, rtol=deviations * np.sqrt(2)
    )
    # Not that of the stochastic equation, which the test could tell apart.
    assert np.all(np.abs(exact / (temperature / curvatures) - 1) > 2 * deviations)
    np.testing.assert_allclose(
        np.mean(before * after, axis=0),
        factor * exact,
        atol=np.max(deviations * np.sqrt(2) * exact),
    )
    # Coordinates are independent.
    correlations = np.corrcoef(after.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlations) < deviations)


def test_no_temperature_is_gradient_descent():
    start = jnp.arange(3.0)
    rule = rules.langevin(0.1, 0.0, jax.random.key(0))
    path = run(rule, start, lambda w: w, 10)
    np.testing.assert_allclose(path[-1], 0.9**10 * start, rtol=1e-14)


def test_steps_of_the_kicks():
    params = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4)}
    for every, last, expected in ((3, None, [3, 6, 9]), (3, 8, [3, 6]), (1, 2, [1, 2])):
        rule = rules.kicks(every, 0.5, jax.random.key(1), last=last)
        path = run(rule, params, zero, 10)
        for name in params:
            jumps = np.diff(path[name], axis=0).reshape(10, -1)
            moved = np.all(jumps != 0, axis=1)
            np.testing.assert_array_equal(np.flatnonzero(moved) + 1, expected)
            # In between not at all, rather than by little.
            assert np.all(jumps[~moved] == 0)


def test_between_the_kicks_is_descent():
    start = jnp.arange(1.0, 4.0)
    rule = optax.chain(optax.sgd(0.1), rules.kicks(4, 1.0, jax.random.key(2)))
    path = np.asarray(run(rule, start, lambda w: w, 10))
    for n in (1, 2, 3, 5, 6, 7, 9, 10):
        np.testing.assert_allclose(path[n], 0.9 * path[n - 1], rtol=1e-13)
    for n in (4, 8):
        assert np.all(np.abs(path[n] - 0.9 * path[n - 1]) > 1e-3)


def test_size_of_the_kicks():
    size = 50_000
    spread = np.concatenate([np.full(size // 2, 3.0), np.full(size // 2, 7.0)])
    # Standard deviations 2 and, with a mean, 0.
    params = {"a": jnp.asarray(spread), "b": jnp.full(size, 5.0)}
    tolerance = 4 / np.sqrt(size)
    for relative, sigmas in ((False, (0.25, 0.25)), (True, (0.5, 0.0))):
        rule = rules.kicks(1, 0.25, jax.random.key(3), relative=relative)
        updates, _ = rule.update(zero(params), rule.init(params), params)
        for update, sigma in zip((updates["a"], updates["b"]), sigmas, strict=True):
            assert abs(np.mean(update)) <= tolerance * sigma
            assert abs(np.std(update) - sigma) <= tolerance / np.sqrt(2) * sigma
            # Normal: 68 % within one deviation.
            within = np.mean(np.abs(update) <= sigma)
            assert sigma == 0 or abs(within - 0.682689) < tolerance / 2
    rule = rules.kicks(1, 0.25, jax.random.key(3))
    first, state = rule.update(zero(params), rule.init(params), params)
    second, _ = rule.update(zero(params), state, params)
    # Arrays and steps have noise of their own.
    for one, other in ((first["a"], first["b"]), (first["a"], second["a"])):
        assert abs(np.corrcoef(one, other)[0, 1]) < tolerance


def test_kicks_accumulate_along_flat_directions():
    """There the weights walk at random, elsewhere descent brings them back (T3 §9)."""
    curvatures, sigma, runs = np.array([0.0, 1.0]), 0.3, 20_000

    @jax.jit
    @jax.vmap
    def end(key):
        rule = optax.chain(optax.sgd(0.5), rules.kicks(20, sigma, key))
        return run(rule, jnp.ones(2), lambda w: curvatures * w, 119)[-1]

    flat, curved = np.asarray(end(jax.random.split(jax.random.key(5), runs))).T
    # After five kicks, the last of them 19 steps ago.
    np.testing.assert_allclose(np.var(flat), 5 * sigma**2, rtol=4 * np.sqrt(2 / runs))
    last = 0.5**19 * sigma
    np.testing.assert_allclose(np.std(curved), last, rtol=4 * np.sqrt(0.5 / runs))


def test_traced_arguments():
    key, w = jax.random.key(6), jnp.arange(3.0)
    rates, temperatures = jnp.array([0.1, 0.2]), jnp.array([0.5, 2.0])

    def update(rate, temperature):
        rule = rules.langevin(rate, temperature, key)
        return rule.update(w, rule.init(w))[0]

    both = jax.vmap(update)(rates, temperatures)
    noise = [
        (both[k] + rates[k] * w) / np.sqrt(2 * rates[k] * temperatures[k])
        for k in range(2)
    ]
    np.testing.assert_allclose(noise[0], noise[1], rtol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda key: rules.langevin(0.1, 1.0, key),
        lambda key: optax.chain(optax.sgd(0.1), rules.kicks(2, 1.0, key)),
    ],
    ids=["langevin", "kicks"],
)
def test_keys(make):
    start = jnp.arange(3.0)
    keys = jax.random.split(jax.random.key(4), 2)

    def end(key):
        return run(make(key), start, lambda w: w, 5)[-1]

    ends = [end(key) for key in keys]
    np.testing.assert_array_equal(end(keys[0]), ends[0])
    assert np.all(ends[0] != ends[1])
    np.testing.assert_allclose(jax.vmap(end)(keys), np.stack(ends), rtol=1e-14)
    np.testing.assert_allclose(jax.jit(end)(keys[0]), ends[0], rtol=1e-14)


def test_precision_is_that_of_the_parameters():
    w = jnp.ones(3, jnp.float32)
    for rule in (
        rules.langevin(0.1, 1.0, jax.random.key(0)),
        rules.kicks(1, jnp.asarray(0.5), jax.random.key(0), relative=True),
    ):
        updates, _ = rule.update(w, rule.init(w), w)
        assert updates.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *(("every", lambda k, n=n: rules.kicks(n, 1.0, k)) for n in (0, -1)),
        *(("sigma", lambda k, s=s: rules.kicks(1, s, k)) for s in (-0.1, np.nan)),
        *(
            ("learning_rate", lambda k, r=r: rules.langevin(r, 1.0, k))
            for r in (0.0, -0.1, np.inf)
        ),
        *(
            ("temperature", lambda k, t=t: rules.langevin(0.1, t, k))
            for t in (-0.1, np.nan)
        ),
    ],
)
def test_bad_arguments(name, make):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make(jax.random.key(0))


def test_relative_kicks_need_parameters():
    w = jnp.ones(3)
    rule = rules.kicks(1, 1.0, jax.random.key(0), relative=True)
    with pytest.raises(ValueError, match="`params`"):
        rule.update(w, rule.init(w))
