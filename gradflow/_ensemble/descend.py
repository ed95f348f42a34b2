"""Gradient descent of many networks."""

from collections.abc import Sequence
from typing import Any

import optax

from .._check import check_precision
from .._descend import descent_of
from .._network import AbstractNetwork
from .._problem import Problem
from .._types import RealScalarLike
from .arguments import check_alike, for_each, parameters
from .ensemble import Ensemble
from .run import OnEnd, run_ensemble

_OF_EACH = {"flow", "sampler", "learning_rate"}


def descend_ensemble(
    problem: Problem | Sequence[Problem],
    optimiser: optax.GradientTransformation
    | RealScalarLike
    | Sequence[RealScalarLike]
    | Any,
    network: AbstractNetwork | Sequence[AbstractNetwork],
    steps: int,
    *,
    lanes: int | None = None,
    workers: int | None = None,
    throw: bool = False,
    progress: bool = False,
    on_end: OnEnd | None = None,
    **options: Any,
) -> Ensemble:
    """Gradient descent of many members: what [`gradflow.solve_ensemble`][] is to
    `solve`, for [`gradflow.descend`][].

    **Arguments:**

    - `problem`, `optimiser`, `network`: as in `descend`, one for all members or a list
        with one for each; of optimisers only learning rates may be a list.
    - `steps`: the number of steps of each.
    - `options`: the other arguments of `descend`. `flow`, `sampler` and `learning_rate`
        may be lists.
    - `lanes`, `workers`, `throw`, `progress`, `on_end`: as in `solve_ensemble`.

    **Returns:** a [`gradflow.Ensemble`][].

    **Raises:** `ValueError` for arguments that do not fit, or members that differ in
    more than values; `SolveError` for failed runs with `throw`.
    """
    given = {"problem": problem, "optimiser": optimiser, "network": network}
    given |= {name: x for name, x in options.items() if name in _OF_EACH}
    arguments = for_each(given)
    made = [descent_of(**{**options, **own, "steps": steps}) for own in arguments]
    descents, names = zip(*made, strict=True)
    networks = [descent.network for descent in descents]
    check_precision(networks[0].weights[0].dtype)
    for name in ("problem", "optimiser", "network", "flow", "sampler"):
        parts = [getattr(descent, name) for descent in descents]
        check_alike(name, [own.get(name) for own in arguments], parts)
    return run_ensemble(
        descents,
        networks,
        names[0],
        parameters(given),
        lanes=lanes,
        workers=workers,
        throw=throw,
        progress=progress,
        on_end=on_end,
    )
