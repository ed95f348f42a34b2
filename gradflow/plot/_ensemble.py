"""What became of the members of an ensemble."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .._ensemble import Ensemble
from ._axes import axes_or_new, legend

_DECADES = 1.5
"""Positive values that span more have a logarithmic axis."""


def ensemble(
    ensemble: Ensemble,
    *,
    x: Any,
    y: Any,
    colour: Any = None,
    axes: Axes | None = None,
) -> Axes:
    """Draws a number of each member over another: a dot for each, and the median and
    range of those that share `x` and colour, such as the seeds.

    A member that failed is a cross, and not part of the median.

    **Arguments:**

    - `ensemble`: what `gradflow.solve_ensemble` or `descend_ensemble` returned.
    - `x`, `y`: columns of `ensemble.table`, such as `"flow.weight_decay"` and `"rho"`,
        or numbers of your own, one for each member.
    - `colour`: the same, for one colour for each value; one for all if not given.
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.

    **Raises:** `ValueError` where there is no such column, or not a number for each
    member.
    """
    axes = axes_or_new(axes)
    xs, ys = ensemble.column(x), ensemble.column(y)
    groups = np.zeros(len(xs)) if colour is None else ensemble.column(colour)
    has_failed = np.isin(np.arange(len(xs)), ensemble.failed)
    kinds = np.unique(groups)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(kinds)))
    for kind, c in zip(kinds, colours, strict=True):
        label = None if colour is None else f"{_name(colour)} {kind:.4g}".strip()
        _draw_group(axes, xs, ys, (groups == kind) & ~has_failed, c, label)
        lost = (groups == kind) & has_failed & np.isfinite(ys)
        axes.plot(xs[lost], ys[lost], "x", color=c)
    axes.set(xlabel=_name(x), ylabel=_name(y))
    if _spans_decades(xs):
        axes.set_xscale("log")
    if _spans_decades(ys[~has_failed]):
        axes.set_yscale("log")
    legend(axes)
    return axes


def _draw_group(axes: Axes, xs, ys, members, colour, label: str | None) -> None:
    axes.plot(xs[members], ys[members], ".", color=colour, alpha=0.35, markersize=5)
    places = np.unique(xs[members])
    if len(places) == 0:
        return
    spread = [ys[members & (xs == place)] for place in places]
    low, middle, high = np.array(
        [(np.min(v), np.median(v), np.max(v)) for v in spread]
    ).T
    axes.errorbar(
        places,
        middle,
        yerr=[middle - low, high - middle],
        fmt="o-",
        color=colour,
        markersize=4,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )


def _name(name_or_values: Any) -> str:
    return name_or_values if isinstance(name_or_values, str) else ""


def _spans_decades(values: np.ndarray) -> bool:
    values = values[np.isfinite(values)]
    return (
        len(values) > 0
        and bool(np.all(values > 0))
        and bool(np.max(values) > 10**_DECADES * np.min(values))
    )
