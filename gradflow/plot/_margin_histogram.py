"""The distribution of the margins over time."""

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from .._trajectory import Trajectory
from ._axes import axes_or_new, series


def margin_histogram(
    trajectory: Trajectory,
    edges: ArrayLike,
    *,
    name: str = "margin_histogram",
    axes: Axes | None = None,
) -> Axes:
    r"""Draws the histogram of the normalised margins over time, as a map of the numbers
    of samples (M112 figure 9 is one of $|f_n|$).

    **Arguments:**

    - `trajectory`: with an observable of counts, such as
        `lambda p, n: gf.analysis.margin_histogram(p, n, edges)`.
    - `edges`: the edges of its bins.
    - `name`: of the observable.
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.

    **Raises:** `ValueError` where `edges` are not those of the observable's bins.
    """
    ts, counts = series(trajectory, name)
    edges = np.asarray(edges)
    if edges.ndim != 1 or counts.shape[1:] != (len(edges) - 1,):
        raise ValueError(
            f"`edges` of shape {edges.shape} do not fit the observable {name!r} of "
            f"shape {counts.shape}: it must have one bin less than there are edges."
        )
    axes = axes_or_new(axes)
    # Each column reaches half-way to its neighbours.
    between = (ts[1:] + ts[:-1]) / 2
    columns = np.concatenate([ts[:1], between, ts[-1:]])
    # Bins without a sample are left white.
    filled = np.ma.masked_equal(counts, 0)
    # A colour for every sample, though all of them share a few bins at the start.
    norm = PowerNorm(0.5, vmin=0)
    image = axes.pcolormesh(
        columns, edges, filled.T, cmap="viridis_r", norm=norm, rasterized=True
    )
    axes.figure.colorbar(image, ax=axes, label="samples in the bin")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(
        xlabel="flow time $t$",
        ylabel=r"normalised margin $y_n f_n$",
        ylim=(edges[0], edges[-1]),
    )
    return axes
