"""The eigenvalues of a Hessian."""

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes

from ..analysis import SpectralDensity
from ._axes import axes_or_new, legend


def spectrum(
    eigenvalues: Float[Array, " P"] | SpectralDensity, *, axes: Axes | None = None
) -> Axes:
    r"""Draws how many eigenvalues there are of each size, negative ones apart.

    Both axes are logarithmic; what is smaller than $10^{-8}$ of the largest counts as
    zero, in a bar of its own.

    **Arguments:**

    - `eigenvalues`: from [`gradflow.analysis.hessian_eigenvalues`][] or
        [`gradflow.analysis.spectral_density`][].
    - `axes`: where to draw; a new figure if not given.

    **Returns:** the axes.
    """
    axes = axes_or_new(axes)
    if isinstance(eigenvalues, SpectralDensity):
        values = np.asarray(eigenvalues.points).ravel()
        counts = np.asarray(eigenvalues.weights).ravel()
        counts = counts / len(eigenvalues.points)
    else:
        values = np.asarray(eigenvalues)
        counts = np.ones_like(values)
    values, counts = values[np.isfinite(values)], counts[np.isfinite(values)]
    sizes = np.abs(values)
    largest = np.max(sizes, initial=np.finfo(float).tiny)
    zero = sizes <= _ZERO * largest
    edges = largest * np.logspace(np.log10(_ZERO), 0, 41)
    edges[-1] *= 1 + 1e-12
    for sign, label in ((1, "positive"), (-1, "negative")):
        chosen = ~zero & (np.sign(values) == sign)
        if chosen.any():
            axes.hist(
                sizes[chosen], edges, weights=counts[chosen], label=label, alpha=0.7
            )
    if zero.any():
        lowest = edges[0]
        axes.bar(
            lowest / 10,
            np.sum(counts[zero]),
            width=0.12 * lowest,
            color="0.6",
            label="zero",
        )
    axes.set(
        xscale="log",
        yscale="log",
        # Fractions of an eigenvalue come from the quadrature.
        ylim=(0.3, None),
        xlabel=r"eigenvalue of the Hessian, $|\lambda|$",
        ylabel="number",
    )
    legend(axes)
    return axes


_ZERO = float(np.sqrt(np.finfo(float).eps))
