"""Gradient descent: the discrete twin of a flow."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._check import (
    check_instance,
    check_positive,
    check_positive_integer,
    check_precision,
    check_scalar,
    is_concrete,
)
from ._default_observables import as_observables
from ._flow import (
    AbstractClock,
    AbstractFlow,
    AbstractStochasticFlow,
    GradientFlow,
)
from ._network import AbstractNetwork
from ._observables import Point, measure
from ._problem import Problem
from ._results import RESULTS
from ._run import (
    Run,
    finish,
    floats_to_arrays,
    measure_row,
    numbers_to_arrays,
    with_end_row,
)
from ._sampler import AbstractSampler, FullBatch
from ._trajectory import Trajectory
from ._tree import tree_isfinite
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
    - `observe`, `until`, `progress`, `save_networks`, `throw`: as in
        [`gradflow.solve`][].

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
    run with `throw`.
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
    problem.check(network)
    dtype = network.weights[0].dtype
    check_precision(dtype)
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
    names = [describe(condition) for condition in conditions]
    observe = as_observables(observe, problem, flow)
    flow = numbers_to_arrays(flow, dtype)
    observables = floats_to_arrays(observe, dtype)
    run = _descend(
        problem,
        flow,
        floats_to_arrays(sampler, dtype),
        network,
        optimiser,
        _check_save_steps(save_steps, steps),
        jnp.asarray(steps),
        jnp.asarray(learning_rate, dtype),
        observables,
        floats_to_arrays(conditions, dtype),
        progress,
        save_networks,
    )
    run = with_end_row(
        run,
        lambda t, state: measure_row(
            problem, flow, network, observables, save_networks, t, state
        ),
    )
    return finish(run, network, names=names, throw=throw)


def check_without_noise(flow: AbstractFlow) -> None:
    """Raises a `ValueError` for a flow the steps of which would leave out its noise."""
    if isinstance(flow, AbstractStochasticFlow):
        raise ValueError(
            "`flow`: a descent has its noise from the optimiser or the sampler, as "
            "`gradflow.rules.langevin` or `gradflow.LabelNoise`, not from the flow. "
            f"Descend the flow inside, {flow.flow}."
        )


class _Carry(eqx.Module):
    """Where the descent is between two steps."""

    step: Int[Array, ""]
    state: State
    optimiser_state: PyTree
    sampler_state: PyTree
    is_finite: Bool[Array, ""]
    conditions_met: tuple[Bool[Array, ""], ...]

    def has_ended(self) -> Bool[Array, ""]:
        return ~self.is_finite | jnp.any(jnp.array((False, *self.conditions_met)))


@eqx.filter_jit
def _descend(
    problem: Problem,
    flow: AbstractFlow,
    sampler: AbstractSampler,
    network: AbstractNetwork,
    optimiser: optax.GradientTransformation | Float[Array, ""],
    save_steps: Int[Array, " T"],
    steps: Int[Array, ""],
    learning_rate: Float[Array, ""],
    observables: dict[str, Any],
    conditions: tuple[Any, ...],
    progress: bool,
    save_networks: bool,
) -> Run:
    if not isinstance(optimiser, optax.GradientTransformation):
        optimiser = optax.sgd(optimiser)

    def time_of(step: Int[Array, ""]) -> Float[Array, ""]:
        return step.astype(learning_rate.dtype) * learning_rate

    def check_conditions(step, state) -> tuple[Bool[Array, ""], ...]:
        point = Point(
            problem, flow, time_of(step), state, flow.to_network(state, network)
        )
        return tuple(jnp.asarray(measure(c, point), bool) for c in conditions)

    def take_step(carry: _Carry) -> _Carry:
        t = time_of(carry.step)
        batch, sampler_state = sampler.sample(problem, carry.sampler_state)
        velocity = flow.vector_field(t, carry.state, batch, network)
        gradient = jax.tree.map(jnp.negative, velocity)
        updates, optimiser_state = _update(
            optimiser, gradient, carry.optimiser_state, carry.state
        )
        state = flow.project(optax.apply_updates(carry.state, updates))
        return _Carry(
            carry.step + 1,
            state,
            optimiser_state,
            sampler_state,
            carry.is_finite,
            check_conditions(carry.step + 1, state),
        )

    def take_finite_step(carry: _Carry) -> _Carry:
        after = take_step(carry)
        stays = dataclasses.replace(carry, is_finite=jnp.array(False))
        return _choose(tree_isfinite(after.state), after, stays)

    def advance(carry: _Carry, target: Int[Array, ""], one_step: Callable) -> _Carry:
        return eqxi.while_loop(
            lambda c: (c.step < target) & ~c.has_ended(),
            one_step,
            carry,
            kind="checkpointed",
            checkpoints=_CHECKPOINTS,
        )

    def advance_and_save(carry_and_meter, row):
        carry, meter_state = carry_and_meter
        target, is_first = row
        step_before = carry.step
        # What is infinite or NaN stays so. To look in each step would take as long as a
        # good part of one, so the steps up to a failure are taken twice instead.
        ahead = advance(carry, target, take_step)
        carry = _choose(tree_isfinite(ahead.state), ahead, carry)
        carry = advance(carry, target, take_finite_step)
        t = time_of(carry.step)
        log_t, weights, values = measure_row(
            problem, flow, network, observables, save_networks, t, carry.state
        )
        meter_state = meter.step(meter_state, carry.step / steps)
        # A descent that has ended goes no further, and its rows have no times.
        t = jnp.where(is_first | (carry.step > step_before), t, jnp.inf)
        return (carry, meter_state), (t, log_t, weights, values)

    meter: diffrax.AbstractProgressMeter = (
        diffrax.TqdmProgressMeter(refresh_steps=1)
        if progress
        else diffrax.NoProgressMeter()
    )
    state = flow.init(network)
    start = jnp.zeros((), steps.dtype)
    carry = _Carry(
        start,
        state,
        optimiser.init(state),
        sampler.init(problem),
        jnp.array(True),
        check_conditions(start, state),
    )
    # One row more than is saved takes the descent to its last step.
    targets = jnp.append(save_steps, steps)
    is_first = jnp.arange(targets.shape[0]) == 0
    (carry, meter_state), rows = jax.lax.scan(
        advance_and_save, (carry, meter.init()), (targets, is_first)
    )
    ts, log_ts, weights, values = jax.tree.map(lambda x: x[:-1], rows)
    meter.close(meter_state)  # pyright: ignore[reportArgumentType]
    result = RESULTS.where(
        carry.has_ended(),
        RESULTS.event_occurred,  # pyright: ignore[reportArgumentType]
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
    )
    # Steps remain a whole number where all samples are in each.
    num_gradients = carry.step
    batch, _ = eqx.filter_eval_shape(sampler.sample, problem, carry.sampler_state)
    if batch.dataset.num_samples != problem.dataset.num_samples:
        share = batch.dataset.num_samples / problem.dataset.num_samples
        num_gradients = share * carry.step.astype(learning_rate.dtype)
    return Run(
        ts=ts,
        log_ts=log_ts,
        weights=weights,
        observables=values,
        t_end=time_of(carry.step),
        end=carry.state,
        final=flow.weights(carry.state),
        result=RESULTS.where(carry.is_finite, result, RESULTS.nonfinite_state),
        conditions_met=carry.conditions_met,
        stats={"num_steps": carry.step, "num_gradients": num_gradients},
    )


def _choose(which: Bool[Array, ""], first: _Carry, second: _Carry) -> _Carry:
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), first, second)


# States kept while differentiating in reverse through the steps between two saves.
_CHECKPOINTS = 64


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


def _update(
    optimiser, gradient, optimiser_state, state, **extra_args
) -> tuple[State, PyTree]:
    # Some of optax needs the standard promotion, whatever the user has set.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimiser_state = optimiser.update(
            gradient, optimiser_state, state, **extra_args
        )
    return jax.tree.map(lambda u, s: u.astype(s.dtype), updates, state), optimiser_state


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
        updates, _ = _update(optimiser, ones, optimiser.init(origin), origin, bare=True)
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
