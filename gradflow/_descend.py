"""Gradient descent: the discrete twin of a flow."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ._check import (
    check_instance,
    check_positive,
    check_positive_integer,
    check_precision,
    check_scalar,
    is_concrete,
)
from ._default_observables import as_observables
from ._descent import Descent, update
from ._flow import (
    AbstractClock,
    AbstractFlow,
    AbstractStochasticFlow,
    GradientFlow,
)
from ._network import AbstractNetwork
from ._problem import Problem
from ._process import at_once
from ._recording import page_of, record
from ._run import (
    finish,
    floats_to_arrays,
    numbers_to_arrays,
    with_end_row,
)
from ._sampler import AbstractSampler, FullBatch
from ._trajectory import Trajectory
from ._types import Observable, RealScalarLike, State
from ._until import as_conditions, describe


def descend(
    problem: Problem,
    optimiser: optax.GradientTransformation | RealScalarLike,
    network: AbstractNetwork,
    steps: int,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
    sampler: AbstractSampler = FullBatch(),  # noqa: B008
    learning_rate: RealScalarLike | None = None,
    save_steps: Any = None,
    observe: Mapping[str, Observable] | None = None,
    until: Any = None,
    progress: bool = False,
    save_networks: bool = True,
    throw: bool = True,
    path: str | os.PathLike | None = None,
    checkpoint_seconds: float | int = 10.0,
) -> Trajectory:
    r"""Gradient descent on the problem of a flow, in the flow's coordinates.

    Each step hands minus the flow's velocity to the optimiser as the gradient, adds its
    update to the state, and projects onto the flow's spheres. With plain gradient
    descent of step $h$ this is Euler's method for the flow, and step $n$ lies at flow
    time $n h$: the two trajectories can be laid over each other.

    **Main arguments:**

    - `problem`: data and loss.
    - `optimiser`: an optax optimiser, or a number: the learning rate of plain gradient
        descent.
    - `network`: where to start.
    - `steps`: the number of steps.
    - `flow`: gives coordinates, weight decay and constraints. `GradientFlow()` is
        gradient descent in the weights.
    - `sampler`: the problem that a step goes down: of all samples if not given, of a
        minibatch for [`gradflow.Minibatches`][], of noisy labels for
        [`gradflow.LabelNoise`][]. Observables and conditions are of all samples.
    - `observe`, `until`, `progress`, `save_networks`, `throw`, `path`,
        `checkpoint_seconds`: as in [`gradflow.solve`][].

    **Other arguments:**

    - `learning_rate`: only sets the clock, `ts = learning_rate * step`. Not given: the
        size of the optimiser's first update for a gradient of ones, which is the
        learning rate of plain gradient descent, of momentum and of Adam. Of a rule of
        `gradflow.rules` it is that of the optimiser inside. Give it where that is not
        the time of a step: for schedules, of which it would be the first value, for
        Nesterov's momentum, and where gradients are clipped or normalised.
    - `save_steps`: the steps to save, increasing integers from 0 to `steps`. Not given:
        101 of them, evenly spaced, or all where there are fewer.

    **Returns:** a [`gradflow.Trajectory`][]. A step that would make the state infinite
    or NaN is not taken: the run ends before it with the result `nonfinite_state`. In
    `stats`, `num_gradients` is in units of gradients of all samples: that of a batch of
    $B$ samples counts $B/N$.

    **Raises:** `ValueError` for arguments that do not fit; `SolveError` for a failed
    run with `throw`; with a `path` as `gradflow.solve`.
    """
    arguments: dict[str, Any] = {
        "problem": problem,
        "optimiser": optimiser,
        "network": network,
        "steps": steps,
        "flow": flow,
        "sampler": sampler,
        "learning_rate": learning_rate,
        "save_steps": save_steps,
        "observe": observe,
        "until": until,
        "save_networks": save_networks,
    }
    in_memory = path is None
    descent, names = descent_of(**arguments, progress=progress and in_memory)
    check_precision(network.weights[0].dtype)
    if path is not None:
        return record(
            descent,
            network,
            page_of("descend", arguments),
            path,
            names=names,
            seconds=checkpoint_seconds,
            progress=progress,
            throw=throw,
        )
    rows, end = at_once(descent)
    rows = with_end_row(rows, end, descent.row)
    return finish(rows, end, network, names=names, throw=throw)


def descent_of(
    problem: Problem,
    optimiser: optax.GradientTransformation | RealScalarLike,
    network: AbstractNetwork,
    steps: int,
    *,
    flow: AbstractFlow = GradientFlow(),  # noqa: B008
    sampler: AbstractSampler = FullBatch(),  # noqa: B008
    learning_rate: RealScalarLike | None = None,
    save_steps: Any = None,
    observe: Mapping[str, Observable] | None = None,
    until: Any = None,
    progress: bool = False,
    save_networks: bool = True,
) -> tuple[Descent, tuple[str, ...]]:
    """What `descend` runs for these arguments, and the names of the conditions.

    **Raises:** `ValueError` for arguments that do not fit.
    """
    check_instance("problem", problem, Problem)
    check_instance("flow", flow, AbstractFlow)
    check_instance("sampler", sampler, AbstractSampler)
    check_without_noise(flow)
    if isinstance(flow, AbstractClock) and not isinstance(sampler, FullBatch):
        raise ValueError(
            "`sampler`: a clock goes by the loss of all samples, which a batch does "
            f"not know. Descend the flow inside, {flow.flow}."
        )
    problem.check_start(network)
    dtype = network.weights[0].dtype
    check_positive_integer("steps", steps)
    if isinstance(optimiser, (int, float, np.number, jax.Array)):
        check_scalar("optimiser", optimiser)
        check_positive("optimiser", optimiser)
        optimiser = jnp.asarray(optimiser, dtype)
        learning_rate = optimiser if learning_rate is None else learning_rate
    elif not isinstance(optimiser, optax.GradientTransformation):
        raise ValueError(
            "`optimiser` must be an optax optimiser or a learning rate, got "
            f"{optimiser!r}."
        )
    elif learning_rate is None:
        learning_rate = _first_step_size(optimiser, flow.init(network))
    if callable(learning_rate):
        raise ValueError(
            "`learning_rate` sets the clock and is a number: a schedule belongs to the "
            "optimiser."
        )
    check_scalar("learning_rate", learning_rate)
    check_positive("learning_rate", learning_rate)
    conditions = as_conditions(until)
    names = tuple(describe(condition) for condition in conditions)
    observe = as_observables(observe, problem, flow)
    flow = numbers_to_arrays(flow, dtype)
    descent = Descent(
        problem=problem,
        flow=flow,
        sampler=floats_to_arrays(sampler, dtype),
        network=network,
        optimiser=optimiser,
        save_steps=_check_save_steps(save_steps, steps),
        steps=jnp.asarray(steps),
        learning_rate=jnp.asarray(learning_rate, dtype),
        observables=floats_to_arrays(observe, dtype),
        conditions=floats_to_arrays(conditions, dtype),
        progress=progress,
        save_networks=save_networks,
    )
    return descent, names


def check_without_noise(flow: AbstractFlow) -> None:
    """Raises a `ValueError` for a flow the steps of which would leave out its noise."""
    if isinstance(flow, AbstractStochasticFlow):
        raise ValueError(
            "`flow`: a descent has its noise from the optimiser or the sampler, as "
            "`gradflow.rules.langevin` or `gradflow.LabelNoise`, not from the flow. "
            f"Descend the flow inside, {flow.flow}."
        )


def _check_save_steps(save_steps: Any, steps: int) -> Int[Array, " T"]:
    if save_steps is None:
        save_steps = np.unique(np.linspace(0, steps, 101).astype(int))
    save_steps = np.asarray(save_steps)
    if save_steps.ndim != 1 or len(save_steps) == 0:
        raise ValueError(
            f"`save_steps` must be a vector of steps, got shape {save_steps.shape}."
        )
    if not np.issubdtype(save_steps.dtype, np.integer) or np.any(
        np.diff(save_steps) <= 0
    ):
        raise ValueError("`save_steps` must be strictly increasing integers.")
    if save_steps[0] < 0 or save_steps[-1] > steps:
        raise ValueError(
            f"`save_steps` must lie between 0 and `steps`, {steps}; got steps from "
            f"{save_steps[0]} to {save_steps[-1]}."
        )
    return jnp.asarray(save_steps)


def _first_step_size(
    optimiser: optax.GradientTransformation, state: State
) -> Float[Array, ""]:
    """The size of the first update at the origin, for a gradient of ones."""
    origin = jax.tree.map(jnp.zeros_like, state)
    ones = jax.tree.map(jnp.ones_like, state)
    optimiser = optax.with_extra_args_support(optimiser)
    try:
        # Without what `gradflow.rules` do to a step: they draw it to an anchor, keep it
        # on a sphere or add noise, none of which takes time.
        updates, _ = update(optimiser, ones, optimiser.init(origin), origin, bare=True)
    except TypeError as error:
        raise ValueError(
            "`optimiser`: its `update` needs more than gradients, state and "
            "parameters, so it cannot be used here."
        ) from error
    sizes = jnp.concatenate([-jnp.ravel(u) for u in jax.tree.leaves(updates)])
    if is_concrete(sizes) and not sizes[0] > 0:
        raise ValueError(
            "`optimiser` does not descend in its first update, which would tell the "
            "time of a step, as where a schedule warms up from 0: give that time as "
            "`learning_rate`."
        )
    if is_concrete(sizes) and not np.allclose(sizes, sizes[0], rtol=1e-3):
        raise ValueError(
            "`optimiser` does not have one learning rate for all parameters: give the "
            "time of one step as `learning_rate`."
        )
    return sizes[0]
