"""Neural collapse over time."""

import numpy as np
from matplotlib.axes import Axes

from .._trajectory import Trajectory
from ..analysis import NeuralCollapse
from ._axes import axes_or_new, legend, rows_reached


def neural_collapse(
    trajectory: Trajectory,
    *,
    name: str = "neural_collapse",
    axes: Axes | None = None,
) -> Axes:
    """Draws how the features of the last hidden layer collapse: NC1, NC2 (the distance
    of the class means from a simplex), NC3 (the product form) and NC4; without those
    that are zero all along, as NC2 and NC3 are for two classes.

    **Arguments:**

    - `trajectory`: with an observable that is a [`gradflow.analysis.NeuralCollapse`][].
    - `name`: of the observable.
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.

    **Raises:** `ValueError` where the trajectory does not have it, or holds several
    runs.
    """
    collapse = trajectory.observables.get(name)
    if not isinstance(collapse, NeuralCollapse):
        raise ValueError(
            f"`trajectory` has no observable {name!r} that is a `NeuralCollapse`: add "
            "`gf.analysis.neural_collapse` to `observe` when solving, or use "
            "`gf.observe`."
        )
    reached = rows_reached(trajectory)
    ts = np.asarray(trajectory.ts)
    axes = axes_or_new(axes)
    lines = {
        "NC1": collapse.nc1[:, -1],
        "NC2": collapse.nc2_simplex[:, -1],
        "NC3": collapse.nc3_product,
        "NC4": collapse.nc4[:, -1],
    }
    for label, values in lines.items():
        values = np.asarray(values)[reached]
        # Nothing on a logarithmic axis stands for 0 or infinity.
        values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        if np.any(values > _ROUNDING * np.finfo(values.dtype).eps):
            axes.plot(ts[reached], values, label=label)
    axes.set(xlabel="flow time $t$", ylabel="collapse of the features", yscale="log")
    legend(axes)
    return axes


# In rounding units.
_ROUNDING = 1e3
