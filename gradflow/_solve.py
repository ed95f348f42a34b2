"""Integration of a flow."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._check import (
    check_finite,
    check_instance,
    check_positive,
    check_precision,
    check_scalar,
    is_concrete,
)
from ._default_observables import as_observables
from ._error import distance_from_coarser_run
from ._flow import AbstractFlow, AbstractStochasticFlow, MomentumFlow
from ._integration import Integration
from ._network import AbstractNetwork, has_kinks, regularise
from ._noise import steps_of_noise
from ._problem import Problem
from ._process import at_once
from ._recording import page_of, record
from ._run import (
    finish,
    floats_to_arrays,
    numbers_to_arrays,
    with_end_row,
)
from ._settings import Settings
from ._solver import RKC, RKC3, AbstractStabilised, has_forced_floor
from ._trajectory import Trajectory
from ._types import Observable, RealScalarLike
from ._until import as_conditions, describe


def solve(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    t1: RealScalarLike,
    *,
    t0: RealScalarLike = 0.0,
    ts: Any = None,
    rtol: RealScalarLike = 1e-4,
    atol: RealScalarLike | None = None,
    smoothing: RealScalarLike | None = None,
    observe: Mapping[str, Observable] | None = None,
    until: Any = None,
    error: bool = False,
    progress: bool = False,
    save_networks: bool = True,
    throw: bool = True,
    path: str | os.PathLike | None = None,
    checkpoint_seconds: float | int = 10.0,
    max_steps: int = 1_000_000,
    max_defect: RealScalarLike = 1e-3,
    solver: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: RealScalarLike | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Trajectory:
    """Integrates a flow from a network at time `t0` to time `t1`.

    **Main arguments:**

    - `problem`: data and loss.
    - `flow`: for example `GradientFlow()` or `LagrangeFlow(weight_decay=0.1)`.
    - `network`: where to start.
    - `t1`: the final time.
    - `ts`: the times to save, of shape `(T,)`, in increasing order, from `t0` to `t1`.
        Not given: 101 times, evenly spaced, or denser at the start where a clock asks
        for that.
    - `rtol`: the relative tolerance of each step, layer by layer: relative to the
        layer's norm, or to three times the way that it has come from the start, if that
        is less. Everything else follows from it. The error of a run is proportional to
        it: below 1e-4 that takes smaller steps of second-order methods.
    - `smoothing`: the relative width with which the kinks of an exact ReLU network are
        smoothed, as in `ReLU(smoothing=...)`; 0 for none: then a run in which units
        slide along their kinks ends as `chattering`. Not given: `3 * rtol`. The
        networks of the trajectory are the smoothed ones, and `stats["smoothing"]` says
        the width. A network that is smoothed already is left as it is.
    - `observe`: a dictionary of functions `fn(problem, network)`, each returning an
        array, that are computed at the saved times. Not given:
        `gradflow.default_observables(problem, flow)`.
    - `until`: a condition or several, such as `Stationary(1e-6)` or a function
        `fn(problem, network) -> bool`: the run stops after the first step at whose end
        one is met.
    - `error`: whether to estimate how far the saved networks are from the true flow, as
        `trajectory.error`; under noise, from the true path of the same noise. It takes
        a second, coarser run: about half as many gradients again.
    - `progress`: shows a progress bar.
    - `path`: a folder of the run's own. What is saved goes there while the run goes on,
        and with it, every now and then, all that is needed to go on from there: with
        [`gradflow.resume`][], or with the same call. Where the run has ended already,
        its trajectory is read. No pause changes a bit of what comes out.

    **Other arguments:**

    - `t0`: the initial time.
    - `atol`: an absolute tolerance of each layer's norm, beside the relative one; 0 if
        not given.
    - `save_networks`: whether to save the networks at `ts`, or only the observables.
    - `throw`: whether a failure raises a `SolveError`, which carries what was computed,
        or is to be found in `trajectory.result`.
    - `checkpoint_seconds`: how much time to lose at most where a run with a `path` is
        killed. Checkpoints that take long are made less often, so that they take 2 % of
        the time.
    - `max_steps`: the number of steps after which to give up. A run of a stabilised
        solver that can only end at `t1` gives up, too, as `too_stiff`, once it is bound
        to take more than 100 times as many gradients.
    - `max_defect`: the distance from the spheres at which to give up. Only a flow that
        is not projected, the raw Lagrange flow, can come that far.
    - `solver`: a diffrax solver. Not given: [`gradflow.RKC`][] for exact ReLU networks,
        [`gradflow.RKC3`][] for others; `diffrax.Tsit5` for momentum, `diffrax.SPaRK`
        for noise. A run of another solver that steps over smoothed kinks again and
        again ends as `chattering`, but for noise.
    - `controller`: a diffrax step size controller. Not given: a PI controller with
        `rtol` and `atol` for the norms of the layers. A `PIDController` with a `dtmin`
        needs `force_dtmin=False`. Under noise its steps are shortened to halves of
        halves of the times between `ts`.
    - `dt0`: the first step, chosen by the controller if not given.
    - `adjoint`: how to differentiate through the solution, a diffrax adjoint. Not
        given: `RecursiveCheckpointAdjoint()`.

    **Returns:** a [`gradflow.Trajectory`][]. The flow's `project` is applied inside
    every step; `stats["max_drift"]` is the largest distance from the spheres before
    that. `stats["num_gradients"]` counts the solver's evaluations of the field in all
    steps, with two for each Jacobian-vector product, and not those made by observables
    and conditions; `None` for implicit solvers. By default `stats["spectral_radius"]`
    is the last estimate of the sharpness.

    **Raises:** `ValueError` for arguments that do not fit; `SolveError` as above; with
    a `path`, `OSError` where it cannot be written, `ValueError` where it holds
    something else or is damaged, and `RunInterrupted`, a `KeyboardInterrupt`, where the
    user has stopped the run: it carries the `trajectory` up to there.
    """
    if error and controller is not None:
        raise ValueError(
            "`error` takes a second run with other tolerances, and cannot change those "
            "of `controller`: leave that out, or compare two runs of your own."
        )
    arguments: dict[str, Any] = {
        "problem": problem,
        "flow": flow,
        "network": network,
        "t1": t1,
        "t0": t0,
        "ts": ts,
        "rtol": rtol,
        "atol": atol,
        "smoothing": smoothing,
        "observe": observe,
        "until": until,
        "save_networks": save_networks or error,
        "max_steps": max_steps,
        "max_defect": max_defect,
        "solver": solver,
        "controller": controller,
        "dt0": dt0,
        "adjoint": adjoint,
    }
    in_memory = path is None
    integration, network, names = integration_of(
        **arguments, progress=progress and in_memory
    )
    check_precision(network.weights[0].dtype, rtol)
    if path is not None:
        if error:
            raise ValueError(
                "`error` takes a second run in memory: leave it out where there is a "
                "`path`, or compare two runs of your own."
            )
        page = page_of("solve", arguments)
        return record(
            integration,
            network,
            page,
            path,
            names=names,
            seconds=checkpoint_seconds,
            progress=progress,
            throw=throw,
        )
    rows, end = at_once(integration)
    rows = with_end_row(rows, end, integration.row)
    estimate = None
    if error:
        estimate = distance_from_coarser_run(rows, end, integration)
        if not save_networks:
            rows = dataclasses.replace(rows, weights=None)
    return finish(rows, end, network, names=names, throw=throw, error=estimate)


def integration_of(
    problem: Problem,
    flow: AbstractFlow,
    network: AbstractNetwork,
    t1: RealScalarLike,
    *,
    t0: RealScalarLike = 0.0,
    ts: Any = None,
    rtol: RealScalarLike = 1e-4,
    atol: RealScalarLike | None = None,
    smoothing: RealScalarLike | None = None,
    observe: Mapping[str, Observable] | None = None,
    until: Any = None,
    progress: bool = False,
    save_networks: bool = True,
    max_steps: int = 1_000_000,
    max_defect: RealScalarLike = 1e-3,
    solver: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    dt0: RealScalarLike | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> tuple[Integration, AbstractNetwork, tuple[str, ...]]:
    """What `solve` runs for these arguments, the network whose weights the trajectory's
    networks replace, and the names of the conditions.

    **Raises:** `ValueError` for arguments that do not fit.
    """
    check_instance("problem", problem, Problem)
    check_instance("flow", flow, AbstractFlow)
    problem.check_start(network)
    dtype = network.weights[0].dtype
    t0, t1, ts = _check_times(flow, t0, t1, ts, dtype)
    check_positive("rtol", rtol)
    # For what is zero and stays so.
    atol = float(jnp.finfo(dtype).tiny) if atol is None else atol
    check_positive("atol", atol)
    check_positive("max_defect", max_defect)
    if dt0 is not None:
        check_positive("dt0", dt0)
    if controller is not None and has_forced_floor(controller):
        raise ValueError(
            "`controller` accepts steps of any error at its smallest size, `dtmin`: "
            "give it `force_dtmin=False`, and the run ends where the steps collapse."
        )
    if max_steps < 1:
        raise ValueError(f"`max_steps` must be at least 1, got {max_steps}.")
    if solver is None:
        solver = _default_solver(flow, network)
    else:
        _check_solver(flow, solver)
    given = network
    adjustable, network = regularise(network, smoothing, default=3 * rtol)
    conditions = as_conditions(until)
    names = tuple(describe(condition) for condition in conditions)
    observe = as_observables(observe, problem, flow)
    flow = numbers_to_arrays(flow, dtype)
    noise_steps = None
    if isinstance(flow, AbstractStochasticFlow):
        times = jnp.concatenate([t0[None], ts, t1[None]])
        # Without smoothing, so that the noise is the same at every tolerance.
        noise_steps = steps_of_noise(times, problem, flow, given)

    def array(x: RealScalarLike) -> Float[Array, ""]:
        return jnp.asarray(x, dtype)

    settings = Settings(
        t0=t0,
        t1=t1,
        ts=ts,
        dt0=None if dt0 is None else array(dt0),
        rtol=array(rtol),
        atol=array(atol),
        max_defect=array(max_defect),
        solver=_for_adjoint(solver, adjoint),
        controller=controller,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=max_steps,
        progress=progress,
        save_networks=save_networks,
        noise_steps=noise_steps,
    )
    integration = Integration(
        problem=problem,
        flow=flow,
        network=adjustable,
        observables=floats_to_arrays(observe, dtype),
        conditions=floats_to_arrays(conditions, dtype),
        settings=settings,
    )
    return integration, network, names


def _default_solver(
    flow: AbstractFlow, network: AbstractNetwork
) -> diffrax.AbstractSolver:
    if isinstance(flow, AbstractStochasticFlow):
        return diffrax.SPaRK()
    if isinstance(flow, MomentumFlow):
        # Stabilised methods are for spectra without imaginary parts.
        return diffrax.Tsit5()
    # Across kinks no method keeps its order, and the second is the cheaper one.
    return RKC() if has_kinks(network) else RKC3()


def _check_solver(flow: AbstractFlow, solver: diffrax.AbstractSolver) -> None:
    check_instance("solver", solver, diffrax.AbstractSolver)
    if isinstance(flow, AbstractStochasticFlow) and not isinstance(
        solver, diffrax.AbstractStratonovichSolver
    ):
        raise ValueError(
            "`solver` must be one for noise in the sense of Stratonovich, such as "
            f"`diffrax.SPaRK()`, got {solver}."
        )


def _for_adjoint(
    solver: diffrax.AbstractSolver, adjoint: diffrax.AbstractAdjoint | None
) -> diffrax.AbstractSolver:
    """Chooses the loop over the stages that the adjoint can differentiate, which
    diffrax does for its own solvers only."""
    kinds = {diffrax.ForwardMode: "lax", diffrax.DirectAdjoint: "bounded"}
    kind: Any = kinds.get(type(adjoint))  # pyright: ignore
    is_open = isinstance(solver, AbstractStabilised) and solver.scan_kind is None
    if is_open and kind is not None:
        return dataclasses.replace(solver, scan_kind=kind)
    return solver


def _check_times(flow, t0, t1, ts, dtype):
    check_scalar("t0", t0)
    check_scalar("t1", t1)
    check_finite("t0", t0)
    check_finite("t1", t1)
    if is_concrete((t0, t1)) and not t1 > t0:
        raise ValueError(f"`t1` must be later than `t0`, got {t1} and {t0}.")
    t0, t1 = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    if ts is None:
        return t0, t1, flow.save_times(t0, t1)
    ts = jnp.asarray(ts, dtype)
    if ts.ndim != 1 or ts.shape[0] == 0:
        raise ValueError(f"`ts` must be a vector of times, got shape {ts.shape}.")
    if is_concrete((t0, t1, ts)):
        if not np.all(np.isfinite(ts)) or np.any(np.diff(ts) <= 0):
            raise ValueError("`ts` must be finite and strictly increasing.")
        if ts[0] < t0 or ts[-1] > t1:
            raise ValueError(
                f"`ts` must lie between `t0` and `t1`, {t0} and {t1}; got times from "
                f"{ts[0]} to {ts[-1]}."
            )
    return t0, t1, ts
