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
    ts = np.asarray(trajectory.ts)
    if ts.ndim != 1:
        raise ValueError("`trajectory` holds several runs: draw them one at a time.")
    reached = np.isfinite(ts)
    return ts[reached], np.asarray(trajectory.observables[name])[reached]
