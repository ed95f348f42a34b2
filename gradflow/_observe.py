"""Measuring along a run that is over."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp

from ._check import check_instance
from ._observables import AbstractObservable
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
    if trajectory.networks is None:
        raise ValueError(
            "`trajectory`: its networks were not saved, so nothing more can be "
            "measured: run it again with `save_networks=True`."
        )
    if trajectory.ts.ndim != 1:
        raise ValueError("`trajectory` holds several runs: use `jax.vmap`.")
    if not isinstance(observables, Mapping) or not all(
        callable(o) and not isinstance(o, type) for o in observables.values()
    ):
        raise ValueError(
            "`observables` must be a dictionary from names to functions "
            f"`fn(problem, network)`, got {observables!r}."
        )
    for name, observable in observables.items():
        if isinstance(observable, AbstractObservable):
            raise ValueError(
                f"`observables`: {name!r} is measured of a flow and its state, which a "
                "trajectory does not hold. Give it as `observe` to the run itself."
            )
    measured = _along(problem, trajectory.networks, dict(observables))
    return dataclasses.replace(
        trajectory, observables={**trajectory.observables, **measured}
    )


@eqx.filter_jit
def _along(problem, networks, observables):
    def at(weights):
        network = networks.with_weights(weights)
        values = {name: fn(problem, network) for name, fn in observables.items()}
        for name, value in values.items():
            if not jax.tree.leaves(value):
                raise ValueError(
                    f"`observables`: {name!r} returns {value!r}, not an array."
                )
        return jax.tree.map(jnp.asarray, values)

    return jax.lax.map(at, networks.weights)
