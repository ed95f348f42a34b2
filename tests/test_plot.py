"""Figures."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gradflow as gf
from small import mapped, network, problem

FLOW = gf.LagrangeFlow(0.1)


# What the figures show.
OBSERVE = {
    name: gf.default_observables(problem(), FLOW)[name]
    for name in ("loss", "rho", "rho_eq")
}


def descend(rate=0.01):
    return gf.descend(problem(), rate, network(), 20, flow=FLOW, observe=OBSERVE)


@pytest.fixture(scope="module")
def slow():
    return descend()


@pytest.fixture(scope="module")
def fast():
    return descend(0.011)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def points(line):
    return np.stack(line.get_data())


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_rho(slow):
    axes = gf.plot.rho(slow)
    assert isinstance(axes, Axes)
    rho, rho_eq = axes.lines
    np.testing.assert_array_equal(points(rho), [slow.ts, slow.observables["rho"]])
    np.testing.assert_array_equal(points(rho_eq), [slow.ts, slow.observables["rho_eq"]])
    assert labels_of(axes) == [r"$\rho$", r"$\rho_{eq}$"]
    assert axes.get_xlabel() == "flow time $t$"
    assert r"\rho" in axes.get_ylabel() or "ρ" in axes.get_ylabel()


def test_rho_without_equilibrium(slow):
    bare = dataclasses.replace(slow, observables={"rho": slow.observables["rho"]})
    axes = gf.plot.rho(bare, label="mine")
    assert labels_of(axes) == [r"mine: $\rho$"]


def test_loss(slow):
    axes = gf.plot.loss(slow)
    assert isinstance(axes, Axes)
    (line,) = axes.lines
    np.testing.assert_array_equal(points(line), [slow.ts, slow.observables["loss"]])
    assert axes.get_xlabel() == "flow time $t$"
    assert "loss" in axes.get_ylabel()
    assert axes.get_yscale() == "log"
    assert axes.get_legend() is None


def test_into_axes_that_are_there(slow, fast):
    figure, (left, right) = plt.subplots(1, 2)
    assert gf.plot.rho(slow, axes=left, label="slow") is left
    assert gf.plot.loss(slow, axes=right, label="slow") is right
    assert gf.plot.loss(fast, axes=right, label="fast") is right
    assert labels_of(right) == ["slow", "fast"]
    assert labels_of(left) == [r"slow: $\rho$", r"slow: $\rho_{eq}$"]
    assert plt.get_fignums() == [figure.number]


def test_sorted_margins():
    axes = gf.plot.sorted_margins(problem(), network())
    assert isinstance(axes, Axes)
    expected = np.sort(problem().margins(network()))
    np.testing.assert_array_equal(points(axes.lines[0]), [np.arange(1, 7), expected])
    assert "margin" in axes.get_ylabel() and axes.get_xlabel()
    assert axes.get_legend() is None


def test_sorted_margins_of_several(slow):
    figure, axes = plt.subplots()
    networks = {"start": network(), "end": slow.final}
    assert gf.plot.sorted_margins(problem(), networks, axes=axes) is axes
    assert labels_of(axes) == ["start", "end"]


def histogram_of(slow, edges):
    counts = jax.vmap(lambda n: gf.analysis.margin_histogram(problem(), n, edges))(
        slow.networks
    )
    return dataclasses.replace(slow, observables={"margin_histogram": counts})


def test_margin_histogram(slow, tmp_path):
    edges = np.linspace(-0.6, 0.6, 8)
    trajectory = histogram_of(slow, edges)
    counts = np.asarray(trajectory.observables["margin_histogram"])
    axes = gf.plot.margin_histogram(trajectory, edges)
    assert isinstance(axes, Axes)
    (mesh,) = axes.collections
    drawn = mesh.get_array().reshape(7, len(slow.ts))
    np.testing.assert_array_equal(drawn.filled(0), counts.T)
    np.testing.assert_array_equal(drawn.mask, counts.T == 0)
    assert 0 < np.sum(counts > 0) < counts.size
    # Each column around its time, each row between its edges.
    x, y = np.moveaxis(mesh.get_coordinates().data, 2, 0)
    np.testing.assert_allclose(y[:, 0], edges)
    assert np.all((x[0, :-1] <= slow.ts) & (slow.ts <= x[0, 1:]))
    assert axes.get_ylim() == (-0.6, 0.6)
    assert "margin" in axes.get_ylabel() and axes.get_xlabel() == "flow time $t$"
    _, bar = axes.figure.axes
    assert "samples" in bar.get_ylabel()
    axes.figure.savefig(tmp_path / "margins.png")
    assert (tmp_path / "margins.png").stat().st_size > 5_000


def test_margin_histogram_of_other_edges(slow):
    trajectory = histogram_of(slow, np.linspace(-0.6, 0.6, 8))
    for edges in (np.linspace(-0.6, 0.6, 7), 0.1):
        with pytest.raises(ValueError, match="`edges`.*'margin_histogram'"):
            gf.plot.margin_histogram(trajectory, edges)
    with pytest.raises(ValueError, match="`edges`.*'rho'"):
        gf.plot.margin_histogram(slow, np.linspace(0, 1, 5), name="rho")
    figure, axes = plt.subplots()
    renamed = {"mine": trajectory.observables["margin_histogram"]}
    trajectory = dataclasses.replace(trajectory, observables=renamed)
    edges = np.linspace(-0.6, 0.6, 8)
    drawn = gf.plot.margin_histogram(trajectory, edges, name="mine", axes=axes)
    assert drawn is axes and plt.get_fignums() == [figure.number]


def test_flow_against_descent(slow):
    shifted = eqx.tree_at(
        lambda t: t.networks.weights,
        slow,
        tuple((1 + 1e-3) * w for w in slow.networks.weights),
    )
    figure = gf.plot.flow_against_descent(shifted, slow)
    assert isinstance(figure, Figure)
    left, middle, right = figure.axes
    assert set(labels_of(left)) == {
        r"flow: $\rho$",
        r"flow: $\rho_{eq}$",
        r"descent: $\rho$",
        r"descent: $\rho_{eq}$",
    }
    assert set(labels_of(middle)) == {"flow", "descent"}
    ts, distances = points(right.lines[0])
    np.testing.assert_array_equal(ts, slow.ts)
    np.testing.assert_allclose(distances, 1e-3, rtol=1e-10)
    assert right.get_yscale() == "log" and right.get_ylabel() and right.get_xlabel()


def test_layers(slow):
    norms = {"norms": lambda problem, network: network.norms}
    measured = gf.observe(problem(), slow, norms)
    axes = gf.plot.layers(measured, "norms")
    assert labels_of(axes) == ["layer 1", "layer 2"]
    for k, line in enumerate(axes.lines):
        np.testing.assert_array_equal(
            points(line), [slow.ts, measured.observables["norms"][:, k]]
        )
    # Values of one order of magnitude.
    assert axes.get_yscale() == "linear" and axes.get_ylabel() == "norms"
    wide = dataclasses.replace(
        slow, observables={"wide": jnp.logspace(0, -3, 42).reshape(21, 2)}
    )
    axes = gf.plot.layers(wide, "wide", ylabel="label")
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "label"
    with pytest.raises(ValueError, match="`name`"):
        gf.plot.layers(slow, "rho")
    with pytest.raises(ValueError, match="no observable 'other'"):
        gf.plot.layers(slow, "other")


def test_spectrum():
    values = jnp.asarray([-0.5, -0.4, 0.0, 1e-12, 0.01, 1.0, 1.0, 3.0, jnp.inf])
    axes = gf.plot.spectrum(values)
    assert labels_of(axes) == ["positive", "negative", "zero"]
    heights = [sum(p.get_height() for p in group) for group in axes.containers]
    assert heights == [4, 2, 2]
    # A density has weights, on average over its vectors.
    density = gf.analysis.SpectralDensity(
        jnp.asarray([[0.1, 2.0], [0.2, jnp.inf]]), jnp.asarray([[3.0, 7.0], [8.0, 0]])
    )
    axes = gf.plot.spectrum(density)
    assert labels_of(axes) == ["positive"]
    np.testing.assert_allclose(
        sum(patch.get_height() for patch in axes.patches), (3 + 7 + 8) / 2
    )
    # Nothing but zeros.
    assert labels_of(gf.plot.spectrum(jnp.zeros(3))) == ["zero"]


def test_neural_collapse(slow):
    measured = gf.observe(
        problem(), slow, {"neural_collapse": gf.analysis.neural_collapse}
    )
    collapse = measured.observables["neural_collapse"]
    axes = gf.plot.neural_collapse(measured)
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(points(lines["NC1"]), [slow.ts, collapse.nc1[:, -1]])
    # Those of two classes are zero up to rounding.
    assert not {"NC2", "NC3"} & set(lines)
    with pytest.raises(ValueError, match="`trajectory`.*'neural_collapse'"):
        gf.plot.neural_collapse(slow)


def test_figures_can_be_drawn(slow, fast, tmp_path):
    gf.plot.flow_against_descent(slow, slow).savefig(tmp_path / "same.png")
    gf.plot.rho(slow).figure.savefig(tmp_path / "rho.png")
    assert (tmp_path / "same.png").stat().st_size > 5_000
    assert (tmp_path / "rho.png").stat().st_size > 5_000


def test_rows_on_the_disk(slow, tmp_path):
    edges = np.linspace(-1, 1, 5)
    observables = {
        "margin_histogram": lambda p, n: gf.analysis.margin_histogram(p, n, edges),
        "neural_collapse": gf.analysis.neural_collapse,
    }
    full = gf.observe(problem(), slow, observables)
    on_disk = mapped(full, tmp_path)
    for draw in (
        gf.plot.rho,
        gf.plot.loss,
        gf.plot.neural_collapse,
        lambda trajectory: gf.plot.margin_histogram(trajectory, edges),
        lambda trajectory: gf.plot.flow_against_descent(trajectory, slow),
    ):
        drawn = [_numbers(draw(trajectory)) for trajectory in (full, on_disk)]
        assert len(drawn[0]) > 0
        for one, other in zip(*drawn, strict=True):
            np.testing.assert_array_equal(one, other)


def _numbers(drawn):
    panels = drawn.axes if isinstance(drawn, Figure) else [drawn]
    lines = [points(line) for axes in panels for line in axes.lines]
    maps = [c.get_array() for axes in panels for c in axes.collections]
    return lines + maps


def test_runs_under_vmap(slow):
    # Rows that a run under `vmap` did not reach have the time inf.
    stopped = dataclasses.replace(slow, ts=slow.ts.at[8:].set(jnp.inf))
    (line,) = gf.plot.loss(stopped).lines
    np.testing.assert_array_equal(
        points(line), [slow.ts[:8], slow.observables["loss"][:8]]
    )
    several = jax.tree.map(lambda x: jnp.stack([x, x]), slow)
    with pytest.raises(ValueError, match="`trajectory`.*several"):
        gf.plot.loss(several)


def test_missing_observables(slow):
    bare = dataclasses.replace(slow, observables={})
    for draw, name in ((gf.plot.rho, "rho"), (gf.plot.loss, "loss")):
        with pytest.raises(ValueError, match=f"`trajectory`.*'{name}'.*`observe`"):
            draw(bare)
    with pytest.raises(ValueError, match="`trajectory`.*'(rho|loss)'"):
        gf.plot.flow_against_descent(bare, bare)


def test_mismatched_times(slow, fast):
    with pytest.raises(ValueError, match="`ts=descent.ts`"):
        gf.plot.flow_against_descent(slow, fast)
    shorter = dataclasses.replace(slow, ts=slow.ts[:5], log_ts=slow.log_ts[:5])
    with pytest.raises(ValueError, match="`ts=descent.ts`"):
        gf.plot.flow_against_descent(slow, shorter)


def test_missing_networks(slow):
    bare = dataclasses.replace(slow, networks=None)
    for pair in ((slow, bare), (bare, slow)):
        with pytest.raises(ValueError, match="`flow` and `descent`"):
            gf.plot.flow_against_descent(*pair)


def test_nothing_to_draw(slow):
    """No legend, of which matplotlib would warn, where nothing has a name."""
    assert gf.plot.spectrum(jnp.full(3, jnp.nan)).get_legend() is None
    shallow = dataclasses.replace(
        slow, observables={"balance": jnp.zeros((len(slow), 0))}
    )
    assert gf.plot.layers(shallow, "balance").get_legend() is None


def test_collapse_of_several_runs(slow):
    measured = gf.observe(
        problem(), slow, {"neural_collapse": gf.analysis.neural_collapse}
    )
    runs = jax.tree.map(lambda x: jnp.stack([x, x]), measured)
    with pytest.raises(ValueError, match="several runs"):
        gf.plot.neural_collapse(runs)
