"""The Hessian at the end of a run."""

import equinox as eqx
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._flow import AbstractFlow, GradientFlow
from .._network import AbstractNetwork, Conv
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
        finite = np.asarray(spectrum)[np.isfinite(spectrum)]
        smallest, largest = finite[0], finite[-1]
        zeros = np.asarray(num_near_zero(spectrum))
    else:
        spectrum = _density(problem, flow, network)
        points = np.asarray(spectrum.points)[np.isfinite(spectrum.points)]
        smallest, largest = np.min(points), np.max(points)
        zeros = np.asarray(spectrum.num_near_zero()[0])
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
    if not isinstance(flow, GradientFlow) or isinstance(network, Conv):
        return None
    counts = flat_directions(problem, network, flow.weight_decay)
    return f"≥ {int(counts.symmetry)} by symmetry"


@eqx.filter_jit
def _all(problem: Problem, flow: AbstractFlow, network: AbstractNetwork):
    return hessian_eigenvalues(problem, network, flow=flow)


@eqx.filter_jit
def _density(problem: Problem, flow: AbstractFlow, network: AbstractNetwork):
    return spectral_density(problem, network, flow=flow)
