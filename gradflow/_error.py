"""How far a run is from the true flow."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._check import is_concrete
from ._flow import AbstractFlow
from ._integrate import Settings, integrate
from ._network import AbstractNetwork, scale_kinks
from ._noise import coarser_steps
from ._problem import Problem
from ._run import Run
from .analysis import relative_distance

_COARSER = 4.0
"""By how much the second run's tolerances and kinks are coarser. Errors were seen to
grow with the power 0.75 of them, to 2.8 times as much: the distance of the two runs is
1.8 to 3.8 errors of the finer one, depending on their directions."""


def distance_from_coarser_run(
    run: Run,
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    observables: dict[str, Any],
    settings: Settings,
) -> Float[Array, " rows"]:
    """Estimates the relative distance of the saved weights from those of the true flow,
    from a second run with coarser tolerances and, unless the network's own, wider
    kinks. Infinite where one of the runs did not arrive.
    """
    if run.weights is None:
        raise ValueError("`run` has to hold the weights.")
    if is_concrete(run):
        if run.ts.shape[0] == 0 or run.t_end == settings.t0:
            return jnp.zeros_like(run.ts)
        # Possibly with a row for an early end.
        settings = dataclasses.replace(settings, ts=run.ts, t1=run.t_end)
    coarser = dataclasses.replace(
        settings,
        rtol=_COARSER * settings.rtol,
        atol=_COARSER * settings.atol,
        noise_steps=coarser_steps(settings.noise_steps),
    )
    # The same observables, though nobody looks at them: what is compiled serves twice.
    other = integrate(
        problem, flow, scale_kinks(network, _COARSER), observables, (), coarser
    )

    def distance(weights, other_weights) -> Float[Array, ""]:
        return relative_distance(
            network.with_weights(other_weights), network.with_weights(weights)
        )

    distances = jax.vmap(distance)(run.weights, other.weights)
    return jnp.where(jnp.isfinite(distances), distances, jnp.inf)
