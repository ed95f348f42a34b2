"""Measuring along a run that is over."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp

from ._check import check_instance
from ._observables import AbstractObservable, check_measured, check_observables
from ._problem import Problem
from ._trajectory import Trajectory
from ._types import Observable


def observe(
    problem: Problem, trajectory: Trajectory, observables: Mapping[str, Observable]
) -> Trajectory:
    """Measures along the saved networks of a trajectory.

    **Arguments:**

    - `problem`: data and loss, those of the run or others: of test data, say.
    - `trajectory`: with its networks.
    - `observables`: a dictionary of functions `fn(problem, network)`.

    **Returns:** the trajectory with these observables beside those that it had, which
    they replace where names are the same.

    **Raises:** `ValueError` where the networks were not saved, for anything but a
    dictionary of functions, and for observables of a flow's state, such as
    `NormDefect()`.
    """
    check_instance("problem", problem, Problem)
    check_instance("trajectory", trajectory, Trajectory)
    networks = trajectory.require_networks()
    if trajectory.ts.ndim != 1:
        raise ValueError("`trajectory` holds several runs: use `jax.vmap`.")
    check_observables("observables", observables)
    for name, observable in observables.items():
        if isinstance(observable, AbstractObservable):
            raise ValueError(
                f"`observables`: {name!r} is measured of a flow and its state, which a "
                "trajectory does not hold. Give it as `observe` to the run itself."
            )
    measured = _along(problem, networks, dict(observables))
    return dataclasses.replace(
        trajectory, observables={**trajectory.observables, **measured}
    )


@eqx.filter_jit
def _along(problem, networks, observables):
    def at(weights):
        network = networks.with_weights(weights)
        values = {name: fn(problem, network) for name, fn in observables.items()}
        check_measured("observables", values)
        return jax.tree.map(jnp.asarray, values)

    return jax.lax.map(at, networks.weights)
