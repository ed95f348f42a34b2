"""The report of a run, and measuring along one that is over."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types
from small import dataset, mapped, network, problem

DECAY = 0.3


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trajectory():
    # Not at rest at the end.
    return gf.descend(
        problem(),
        0.01,
        network(),
        100,
        flow=gf.GradientFlow(DECAY),
        save_steps=np.arange(0, 101, 5),
    )


@pytest.fixture(scope="module")
def report(trajectory):
    return gf.report(problem(), gf.GradientFlow(DECAY), trajectory, num_times=7)


# Observing afterwards.


def test_observe(trajectory):
    measured = gf.observe(problem(), trajectory, {"new": gf.analysis.stable_rank})
    assert set(measured.observables) == {*trajectory.observables, "new"}
    assert measured.observables["new"].shape == (len(trajectory), 2)
    for row in (0, 3, -1):
        values = np.linalg.svd(trajectory[row].weights[0], compute_uv=False)
        expected = np.sum(values**2) / values[0] ** 2
        np.testing.assert_allclose(
            measured.observables["new"][row, 0], expected, rtol=1e-12
        )
    # What was there stays, unless it is measured anew.
    other = gf.Problem(dataset(5), gf.SquareLoss())
    again = gf.observe(other, measured, {"loss": lambda p, n: p.value(n)})
    assert eqx.tree_equal(again.observables["new"], measured.observables["new"])
    np.testing.assert_allclose(
        again.observables["loss"][2], other.value(trajectory[2]), rtol=1e-12
    )


def test_observe_refuses(trajectory, unchecked_types):
    bare = dataclasses.replace(trajectory, networks=None)
    with pytest.raises(ValueError, match="save_networks"):
        gf.observe(problem(), bare, {})
    with pytest.raises(ValueError, match="`observables`"):
        gf.observe(problem(), trajectory, [gf.analysis.stable_rank])
    with pytest.raises(ValueError, match="`observables`"):
        gf.observe(problem(), trajectory, {"rank": gf.NormDefect})
    with pytest.raises(ValueError, match="'defect' is measured of a flow"):
        gf.observe(problem(), trajectory, {"defect": gf.NormDefect()})
    with pytest.raises(ValueError, match="'nothing' returns None"):
        gf.observe(problem(), trajectory, {"nothing": lambda p, n: None})
    with pytest.raises(ValueError, match="`problem`"):
        gf.observe(dataset(), trajectory, {"rank": gf.analysis.stable_rank})
    with pytest.raises(ValueError, match="`trajectory`"):
        gf.observe(problem(), network(), {"rank": gf.analysis.stable_rank})


def test_observe_from_the_disk(trajectory, tmp_path):
    new = {"new": gf.analysis.stable_rank}
    measured = gf.observe(problem(), trajectory, new)
    again = gf.observe(problem(), mapped(trajectory, tmp_path), new)
    assert eqx.tree_equal(again.observables["new"], measured.observables["new"])
    assert isinstance(again.observables["rho"], np.memmap)


# The report.


def test_values(report, trajectory):
    where, flow, end = problem(), gf.GradientFlow(DECAY), trajectory.final
    values, a = report.values, gf.analysis
    margins = np.asarray(where.margins(end))
    expected = {
        "rho": np.prod([np.linalg.norm(w) for w in end.weights]),
        "margin_min": margins.min(),
        "margin_mean": margins.mean(),
        "train_error": np.mean(margins <= 0),
        "support": np.sum(margins <= margins.min() + 0.1 * abs(margins.min())),
        "equal_margin_defect": margins.std() / np.abs(margins).mean(),
        "stationarity": trajectory.observables["stationarity"][-1],
        "multiplier": a.multiplier(where, end),
        "average_separability": np.sum(margins),
        "stable_rank": a.stable_rank(where, end),
        "distance_to_rank_one": a.distance_to_rank_one(where, end),
        "representation_residual": a.representation_residual(where, end),
        "sample_residual": np.nanmean(a.sample_residual(where, end), axis=1),
        "layer_balance": a.layer_balance(where, end),
        "nc1": a.neural_collapse(where, end).nc1,
        "nc4": a.neural_collapse(where, end).nc4,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-9, err_msg=name)
    eigenvalues = a.hessian_eigenvalues(where, end, flow=flow)
    np.testing.assert_allclose(report.spectrum, eigenvalues, atol=1e-9)
    assert values["hessian_smallest"] == pytest.approx(float(eigenvalues[0]))
    assert values["hessian_largest"] == pytest.approx(float(eigenvalues[-1]))
    assert values["hessian_zeros"] == a.num_near_zero(eigenvalues)
    assert max(values["structural_residual"]) < 1e-12
    assert values["growth_violations"] == 0


def test_theory_beside_it(report, trajectory):
    theory = {row.name: row.theory for row in report.rows}
    end = trajectory.final
    rho = np.prod([np.linalg.norm(w) for w in end.weights])
    rho_eq = gf.analysis.rho_eq(problem(), end, DECAY, num_norms=2)
    np.testing.assert_allclose(theory["rho"], rho_eq, rtol=1e-9)
    np.testing.assert_allclose(theory["margin_min"], 1 / rho, rtol=1e-9)
    np.testing.assert_allclose(theory["multiplier"], DECAY * rho, rtol=1e-9)
    # Descent with small steps is near the flow, whose balance decays.
    np.testing.assert_allclose(
        theory["layer_balance"], report.values["layer_balance"], rtol=0.05
    )
    start = np.diff([np.sum(np.square(w)) for w in trajectory[0].weights])
    expected = start * np.exp(-4 * DECAY * trajectory.ts[-1])
    np.testing.assert_allclose(theory["layer_balance"], expected, rtol=1e-9)
    assert theory["hessian_zeros"] == "≥ 0 at a minimum"
    # The law of signs is that of one norm.
    assert theory["growth_violations"] is None


def test_the_course(report, trajectory):
    along = report.along
    assert len(along) == 7
    assert along.ts[0] == trajectory.ts[0] and along.ts[-1] == trajectory.ts[-1]
    for name in ("rho", "rho_eq"):
        kept = np.searchsorted(trajectory.ts, along.ts)
        np.testing.assert_allclose(
            along.observables[name], trajectory.observables[name][kept], rtol=1e-9
        )
    residuals = gf.analysis.stationarity_residual(problem(), along[3])
    np.testing.assert_allclose(
        along.observables["stationarity_residual"][3], residuals, rtol=1e-9
    )


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].split() == ["At", "t", "=", "1", "measured", "theory"]
    assert len(lines) == 1 + len(report.rows)
    line = next(line for line in lines if line.startswith("smallest margin"))
    assert f"{report.values['margin_min']:.4g}" in line and "M112 §1.2" in line
    assert all(len(line) < 110 for line in lines)


def test_from_the_disk(report, trajectory, tmp_path):
    on_disk = mapped(trajectory, tmp_path)
    again = gf.report(problem(), gf.GradientFlow(DECAY), on_disk, num_times=7)
    assert again.values == report.values
    assert repr(again) == repr(report)


def test_page(report):
    figure = report.figure()
    scale, margins, residuals, ranks, spectrum, collapse = figure.axes
    np.testing.assert_array_equal(
        scale.lines[0].get_ydata(), report.along.observables["rho"]
    )
    sorted_margins = np.sort(problem().margins(report.along[-1]))
    np.testing.assert_array_equal(margins.lines[1].get_ydata(), sorted_margins)
    assert len(residuals.lines) == len(ranks.lines) == 2
    bars = sum(patch.get_height() for patch in spectrum.patches)
    assert bars == report.spectrum.size
    # NC2 and NC3 of two classes are zero, and are not drawn.
    assert [line.get_label() for line in collapse.lines][0] == "NC1"
    assert "NC2" not in [line.get_label() for line in collapse.lines]


def test_regression_without_hidden_layers():
    """What has no margins, features or several layers."""
    where = gf.Problem(
        gf.Dataset(dataset().inputs, jnp.arange(6.0), regression=True), gf.SquareLoss()
    )
    start = gf.Dense.from_weights([jnp.ones((1, 4))], gf.Identity())
    trajectory = gf.descend(where, 0.01, start, 5)
    report = gf.report(where, gf.GradientFlow(), trajectory)
    assert {"rho", "stationarity", "hessian_largest"} <= set(report.values)
    assert not {"margin_min", "train_error", "nc1", "layer_balance"} & set(
        report.values
    )
    # The Hessian of least squares.
    x = np.asarray(where.dataset.inputs)
    expected = np.linalg.eigvalsh(2 * x.T @ x)
    np.testing.assert_allclose(report.spectrum, expected, rtol=1e-9)
    assert len(report.figure().axes) == 6


def test_a_large_network_has_a_density():
    """And classes, with another loss and flow."""
    where = gf.Problem(
        gf.datasets.digits((0, 1, 2), per_class=3, signs=False), gf.CrossEntropyLoss()
    )
    start = gf.Dense((65, 9, 3), key=jax.random.key(0), norm=2.0)
    flow = gf.LagrangeFlow(0.01, all_norms=True)
    trajectory = gf.descend(where, 0.001, start, 4, flow=flow)
    report = gf.report(where, flow, trajectory)
    assert isinstance(report.spectrum, gf.analysis.SpectralDensity)
    assert {"nc1", "nc2_simplex", "nc3_product"} <= set(report.values)
    assert "layer_balance" not in report.values
    rho_eq = gf.analysis.rho_eq(where, trajectory.final, 0.01, num_norms=2)
    theory = {row.name: row.theory for row in report.rows}
    np.testing.assert_allclose(theory["rho"], rho_eq, rtol=1e-9)
    assert theory["margin_min"] is None
    # The gradients of several outputs cannot all be along one matrix.
    assert theory["sample_residual"] is None
    assert theory["stable_rank"] == "1 if SGD rests"
    assert len(report.figure().axes) == 6


def test_spheres_of_rows():
    """The norm that evolves is not that of all layers, and the units' multipliers
    differ."""
    flow = gf.LagrangeFlow(DECAY, spheres=gf.RowSpheres())
    trajectory = gf.descend(problem(), 0.01, network(), 100, flow=flow)
    report = gf.report(problem(), flow, trajectory, num_times=7)
    theory = {row.name: row.theory for row in report.rows}
    np.testing.assert_allclose(
        report.along.observables["rho_eq"][-1], trajectory.observables["rho_eq"][-1]
    )
    assert theory["rho"] == pytest.approx(trajectory.observables["rho_eq"][-1])
    last = np.linalg.norm(trajectory.final.weights[-1])
    assert theory["multiplier"] == pytest.approx(DECAY * last**2)
    assert theory["representation_residual"] is theory["sample_residual"] is None
    assert theory["growth_violations"] == 0
    # So in a flow around it.
    around = gf.report(problem(), gf.ModifiedFlow(0.01, flow), trajectory, num_times=7)
    theory = {row.name: row.theory for row in around.rows}
    assert theory["representation_residual"] is None


def test_batch_normalisation():
    """The equilibrium is that of the layers whose scale matters; the norms of the
    others decay by themselves."""
    start, flow = gf.BatchNorm(network()), gf.GradientFlow(0.1)
    run = gf.solve(problem(), flow, start, t1=0.5, rtol=1e-6)
    report = gf.report(problem(), flow, run, num_times=3)
    rho = report.along.observables["rho"]
    np.testing.assert_allclose(rho[-1], np.linalg.norm(run.final.weights[-1]))
    rows = {row.name: row for row in report.rows}
    np.testing.assert_allclose(rows["rho"].theory, run.observables["rho_eq"][-1])
    norms = rows["normalised_norms"]
    np.testing.assert_allclose(norms.measured, norms.theory, rtol=1e-5)
    expected = np.exp(-0.1) * np.asarray(start.norms[:-1])
    np.testing.assert_allclose(norms.theory, expected)


def test_decay_that_vanishes_in_time():
    """Theory is of the decay at the time of each row."""
    t, rate = 1.0, 0.01
    flow = gf.HalpernFlow(gf.PowerDecay(1.0), gf.LagrangeFlow(DECAY))
    trajectory = gf.descend(problem(), rate, network(), 100, flow=flow)
    report = gf.report(problem(), flow, trajectory, num_times=7)
    end = trajectory.final
    decay = DECAY + 1 / (1 + t) / 2
    theory = {row.name: row.theory for row in report.rows}
    rho_eq = gf.analysis.rho_eq(problem(), end, decay)
    np.testing.assert_allclose(theory["rho"], rho_eq, rtol=1e-9)
    rho = np.prod([np.linalg.norm(w) for w in end.weights])
    np.testing.assert_allclose(theory["multiplier"], decay * rho**2, rtol=1e-9)
    for name in ("rho_eq", "stationarity"):
        of_run = trajectory.observables[name]
        of_report = report.along.observables.get(name, report.values.get(name))
        np.testing.assert_allclose(np.ravel(of_report)[-1], of_run[-1], rtol=1e-9)
    start = trajectory.observables["rho_eq"][0]
    np.testing.assert_allclose(report.along.observables["rho_eq"][0], start, rtol=1e-9)


def test_where_nothing_is_defined():
    """A layer of zeros, a single time, and a single class."""
    data = gf.Dataset(dataset().inputs, np.zeros(6, int), num_classes=1)
    where = gf.Problem(data, gf.SquareLoss())
    first, last = network().weights
    start = network().with_weights((first, 0 * last))
    trajectory = gf.descend(where, 1e-3, start, 1, save_steps=[0])
    report = gf.report(where, gf.GradientFlow(), trajectory)
    assert np.isnan(report.values["representation_residual"]).all()
    assert not {"layer_balance", "nc1"} & set(report.values)
    assert len(report.figure().axes) == 6 and "nan" in str(report)


def test_bad_arguments(trajectory, unchecked_types):
    flow = gf.GradientFlow()
    bare = dataclasses.replace(trajectory, networks=None)
    with pytest.raises(ValueError, match="save_networks"):
        gf.report(problem(), flow, bare)
    with pytest.raises(ValueError, match="`flow`"):
        gf.report(problem(), gf.GradientFlow, trajectory)
    with pytest.raises(ValueError, match="`num_times`"):
        gf.report(problem(), flow, trajectory, num_times=1)
