"""The margins of all samples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from .._network import AbstractNetwork
from .._problem import Problem
from ._axes import axes_or_new


def sorted_margins(
    problem: Problem,
    networks: AbstractNetwork | Mapping[str, AbstractNetwork],
    *,
    axes: Axes | None = None,
) -> Axes:
    r"""Draws the normalised margins $y_n f_n$ of all samples in increasing order (SQ
    figure 4, M112 figure 5).

    **Arguments:**

    - `problem`: whose samples.
    - `networks`: one network, or several with their names for the legend.
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.
    """
    axes = axes_or_new(axes)
    named = networks if isinstance(networks, Mapping) else {"": networks}
    for name, network in named.items():
        margins = np.sort(np.asarray(problem.margins(network)))
        axes.plot(np.arange(1, len(margins) + 1), margins, label=name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="samples, sorted by margin", ylabel=r"normalised margin $y_n f_n$")
    if isinstance(networks, Mapping):
        axes.legend()
    return axes
