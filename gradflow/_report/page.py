"""The figure of a report: one page."""

import matplotlib.pyplot as plt
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from .. import plot
from .._problem import Problem
from .._trajectory import Trajectory
from ..analysis import SpectralDensity


def draw_page(
    problem: Problem, along: Trajectory, spectrum: Float[Array, " P"] | SpectralDensity
) -> Figure:
    """Scale, margins, residuals, ranks, spectrum, collapse."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    (scale, margins, residuals), (ranks, eigenvalues, last) = panels
    plot.rho(along, axes=scale)
    if problem.dataset.regression:
        plot.layers(along, "stationarity_residual", axes=margins)
        margins.set_title("stationarity of the directions")
    else:
        networks = {"start": along[0], "end": along[-1]}
        plot.sorted_margins(problem, networks, axes=margins)
    plot.layers(
        along,
        "sample_residual",
        axes=residuals,
        ylabel=r"$\|\partial f_n/\partial V - V f_n\| \,/\, "
        r"\|\partial f_n/\partial V\|$, mean",
    )
    if residuals.get_yscale() == "linear":
        # They are sines: what is near 1 should look so.
        residuals.set_ylim(0, 1.05)
    plot.layers(along, "stable_rank", axes=ranks, ylabel="stable rank", yscale="linear")
    plot.spectrum(spectrum, axes=eigenvalues)
    if "neural_collapse" in along.observables:
        plot.neural_collapse(along, axes=last)
    else:
        plot.layers(
            along,
            "stationarity_residual",
            axes=last,
            ylabel="stationarity of the directions",
        )
    return figure
