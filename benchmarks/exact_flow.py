"""The problem of sliding units, and what its exact flow is.

Lagrange flow with λ = 0.1 of 65-32-32-1 networks on 20 digits, from ρ = 0.1.
"""

from collections.abc import Sequence
from functools import cache

import filippov
import jax.numpy as jnp
import numpy as np
from common import dense, digits, polar_vector

import gradflow as gf

PROBLEM = digits(20)
WEIGHT_DECAY = 0.1
FLOW = gf.LagrangeFlow(WEIGHT_DECAY)


@cache
def start(seed: int) -> gf.Dense:
    """The network from which the flow starts."""
    return dense(seed, (32, 32))


def reference(network: gf.Dense, times: Sequence[float]) -> list[gf.Dense]:
    """The networks of Filippov's solution (`filippov.py`) at `times`, with hidden
    layers of norm 1."""
    result = filippov.integrate(
        [np.asarray(w) for w in network.weights],
        np.asarray(PROBLEM.dataset.inputs),
        np.asarray(PROBLEM.dataset.labels),
        WEIGHT_DECAY,
        times,
    )
    networks = []
    for rho, directions in result.states:
        *hidden, last = map(jnp.asarray, directions)
        networks.append(network.with_weights((*hidden, rho * last)))
    return networks


@cache
def reference_vectors(seed: int, times: tuple[float, ...]) -> list[np.ndarray]:
    """The same as vectors of ρ and the V_k, from `start(seed)`."""
    return [polar_vector(network) for network in reference(start(seed), times)]
