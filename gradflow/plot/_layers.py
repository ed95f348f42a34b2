"""What has one value for each layer, over time."""

import numpy as np
from matplotlib.axes import Axes

from .._trajectory import Trajectory
from ._axes import axes_or_new, legend, series


def layers(
    trajectory: Trajectory,
    name: str,
    *,
    axes: Axes | None = None,
    ylabel: str | None = None,
    yscale: str | None = None,
) -> Axes:
    """Draws an observable of the layers over time, with one line for each.

    **Arguments:**

    - `trajectory`: with the observable.
    - `name`: of the observable, whose values at a time are a vector, such as
        `rho_layers`, or [`gradflow.analysis.stable_rank`][] observed.
    - `axes`: where to draw; a new figure if not given.
    - `ylabel`: the label of the vertical axis; `name` if not given.
    - `yscale`: its scale, one of matplotlib's. Not given: logarithmic for positive
        values of different orders of magnitude.

    **Returns:** the axes.

    **Raises:** `ValueError` where the trajectory does not have it, or it is not a
    vector.
    """
    ts, values = series(trajectory, name)
    if values.ndim != 2:
        raise ValueError(
            f"`name`: {name!r} has values of shape {values.shape[1:]}, and not one for "
            "each layer."
        )
    axes = axes_or_new(axes)
    for k, line in enumerate(values.T, start=1):
        axes.plot(ts, line, label=f"layer {k}")
    if yscale is None:
        known = values[np.isfinite(values)]
        wide = known.size > 0 and known.min() > 0 and known.max() > 10 * known.min()
        yscale = "log" if wide else "linear"
    axes.set(xlabel="flow time $t$", ylabel=ylabel or name, yscale=yscale)
    legend(axes)
    return axes
