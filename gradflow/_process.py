"""What integration and descent are alike in: they go from step to step, and can pause
between any two."""

import abc
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._results import RESULTS
from ._types import AnyArray, StackedWeights, State, Weights


class Rows(eqx.Module):
    """What is saved at times that a run has passed. Those that it has not reached are
    `inf`."""

    ts: Float[AnyArray, " rows"]
    log_ts: Float[AnyArray, " rows"]
    weights: StackedWeights | None
    observables: dict[str, PyTree[AnyArray]]

    def num_reached(self) -> Int[Array, ""]:
        return jnp.sum(jnp.isfinite(self.ts))


class End(eqx.Module):
    """Where a run has come to, and how."""

    t: Float[Array, ""]
    state: State
    weights: Weights
    result: RESULTS
    conditions_met: tuple[Bool[Array, ""], ...]
    stats: dict[str, Any]


class AbstractPosition(eqx.Module):
    """Where a process is between two steps, with all that the next ones depend on."""

    num_rows: eqx.AbstractVar[Int[Array, ""]]
    """How many rows it has passed."""
    num_steps: eqx.AbstractVar[Int[Array, ""]]
    has_ended: eqx.AbstractVar[Bool[Array, ""]]


P = TypeVar("P", bound=AbstractPosition)
Process = TypeVar("Process", bound="AbstractProcess")


class AbstractProcess(eqx.Module, Generic[P]):
    """A run that is yet to be made.

    It can be made in one go or with pauses: these change no bit of what comes out, as
    long as it is asked for the same number of rows at a time.
    """

    @abc.abstractmethod
    def start(self) -> P:
        """Where it begins."""

    @abc.abstractmethod
    def advance(
        self, position: P, num_rows: int, num_steps: Int[Array, ""]
    ) -> tuple[P, Rows]:
        """Goes on from `position`, until the run ends, or `num_rows` rows are full, or
        `num_steps` steps are made. From where the run has ended it goes nowhere."""

    @abc.abstractmethod
    def run(self) -> tuple[P, Rows]:
        """Advances from the start to the end."""

    @abc.abstractmethod
    def row(
        self, t: Float[Array, ""], state: State
    ) -> tuple[Float[Array, ""], Weights | None, dict[str, Any]]:
        """What is saved of one state, besides its time."""

    @abc.abstractmethod
    def fraction(self, position: P) -> Float[Array, ""]:
        """Which part of the way is done."""

    @abc.abstractmethod
    def conclude(self, position: P) -> End:
        """What there is to say about a run that has come to `position`."""

    @abc.abstractmethod
    def saving_states(self: Process) -> Process:
        """The same run, of which only `observables["state"]` is saved."""

    @abc.abstractmethod
    def row_along(
        self, position: P, t: Float[Array, ""], state: State
    ) -> tuple[Float[Array, ""], Weights | None, dict[str, PyTree[Array]]]:
        """What is saved, beside the time, of a state that a run which has come to
        `position` had at time `t`."""

    @property
    @abc.abstractmethod
    def total_rows(self) -> int:
        """How many rows there are."""

    @property
    @abc.abstractmethod
    def total_steps(self) -> Int[Array, ""]:
        """How many steps it may make."""


def as_arrays(state: Any) -> Any:
    """With arrays in the places of Python's numbers, as loops make of them, so that it
    is of the same structure before and after the first step."""
    return jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, bool | int | float) else x, state
    )


@eqx.filter_jit
def at_once(process: AbstractProcess) -> tuple[Rows, End]:
    """The whole run, as one program."""
    position, rows = process.run()
    return rows, process.conclude(position)
