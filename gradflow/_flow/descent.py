"""What goes down within a flow."""

from .._types import State
from .base import AbstractFlow
from .clock import AbstractClock
from .momentum import MomentumFlow
from .stochastic import AbstractStochasticFlow


def steepest_descent(
    flow: AbstractFlow, state: State = None
) -> tuple[AbstractFlow, State]:
    """The flow within a clock, momentum or noise and its state, or both as they are."""
    if isinstance(flow, AbstractClock):
        return flow.flow, None if state is None else state.inner
    if isinstance(flow, MomentumFlow):
        return flow.flow, None if state is None else state.position
    if isinstance(flow, AbstractStochasticFlow):
        return flow.flow, state
    return flow, state
