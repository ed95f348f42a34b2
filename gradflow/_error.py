"""How far a run is from the true flow."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._check import is_concrete
from ._integration import Integration
from ._network import scale_kinks
from ._noise import coarser_steps
from ._process import End, Rows, at_once
from .analysis import relative_distance

_COARSER = 4.0
"""By how much the second run's tolerances and kinks are coarser. Errors were seen to
grow with the power 0.75 of them, to 2.8 times as much: the distance of the two runs is
1.8 to 3.8 errors of the finer one, depending on their directions."""


def distance_from_coarser_run(
    rows: Rows, end: End, integration: Integration
) -> Float[Array, " rows"]:
    """Estimates the relative distance of the saved weights from those of the true flow,
    from a second run with coarser tolerances and, unless the network's own, wider
    kinks. Infinite where one of the runs did not arrive.
    """
    if rows.weights is None:
        raise ValueError("`rows` have to hold the weights.")
    settings, network = integration.settings, integration.network
    if is_concrete((rows, end)):
        if rows.ts.shape[0] == 0 or end.t == settings.t0:
            return jnp.zeros_like(rows.ts)
        # Possibly with a row for an early end.
        settings = dataclasses.replace(settings, ts=rows.ts, t1=end.t)
    settings = dataclasses.replace(
        settings,
        rtol=_COARSER * settings.rtol,
        atol=_COARSER * settings.atol,
        noise_steps=coarser_steps(settings.noise_steps),
    )
    # The same observables, though nobody looks at them: what is compiled serves twice.
    coarser = dataclasses.replace(
        integration,
        network=scale_kinks(network, _COARSER),
        conditions=(),
        settings=settings,
    )
    other, _ = at_once(coarser)

    def distance(weights, other_weights) -> Float[Array, ""]:
        return relative_distance(
            network.with_weights(other_weights), network.with_weights(weights)
        )

    distances = jax.vmap(distance)(rows.weights, other.weights)
    return jnp.where(jnp.isfinite(distances), distances, jnp.inf)
