"""Arguments of a run as plain JSON and arrays, and back."""

import contextlib
import dataclasses
import functools
import inspect
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax
import optimistix
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import gradflow as gf
import own_code
import small
from gradflow._description import (
    Description,
    check_whole,
    describe,
    fingerprint,
    restore,
)
from gradflow._description.code import fingerprint_of_code
from own_code import Own, closed, helper, made, own_of, scaled


def through_files(description):
    """As a file would hold it: strict JSON, and arrays that are NumPy's."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert all(type(array) is np.ndarray for array in description.arrays.values())
    page = json.dumps(description.arguments, allow_nan=False)
    arguments = json.loads(page, parse_constant=refuse)
    return Description(arguments, dict(description.arrays))


def there_and_back(value):
    return restore(through_files(describe({"value": value})))["value"]


def labelled(labels, dtype=float, **options):
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype(dtype)
    return gf.Dataset(inputs, np.array(labels), **options)


def signs():
    return labelled([1.0, -1.0] * 3)


def targets():
    return labelled([0.5, -2.0, np.pi] * 2, regression=True)


def problem_of(loss, reduction, outputs=1):
    return gf.Problem(
        labelled([0, 1, 2] * 2, num_classes=4) if outputs > 1 else signs(),
        cases.LOSSES[loss](reduction),
    )


LOSSES = [
    (loss, reduction, outputs)
    for loss in cases.LOSSES
    for reduction in ("sum", "mean")
    for outputs in (1, 3)
    if loss == "square" or (outputs == 3) == (loss == "cross_entropy")
]

# Made only where they are used, since this file is read by each worker.

FLOWS = {
    **{name: lambda make=make: make(0.25) for name, make in cases.FLOWS.items()},
    "array_decay": lambda: gf.GradientFlow(jnp.asarray(0.3, jnp.float32)),
    "integer_decay": lambda: gf.GradientFlow(1),
    "halpern": lambda: gf.HalpernFlow(gf.PowerDecay(0.7), gf.GradientFlow(0.1)),
    "modified": lambda: gf.ModifiedFlow(0.01, gf.WeightNormFlow()),
    "langevin": lambda: gf.LangevinFlow(
        0.1, gf.LagrangeFlow(spheres=gf.RowSpheres()), key=jax.random.key(7)
    ),
    "label_noise": lambda: gf.LabelNoiseFlow(
        0.1, 0.01, key=jax.random.key(1, impl="rbg")
    ),
    "momentum": lambda: gf.MomentumFlow(0.9, gf.GradientFlow(0.1)),
    **{
        clock.__name__: lambda clock=clock: clock(gf.PolarGradientFlow(0.1))
        for clock in (gf.LogTime, gf.LogRho, gf.LossTime, gf.ArcLength)
    },
}

NETWORKS = {
    **{
        name: lambda make=make: make(1, gf.ReLU(0.1))
        for name, make in cases.NETWORKS.items()
    },
    "three_outputs": lambda: cases.NETWORKS["conv"](3, gf.Identity()),
    "polar": lambda: gf.Polar.from_network(small.network()),
    "batch_norm": lambda: gf.BatchNorm(
        cases.NETWORKS["conv"](3, gf.ReLU()), affine=True, after_activation=True
    ),
    "fixed_statistics": lambda: gf.BatchNorm(small.network()).with_statistics(
        jnp.eye(small.network().in_shape[0])
    ),
    "residual": lambda: gf.BatchNorm(
        gf.Residual((2, 4, 4), (3, 4), key=jax.random.key(0))
    ),
}

PROBLEMS = {
    "float32": lambda: labelled([1.0, -1.0] * 3, np.float32),
    "targets": targets,
    **{
        " ".join(map(str, case)): lambda case=case: problem_of(*case) for case in LOSSES
    },
    "batch": lambda: gf.Problem(signs(), gf.SquareLoss(), population=100),
}

SAMPLERS = {
    "full": gf.FullBatch,
    "minibatches": lambda: gf.Minibatches(8, key=jax.random.key(7), replacement=True),
    "noise": lambda: gf.LabelNoise(
        0.5, gf.Minibatches(3, key=jax.random.key(7)), key=jax.random.key(8)
    ),
}

MEASURED = {
    "signs": lambda: gf.default_observables(
        gf.Problem(signs(), gf.SquareLoss()), gf.GradientFlow()
    ),
    "targets": lambda: gf.default_observables(
        gf.Problem(targets(), gf.SquareLoss()), gf.GradientFlow()
    ),
    "analysis": lambda: {"kkt": gf.analysis.kkt_residual, "sharp": gf.Sharpness(1e-2)},
    "odd names": lambda: {"": gf.NormDefect(), "a/b %é": gf.Stationarity()},
    "conditions": lambda: (
        gf.Stationary(1e-8),
        gf.ZeroTrainingError(),
        gf.MarginAbove(0.1),
        gf.LossBelow(jnp.asarray(0.1)),
    ),
}

SOLVERS = {
    "rkc": lambda: gf.RKC(max_stages=50),
    "rkc3": lambda: gf.RKC3(scan_kind="bounded"),
    "tsit5": diffrax.Tsit5,
    "kvaerno5": diffrax.Kvaerno5,
    "kvaerno3": lambda: diffrax.Kvaerno3(
        root_finder=optimistix.Newton(
            rtol=1e-8, atol=1e-9, norm=optimistix.two_norm, linear_solver=lineax.QR()
        )
    ),
    "half": lambda: diffrax.HalfSolver(diffrax.Heun()),
    "spark": diffrax.SPaRK,
    "pid": lambda: diffrax.PIDController(1e-5, 1e-9, pcoeff=0.3, dtmax=math.inf),
    "clip": lambda: diffrax.ClipStepSizeController(
        diffrax.PIDController(1e-5, 1e-9), jump_ts=jnp.asarray([0.5, 1.0])
    ),
    "constant": diffrax.ConstantStepSize,
    "checkpoints": lambda: diffrax.RecursiveCheckpointAdjoint(checkpoints=5),
    "forward": diffrax.ForwardMode,
    "direct": diffrax.DirectAdjoint,
    "implicit": lambda: diffrax.ImplicitAdjoint(
        tags=frozenset({lineax.symmetric_tag, lineax.negative_semidefinite_tag})
    ),
    "backsolve": lambda: diffrax.BacksolveAdjoint(solver=diffrax.Dopri5()),
}

EXAMPLES = {
    f"{kind} {name}": make
    for kind, makers in (
        ("flow", FLOWS),
        ("network", NETWORKS),
        ("problem", PROBLEMS),
        ("sampler", SAMPLERS),
        ("measured", MEASURED),
        ("solver", SOLVERS),
    )
    for name, make in makers.items()
}


def equal(a, b):
    """Equal bit by bit and type by type, with random keys as their numbers."""

    def numbers(leaf):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )
        return jax.random.key_data(leaf) if is_key else leaf

    leaves_a, structure_a = jax.tree.flatten(jax.tree.map(numbers, a))
    leaves_b, structure_b = jax.tree.flatten(jax.tree.map(numbers, b))
    return structure_a == structure_b and all(
        type(x) is type(y)
        and getattr(x, "weak_type", None) == getattr(y, "weak_type", None)
        and (
            (x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes())
            if isinstance(x, jax.Array | np.ndarray | np.generic)
            else x is y or repr(x) == repr(y)
        )
        for x, y in zip(leaves_a, leaves_b, strict=True)
    )


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=list(EXAMPLES))
def test_restored_is_equal(make):
    assert equal(there_and_back(make()), make())


@pytest.mark.parametrize("flow", [FLOWS["lagrange_all_rows"], FLOWS["LogRho"]])
def test_restored_flow_has_the_same_field(flow):
    arguments = {"flow": flow(), "network": small.network(), "problem": small.problem()}
    traced = []

    @eqx.filter_jit
    def field(flow, network, problem):
        traced.append(flow)
        return flow.vector_field(0.5, flow.init(network), problem, network)

    restored = restore(through_files(describe(arguments)))
    assert equal(field(**restored), field(**arguments))
    # Not compiled again, so that what is static is the same, too.
    assert len(traced) == 1


def _classes_in(tree):
    """The classes of all modules in a tree, also where they are no pytrees."""
    if dataclasses.is_dataclass(tree):
        return {type(tree)}.union(
            *(
                _classes_in(getattr(tree, field.name))
                for field in dataclasses.fields(tree)
            )
        )
    if isinstance(tree, dict):
        return _classes_in(tuple(tree.values()))
    if isinstance(tree, tuple | list):
        return set().union(*map(_classes_in, tree))
    return set()


def test_no_class_is_forgotten():
    # What runs return, and what is within states, is no argument of one.
    results = {gf.Comparison, gf.CriticalPoint, gf.Ensemble, gf.Report, gf.Trajectory}
    results |= {gf.Absorbed}
    within = {gf.ClockedState, gf.Moment, gf.MomentumState, gf.PolarState, gf.Point}
    public = {
        value
        for value in vars(gf).values()
        if inspect.isclass(value) and issubclass(value, eqx.Module)
        if not value.__name__.startswith("Abstract")
    }
    # A wrapper of what the user projects on, which are functions.
    expected = public - results - within - {gf.Projected}
    assert expected - _classes_in([make() for make in EXAMPLES.values()]) == set()


# Plain values.


@given(st.floats(width=64))
def test_every_float(x):
    back = there_and_back(x)
    assert type(back) is float
    assert back.hex() == x.hex()  # with the sign of zero


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=10,
)


@settings(max_examples=50)
@given(PLAIN)
def test_every_plain_value(value):
    back = there_and_back(value)
    # Types too, which `==` does not tell apart.
    assert back == value
    assert fingerprint(describe({"": back})) == fingerprint(describe({"": value}))


ARRAYS = {
    "int16": lambda: np.arange(6, dtype=np.int16).reshape(2, 3),
    "Fortran": lambda: np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": lambda: np.array([], np.float32),
    "bool": lambda: np.array([True, False]),
    "text": lambda: np.array(["a", "bcd"]),
    "no axes": lambda: np.array(1.0),
    "float32 scalar": lambda: np.float32(0.1),
    "int64 scalar": lambda: np.int64(3),
    "bool scalar": lambda: np.bool_(True),
    "weak": lambda: jnp.asarray(0.1),
    "weak integer": lambda: jnp.asarray(3),
    "float32": lambda: jnp.asarray(0.1, jnp.float32),
    "special": lambda: jnp.asarray([np.nan, -0.0, np.inf]),
    "no rows": lambda: jnp.zeros((0, 3), jnp.int32),
    "complex": lambda: jnp.asarray(np.array([1 + 2j])),
    "key": lambda: jax.random.key(7),
    "keys": lambda: jax.random.split(jax.random.key(7), 3),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_kind_of_array(name):
    assert equal(there_and_back(ARRAYS[name]()), ARRAYS[name]())


def test_paths_do_not_meet():
    tree = {"a/b": np.array(1.0), "a": {"b": np.array(2.0)}, "a%2Fb": np.array(3.0)}
    assert equal(there_and_back(tree), tree)
    two = describe({"x": np.array(1.0), "x/y": np.array(2.0), "x ": np.array(3.0)})
    assert len(two.arrays) == 3


# Fingerprints.


def print_of(value):
    return fingerprint(describe({"value": value}))


def test_fingerprint_is_of_contents_alone():
    forwards = Description(
        {"a": {"dict": {"x": 1, "y": 2}}, "b": 3}, {"p": np.eye(2), "q": np.ones(1)}
    )
    backwards = Description(
        {"b": 3, "a": {"dict": {"y": 2, "x": 1}}},
        {"q": np.ones(1), "p": np.asfortranarray(np.eye(2))},
    )
    assert fingerprint(forwards) == fingerprint(backwards)
    check_whole(backwards, fingerprint(forwards))


@pytest.mark.parametrize(
    "other",
    [
        Description({"a": 2}, {"p": np.array([1.0, 2.0])}),
        Description({"a": 1.0}, {"p": np.array([1.0, 2.0])}),
        Description({"a": True}, {"p": np.array([1.0, 2.0])}),
        Description({"b": 1}, {"p": np.array([1.0, 2.0])}),
        Description({"a": 1}, {"p": np.array([1.0, np.nextafter(2.0, 3.0)])}),
        Description({"a": 1}, {"p": np.array([1.0, 2.0], np.float32)}),
        Description({"a": 1}, {"p": np.array([[1.0, 2.0]])}),
        Description({"a": 1}, {"p": np.array([1.0, 2.0]).astype(">f8")}),
        Description({"a": 1}, {"q": np.array([1.0, 2.0])}),
        Description({"a": 1}, {"p": np.array([1.0, 2.0]), "q": np.array(1)}),
        Description({"a": 1}, {}),
    ],
)
def test_other_contents_have_another_fingerprint(other):
    one = Description({"a": 1}, {"p": np.array([1.0, 2.0])})
    with pytest.raises(ValueError, match="damaged"):
        check_whole(other, fingerprint(one))


@pytest.mark.parametrize("page", [{"a": object()}, {"a": math.nan}, {1: 1, "b": 2}])
def test_fingerprint_needs_json(page):
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(Description(page, {}))


# Code of the user's.


@pytest.mark.parametrize("name", own_code.SAME)
def test_code_made_again_has_the_same_fingerprint(name):
    once, again = (describe({"v": own_code.SAME[name]()}) for _ in range(2))
    assert "foreign" in once.arguments["v"]
    assert "0x" not in json.dumps(once.arguments)
    assert fingerprint(once) == fingerprint(again)


def test_code_has_the_same_fingerprint_within_a_function():
    inside = fingerprint_of_code(lambda problem, network: problem.value(network))
    outside = eval("lambda problem, network: problem.value(network)", globals())
    assert fingerprint_of_code(outside) == inside


def test_code_has_the_same_fingerprint_once_it_has_run():
    plain, jitted, filtered = made("return x + 1"), jax.jit(helper), closed_and_jitted()
    before = print_of([plain, jitted, filtered])
    # So often that Python puts faster instructions in place of its own.
    for _ in range(100):
        plain(1)
    jitted(1.0)
    filtered(jnp.asarray(1.0))
    assert print_of([plain, jitted, filtered]) == before


def closed_and_jitted(constant=2.0):
    return eqx.filter_jit(lambda x: constant * x)


DIFFERENT = {
    "a number": lambda: (made("return x + 1"), made("return x + 2")),
    "its type": lambda: (made("return x + 1"), made("return x + 1.0")),
    "an operator": lambda: (made("return x + 1"), made("return x - 1")),
    "a name": lambda: (made("return jnp.sin(x)"), made("return jnp.cos(x)")),
    "a function within": lambda: (
        made("return (lambda y: y + 1)(x)"),
        made("return (lambda y: y + 2)(x)"),
    ),
    "a closure": lambda: (closed(0.5), closed(0.25)),
    "an array": lambda: (closed(jnp.ones(3)), closed(jnp.ones(3).at[1].set(0.5))),
    "a dtype": lambda: (closed(jnp.ones(3)), closed(jnp.ones(3, jnp.float32))),
    "a closure of a closure": lambda: (closed(closed(1)), closed(closed(2))),
    "a global": lambda: (made("return a * x", a=1), made("return a * x", a=2)),
    "a function that is used": lambda: (
        made("return g(x)", g=made("return x")),
        made("return g(x)", g=made("return 2 * x")),
    ),
    "what that uses": lambda: (
        made("return g(x)", g=made("return a * x", a=1)),
        made("return g(x)", g=made("return a * x", a=2)),
    ),
    "a default": lambda: (lambda x=1: x, lambda x=2: x),
    "a keyword's default": lambda: (lambda *, x=1: x, lambda *, x=2: x),
    "an argument": lambda: (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "within jit": lambda: (jax.jit(closed(1)), jax.jit(closed(2))),
    "within filter_jit": lambda: (eqx.filter_jit(closed(1)), eqx.filter_jit(closed(2))),
    "a field": lambda: (Own(0.5), Own(0.25)),
    "a static field": lambda: (Own(0.5), Own(0.5, "other")),
    "an attribute": lambda: (own_of(closed(1), x=1), own_of(closed(1), x=2)),
    "a method": lambda: (own_of(made("return x"), x=1), own_of(made("return -x"), x=1)),
    "a learning rate": lambda: (optax.sgd(0.1), optax.sgd(0.2)),
    "an optimiser": lambda: (optax.adam(0.1), optax.adamw(0.1)),
    "a schedule": lambda: (
        optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
        optax.sgd(optax.cosine_decay_schedule(0.1, 11)),
    ),
    "a rule": lambda: (gf.rules.weight_decay(0.1), gf.rules.weight_decay(0.2)),
    "a rule's key": lambda: (
        gf.rules.kicks(3, 0.1, jax.random.key(0)),
        gf.rules.kicks(3, 0.1, jax.random.key(1)),
    ),
    "a library's function": lambda: (jnp.sum, jnp.prod),
    "an array's method": lambda: (np.arange(2.0).sum, np.arange(3.0).sum),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_code_that_computes_another_thing(name):
    one, other = DIFFERENT[name]()
    assert print_of(one) != print_of(other)


def samples(problem, network):
    return cases.SAMPLES * problem.value(network)


def test_what_is_used_of_a_module_of_the_users(monkeypatch):
    before = print_of(samples)
    monkeypatch.setattr(cases, "SMOOTHINGS", (0.5,))
    assert print_of(samples) == before
    monkeypatch.setattr(cases, "SAMPLES", cases.SAMPLES + 1)
    assert print_of(samples) != before


def test_a_module_of_the_users_with_a_name_of_pythons(monkeypatch, tmp_path):
    def measured(constant):
        module = types.ModuleType("statistics")
        module.__file__ = str(tmp_path / "statistics.py")
        exec(f"def mean(x):\n    return {constant} * x", vars(module))
        monkeypatch.setitem(sys.modules, "statistics", module)
        return print_of(module.mean)

    assert measured(1) != measured(2)


def test_fingerprints_in_another_process():
    tests = Path(__file__).parent
    program = (
        "import conftest, json, own_code\n"
        "from gradflow._description.code import fingerprint_of_code as of\n"
        "print(json.dumps({n: of(make()) for n, make in own_code.SAME.items()}))"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tests,
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",
            "PYTHONPATH": os.pathsep.join([str(tests.parent), *sys.path]),
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(found) == {
        n: fingerprint_of_code(make()) for n, make in own_code.SAME.items()
    }


# Given again.


def test_what_holds_code_must_be_given_again():
    observe = {"loss": small.loss, "defect": gf.NormDefect()}
    description = describe({"observe": observe, "rtol": 1e-4})
    with pytest.raises(ValueError, match=r"^`observe`: 'loss' is .* give `observe=`"):
        restore(through_files(description))
    restored = restore(through_files(description), {"observe": observe})
    assert restored == {"observe": observe, "rtol": 1e-4}
    assert restored["observe"] is observe


@pytest.mark.parametrize(
    ("stored", "given_again"),
    [
        ({"f": closed(1)}, {"f": closed(2)}),
        ({"f": closed(1)}, {"g": closed(1)}),
        (closed(np.ones(2)), closed(np.zeros(2))),
        (np.ones(2), np.zeros(2)),
        (1e-4, 1e-5),
        (gf.GradientFlow(0.1), gf.GradientFlow(0.2)),
        (gf.GradientFlow(0.1), gf.PolarGradientFlow(0.1)),
        ({"foreign": "a", "fingerprint": "b"}, {"foreign": "c", "fingerprint": "b"}),
    ],
)
def test_given_again_must_be_the_same(stored, given_again):
    description = describe({"x": stored, "xy": np.ones(1)})
    with pytest.raises(ValueError, match="^`x` differs"):
        restore(description, {"x": given_again})
    assert restore(description, {"x": stored})["x"] is stored


def test_a_function_may_have_moved():
    moved = made("return x")
    moved.__qualname__, moved.__module__ = "elsewhere", "another"
    description = describe({"x": [made("return x")]})
    assert restore(description, {"x": [moved]}) == {"x": [moved]}


def test_given_must_be_an_argument():
    with pytest.raises(ValueError, match="^`y` is not among the arguments"):
        restore(describe({"x": 1}), {"y": 1})


def test_traced_values_are_not_described():
    @jax.jit
    def traced(x):
        with pytest.raises(ValueError, match="^`flow` is being traced"):
            describe({"flow": gf.GradientFlow(x)})
        with pytest.raises(ValueError, match="^`observe` is being traced"):
            describe({"observe": lambda: x})

    traced(1.0)


def test_what_contains_itself_is_not_described():
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="^`x` is nested too deeply"):
        describe({"x": circle})


def test_double_precision_must_be_on():
    description = describe({"flow": gf.GradientFlow(jnp.asarray(0.1, float))})
    with jax.enable_x64(False), pytest.raises(ValueError, match="^`flow` .*float64"):
        restore(description)


# Damaged and hostile descriptions.


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (math.nan, "no part"),
        ({}, "no part"),
        ({"tuple": 1}, "no part"),
        ({"tuple": [], "more": 1}, "no part"),
        ({"float": "1e400"}, "no part"),
        ({"float": 1}, "no part"),
        ({"pickle": "gASVAAAA"}, "no part"),
        ({"name": "os.system"}, "no part"),
        ({"name": "gradflow.Dense"}, "no part"),
        ({"class": "builtins.object", "fields": {}}, "no part"),
        ({"class": "gradflow.AbstractFlow", "fields": {}}, "no part"),
        ({"class": "gradflow.analysis.rho_eq", "fields": {}}, "no part"),
        ({"class": "gradflow.SquareLoss", "fields": {}}, "fields"),
        ({"class": "gradflow.GradientFlow", "fields": {"weight_decay": -1}}, "-1"),
        ({"class": "gradflow.GradientFlow", "fields": {"weight_decay": "x"}}, "in"),
        ({"class": "gradflow.SquareLoss", "fields": {"reduction": "x"}}, "reduction"),
        ({"array": "missing", "of": "jax"}, "no part"),
        ({"array": "x", "of": "cupy"}, "no part"),
        ({"array": "text", "of": "jax"}, "no part"),
        ({"array": "x", "of": "numpy scalar"}, "no part"),
        ({"key": "x", "impl": "threefry2x32"}, "no part"),
        ({"key": "x", "impl": "mine"}, "no part"),
        ({"frozenset": [[]]}, "no part"),
        (functools.reduce(lambda x, _: [x], range(100_000), 0), "too deeply"),
    ],
)
def test_what_is_no_description(node, message):
    arrays = {"x": np.arange(3.0), "text": np.array(["a"])}
    with pytest.raises(ValueError, match=f"^`flow`.*{message}"):
        restore(Description({"flow": node}, arrays))


@functools.cache
def whole():
    """All arguments of a run, as a page that a file would hold."""
    makers = {
        "problem": PROBLEMS["batch"],
        "flow": FLOWS["langevin"],
        "network": NETWORKS["conv"],
        "observe": MEASURED["signs"],
        "until": MEASURED["conditions"],
        "solver": SOLVERS["kvaerno5"],
        "controller": SOLVERS["pid"],
        "adjoint": SOLVERS["implicit"],
        "sampler": SAMPLERS["noise"],
        "ts": lambda: np.linspace(0, 1, 3),
        "rtol": lambda: math.inf,
    }
    return through_files(describe({name: make() for name, make in makers.items()}))


def _places(node, place=()):
    yield place
    if isinstance(node, dict | list):
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            yield from _places(node[key], (*place, key))


def _with(node, place, change):
    """A copy of the tree with something else, or nothing, at one place of it."""
    if not place:
        return change(node)
    copy = dict(node) if isinstance(node, dict) else list(node)
    new = _with(copy[place[0]], place[1:], change)
    if new is DELETED:
        del copy[place[0]]
    else:
        copy[place[0]] = new
    return copy


DELETED = object()


@functools.cache
def places():
    return [place for place in _places(whole().arguments) if place]


def at(place):
    return functools.reduce(lambda node, key: node[key], place, whole().arguments)


CHANGES = st.deferred(
    lambda: st.tuples(
        st.sampled_from(places()),
        st.just(DELETED)
        | st.sampled_from(places()).map(at)
        | st.sampled_from(list(whole().arrays))
        | PLAIN_JSON
        | st.sampled_from([math.nan, math.inf, {}, [], {"tuple": []}, 10**400]),
    )
)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(CHANGES, max_size=3))
def test_changed_descriptions(changes):
    arguments = whole().arguments
    for place, new in changes:
        # The change before may have removed the place.
        with contextlib.suppress(KeyError, IndexError, TypeError):
            arguments = _with(arguments, place, lambda _, new=new: new)
    description = Description(arguments, whole().arrays)
    try:
        restored = restore(description)
    except ValueError:
        assert arguments != whole().arguments
        return
    # What can be restored is what the page says, and nothing else.
    again = describe(restored)
    assert _contents(again) == _contents(description)


def _contents(description):
    """The page as text, with arrays in the place of their names."""

    def resolve(node):
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.keys() in ({"array", "of"}, {"key", "impl"}):
            name, kind = node.values()
            array = description.arrays[name]
            return [kind, array.dtype.str, array.shape, array.tobytes().hex()]
        if node.keys() == {"frozenset"}:
            items = {json.dumps(resolve(item)) for item in node["frozenset"]}
            return {"frozenset": sorted(items)}
        return {key: resolve(value) for key, value in node.items()}

    return json.dumps(resolve(description.arguments), sort_keys=True)
