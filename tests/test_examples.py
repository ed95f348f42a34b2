"""The examples and the README's code run, and show what they say."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import gradflow as gf

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def _module(name):
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _main(name):
    return _module(name).main


def test_quickstart(tmp_path, capsys):
    trajectory = _main("quickstart")(tmp_path)
    assert trajectory.stopped_by == "Stationary(tolerance=0.0001)"
    rho, rho_eq = (trajectory.observables[name][-1] for name in ("rho", "rho_eq"))
    assert abs(rho - rho_eq) < 0.01 * rho_eq
    assert "test images" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quickstart_margins.png",
        "quickstart_rho.png",
    ]


def test_flow_against_descent(tmp_path, capsys):
    order = _main("flow_against_descent")(tmp_path)
    assert abs(order - 1) < 0.1
    assert f"order {order:.3f}, from 6 of 6" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["flow_against_descent.png"]


@pytest.mark.parametrize(
    "loss",
    ["cross-entropy", pytest.param("square loss", marks=pytest.mark.slow)],
)
def test_neural_collapse(tmp_path, capsys, loss):
    """At a tenth of the time that the page shows."""
    example = _module("neural_collapse")
    runs = example.main(tmp_path, time=100.0, losses={loss: example.LOSSES[loss]})
    falls = {}
    for (_, data), run in runs.items():
        for name in example.MEASURES:
            values = getattr(run.observables["collapse"], name)
            values = values if values.ndim == 1 else values[:, -1]
            falls[data, name] = float(values[0] / values[-1])
    relations = runs[loss, "whitened"].observables["relations"]
    simplex, frame = (float(relations[name][-1]) for name in ("simplex", "frame"))
    nc2 = ("nc2_norms", "nc2_angles", "nc2_simplex")
    assert all(falls["as they are", name] < 10 for name in nc2)
    assert falls["whitened", "nc1"] > 1e6
    assert falls["whitened", "nc3_product"] > 1e3
    if loss == "cross-entropy":
        assert all(falls["whitened", name] > 100 for name in (*nc2, "nc3"))
        assert simplex < 1e-2 and frame > 0.4
    else:
        assert all(falls["whitened", name] > 10 for name in nc2)
        assert falls["whitened", "nc3"] < 5
        assert frame < 0.15 and simplex > 0.4
    assert "the last layer at the end" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "neural_collapse.png",
        "neural_collapse_classifier.png",
    ]


def test_sgd_and_flow(tmp_path, capsys):
    example = _module("sgd_and_flow")
    results = example.main(tmp_path, steps=(5e-3,), seeds=2)
    printed = capsys.readouterr().out
    residual, rank = "residual", "distance to rank one"
    (_, flow), (_, sgd) = results["digits"].values()
    assert "digits: the residual of the first layer is at least 0.318" in printed
    for along in (flow, sgd):
        assert np.all(along[residual][..., 0] > 0.318)
    # At rest both have the same: far from zero, and from rank one.
    assert np.all(flow[residual][:, -1] > 0.7) and np.all(flow[rank][:, -1] > 0.4)
    for name in (residual, rank):
        np.testing.assert_allclose(
            sgd[name][:, -1], np.repeat(flow[name][:, -1], 2, axis=0), atol=0.02
        )
    # At the constant step the first layer of SGD is nearer to rank one.
    constant = slice(example.SAVES // 2, example.SAVES)
    means = [along[rank][:, constant, 0].mean() for along in (flow, sgd)]
    assert means[1] < means[0] - 0.05
    (_, flow), (_, sgd) = results["copies"].values()
    for name in (residual, rank):
        assert np.all(flow[name][:, -1] < 1e-4)
        assert np.all(sgd[name][:, -1] < 1e-10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "sgd_and_flow_copies.png",
        "sgd_and_flow_digits.png",
    ]


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) < 15
    exec(compile(code, "README.md", "exec"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["rho.png"]


def test_max_margin(tmp_path, capsys):
    """On fewer images, and not as far."""
    runs = {"two layers": ((65, 16, 1), gf.LagrangeFlow(all_norms=True), 300.0)}
    flows = _main("max_margin")(tmp_path, per_class=5, runs=runs)
    for flow in flows.values():
        assert flow.observables["log10_loss"][-1] < -100
        smoothed = flow.observables["smoothed_margin"]
        assert np.all(np.diff(smoothed[flow.log_ts > 5]) > -1e-4 * smoothed[-1])
    assert "gradient descent: margin" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["max_margin.png"]


@pytest.mark.parametrize(
    "loss, seeds",
    [("exponential loss", 2), pytest.param("square loss", 8, marks=pytest.mark.slow)],
)
def test_minibatches_and_collapse(tmp_path, capsys, loss, seeds):
    """For two sizes."""
    example = _module("minibatches_and_collapse")
    results, rests = example.main(
        tmp_path,
        losses={loss: example.LOSSES[loss]},
        batches=(1, 10),
        decays=(1.0, 0.1),
        seeds=seeds,
    )
    spread, residual = "spread of the margins", "sample residual"
    as_they_are, whitened = results.values()
    for runs in results.values():
        assert all(np.all(along["accuracy"][:, -1] == 1) for along in runs.values())
    # As they are: no collapse, and SGD comes to rest where the flow does.
    at_rest = as_they_are["flow"][spread][0, -1]
    assert at_rest > 0.05 and as_they_are["flow"][residual][0, -1] > 0.2
    for along in as_they_are.values():
        # Of the square loss single seeds are up to 12 % off, one of six by over 5 %.
        end = np.median(along[spread][:, -1])
        np.testing.assert_allclose(end, at_rest, rtol=0.05)
        assert np.all(along[spread][:, example.CONSTANT].mean(1) > 0.98 * at_rest)
    # Whitened: the flow collapses, and SGD is held off, the more the smaller the batch.
    assert whitened["flow"]["NC1"][0, -1] < 1e-9
    one, ten = (
        np.median(whitened[name]["NC1"][:, example.CONSTANT])
        for name in ("SGD, 1", "SGD, 10")
    )
    assert one > 5 * ten > 1e-4
    # Near the largest value of m exp(-m) the margins are not equal where (60) holds,
    # and those of the square loss become equal while the residual grows.
    strong, weak = (along for (_, decay), along in rests.items())
    if loss == "exponential loss":
        assert strong[residual][0, -1] < 0.03 and strong[spread][0, -1] > 0.15
        assert weak[spread][0, -1] > 0.6 * strong[spread][0, -1]
    else:
        assert weak[residual][0, -1] > 2 * strong[residual][0, -1]
        assert weak[spread][0, -1] < 0.4 * strong[spread][0, -1]
    assert "where the flow rests" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [
        "minibatches_and_collapse.png"
    ]


def test_growth_of_linear_networks(tmp_path, capsys):
    """On fewer images, and not as far."""
    example = _module("growth")
    flows = example.main(tmp_path, 5, 1000.0, layers=(3,), relu_layers=())
    digits = gf.datasets.digits((3, 8), per_class=5)
    image = gf.Dataset(digits.inputs[:1], digits.labels[:1])
    of_image = gf.analysis.hard_margin_svm(image)
    np.testing.assert_allclose([of_image.margin, of_image.effective_support], 1)
    flow = flows["image"][3]
    rho, log_ts = flow.observables["rho"], flow.log_ts
    assert log_ts[-1] > 100 * np.log(10)
    law = example.closed_form(log_ts, of_image, 3)
    np.testing.assert_allclose(rho, law, rtol=1e-6)
    # Ahead of one layer, whose norm is log t, by a logarithm of the logarithm.
    ahead = rho / log_ts - 1
    assert np.all(ahead > 0) and np.all(np.diff(ahead) < 0) and ahead[-1] < 0.02
    np.testing.assert_allclose(
        rho[-1] - log_ts[-1], example.expansion(log_ts[-1], 3), rtol=1e-2
    )
    np.testing.assert_allclose(flow.observables["norms"][-1] ** 3, rho[-1])

    largest = gf.analysis.hard_margin_svm(digits)
    flow = flows["linear"][3]
    law = example.closed_form(flow.log_ts, largest, 3)
    excess = flow.observables["rho"] / law - 1
    along = example.outputs_along(flow, largest.direction) / law - 1
    assert 1e-3 < excess[-1] < 1e-2 and abs(along[-1]) < 1e-6
    assert abs(example.slope(flow.log_ts, excess) + 2 / 3) < 0.05
    # Without the number of samples, or with that of the support, it would not fit.
    p = np.asarray(largest.multipliers)
    for shares in (p == np.max(p), (p > 0) / np.sum(p > 0)):
        wrong = dataclasses.replace(largest, multipliers=jnp.asarray(shares, float))
        law = example.closed_form(flow.log_ts, wrong, 3)
        along = example.outputs_along(flow, largest.direction) / law - 1
        assert abs(along[-1]) > 1e-5
    first, *_, last = flow.observables["norms"][-1]
    assert last / first < 1.01
    np.testing.assert_allclose(last**2 - first**2, 2**2 - 0.5**2, rtol=1e-3)
    assert "support vectors that count for" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["growth.png"]


def test_growth_of_relu_networks(tmp_path):
    example = _module("growth")
    flows = example.main(tmp_path, 5, 1000.0, layers=(), relu_layers=(2,))
    flow = flows["relu"][2]
    law = example.fit(flow, 2)
    assert law.misfit < 1e-3
    # The margin that it has measured at the end is nearly what it grows to.
    margin = flow.observables["margin"]
    np.testing.assert_allclose(law.margin, margin[-1], rtol=3e-3)
    assert law.margin > 1.01 * margin[len(margin) // 2]


def test_collapse_at_late_times(tmp_path, capsys):
    """Two layers, not as far."""
    example = _module("collapse_at_late_times")
    networks = {"two layers": example.NETWORKS["two layers"]}
    flows, rests = example.main(tmp_path, end=300.0, networks=networks, decays=(1e-3,))
    for flow in flows.values():
        assert flow.observables["log10_loss"][-1] < -120
        assert np.all(np.diff(flow.observables["smoothed_margin"]) > 0)
    as_they_are, whitened = flows.values()
    nc1, nc2, nc3 = (
        example.measure(whitened, name) for name in ("nc1", "nc2_simplex", "nc3")
    )
    # Whitened it goes on collapsing, but nothing near as far as with weight decay.
    assert np.all(np.diff(nc1) < 0) and 1e-4 < nc1[-1] < nc1[0] / 50
    assert np.all(np.diff(nc2) < 0) and nc2[-1] > 0.02
    assert np.all(np.diff(nc3) < 0) and nc3[-1] > 0.1
    assert example.measure(as_they_are, "nc1")[-1] > 0.02
    assert example.measure(as_they_are, "nc2_simplex")[-1] > 0.1
    rest = rests["two layers", "whitened"][1e-3]
    margin = example.collapsed_margin(networks["two layers"])
    np.testing.assert_allclose(rest.observables["margins"][-1], margin, rtol=1e-3)
    for name in ("nc1", "nc2_simplex", "nc3"):
        assert example.measure(rest, name)[-1] < 1e-4
    assert np.all(whitened.observables["margins"] < 0.9 * margin)
    assert "margin of the collapse: 0.0745" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["collapse_at_late_times.png"]


def test_degenerate_minima(tmp_path, capsys):
    """Shorter, and against the law of the norm."""
    example = _module("degenerate_minima")
    flat = example.Experiment(20, 600_000, 100_000, 0.5, 500_000, 20, as_flow=True)
    few = example.Experiment(4, 12_000, 4_000, 0.5, 12_000, 20)
    courses = example.main(tmp_path, {"flat": flat, "few features": few})
    course = courses["flat"]
    np.testing.assert_array_equal(course.steps, np.arange(1, 7) * 100_000 - 1)
    _, square = example.laws(flat, course.steps)
    gained = np.mean(course.norm**2, axis=0)
    gained = gained - gained[0]
    # Of twenty repetitions, along a dozen flat directions.
    np.testing.assert_allclose(gained[1:], (square - square[0])[1:], rtol=0.4)
    last = courses["few features"].norm[:, -1]
    np.testing.assert_allclose(last, last[0], rtol=1e-3)
    assert "law" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["degenerate_minima.png"]


def test_number_of_features(tmp_path, capsys):
    example = _module("number_of_features")
    errors, ends = example.main(tmp_path, last=30, followed=(90,), time=1e4)
    # Both bases span the same polynomials, and there are more samples than features.
    np.testing.assert_allclose(*errors.values(), rtol=1e-4)
    assert np.all(np.diff(errors["monomials"][:, 0]) < 1e-9)
    # The start is divided by 1 + t, and the decay at the end is as small.
    distance, error = ends[90]
    assert 1e-6 < distance < 3e-4 and error < 1e-6
    assert "degree" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["number_of_features.png"]


def test_norm_minimising_descent(tmp_path, capsys):
    """Two seeds, three rules, and not for long."""
    example = _module("norm_minimising_descent")
    for name in ("weight decay", "n^-1/2"):
        del example.RULES[name]
    two, four = (example.Escape(n, 3.0, 1.0, 1e-3, 600) for n in (2, 4))
    runs, flows, left = example.main(
        tmp_path,
        starts=(3.0, 8.0),
        steps=600,
        times=(0.0, 3.0, 10.0),
        escapes=(two, four),
        seeds=2,
    )
    squares = {case: along["squares"] for case, (_, along) in runs.items()}
    # Plain descent keeps the norm of a large start. As T3 prints the rule, nothing but
    # the decay moves the weights: of them 1 / (n + 1) remains after n steps.
    assert np.all(squares["plain descent", 8.0][:, -1] > 0.97 * 3 * 8**2)
    for start in (3.0, 8.0):
        left_over = 3 * start**2 / 601**2
        np.testing.assert_allclose(squares["n^-1", start][:, -1], left_over, rtol=0.05)
        clock = squares["γ / (1 + γ n)", start][:, -1]
        assert np.all(clock > 10) and np.all(clock < 0.7 * 3 * start**2)
    # The flow comes to the same norm from both starts, and fits.
    ends = [along["squares"][:, -1].mean() for _, along in flows.values()]
    assert abs(ends[1] - ends[0]) < 0.15 * ends[0]
    assert all(np.all(along["loss"][:, -1] < 0.1) for _, along in flows.values())
    # Two layers leave the origin, four do not.
    assert np.all(left[two][1]["loss"][:, -1] < example.AWAY)
    np.testing.assert_allclose(left[four][1]["growth"][:, -1], 1, atol=0.01)
    assert "0/2" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["norm_minimising_descent.png"]


def test_label_noise(tmp_path, capsys):
    """Of three seeds, one start, and gradient descent alone."""
    example = _module("label_noise")
    case = example.CASES[1]
    noise = ((1e-3, 0.0), (1e-3, 1.0))
    results = example.main(tmp_path, cases=(case,), noise=noise, steps=2000, seeds=3)
    along = results[case.name]
    (still, T), (_, law) = (np.mean(along[name], axis=1) for name in ("T", "law"))
    # Noise takes T down, by its law, and nothing else does.
    np.testing.assert_allclose(still, still[0], rtol=0.01)
    fall, expected = T[0] - np.mean(T[-10:]), law[0] - np.mean(law[-10:])
    assert expected > 0.25 * T[0] and abs(fall - expected) < 0.3 * expected
    # But not ρ; and the smallest margin does not rise.
    rho, smallest = (
        np.mean(along[name][1, :, -10:], axis=1) / along[name][1, :, 0]
        for name in ("rho", "smallest")
    )
    np.testing.assert_allclose(rho, 1, atol=0.03)
    assert np.mean(smallest) < 1
    assert f"{case.name}: ρ = 64" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["label_noise.png"]


def test_label_noise_measures():
    """T is the trace of the tangent kernel."""
    example = _module("label_noise")
    problem = gf.Problem(gf.datasets.digits((3, 8), per_class=5), gf.SquareLoss())
    network = gf.Dense((65, 6, 1), key=jax.random.key(0), activation=gf.ReLU(0.1))
    measured = example.sensitivity(gf.GradientFlow())(problem, network)
    kernel = gf.analysis.tangent_kernel(problem, network)[:, 0, :, 0]
    np.testing.assert_allclose(measured["T"], np.trace(kernel), rtol=1e-12)


def test_langevin(tmp_path, capsys):
    """Few paths, not for long: in the second well there are some already."""
    example = _module("langevin")
    ab, norms = example.main(tmp_path, paths=60, times=np.array([0.0, 2.0, 8.0]))
    assert ab.shape == (60, 3, 2)
    assert 0.05 < np.mean(np.sum(ab[:, -1], axis=-1) < 0) < 0.4
    # The norm has forgotten the start, in the weights and in polar coordinates.
    means = {name: np.mean(norm) for name, (norm, _) in norms.items()}
    assert means["weights"] > means["ρ and V"] + 0.1
    assert "Boltzmann" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["langevin.png"]


def test_cifar10_kicks(tmp_path, capsys):
    """Kicks make the weights longer, and nothing but kicks does."""
    example = _module("cifar10_kicks")
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 8), ("test", 4)):
        labels = np.arange(count) % 2
        images = (
            generator.integers(0, 100, (count, 32, 32, 3))
            + 150 * labels[:, None, None, None]
        )
        arrays |= {f"x_{split}": images.astype(np.uint8), f"y_{split}": labels}
    np.savez(tmp_path / "images.npz", **arrays)
    setting = example.Setting(None, 4, 0.5, 400, 1, 12, 2)
    courses = example.main(
        tmp_path / "images.npz", tmp_path, setting, 1, channels=(2, 2)
    )
    assert "kicks, seed 0" in capsys.readouterr().out
    for kind in ("SGD", "flow"):
        calm, kicked = (courses[kind, sigma, 0] for sigma in (0.0, example.SIGMA))
        assert calm.measures["train error"][calm.fitted] == 0
        growth = {
            name: course.measures["norm"][-1] / course.measures["norm"][course.fitted]
            for name, course in {"calm": calm, "kicked": kicked}.items()
        }
        assert growth["kicked"] > growth["calm"] + 0.1
        after_last = kicked.measures["norm"][kicked.fitted + setting.kicks + 1 :]
        assert np.ptp(after_last) < 0.02 * after_last[0]
    assert (tmp_path / "cifar10_kicks.png").exists()


@pytest.fixture
def cifar10_file(tmp_path):
    """Noise in the two colours of two classes, as a file of the kind that is read."""
    rng = np.random.default_rng(0)
    colours = np.array([[40, 80, 120], [120, 80, 40]])[:, None, None]
    arrays = {}
    for split in ("train", "test"):
        labels = np.tile([0, 1], 16)
        noise = rng.integers(0, 120, (32, 32, 32, 3))
        arrays[f"x_{split}"] = (colours[labels] + noise).astype(np.uint8)
        arrays[f"y_{split}"] = labels
    np.savez(tmp_path / "cifar10.npz", **arrays)
    return tmp_path / "cifar10.npz"


def test_cifar10_normalisation(tmp_path, cifar10_file, capsys):
    """With few channels."""
    example = _module("cifar10_normalisation")
    results = example.main(
        cifar10_file,
        tmp_path / "figures",
        images=32,
        epochs=20,
        experiments=("X2",),
        channels=(4, 4, 8),
    )
    for start, (run,) in results["X2"].items():
        norms = np.asarray(run.observables["along"]["norms"])
        np.testing.assert_allclose(norms[0], start)
        # The gradient is orthogonal to the rows w of normalised layers. So the momentum
        # m has ⟨w, m⟩ ≤ 0, by induction, and no step makes w shorter.
        hidden = norms[:, :-1]
        assert np.all(np.diff(hidden, axis=0) >= -1e-12 * hidden[1:])
        assert np.all(hidden[-1] > (1 + 1e-6) * hidden[0])
    assert "X2: sharpness of the last layer" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "cifar10_X2.png",
        "cifar10_X2_histogram.png",
    ]


@pytest.mark.slow
def test_cifar10_flow(tmp_path, cifar10_file, monkeypatch, capsys):
    """From one start of X2 and one of X3, not for long."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = _module("cifar10_flow")
    for name, start in (("X2", 5.0), ("X3", 15.0)):
        case = example.EXPERIMENTS[name]._replace(norms=(start,))
        monkeypatch.setitem(example.EXPERIMENTS, name, case)
    results = example.main(
        cifar10_file,
        tmp_path / "figures",
        images=32,
        steps=1,
        max_steps=30,
        experiments=("X2", "X3"),
        channels=(4, 4, 8),
    )
    (batch_norm,), (plain,) = (
        [
            np.asarray(run["flow"].observables["along"]["norms"])
            for run in results[name].values()
        ]
        for name in ("X2", "X3")
    )
    # The flow conserves the norms of normalised layers, and otherwise the differences
    # of the squares.
    np.testing.assert_allclose(batch_norm[:, :-1], 5, rtol=1e-3)
    gained = plain**2 - plain[0] ** 2
    assert np.max(np.ptp(gained, axis=1)) < 0.05 * np.max(np.abs(gained))
    assert "unit rows" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [
        "cifar10_flow.png"
    ]
