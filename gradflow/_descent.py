"""Descent, step by step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._flow import AbstractFlow
from ._network import AbstractNetwork
from ._observables import Point, WholeState, measure
from ._problem import Problem
from ._process import AbstractPosition, AbstractProcess, End, Rows, as_arrays
from ._results import RESULTS
from ._run import measure_row
from ._sampler import AbstractSampler
from ._tree import tree_isfinite
from ._types import State

_CHECKPOINTS = 64
"""States kept while differentiating in reverse through the steps between two saves."""


class DescentPosition(AbstractPosition):
    """Where a descent is."""

    num_steps: Int[Array, ""]
    state: State
    optimiser_state: PyTree
    sampler_state: PyTree
    is_finite: Bool[Array, ""]
    conditions_met: tuple[Bool[Array, ""], ...]
    num_rows: Int[Array, ""]
    has_ended: Bool[Array, ""]

    def has_stopped(self) -> Bool[Array, ""]:
        """Whether it has ended early."""
        return ~self.is_finite | jnp.any(jnp.array((False, *self.conditions_met)))


class Descent(AbstractProcess[DescentPosition]):
    """The descent of an optimiser on the samples that a sampler draws."""

    problem: Problem
    flow: AbstractFlow
    sampler: AbstractSampler
    network: AbstractNetwork
    optimiser: optax.GradientTransformation | Float[Array, ""]
    save_steps: Int[Array, " T"]
    steps: Int[Array, ""]
    learning_rate: Float[Array, ""]
    observables: dict[str, Any]
    conditions: tuple[Any, ...]
    progress: bool
    save_networks: bool

    @property
    def total_rows(self) -> int:
        return self.save_steps.shape[0]

    @property
    def total_steps(self) -> Int[Array, ""]:
        return self.steps

    def start(self) -> DescentPosition:
        state = self.flow.init(self.network)
        step = jnp.zeros((), self.steps.dtype)
        position = DescentPosition(
            num_steps=step,
            state=state,
            optimiser_state=as_arrays(self._transformation().init(state)),
            sampler_state=as_arrays(self.sampler.init(self.problem)),
            is_finite=jnp.array(True),
            conditions_met=self._check_conditions(step, state),
            num_rows=jnp.asarray(0, jnp.int32),
            has_ended=jnp.array(False),
        )
        return dataclasses.replace(position, has_ended=position.has_stopped())

    def advance(
        self, position: DescentPosition, num_rows: int, num_steps: Int[Array, ""]
    ) -> tuple[DescentPosition, Rows]:
        limit = jnp.minimum(position.num_steps + num_steps, self.steps)
        meter: diffrax.AbstractProgressMeter = (
            diffrax.TqdmProgressMeter(refresh_steps=1)
            if self.progress
            else diffrax.NoProgressMeter()
        )
        empty = jax.tree.map(
            lambda x: jnp.full(x.shape, jnp.inf, x.dtype),
            eqx.filter_eval_shape(self.row, self._time_of(limit), position.state),
        )

        def go_to(position: DescentPosition, step: Int[Array, ""]) -> DescentPosition:
            # What is infinite or NaN stays so. To look in each step would take as long
            # as a good part of one, so the steps up to a failure are taken twice
            # instead.
            ahead = self._go(position, step, self._step)
            position = _choose(tree_isfinite(ahead.state), ahead, position)
            return self._go(position, step, self._finite_step)

        def go_and_save(position_and_meter, row):
            before, meter_state = position_and_meter
            save_step, is_row = row
            position = go_to(before, jnp.minimum(save_step, limit))
            t = self._time_of(position.num_steps)
            reached = is_row & (position.num_steps == save_step)
            saved = jax.lax.cond(
                reached, lambda: self.row(t, position.state), lambda: empty
            )
            # Not again and again for the rows that are left after an early end.
            meter_state = jax.lax.cond(
                eqxi.unvmap_any(position.num_steps > before.num_steps),
                lambda state: meter.step(state, self.fraction(position)),
                lambda state: state,
                meter_state,
            )
            return (position, meter_state), (jnp.where(reached, t, jnp.inf), *saved)

        # After the last row it goes to where the next one is due, in the same loop:
        # another one, of the same steps, might be compiled to other last digits.
        padded = jnp.append(self.save_steps, jnp.full(num_rows + 1, self.steps))
        start = position.num_rows
        due = jax.lax.dynamic_slice_in_dim(padded, start, num_rows + 1)
        number = jnp.arange(num_rows + 1, dtype=start.dtype)
        is_row = (number < num_rows) & (start + number < self.total_rows)
        (position, meter_state), rows = jax.lax.scan(
            go_and_save, (position, meter.init()), (due, is_row)
        )
        meter.close(meter_state)  # pyright: ignore[reportArgumentType]
        rows = jax.tree.map(lambda x: x[:-1], Rows(*rows))
        position = dataclasses.replace(
            position,
            num_rows=start + rows.num_reached().astype(start.dtype),
            has_ended=position.has_stopped() | (position.num_steps >= self.steps),
        )
        return position, rows

    def run(self) -> tuple[DescentPosition, Rows]:
        return self.advance(self.start(), self.total_rows, self.total_steps)

    def conclude(self, position: DescentPosition) -> End:
        result = RESULTS.where(
            position.has_stopped(),
            RESULTS.event_occurred,  # pyright: ignore[reportArgumentType]
            RESULTS.successful,  # pyright: ignore[reportArgumentType]
        )
        # Steps remain a whole number where all samples are in each.
        num_gradients = position.num_steps
        batch, _ = eqx.filter_eval_shape(
            self.sampler.sample, self.problem, position.sampler_state
        )
        if batch.dataset.num_samples != self.problem.dataset.num_samples:
            share = batch.dataset.num_samples / self.problem.dataset.num_samples
            num_gradients = share * num_gradients.astype(self.learning_rate.dtype)
        return End(
            t=self._time_of(position.num_steps),
            state=position.state,
            weights=self.flow.weights(position.state),
            result=RESULTS.where(position.is_finite, result, RESULTS.nonfinite_state),
            conditions_met=position.conditions_met,
            stats={"num_steps": position.num_steps, "num_gradients": num_gradients},
        )

    def fraction(self, position: DescentPosition) -> Float[Array, ""]:
        return position.num_steps / self.steps

    def saving_states(self) -> "Descent":
        return dataclasses.replace(
            self, observables={"state": WholeState()}, save_networks=False
        )

    def row_along(
        self, position: DescentPosition, t: Float[Array, ""], state: State
    ) -> tuple[Any, Any, Any]:
        del position
        return self.row(t, state)

    def row(self, t: Float[Array, ""], state: State) -> tuple[Any, Any, Any]:
        return measure_row(
            self.problem,
            self.flow,
            self.network,
            self.observables,
            self.save_networks,
            t,
            state,
        )

    def _transformation(self) -> optax.GradientTransformation:
        if isinstance(self.optimiser, optax.GradientTransformation):
            return self.optimiser
        return optax.sgd(self.optimiser)

    def _time_of(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return step.astype(self.learning_rate.dtype) * self.learning_rate

    def _check_conditions(
        self, step: Int[Array, ""], state: State
    ) -> tuple[Bool[Array, ""], ...]:
        network = self.flow.to_network(state, self.network)
        point = Point(self.problem, self.flow, self._time_of(step), state, network)
        return tuple(jnp.asarray(measure(c, point), bool) for c in self.conditions)

    def _step(self, position: DescentPosition) -> DescentPosition:
        t = self._time_of(position.num_steps)
        batch, sampler_state = self.sampler.sample(self.problem, position.sampler_state)
        velocity = self.flow.vector_field(t, position.state, batch, self.network)
        gradient = jax.tree.map(jnp.negative, velocity)
        updates, optimiser_state = update(
            self._transformation(), gradient, position.optimiser_state, position.state
        )
        state = self.flow.project(optax.apply_updates(position.state, updates))
        step = position.num_steps + 1
        return dataclasses.replace(
            position,
            num_steps=step,
            state=state,
            optimiser_state=optimiser_state,
            sampler_state=sampler_state,
            conditions_met=self._check_conditions(step, state),
        )

    def _finite_step(self, position: DescentPosition) -> DescentPosition:
        after = self._step(position)
        stays = dataclasses.replace(position, is_finite=jnp.array(False))
        return _choose(tree_isfinite(after.state), after, stays)

    def _go(
        self,
        position: DescentPosition,
        target: Int[Array, ""],
        one_step: Callable[[DescentPosition], DescentPosition],
    ) -> DescentPosition:
        return eqxi.while_loop(
            lambda p: (p.num_steps < target) & ~p.has_stopped(),
            one_step,
            position,
            kind="checkpointed",
            checkpoints=_CHECKPOINTS,
        )


def update(
    optimiser, gradient, optimiser_state, state, **extra_args
) -> tuple[State, PyTree]:
    """One update of an optax optimiser."""
    # Some of optax needs the standard promotion, whatever the user has set.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimiser_state = optimiser.update(
            gradient, optimiser_state, state, **extra_args
        )
    return jax.tree.map(lambda u, s: u.astype(s.dtype), updates, state), optimiser_state


def _choose(
    which: Bool[Array, ""], first: DescentPosition, second: DescentPosition
) -> DescentPosition:
    return jax.tree.map(lambda x, y: jnp.where(which, x, y), first, second)
