"""Datasets, their preprocessing and the generated ones. Files: test_data_files.py."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradflow.datasets import (
    Dataset,
    chebyshev_nodes,
    chebyshev_polynomials,
    digits,
    equispaced_nodes,
    gaussian_mixture,
    monomials,
    polynomial,
    teacher_student,
    unit_norm,
)

INPUTS = np.arange(12.0).reshape(4, 3) + 1.0


def _norms(inputs):
    return np.linalg.norm(np.asarray(inputs).reshape(len(inputs), -1), axis=1)


# Dataset: the kinds of labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_signs_are_stored_in_the_dtype_of_the_inputs(array, dtype):
    inputs = array(INPUTS.astype(np.float32))
    dataset = Dataset(inputs, array(np.array([1, -1, -1, 1], dtype)))
    assert dataset.signs and not dataset.regression
    assert dataset.num_classes is None and dataset.num_outputs == 1
    assert dataset.inputs.dtype == dataset.labels.dtype == jnp.float32
    assert dataset.labels.tolist() == [1.0, -1.0, -1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_classes_are_stored_as_int32_and_counted(dtype):
    dataset = Dataset(INPUTS, np.array([2, 0, 1, 2], dtype))
    assert not dataset.signs
    assert dataset.num_classes == dataset.num_outputs == 3
    assert dataset.labels.dtype == jnp.int32
    assert dataset.labels.tolist() == [2, 0, 1, 2]


def test_given_num_classes_allows_empty_classes():
    dataset = Dataset(INPUTS, np.array([1, 1, 3, 1]), num_classes=5)
    assert dataset.num_classes == dataset.num_outputs == 5


def test_integers_without_a_minus_one_are_classes():
    assert Dataset(INPUTS, np.array([1, 0, 1, 0])).num_classes == 2
    assert Dataset(INPUTS, np.array([-1, -1, -1, -1])).signs
    with pytest.raises(ValueError, match=r"`labels` leaves classes 0 empty"):
        Dataset(INPUTS, np.array([1, 1, 1, 1]))


@pytest.mark.parametrize(
    "targets, num_outputs",
    [(np.arange(4), 1), (np.arange(4.0), 1), (np.ones((4, 1)), 1), (INPUTS, 3)],
)
def test_real_targets(targets, num_outputs):
    dataset = Dataset(INPUTS.astype(np.float32), targets, regression=True)
    assert dataset.regression and not dataset.signs
    assert dataset.num_classes is None and dataset.num_outputs == num_outputs
    assert dataset.labels.dtype == jnp.float32
    assert np.array_equal(dataset.labels, targets)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_])
def test_pixels_become_floating(dtype):
    dataset = Dataset(np.ones((2, 1, 4, 4), dtype), np.array([1.0, -1.0]))
    assert dataset.inputs.dtype == jnp.zeros(()).dtype
    assert dataset.num_samples == 2 and dataset.input_shape == (1, 4, 4)
    assert (dataset.inputs == 1).all()


def test_floating_dtypes_are_kept():
    for dtype in (np.float16, np.float32, np.float64):
        inputs = INPUTS.astype(dtype)
        dataset = Dataset(inputs, np.array([1.0, -1.0, 1.0, 1.0]))
        assert dataset.inputs.dtype == dtype
        assert np.array_equal(dataset.inputs, inputs)


# Dataset: errors


def _spoilt(value):
    inputs = INPUTS.copy()
    inputs[1, 2] = inputs[3, 0] = value
    return inputs


@pytest.mark.parametrize(
    "inputs, message",
    [
        (np.ones(4), "`inputs` must have shape (N, ...), not (4,)"),
        (np.ones(()), "`inputs` must have shape"),
        (np.ones((0, 3)), "`inputs` holds no sample"),
        (INPUTS + 1j, "`inputs` must hold real numbers; its dtype is complex128"),
        (_spoilt(np.nan), "`inputs` has 2 entries that are NaN or infinite in float64"),
        (_spoilt(-np.inf), "the first at index (1, 2)"),
        (jnp.asarray(_spoilt(np.nan)), "`inputs` has 2 entries"),
    ],
)
def test_bad_inputs(inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset(inputs, np.array([1.0, -1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([1.0, -1.0], {}, "`labels` of shape (2,) do not belong to `inputs`"),
        (1.0, {}, "`labels` of shape () do not belong"),
        ([[1.0], [1.0], [1.0], [1.0]], {}, "`labels` must have shape (4,)"),
        (np.eye(4), {}, "`labels.argmax(axis=1)` for one-hot rows"),
        ([0.0, 1.0, 1.0, 0.0], {}, "`labels[0]` is 0.0; give integers"),
        ([1.0, -1.0, 0.5, 1.0], {}, "`labels[2]` is 0.5"),
        ([1.0, -1.0, 0.5, 1.0], {}, "`regression=True` for real targets"),
        ([1.0, np.nan, 1.0, 1.0], {}, "`labels[1]` is nan"),
        ([True, False, True, True], {}, "`labels` of dtype bool"),
        (["a", "b", "c", "d"], {}, "`labels` of dtype <U1"),
        ([0, 1, -2, 1], {}, "`labels` has a negative class, -2"),
        ([-1, 1, 2, 0], {}, "`labels` has a negative class, -1"),
        ([-1, 1, 1, 1], {"num_classes": 2}, "`labels` has a negative class, -1"),
        ([0, 1, 2, 3], {"num_classes": 3}, "`labels` has class 3, out of range"),
        ([0, 2, 5, 5], {}, "`labels` leaves classes 1, 3, 4 empty (3 of 6)"),
        ([0, 2, 5, 5], {}, "give `num_classes=6`"),
        (
            [0, 2, 2**40, 7],
            {},
            "classes 1, 3, 4, 5, 6 … empty (1099511627773 of 1099511627777)",
        ),
        ([1.0, -1.0, 1.0, 1.0], {"num_classes": 2}, "take no `num_classes`"),
        ([1, 2, 3, 4], {"num_classes": 2, "regression": True}, "`num_classes`"),
        ([0, 0, 0, 0], {"num_classes": 0}, "`num_classes` must be a positive number"),
        (np.ones((4, 1, 1)), {"regression": True}, "`labels` must have shape (N,) or"),
        ([1.0, 2.0, np.inf, 1.0], {"regression": True}, "`labels` has 1 entries"),
        ([1.0, 2.0, np.nan, 1.0], {"regression": True}, "first at index (2,)"),
    ],
)
def test_bad_labels(labels, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset(INPUTS, np.asarray(labels), **options)


def test_overflow_in_the_stored_dtype_is_found():
    targets = np.array([1.0, 1e300, 1.0, 1.0])
    assert Dataset(INPUTS, targets, regression=True).num_outputs == 1
    with pytest.raises(ValueError, match="`labels` has 1 entries.*float32"):
        Dataset(INPUTS.astype(np.float32), targets, regression=True)


# Dataset: under transformations


def test_values_are_not_looked_at_under_jit():
    @jax.jit
    def build(inputs, labels):
        return Dataset(inputs, labels)

    inputs = jnp.asarray(_spoilt(np.nan))
    dataset = build(inputs, jnp.array([0.0, 1.0, 1.0, 7.0]))
    assert dataset.signs and dataset.num_samples == 4
    with pytest.raises(ValueError, match="`inputs`"):
        Dataset(inputs, jnp.ones(4))
    # Shapes are known, and are checked.
    with pytest.raises(ValueError, match="`labels`"):
        build(inputs, jnp.ones(3))


def test_integer_labels_under_jit_need_num_classes():
    build = jax.jit(Dataset, static_argnames="num_classes")
    labels = jnp.array([0, 1, 1, 3])
    dataset = build(jnp.asarray(INPUTS), labels, num_classes=4)
    assert dataset.num_classes == 4 and dataset.labels.dtype == jnp.int32
    with pytest.raises(ValueError, match="`num_classes=` for classes"):
        build(jnp.asarray(INPUTS), labels)


def test_batches_of_datasets():
    def build(shift):
        return Dataset(shift + jnp.asarray(INPUTS), jnp.array([1.0, -1.0, 1.0, 1.0]))

    batch = jax.vmap(build)(jnp.arange(5.0))
    assert batch.inputs.shape == (5, 4, 3) and batch.labels.shape == (5, 4)

    def measure(dataset):
        assert dataset.num_samples == 4 and dataset.input_shape == (3,)
        return jnp.sum(dataset.inputs)

    sums = jax.vmap(measure)(batch)
    assert np.allclose(sums, INPUTS.sum() + 12 * np.arange(5.0))


def test_unflattening_checks_nothing():
    dataset = Dataset(INPUTS, np.array([0, 1, 2, 0]))
    leaves, treedef = jtu.tree_flatten(dataset)
    assert len(leaves) == 2
    again = jtu.tree_unflatten(treedef, leaves)
    assert eqx.tree_equal(again, dataset)
    assert jtu.tree_unflatten(treedef, [None, None]).num_classes == 3


@pytest.mark.parametrize(
    "labels, options, text",
    [
        ([1, -1, 1, 1], {}, "Dataset(4 samples of shape (3,), labels ±1: 3 / 1)"),
        ([0, 1, 2, 2], {}, "Dataset(4 samples of shape (3,), 3 classes: 1 / 1 / 2)"),
        ([0, 1, 2, 2], {"num_classes": 1000}, "4 samples of shape (3,), 1000 classes)"),
        ([0, 1, 2, 2], {"regression": True}, "(3,), 1 real target each)"),
        (INPUTS, {"regression": True}, "(3,), 3 real targets each)"),
    ],
)
def test_repr(labels, options, text):
    dataset = Dataset(INPUTS, np.asarray(labels), **options)
    assert repr(dataset).endswith(text)
    # Without values the counts are missing, and nothing fails.
    shapes = repr(jax.eval_shape(lambda d: d, dataset))
    assert shapes.split(": ")[0].rstrip(")") == repr(dataset).split(": ")[0].rstrip(")")

    def traced(dataset):
        assert repr(dataset) == shapes
        return dataset

    jax.jit(traced)(dataset)
    assert "None" in repr(jtu.tree_map(lambda _: None, dataset))
    batch = jtu.tree_map(lambda x: jnp.stack([x, x]), dataset)
    assert re.search(r"2 samples of|\[2, 4, 3\]", repr(batch))


# unit_norm


@pytest.mark.parametrize("bias", [0, 0.5, 1.0, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 3)])
def test_unit_norm(shape, dtype, bias):
    inputs = np.random.default_rng(0).normal(size=shape).astype(dtype)
    scaled = unit_norm(inputs, bias)
    tolerance = 20 * np.finfo(dtype).eps
    assert scaled.dtype == dtype
    assert scaled.shape == (5, shape[1] + (bias != 0), *shape[2:])
    assert np.allclose(_norms(scaled), 1, rtol=0, atol=tolerance)
    # The sample keeps its direction, the constant has `bias` times its norm.
    sample, constant = scaled[:, : shape[1]], np.asarray(scaled[:, shape[1] :])
    factor = (_norms(inputs) * math.hypot(1, bias)).reshape(5, *[1] * (len(shape) - 1))
    assert np.allclose(sample * factor, inputs, rtol=0, atol=10 * tolerance)
    assert np.allclose(_norms(constant), bias / math.hypot(1, bias), atol=tolerance)
    assert (constant == constant[:1, :1]).all()


@settings(deadline=None, max_examples=50)
@given(
    arrays(
        np.float64,
        (3, 4),
        elements=st.floats(-1e308, 1e308, allow_subnormal=False),
    )
)
def test_unit_norm_for_every_magnitude(inputs):
    if (inputs == 0).all(axis=1).any():
        with pytest.raises(ValueError, match="`inputs`"):
            unit_norm(inputs)
    else:
        assert np.allclose(_norms(unit_norm(inputs)), 1, rtol=0, atol=1e-14)


def test_unit_norm_takes_pixels():
    scaled = unit_norm(np.array([[3, 4], [0, 255]], np.uint8), bias=0)
    assert np.allclose(scaled, [[0.6, 0.8], [0, 1]], atol=1e-7)


def test_unit_norm_says_which_samples_are_zero():
    inputs = np.ones((9, 2))
    inputs[[2, 5]] = 0
    inputs[5, 0] = 1e-320  # subnormal: zero for XLA
    with pytest.raises(ValueError, match=r"`inputs` .* zero .*: 2, 5 \(2 of 9\)"):
        unit_norm(inputs)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (1, 1, 1, 1, 1)])
def test_unit_norm_needs_vectors_or_images(shape):
    with pytest.raises(ValueError, match="`inputs` must be vectors"):
        unit_norm(np.ones(shape))


@pytest.mark.parametrize("bias", [-1.0, math.inf, math.nan])
def test_unit_norm_needs_a_bias_that_is_a_norm(bias):
    with pytest.raises(ValueError, match="`bias` must be finite"):
        unit_norm(INPUTS, bias)


def test_unit_norm_under_jit():
    assert np.allclose(jax.jit(unit_norm)(INPUTS), unit_norm(INPUTS), atol=1e-15)


# digits


def test_digits_counts():
    assert digits(None, split="all").num_samples == 1797
    dataset = digits((3, 8), split="all")
    assert repr(dataset) == (
        "Dataset(357 samples of shape (65,), labels ±1: 183 / 174)"
    )
    ten = digits(None, split="all")
    assert ten.num_classes == 10
    counts = np.bincount(np.asarray(ten.labels))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("classes", [None, (3, 8)])
def test_digits_split_is_disjoint_and_complete(classes):
    parts = {
        split: {
            (row.tobytes(), label)
            for row, label in zip(
                np.asarray(dataset.inputs), dataset.labels.tolist(), strict=True
            )
        }
        for split in ("train", "test", "all")
        for dataset in [digits(classes, split=split)]
    }
    assert len(parts["all"]) == digits(classes, split="all").num_samples
    assert parts["train"] | parts["test"] == parts["all"]
    assert not parts["train"] & parts["test"]


def test_digits_split_takes_every_fifth_of_each_class():
    for split, share in [("train", 4), ("test", 1)]:
        labels = np.asarray(digits(None, split=split).labels)
        total = np.bincount(np.asarray(digits(None, split="all").labels))
        fifth = total // 5
        expected = fifth if share == 1 else total - fifth
        assert np.bincount(labels).tolist() == expected.tolist()
    three = digits((3, 8), split="all", signs=False)
    test = digits((3, 8), split="test", signs=False)
    rows = three.inputs[np.asarray(three.labels) == 0][4::5]
    assert np.array_equal(rows, test.inputs[np.asarray(test.labels) == 0])


def test_digits_order_of_classes_gives_the_labels():
    first, second = digits((3, 8)), digits((8, 3))
    assert np.array_equal(first.labels, -second.labels)
    assert int((digits((3, 8), split="all").labels == 1).sum()) == 183
    zeros = digits((3, 8), signs=False)
    assert zeros.num_classes == 2
    assert np.array_equal(first.labels == 1, zeros.labels == 0)
    three = digits((5, 0, 3), split="all")
    assert np.bincount(np.asarray(three.labels)).tolist() == [182, 178, 183]


def test_digits_shapes():
    flat = digits(split="test")
    image = digits(split="test", image=True)
    assert flat.input_shape == (65,) and image.input_shape == (2, 8, 8)
    assert np.allclose(_norms(flat.inputs), 1) and np.allclose(_norms(image.inputs), 1)
    assert np.array_equal(
        flat.inputs[:, :64], np.asarray(image.inputs[:, 0]).reshape(-1, 64)
    )
    assert np.allclose(flat.inputs[:, 64], math.sqrt(0.5))
    assert digits(bias=0).input_shape == (64,)
    assert digits(bias=0, image=True).input_shape == (1, 8, 8)


def test_digits_per_class_takes_the_first():
    whole, part = digits((3, 8)), digits((3, 8), per_class=5)
    assert part.labels.sum() == 0 and part.num_samples == 10
    for sign in (1, -1):
        rows = part.inputs[np.asarray(part.labels) == sign]
        assert np.array_equal(rows, whole.inputs[np.asarray(whole.labels) == sign][:5])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": (3, 10)}, "`classes` has 10, which digits (train) has not"),
        ({"classes": (3, 8, 3)}, "`classes` names a class twice: (3, 8, 3)"),
        ({"classes": (3,)}, "`classes` must be two or more classes"),
        ({"classes": ()}, "`classes` must be two or more classes"),
        ({"split": "valid"}, "`split` must be one of ('train', 'test', 'all')"),
        ({"per_class": 0}, "`per_class` must be at least 1"),
        ({"per_class": 141}, "`per_class=141` is more than the 140 samples of class 8"),
        ({"bias": -1.0}, "`bias`"),
    ],
)
def test_digits_errors(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        digits(**options)


# polynomial


def test_polynomial_defaults():
    dataset = polynomial()
    points = np.cos(np.pi * (2 * np.arange(9)[::-1] + 1) / 18)
    assert dataset.regression and dataset.num_outputs == 1
    assert dataset.inputs.shape == (9, 31)
    assert np.allclose(dataset.inputs, np.vander(points, 31, increasing=True))
    assert np.allclose(dataset.labels, np.sin(8 * np.pi * points))
    # Something is there to be fitted, unlike at 9 points at equal distances.
    assert np.abs(dataset.labels).max() > 0.5
    flat = polynomial(nodes=equispaced_nodes)
    assert np.abs(flat.labels).max() < 1e-12
    assert np.array_equal(flat.inputs[:, 1], np.linspace(-1, 1, 9))


def test_chebyshev_nodes_are_the_roots():
    nodes = chebyshev_nodes(76)
    roots = np.polynomial.chebyshev.chebroots([0] * 76 + [1])
    assert np.allclose(nodes, np.sort(roots), rtol=0, atol=1e-13)
    assert np.array_equal(nodes, -nodes[::-1])
    assert chebyshev_nodes(9)[4] == 0


def test_bases():
    points = jnp.linspace(-1.0, 1.0, 11)
    features = chebyshev_polynomials(points, 300)
    expected = np.polynomial.chebyshev.chebvander(np.asarray(points), 300)
    assert np.allclose(features, expected, rtol=0, atol=1e-12)
    assert np.allclose(monomials(points, 2), np.stack([points**0, points, points**2]).T)
    dataset = polynomial(11, degree=3, nodes=equispaced_nodes, target=jnp.exp)
    other = polynomial(
        11,
        degree=3,
        nodes=equispaced_nodes,
        basis=chebyshev_polynomials,
        target=jnp.exp,
    )
    assert np.allclose(dataset.labels, np.exp(points))
    # Two bases of the same space.
    change = np.linalg.lstsq(np.asarray(dataset.inputs), np.asarray(other.inputs))[0]
    assert np.allclose(dataset.inputs @ change, other.inputs, atol=1e-12)


def test_random_polynomial_data_in_batches():
    def draw(key):
        return polynomial(
            9, degree=4, nodes=lambda n: jax.random.uniform(key, (n,), minval=-1.0)
        )

    batch = jax.vmap(draw)(jax.random.split(jax.random.key(0), 30))
    assert batch.inputs.shape == (30, 9, 5) and batch.labels.shape == (30, 9)
    assert len(np.unique(batch.labels)) == 270


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_samples": 0}, "`num_samples` must be at least 1"),
        ({"degree": -1}, "`degree` must not be negative"),
        ({"nodes": lambda n: jnp.ones(n + 1)}, "`nodes` must give points of shape"),
        ({"nodes": lambda n: 2 * jnp.ones(n)}, "`nodes` must give points in [-1, 1]"),
        ({"nodes": lambda n: jnp.nan * jnp.ones(n)}, "`nodes` must give points in"),
        ({"target": jnp.sum}, "`target` must give one value for each of the 9 points"),
    ],
)
def test_polynomial_errors(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        polynomial(**options)


# teacher_student


class _Teacher(eqx.Module):
    weights: jax.Array
    in_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x):
        return self.weights @ jnp.ravel(x)


def _teacher(num_outputs, in_shape=(6,)):
    size = math.prod(in_shape)
    weights = jax.random.normal(jax.random.key(1), (num_outputs, size))
    return _Teacher(weights, in_shape)


def test_teacher_signs():
    teacher = _teacher(1)
    dataset = teacher_student(teacher, 200, key=jax.random.key(0))
    assert dataset.signs and dataset.inputs.shape == (200, 6)
    assert np.allclose(_norms(dataset.inputs), 1, rtol=0, atol=1e-14)
    outputs = np.asarray(dataset.inputs @ teacher.weights[0])
    assert np.array_equal(dataset.labels, np.sign(outputs))
    # Uniform on the sphere: mean 0 and covariance I/6, within five deviations.
    inputs = np.asarray(dataset.inputs)
    assert np.abs(inputs.mean(0)).max() < 5 / math.sqrt(6 * 200)
    assert np.abs(inputs.T @ inputs / 200 - np.eye(6) / 6).max() < 5 * 0.19 / 14
    other = teacher_student(teacher, 200, key=jax.random.key(5))
    assert not np.array_equal(other.inputs, dataset.inputs)
    zeros = teacher_student(teacher, 200, key=jax.random.key(0), signs=False)
    assert zeros.num_classes == 2
    assert np.array_equal(zeros.labels == 0, dataset.labels == 1)


@pytest.mark.parametrize("num_outputs", [2, 5])
def test_teacher_classes(num_outputs):
    teacher = _teacher(num_outputs, (1, 2, 3))
    dataset = teacher_student(teacher, 50, key=jax.random.key(0))
    assert dataset.num_classes == num_outputs
    assert dataset.input_shape == (1, 2, 3)
    assert np.allclose(_norms(dataset.inputs), 1, rtol=0, atol=1e-14)
    outputs = jax.vmap(teacher)(dataset.inputs)
    assert np.array_equal(dataset.labels, np.argmax(outputs, axis=1))


@pytest.mark.parametrize("num_outputs, shape", [(1, (50,)), (3, (50, 3))])
def test_teacher_targets(num_outputs, shape):
    teacher = _teacher(num_outputs)
    dataset = teacher_student(teacher, 50, key=jax.random.key(0), regression=True)
    assert dataset.regression and dataset.labels.shape == shape
    outputs = np.asarray(jax.vmap(teacher)(dataset.inputs))
    assert np.allclose(dataset.labels, outputs.reshape(shape))


def test_teacher_in_batches():
    draw = jax.vmap(lambda key: teacher_student(_teacher(1), 5, key=key))
    batch = draw(jax.random.split(jax.random.key(0), 3))
    assert batch.inputs.shape == (3, 5, 6) and (np.abs(batch.labels) == 1).all()


def test_teacher_errors():
    key = jax.random.key(0)
    for num_outputs in (1, 3):
        silent = _Teacher(jnp.zeros((num_outputs, 2)), (2,))
        with pytest.raises(ValueError, match="`teacher` decides nothing for 7 of 7"):
            teacher_student(silent, 7, key=key)
        assert not teacher_student(silent, 7, key=key, regression=True).labels.any()
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        teacher_student(_teacher(1), 0, key=key)
    scalar = _Teacher(jnp.ones(2), (2,))
    with pytest.raises(ValueError, match=r"`teacher` must give outputs of shape \(C,"):
        teacher_student(scalar, 7, key=key)


# gaussian_mixture


def test_mixture_of_two_is_signs():
    means = np.array([[1.0, 0.0], [0.0, -2.0]])
    dataset = gaussian_mixture(means, 400, key=jax.random.key(0), bias=None)
    assert dataset.signs and dataset.inputs.shape == (800, 2)
    assert dataset.labels.tolist() == [1.0] * 400 + [-1.0] * 400
    clouds = np.asarray(dataset.inputs).reshape(2, 400, 2)
    # Five standard errors of a mean, and of a standard deviation.
    assert np.abs(clouds.mean(1) - means).max() < 5 * 0.1 / 20
    assert np.abs(clouds.std(1) - 0.1).max() < 5 * 0.1 / math.sqrt(800)
    zeros = gaussian_mixture(means, 4, key=jax.random.key(0), signs=False)
    assert zeros.num_classes == 2 and zeros.labels.tolist() == [0] * 4 + [1] * 4


def test_mixture_of_many_is_classes():
    means = 3 * np.eye(3, dtype=np.float32)
    dataset = gaussian_mixture(means, 2, key=jax.random.key(0), scale=0)
    assert dataset.num_classes == 3 and dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.inputs.dtype == jnp.float32
    expected = unit_norm(np.repeat(means, 2, axis=0))
    assert np.allclose(dataset.inputs, expected)
    sphere = gaussian_mixture(means, 2, key=jax.random.key(0), bias=0)
    assert sphere.input_shape == (3,) and np.allclose(_norms(sphere.inputs), 1)


def test_mixture_in_batches():
    draw = jax.vmap(lambda key: gaussian_mixture(INPUTS, 2, key=key))
    batch = draw(jax.random.split(jax.random.key(0), 3))
    assert batch.inputs.shape == (3, 8, 4) and batch.num_classes == 4
    assert not np.array_equal(batch.inputs[0], batch.inputs[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"means": np.ones(3)}, "`means` must have shape (C, d)"),
        ({"means": np.ones((1, 3))}, "`means` must have shape (C, d) with at least"),
        ({"means": _spoilt(np.nan)}, "`means` has 2 entries"),
        ({"per_class": 0}, "`per_class` must be at least 1"),
        ({"scale": -1.0}, "`scale` must be finite and not negative"),
        ({"bias": -1.0}, "`bias`"),
    ],
)
def test_mixture_errors(options, message):
    options = {"means": INPUTS, "per_class": 2, **options}
    with pytest.raises(ValueError, match=re.escape(message)):
        gaussian_mixture(**options, key=jax.random.key(0))
