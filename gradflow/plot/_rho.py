"""The scale of the network over time."""

from matplotlib.axes import Axes

from .._trajectory import Trajectory
from ._axes import axes_or_new, series


def rho(
    trajectory: Trajectory, *, axes: Axes | None = None, label: str | None = None
) -> Axes:
    r"""Draws $\rho(t)$ and, where it was observed, $\rho_{eq}(t)$.

    **Arguments:**

    - `trajectory`: with the observable `rho`, and perhaps `rho_eq`.
    - `axes`: where to draw; a new figure if not given.
    - `label`: put before the symbols in the legend, to tell several runs apart.

    **Returns:** the axes.
    """
    axes = axes_or_new(axes)
    prefix = "" if label is None else f"{label}: "
    (line,) = axes.plot(*series(trajectory, "rho"), label=rf"{prefix}$\rho$")
    if "rho_eq" in trajectory.observables:
        axes.plot(
            *series(trajectory, "rho_eq"),
            linestyle="--",
            color=line.get_color(),
            label=rf"{prefix}$\rho_{{eq}}$",
        )
    axes.set(xlabel="flow time $t$", ylabel=r"$\rho$, product of the layers' norms")
    axes.legend()
    return axes
