"""Halpern iterations, against least squares, rotations and projections."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradflow import rules

# Three equations for six unknowns, with singular values 1, 0.8 and 0.6.
RATE = 0.4
HESSIAN = 2 * np.array([1.0, 0.8, 0.6]) ** 2


def equations():
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    right = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    return left * np.sqrt(HESSIAN / 2) @ right.T, rng.normal(size=3), right


MATRIX, RHS, RANGE = equations()
SOLUTION = np.linalg.pinv(MATRIX) @ RHS
NULL = np.eye(6) - RANGE @ RANGE.T
STARTS = 3 * np.random.default_rng(1).normal(size=(4, 6))


@functools.partial(jax.jit, static_argnums=(0, 2))
def descend(rule, starts, steps):
    """All iterates, from each start."""

    def from_one(start):
        def advance(carry, _):
            w, state = carry
            gradient = 2 * MATRIX.T @ (MATRIX @ w - RHS)
            updates, state = rule.update(gradient, state, w)
            return (optax.apply_updates(w, updates), state), w

        (last, _), path = jax.lax.scan(advance, (start, rule.init(start)), length=steps)
        return jnp.concatenate([path, last[None]])

    return jax.vmap(from_one)(starts)


@pytest.mark.parametrize("exponent", [0.5, 0.75, 1.0])
def test_least_squares_of_least_norm(exponent):
    steps = 20_000
    rule = rules.nmgd(RATE, rules.power_decay(exponent))
    paths = np.asarray(descend(rule, STARTS, steps))
    # The null space forgets the start by the product, and by nothing else.
    n = np.arange(2, steps + 2)
    kept = np.cumprod(np.append(1.0, 1 - n**-exponent))
    expected = (STARTS @ NULL)[:, None] * kept[:, None]
    np.testing.assert_allclose(paths @ NULL, expected, rtol=1e-11, atol=1e-14)
    # The range follows where the step of the present decay is at rest,
    # e = (1 - l) (1 - gamma h) e - l c, up to what the decay changes meanwhile.
    decay = float(n[-1]) ** -exponent
    behind = -decay / (1 - (1 - decay) * (1 - RATE * HESSIAN))
    missing = (paths[:, -1] - SOLUTION) @ RANGE
    expected = np.broadcast_to(behind * (SOLUTION @ RANGE), missing.shape)
    slowness = exponent / (steps * RATE * HESSIAN.min())
    np.testing.assert_allclose(missing, expected, rtol=2 * slowness)
    # So all end near the solution of least norm.
    distances = np.linalg.norm(paths[:, -1] - SOLUTION, axis=1)
    assert np.all(distances < 5 * decay * np.linalg.norm(SOLUTION))


def test_plain_descent_keeps_the_null_space():
    paths = np.asarray(descend(optax.sgd(RATE), STARTS, 300))
    np.testing.assert_allclose(paths[:, -1], SOLUTION + STARTS @ NULL, rtol=1e-12)


def test_limit_is_the_solution_nearest_to_the_anchor():
    anchor = np.random.default_rng(2).normal(size=6)
    rule = rules.halpern(optax.sgd(RATE), rules.power_decay(1.0), jnp.asarray(anchor))
    steps = 20_000
    ends = np.asarray(descend(rule, STARTS, steps))[:, -1]
    nearest = SOLUTION + NULL @ anchor
    # In the null space the start has the weight 1 / n that the anchor lacks.
    np.testing.assert_allclose(
        (ends - nearest) @ NULL,
        (STARTS - anchor) @ NULL / (steps + 1),
        rtol=1e-11,
        atol=1e-14,  # of the difference of numbers of size one
    )
    bound = np.linalg.norm(anchor - nearest) / (RATE * HESSIAN.min() * steps)
    assert np.all(np.linalg.norm((ends - nearest) @ RANGE, axis=1) < 1.01 * bound)


def test_any_optimiser():
    inside, anchor = optax.sgd(0.1, momentum=0.9), jnp.asarray(STARTS[1])
    rule = rules.halpern(inside, rules.power_decay(0.7, first=3), anchor)
    path = np.asarray(descend(rule, STARTS[:1], 10))[0]
    w = jnp.asarray(STARTS[0])
    state = inside.init(w)
    for n in range(10):
        np.testing.assert_allclose(path[n], w, rtol=1e-12)
        gradient = 2 * MATRIX.T @ (MATRIX @ w - RHS)
        updates, state = inside.update(gradient, state, w)
        part = (n + 3) ** -0.7
        w = part * anchor + (1 - part) * (w + updates)


def test_schedule():
    counts = jnp.arange(5)
    np.testing.assert_allclose(
        rules.power_decay()(counts), [1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6], rtol=1e-15
    )
    np.testing.assert_allclose(
        rules.power_decay(0.5, first=4)(counts), np.arange(4, 9) ** -0.5, rtol=1e-15
    )
    # As it is printed, the start is lost.
    path = np.asarray(descend(rules.nmgd(RATE, rules.power_decay(first=1)), STARTS, 1))
    np.testing.assert_array_equal(path[:, 1], 0 * STARTS)
    # A constant is a regulariser: (1 - l) gamma H + l at rest.
    path = np.asarray(descend(rules.nmgd(RATE, 0.1), STARTS, 300))
    hessian = 2 * MATRIX.T @ MATRIX
    rest = np.linalg.solve(
        0.9 * RATE * hessian + 0.1 * np.eye(6), 0.9 * RATE * 2 * MATRIX.T @ RHS
    )
    np.testing.assert_allclose(path[:, -1], np.tile(rest, (4, 1)), rtol=1e-10)


def test_precision_is_that_of_the_parameters():
    w = jnp.asarray(STARTS[0], jnp.float32)
    rule = rules.nmgd(RATE, rules.power_decay(1.0))
    updates, _ = rule.update(w, rule.init(w), w)
    assert updates.dtype == jnp.float32
    np.testing.assert_allclose(w + updates, 0.5 * (1 - RATE) * w, rtol=1e-6)


def test_traced_arguments():
    w, decays = jnp.arange(1.0, 4.0), jnp.array([0.5, 1.0])

    def moved(exponent, rate):
        rule = rules.nmgd(rate, rules.power_decay(exponent))
        return w + rule.update(w, rule.init(w), w)[0]

    both = jax.vmap(moved)(decays, jnp.array([0.1, 0.2]))
    expected = [(1 - 0.5**0.5) * 0.9 * w, 0.5 * 0.8 * w]
    np.testing.assert_allclose(both, np.stack(expected), rtol=1e-13)


# Any map.


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def iterate(operator, start, steps, decay=None, **options):
    decay = rules.power_decay(1.0) if decay is None else decay
    start = jnp.asarray(start)
    return rules.halpern_iteration(
        operator, start, steps, decay, options.pop("anchor", start), **options
    )


def lieder(start, fixed_point, steps):
    return 2 * np.linalg.norm(start - fixed_point) / np.arange(1, steps + 2)


def test_rotation():
    """Anchored at the start, the iterates are the means of its images, whose residuals
    telescope: `|1 - z^(n + 1)| / (n + 1)` for a rotation by `z = exp(i angle)`."""
    steps, start = 200, np.array([0.6, -0.8])
    n = np.arange(steps + 1)
    for angle in (0.1, np.pi / (steps + 1), 2.5, np.pi):
        turn = rotation(angle)
        found = iterate(lambda w, turn=turn: turn @ w, start, steps)
        z = np.exp(1j * angle)
        means = np.cumsum(z**n) / (n + 1) * (start[0] + 1j * start[1])
        np.testing.assert_allclose(
            found.iterates, np.stack([means.real, means.imag], axis=1), atol=1e-13
        )
        np.testing.assert_allclose(
            found.residuals, np.abs(1 - z ** (n + 1)) / (n + 1), atol=1e-13
        )
        bound = lieder(start, np.zeros(2), steps)
        assert np.all(found.residuals <= bound * (1 + 1e-12))
        if angle == np.pi / (steps + 1):  # where it is attained
            np.testing.assert_allclose(found.residuals[-1], bound[-1], rtol=1e-12)
        # Without decay it turns for ever.
        plain = iterate(lambda w, turn=turn: turn @ w, start, steps, decay=0.0)
        np.testing.assert_allclose(plain.residuals, np.abs(1 - z), rtol=1e-12)


def onto_disk(x):
    return x / jnp.maximum(1, jnp.linalg.norm(x))


def onto_half_plane(x):
    return jnp.maximum(x, jnp.array([0.5, -jnp.inf]))


def planes():
    """Projections onto two planes in space, and their common line."""
    normals = np.array([[1.0, 2.0, 0.5], [-0.3, 1.0, 1.0]])
    onto = [np.eye(3) - np.outer(v, v) / (v @ v) for v in normals]
    line = np.cross(*normals)
    return onto[0] @ onto[1], np.outer(line, line) / (line @ line)


PLANES, LINE = planes()
ISOMETRY = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]
# What it does not move.
AXES = np.linalg.svd(ISOMETRY - np.eye(4))[2][-1:]
# Map, start, and the fixed point nearest to it.
MAPS = {
    "half a rotation": (
        lambda w: 0.5 * w + 0.5 * (rotation(2.0) @ w),
        [2.0, 1.0],
        np.zeros(2),
    ),
    "isometry": (
        lambda w: ISOMETRY @ w,
        [1.0, -2.0, 0.5, 3.0],
        AXES.T @ AXES @ [1.0, -2.0, 0.5, 3.0],
    ),
    "two planes": (lambda w: PLANES @ w, [1.0, 2.0, 3.0], LINE @ [1.0, 2.0, 3.0]),
    # The start less the corner is a sum of the two outward normals there.
    "disk and half-plane": (
        lambda w: onto_half_plane(onto_disk(w)),
        [0.7, 3.0],
        np.array([0.5, np.sqrt(0.75)]),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_bound_of_lieder(name):
    operator, start, fixed_point = MAPS[name]
    np.testing.assert_allclose(operator(fixed_point), fixed_point, atol=1e-15)
    steps = 3000
    found = iterate(operator, start, steps)
    bound = lieder(np.array(start), fixed_point, steps)
    assert np.all(found.residuals <= bound * (1 + 1e-12))
    # And the limit is the fixed point nearest to the anchor.
    distance = np.linalg.norm(found.last - fixed_point)
    assert distance < 2 * np.linalg.norm(start - fixed_point) / steps


def test_iterates():
    operator = MAPS["two planes"][0]
    start = jnp.asarray(MAPS["two planes"][1])
    found = iterate(operator, start, 7)
    assert found.iterates.shape == (8, 3)
    np.testing.assert_array_equal(found.iterates[0], start)
    np.testing.assert_array_equal(found.iterates[-1], found.last)
    for w, residual in zip(found.iterates, found.residuals, strict=True):
        expected = np.linalg.norm(w - PLANES @ w)
        np.testing.assert_allclose(residual, expected, rtol=1e-12)
    bare = iterate(operator, start, 7, save_iterates=False)
    assert bare.iterates is None
    np.testing.assert_array_equal(bare.last, found.last)
    np.testing.assert_array_equal(bare.residuals, found.residuals)

    # The same in a pytree, without an anchor.
    def on_tree(tree):
        moved = operator(jnp.append(tree["a"], tree["b"]))
        return {"a": moved[:2], "b": moved[2]}

    tree = {"a": start[:2], "b": start[2]}
    decay = rules.power_decay(0.5)
    of_tree = rules.halpern_iteration(on_tree, tree, 7, decay)
    of_vector = rules.halpern_iteration(operator, start, 7, decay)
    np.testing.assert_allclose(of_tree.iterates["a"], of_vector.iterates[:, :2])
    np.testing.assert_allclose(of_tree.last["b"], of_vector.last[2])
    np.testing.assert_allclose(of_tree.residuals, of_vector.residuals)
    # Of a projection on a subspace: the product of 1 - l remains.
    on_line = rules.halpern_iteration(lambda w: LINE @ w, start, 7, decay)
    kept = np.prod(1 - np.arange(2, 9) ** -0.5)
    np.testing.assert_allclose(on_line.last, kept * LINE @ start, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *(("exponent", lambda a=a: rules.power_decay(a)) for a in (0, -1, 1.1, np.nan)),
        *(("first", lambda n=n: rules.power_decay(first=n)) for n in (0, 0.5, np.nan)),
        *(
            ("decay", lambda d=d: rules.halpern(optax.sgd(0.1), d))
            for d in (-0.1, 1.5, np.nan)
        ),
        *(
            ("learning_rate", lambda r=r: rules.nmgd(r, 0.1))
            for r in (0.0, -0.1, np.inf)
        ),
        ("steps", lambda: iterate(lambda w: w, jnp.ones(2), 0)),
        ("start", lambda: iterate(lambda w: w, jnp.arange(2), 1)),
        ("decay", lambda: iterate(lambda w: w, jnp.ones(2), 1, decay=-1.0)),
        ("anchor", lambda: iterate(lambda w: w, jnp.ones(2), 1, anchor=jnp.ones(3))),
        ("anchor", lambda: iterate(lambda w: w, jnp.ones(2), 1, anchor=[jnp.ones(2)])),
    ],
)
def test_bad_arguments(name, make):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()


def test_update_that_does_not_fit():
    w = jnp.ones(2)
    rule = rules.nmgd(0.1, 0.1)
    with pytest.raises(ValueError, match="`params`"):
        rule.update(w, rule.init(w))
    rule = rules.halpern(optax.sgd(0.1), 0.1, (w,))
    with pytest.raises(ValueError, match="`anchor`"):
        rule.update(w, rule.init(w), w)
