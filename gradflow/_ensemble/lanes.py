"""Several members of an ensemble on their way, as one program."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._process import AbstractPosition, AbstractProcess, End, Rows, as_arrays
from .stacked import Stacked

_ROWS_AT_A_TIME = 16
"""Measured as one batch."""


class Lanes(eqx.Module):
    """Which members are on their way, where they are, and the states that they have
    been in. All arrays have a leading axis of lanes."""

    members: Int[Array, " lanes"]
    is_new: Bool[Array, " lanes"]
    position: AbstractPosition
    rows: Rows

    @property
    def num_lanes(self) -> int:
        return self.members.shape[0]

    def put(self, lanes: np.ndarray, members: np.ndarray) -> "Lanes":
        """The same with members that have not started yet in some of the lanes."""
        return Lanes(
            self.members.at[lanes].set(jnp.asarray(members, self.members.dtype)),
            self.is_new.at[lanes].set(True),
            self.position,
            self.rows,
        )


@eqx.filter_jit
def idle_lanes(processes: Stacked[AbstractProcess], num_lanes: int) -> Lanes:
    """Lanes without members."""

    def first() -> tuple[AbstractPosition, Rows]:
        process = processes.take(0).saving_states()
        start = as_arrays(process.start())
        return process.advance(start, process.total_rows, process.total_steps)

    position, rows = jax.tree.map(
        lambda x: jnp.zeros((num_lanes, *x.shape), x.dtype),
        eqx.filter_eval_shape(first),
    )
    ended = jnp.ones(num_lanes, bool)
    position = eqx.tree_at(lambda p: p.has_ended, position, ended)
    return Lanes(jnp.zeros(num_lanes, jnp.int32), ~ended, position, rows)


@eqx.filter_jit
def go_on(
    processes: Stacked[AbstractProcess], lanes: Lanes, num_steps: Int[Array, ""]
) -> Lanes:
    """Each member that has not ended goes `num_steps` steps further."""

    def one(
        member: Int[Array, ""],
        is_new: Bool[Array, ""],
        position: AbstractPosition,
        rows: Rows,
    ) -> tuple[AbstractPosition, Rows]:
        process = processes.take(member).saving_states()
        position = jax.lax.cond(
            is_new, lambda: as_arrays(process.start()), lambda: position
        )
        further = num_steps.astype(process.total_steps.dtype)
        after, new = process.advance(position, process.total_rows, further)
        return as_arrays(after), _joined(rows, new, position.num_rows)

    position, rows = _over_lanes(one, lanes.num_lanes)(
        lanes.members, lanes.is_new, lanes.position, lanes.rows
    )
    return Lanes(lanes.members, jnp.zeros_like(lanes.is_new), position, rows)


@eqx.filter_jit
def outcome(
    processes: Stacked[AbstractProcess], lanes: Lanes, lane: Int[Array, ""]
) -> tuple[Rows, Int[Array, ""], End]:
    """What there is to say about the run in a lane: the rows, how many of them it has
    passed, and its end, which is one more row and in the place of those not reached."""
    process = processes.take(lanes.members[lane])
    position, rows = jax.tree.map(lambda x: x[lane], (lanes.position, lanes.rows))
    end = process.conclude(position)
    places = jnp.arange(process.total_rows, dtype=position.num_rows.dtype)
    reached = places < position.num_rows

    def with_end(saved: Array, last: Array) -> Array:
        is_reached = jnp.reshape(reached, (-1,) + (1,) * (saved.ndim - 1))
        last = last[None]
        return jnp.concatenate([jnp.where(is_reached, saved, last), last])

    ts, states = jax.tree.map(
        with_end, (rows.ts, rows.observables["state"]), (end.t, end.state)
    )

    def measure(t_and_state: tuple[Float[Array, ""], Any]) -> tuple[Any, Any, Any]:
        return process.row_along(position, *t_and_state)

    rows = Rows(ts, *_in_batches(measure, (ts, states)))
    return rows, position.num_rows, end


def _over_lanes(function: Callable, num_lanes: int) -> Callable:
    """`vmap`, which a single lane is better without: its conditions stay conditions."""
    if num_lanes > 1:
        return jax.vmap(function)

    def single(*args):
        result = function(*jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], result)

    return single


def _in_batches(function: Callable, xs: Any) -> Any:
    """`vmap` of a part at a time, since intermediate results may be large."""
    length = jax.tree.leaves(xs)[0].shape[0]
    rest = -length % _ROWS_AT_A_TIME

    def grouped(x: Array) -> Array:
        padded = jnp.concatenate([x, jnp.broadcast_to(x[-1], (rest, *x.shape[1:]))])
        return jnp.reshape(padded, (-1, _ROWS_AT_A_TIME, *x.shape[1:]))

    results = jax.lax.map(jax.vmap(function), jax.tree.map(grouped, xs))
    return jax.tree.map(lambda y: jnp.reshape(y, (-1, *y.shape[2:]))[:length], results)


def _joined(rows: Rows, new: Rows, start: Int[Array, ""]) -> Rows:
    """`rows` up to `start`, and from there on the new ones."""
    places = jnp.arange(rows.ts.shape[0], dtype=start.dtype)

    def join(old: Array, new: Array) -> Array:
        is_old = jnp.reshape(places < start, (-1,) + (1,) * (old.ndim - 1))
        return jnp.where(is_old, old, new[jnp.maximum(places - start, 0)])

    return jax.tree.map(join, rows, new)
