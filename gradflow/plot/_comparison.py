"""How far descents are from their flow."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .._comparison import Comparison
from ._axes import axes_or_new


def comparison(comparison: Comparison, *, axes: Axes | None = None) -> Axes:
    r"""Draws the distances of descents from their flow over time.

    A dotted line, in the colour of the descent, is where the flow's sharpness first is
    above $2 / h$; a cross is the last point of a descent that diverged. The grey line
    is the `tolerance`.

    **Arguments:**

    - `comparison`: what `gradflow.compare` returned.
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.
    """
    axes = axes_or_new(axes)
    rates = np.asarray(comparison.learning_rates)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(rates)))
    for h, colour, times, distances, unstable in zip(
        rates,
        colours,
        comparison.times,
        comparison.distances,
        np.asarray(comparison.unstable_at),
        strict=True,
    ):
        times, distances = np.asarray(times), np.asarray(distances)
        # At the start the distance is 0, which a logarithmic axis does not have.
        drawn = np.isfinite(distances) & (distances > 0)
        axes.plot(times[drawn], distances[drawn], color=colour, label=f"$h$ = {h:.4g}")
        if not np.isfinite(distances[-1]) and np.any(drawn):
            axes.plot(times[drawn][-1], distances[drawn][-1], "x", color=colour)
        if np.isfinite(unstable):
            axes.axvline(unstable, color=colour, linestyle=":")
    axes.axhline(float(comparison.tolerance), color="0.6", linewidth=0.8)
    axes.set(
        xlabel="flow time $t$",
        ylabel=r"$\|W_{descent} - W_{flow}\| / \|W_{flow}\|$",
        yscale="log",
    )
    axes.legend()
    return axes
