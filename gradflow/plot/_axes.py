"""What all figures have in common."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .._trajectory import Trajectory


def axes_or_new(axes: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    if axes is not None:
        return axes
    _, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    return axes


def series(trajectory: Trajectory, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of an observable, without the rows that were not reached.

    **Raises:** `ValueError` where the trajectory does not have it.
    """
    if name not in trajectory.observables:
        raise ValueError(
            f"`trajectory` has no observable {name!r}, only "
            f"{sorted(trajectory.observables)}. Add it to `observe` when solving."
        )
    reached = rows_reached(trajectory)
    values = np.asarray(trajectory.observables[name])
    return np.asarray(trajectory.ts)[reached], values[reached]


def rows_reached(trajectory: Trajectory) -> np.ndarray:
    """Which rows the run has reached.

    **Raises:** `ValueError` where there is more than one run.
    """
    ts = np.asarray(trajectory.ts)
    if ts.ndim != 1:
        raise ValueError("`trajectory` holds several runs: draw them one at a time.")
    return np.isfinite(ts)


def legend(axes: Axes) -> None:
    """A legend, where there is something to be named: matplotlib warns of others."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
