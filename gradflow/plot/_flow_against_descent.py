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
    rho(flow, axes=left, label="flow")
    rho(descent, axes=left, label="descent")
    for line in left.lines[-2:]:
        line.set(linewidth=3, alpha=0.4)
    left.legend()
    loss(flow, axes=middle, label="flow")
    loss(descent, axes=middle, label="descent")
    middle.lines[-1].set(linewidth=3, alpha=0.4)
    middle.legend()
    distances = jax.vmap(relative_distance)(flow.networks, descent.networks)
    # At the start the distance is 0, which a logarithmic axis does not have.
    apart = np.asarray(distances) > 0
    right.semilogy(ts[apart], distances[apart])
    right.set(
        xlabel="flow time $t$",
        ylabel=r"$\|W_{flow} - W_{descent}\| / \|W_{descent}\|$",
    )
    return figure
