"""A flow and its discrete twin, one over the other."""

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .._trajectory import Trajectory
from ..analysis import relative_distance
from ._loss import loss
from ._rho import rho


def flow_against_descent(flow: Trajectory, descent: Trajectory) -> Figure:
    r"""Draws $\rho$ and the loss of both, and their distance in the weights.

    **Arguments:**

    - `flow`: the trajectory of a flow, with `rho` and `loss`.
    - `descent`: that of gradient descent, saved at the same times; both with networks.

    **Returns:** the figure.

    **Raises:** `ValueError` where the times differ or the networks were not saved.
    """
    if flow.networks is None or descent.networks is None:
        raise ValueError("`flow` and `descent` need their networks to be saved.")
    ts = np.asarray(flow.ts)
    if ts.shape != descent.ts.shape or not np.allclose(ts, descent.ts):
        raise ValueError(
            "`flow` and `descent` must be saved at the same times: give the flow "
            "`ts=descent.ts`."
        )
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 3.8), layout="constrained"
    )
    # The descent as a wide pale band below the line of the flow: both stay visible
    # where they agree.
    for draw, axes in ((rho, left), (loss, middle)):
        draw(descent, axes=axes, label="descent")
        for line in axes.lines:
            line.set(linewidth=5, alpha=0.35)
        draw(flow, axes=axes, label="flow")
    distances = jax.vmap(relative_distance)(flow.networks, descent.networks)
    # At the start the distance is 0, which a logarithmic axis does not have.
    apart = np.asarray(distances) > 0
    right.semilogy(ts[apart], distances[apart])
    right.set(
        xlabel="flow time $t$",
        ylabel=r"$\|W_{flow} - W_{descent}\| / \|W_{descent}\|$",
    )
    return figure
