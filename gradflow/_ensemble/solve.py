"""Integration of many flows."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from .._check import check_precision
from .._flow import AbstractFlow
from .._network import AbstractNetwork
from .._problem import Problem
from .._solve import integration_of
from .._types import RealScalarLike
from .arguments import check_alike, for_each, parameters
from .ensemble import Ensemble
from .run import OnEnd, run_ensemble

_OF_SETTINGS = {"t0", "rtol", "atol", "max_defect", "dt0"}


def solve_ensemble(
    problem: Problem | Sequence[Problem],
    flow: AbstractFlow | Sequence[AbstractFlow],
    network: AbstractNetwork | Sequence[AbstractNetwork],
    t1: RealScalarLike | Sequence[RealScalarLike] | Any,
    *,
    lanes: int | None = None,
    workers: int | None = None,
    throw: bool = False,
    progress: bool = False,
    on_end: OnEnd | None = None,
    **options: Any,
) -> Ensemble:
    """Integrates many flows that differ in values: in seeds, weight decays, initial
    norms or data. Compiled once, and each as good as alone.

    **Main arguments:**

    - `problem`, `flow`, `network`, `t1`: as in [`gradflow.solve`][], one for all
        members of the ensemble or a list with one for each. Lists are of the same
        length; a product of two is for the caller to write out.
    - `options`: the other arguments of `solve`, but for `error` and `adjoint`. `t0`,
        `rtol`, `atol`, `smoothing`, `max_defect` and `dt0` may be lists.
    - `throw`: whether failures of members raise a `SolveError`, with the whole ensemble
        as its `trajectory`, when all have ended. Else a warning names them.
    - `progress`: shows a progress bar of the members that have ended.
    - `on_end`: a function `fn(i, trajectory)` that is called as a member ends, to keep
        it whatever happens to the others: `lambda i, run: run.save(f"{i}.npz")`.

    **Other arguments:**

    - `lanes`: how many members one program takes along at once, step by step. One that
        has ended makes room for the next. Not given: 64 on accelerators; 1 on CPUs,
        where more take longer.
    - `workers`: how many threads do that at the same time. Not given: one for each core
        of a CPU, 1 on accelerators. JAX's context managers, such as `jax.enable_x64()`,
        do not reach other threads: give 1 inside of them.

    Neither changes more than rounding does.

    **Returns:** a [`gradflow.Ensemble`][].

    **Raises:** `ValueError` for arguments that do not fit, or members that differ in
    more than values, such as widths or numbers of samples; `SolveError` as above.
    """
    given = {"problem": problem, "flow": flow, "network": network, "t1": t1}
    of_each = {"smoothing", *_OF_SETTINGS}
    given |= {name: x for name, x in options.items() if name in of_each}
    arguments = for_each(given)
    made = [integration_of(**{**options, **own}) for own in arguments]
    integrations, networks, names = zip(*made, strict=True)
    settings = [integration.settings for integration in integrations]
    finest = jnp.min(jnp.stack([s.rtol for s in settings]))
    check_precision(networks[0].weights[0].dtype, finest)
    for name in ("problem", "flow", "network"):
        parts = [getattr(integration, name) for integration in integrations]
        check_alike(name, [own[name] for own in arguments], parts)
    for name in _OF_SETTINGS & given.keys():
        parts = [getattr(s, name) for s in settings]
        check_alike(name, [own[name] for own in arguments], parts)
    return run_ensemble(
        integrations,
        networks,
        names[0],
        parameters(given),
        lanes=lanes,
        workers=workers,
        throw=throw,
        progress=progress,
        on_end=on_end,
    )
