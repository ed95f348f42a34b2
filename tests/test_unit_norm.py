"""The four techniques for unit norms, against geometry on the sphere."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow import rules

TECHNIQUES = {
    "lagrange": rules.lagrange_multiplier,
    "coefficient": rules.coefficient_normalisation,
    "tangent": rules.tangent_gradient,
    "natural": rules.natural_gradient,
}
# These keep the norm, the tangent gradient does not.
KEEP = ["lagrange", "coefficient", "natural"]
SHAPE = (4, 3)


def arrays(seed=0, count=2):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=SHAPE) for _ in range(count)]


def step(name, w, d, rate=0.1, **options):
    """One step along `d`, which is minus a gradient."""
    rule = TECHNIQUES[name](optax.sgd(rate), **options)
    w, d = jnp.asarray(w), jnp.asarray(d)
    updates, _ = rule.update(-d, rule.init(w), w)
    return np.asarray(optax.apply_updates(w, updates))


def printed(name, v, d):
    """The formulas as they are printed, on a unit sphere, T3 15 corrected."""
    tangent = d - v * np.sum(v * d)
    if name == "lagrange":
        along = np.sum(v * d)
        multiplier = 1 - np.sqrt(1 - np.sum(d * d) + along**2) + along
        return v + d - multiplier * v
    if name == "coefficient":
        return (v + d) / np.linalg.norm(v + d)
    if name == "tangent":
        return v + tangent
    angle = np.linalg.norm(tangent)
    return v * np.cos(angle) + tangent / angle * np.sin(angle)


def test_the_formulas_at_any_norm():
    w, d = arrays()
    for name, norm in itertools.product(TECHNIQUES, (1.0, 0.02, 30.0)):
        v = w / np.linalg.norm(w)
        moved = step(name, norm * v, norm * d)
        # The same path at any norm.
        np.testing.assert_allclose(moved, norm * printed(name, v, 0.1 * d), rtol=1e-13)


def test_long_steps():
    # Past the equator, away from the point, and against it.
    w, d = arrays(1)
    v = w / np.linalg.norm(w)
    for along in (5.0, 0.0, -5.0):
        far = 4 * d + along * v
        for name in ("coefficient", "tangent", "natural"):
            moved = step(name, v, far, rate=1.0)
            expected = printed(name, v, far)
            np.testing.assert_allclose(moved, expected, rtol=1e-12, atol=1e-14)
        # No multiplier brings this one back.
        assert np.all(np.isnan(step("lagrange", v, far, rate=1.0)))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_rows_are_spheres_of_their_own(name):
    w, d = arrays(2)
    rows = [step(name, w[k], d[k]) for k in range(len(w))]
    np.testing.assert_allclose(step(name, w, d, per_row=True), rows, rtol=1e-14)
    images = np.random.default_rng(3).normal(size=(2, 4, 3, 2, 2))
    rows = [step(name, w, d) for w, d in zip(*images, strict=True)]
    np.testing.assert_allclose(step(name, *images, per_row=True), rows, rtol=1e-14)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_zero_weights_and_zero_updates(name):
    w, d = arrays(4)
    np.testing.assert_array_equal(step(name, 0 * w, 100 * d), 0 * w)
    np.testing.assert_array_equal(step(name, w, 0 * d), w)
    w[1], d[2] = 0, 0
    moved = step(name, w, d, per_row=True)
    np.testing.assert_array_equal(moved[1:3], w[1:3])
    assert np.all(moved[[0, 3]] != w[[0, 3]])
    derivative = jax.grad(lambda w, d: jnp.sum(jnp.sin(_moved(name, w, d))), (0, 1))
    for of in derivative(jnp.asarray(w), jnp.asarray(d)):
        assert np.all(np.isfinite(of))


def _moved(name, w, d):
    rule = TECHNIQUES[name](optax.sgd(0.1), per_row=True)
    return w + rule.update(-d, rule.init(w), w)[0]


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("name", KEEP)
def test_norms_are_kept(name, per_row):
    axes = 1 if per_row else None
    rule = TECHNIQUES[name](optax.sgd(0.05), per_row=per_row)
    (w, matrix), scales = arrays(5), np.array([[1.0], [1e-3], [7.0], [1e4]])
    w = jnp.asarray(w * scales)

    def advance(w, _):
        # As strong as the weights, row by row, and turning all the time.
        gradient = jnp.sin(jnp.roll(w / scales, 1, axis=1) + matrix) * scales
        updates, _ = rule.update(gradient, rule.init(w), w)
        return optax.apply_updates(w, updates), None

    moved, _ = jax.lax.scan(advance, w, length=1000)
    assert np.linalg.norm((moved - w) / scales) > 0.5
    before, after = (np.linalg.norm(x, axis=axes) for x in (w, moved))
    # What a thousand roundings add up to at most.
    np.testing.assert_allclose(after, before, rtol=1e-13)


def test_the_tangent_gradient_leaves_at_second_order():
    w, d = arrays(6)
    norm = np.linalg.norm(w)
    tangent = d - w * np.sum(w * d) / norm**2
    for rate in (1e-1, 1e-2, 1e-3):
        grown = np.linalg.norm(step("tangent", w, d, rate=rate)) ** 2
        expected = norm**2 + rate**2 * np.linalg.norm(tangent) ** 2
        np.testing.assert_allclose(grown, expected, rtol=1e-14)


# The order in the step at which two techniques differ, for a step in any direction and
# for one along the tangent. The tangent gradient leaves the sphere at order 2. A radial
# part shortens the step of coefficient normalisation at order 2. The others, on the
# sphere and in the same plane, differ by an angle alone: arcsin, arctan and identity of
# the same length.
ORDERS = {
    ("lagrange", "coefficient"): (2, 3),
    ("lagrange", "tangent"): (2, 2),
    ("lagrange", "natural"): (3, 3),
    ("coefficient", "tangent"): (2, 2),
    ("coefficient", "natural"): (2, 3),
    ("tangent", "natural"): (2, 2),
}


@pytest.mark.parametrize("along_tangent", [False, True])
def test_agreement_for_small_steps(along_tangent):
    w, d = arrays(7)
    v = w / np.linalg.norm(w)
    if along_tangent:
        d = d - v * np.sum(v * d)
    rates = np.geomspace(1e-4, 1e-3, 5)
    moved = {
        name: np.stack([step(name, v, d, rate=rate) for rate in rates])
        for name in TECHNIQUES
    }
    for (one, other), orders in ORDERS.items():
        distances = np.linalg.norm(moved[one] - moved[other], axis=(1, 2))
        order = np.polyfit(np.log(rates), np.log(distances), 1)[0]
        assert abs(order - orders[along_tangent]) < 0.01, (one, other, order)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_limit_is_the_flow_on_the_sphere(name):
    """Where `c` is constant, `V' = S c` has `<V, c> = tanh(t + artanh <V(0), c>)` for a
    unit `c`, and what is orthogonal to `c` keeps its direction."""
    v, c = arrays(8)
    v, c = v / np.linalg.norm(v), c / np.linalg.norm(c)
    along, t = np.sum(v * c), 1.3
    across = (v - along * c) / np.sqrt(1 - along**2)
    s = t + np.arctanh(along)
    exact = np.tanh(s) * c + across / np.cosh(s)

    def error(steps):
        rule = TECHNIQUES[name](optax.sgd(t / steps))

        def advance(w, _):
            updates, _ = rule.update(-jnp.asarray(c), rule.init(w), w)
            return optax.apply_updates(w, updates), None

        end, _ = jax.lax.scan(advance, jnp.asarray(v), length=steps)
        return np.linalg.norm(end - exact)

    steps = np.array([50, 100, 200, 400])
    errors = [error(n) for n in steps]
    assert errors[-1] < 5e-3
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.02


def test_composition():
    w, d = (jnp.asarray(x) for x in arrays(9))
    params, gradient = {"on": w, "off": w}, {"on": -d, "off": -d}
    rule = optax.multi_transform(
        {"sphere": rules.natural_gradient(optax.sgd(0.1)), "free": optax.sgd(0.1)},
        {"on": "sphere", "off": "free"},
    )
    updates, _ = rule.update(gradient, rule.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_allclose(moved["on"], step("natural", w, d), rtol=1e-14)
    np.testing.assert_allclose(moved["off"], w + 0.1 * d, rtol=1e-14)

    # The optimiser inside has a state: momentum, 1 + 0.9 times the first step.
    rule = rules.natural_gradient(optax.sgd(0.1, momentum=0.9))
    _, state = rule.update(-d, rule.init(w), w)
    updates, _ = rule.update(-d, state, w)
    np.testing.assert_allclose(w + updates, step("natural", w, 1.9 * d), rtol=1e-14)


def test_single_precision():
    w, d = (x.astype(np.float32) for x in arrays(10))
    for name in TECHNIQUES:
        rule = TECHNIQUES[name](optax.sgd(0.1))
        updates, _ = rule.update(jnp.asarray(-d), rule.init(w), jnp.asarray(w))
        assert updates.dtype == np.float32
        v = w / np.linalg.norm(w)
        expected = printed(name, v, 0.1 * d / np.linalg.norm(w)) * np.linalg.norm(w)
        np.testing.assert_allclose(w + updates, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_bad_arguments(technique):
    w = jnp.ones(3)
    rule = technique(optax.sgd(0.1))
    with pytest.raises(ValueError, match="`params`"):
        rule.update(w, rule.init(w))
    rule = technique(optax.sgd(0.1), per_row=True)
    with pytest.raises(ValueError, match="`per_row`"):
        rule.update(w, rule.init(w), w)
