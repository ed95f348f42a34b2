"""The loss over time."""

from matplotlib.axes import Axes

from .._trajectory import Trajectory
from ._axes import axes_or_new, series


def loss(
    trajectory: Trajectory, *, axes: Axes | None = None, label: str | None = None
) -> Axes:
    """Draws the loss over time, on a logarithmic scale.

    **Arguments:**

    - `trajectory`: with the observable `loss`.
    - `axes`: where to draw; a new figure if not given.
    - `label`: for the legend.

    **Returns:** the axes.
    """
    axes = axes_or_new(axes)
    axes.plot(*series(trajectory, "loss"), label=label)
    axes.set(xlabel="flow time $t$", ylabel="loss $L$", yscale="log")
    if label is not None:
        axes.legend()
    return axes
