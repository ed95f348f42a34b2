"""The Hessian at the end of a run."""

import equinox as eqx
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._flow import AbstractFlow, GradientFlow
from .._network import AbstractNetwork, BatchNorm, Conv, Identity
from .._problem import Problem
from ..analysis import (
    SpectralDensity,
    flat_directions,
    hessian_eigenvalues,
    num_near_zero,
    spectral_density,
)
from .row import Row

# Up to which a dense matrix takes no time.
_DENSE = 500


def measure_spectrum(
    problem: Problem, flow: AbstractFlow, network: AbstractNetwork
) -> tuple[Float[Array, " P"] | SpectralDensity, list[Row]]:
    """The eigenvalues, or their density for networks that are not small, and the rows
    of the table."""
    size = ravel_pytree(flow.init(network))[0].size
    if size <= _DENSE:
        spectrum = _all(problem, flow, network)
        points = np.asarray(spectrum)
        zeros = np.asarray(num_near_zero(spectrum))
    else:
        spectrum = _density(problem, flow, network)
        points = np.asarray(spectrum.points)
        zeros = np.asarray(spectrum.num_near_zero()[0])
    points = points[np.isfinite(points)]
    # Nothing is where the weights have become too large.
    smallest, largest = (points.min(), points.max()) if points.size else (np.nan,) * 2
    rows = [
        Row("hessian_smallest", "smallest eigenvalue", smallest, "≥ 0 at a minimum"),
        Row("hessian_largest", "largest, sharpness", largest),
        Row(
            "hessian_zeros",
            "zero eigenvalues",
            zeros,
            _expected(problem, flow, network),
        ),
    ]
    return spectrum, rows


def _expected(
    problem: Problem, flow: AbstractFlow, network: AbstractNetwork
) -> str | None:
    is_known = not isinstance(network, BatchNorm) and not (
        isinstance(network, Conv) and isinstance(network.activation, Identity)
    )
    if not isinstance(flow, GradientFlow) or not is_known:
        return None
    counts = flat_directions(problem, network, flow.weight_decay)
    return f"≥ {int(counts.symmetry)} at a minimum"


@eqx.filter_jit
def _all(problem: Problem, flow: AbstractFlow, network: AbstractNetwork):
    return hessian_eigenvalues(problem, network, flow=flow)


@eqx.filter_jit
def _density(problem: Problem, flow: AbstractFlow, network: AbstractNetwork):
    return spectral_density(problem, network, flow=flow)
