"""Why a path ends that a clock was to follow to infinity."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._flow import AbstractFlow
from ._observables import Point, Stationarity
from ._problem import Problem
from ._results import RESULTS
from ._types import BoolScalarLike

_REST = 1e-6
"""The stationarity of a flow that has come to rest. As long as all samples are
classified correctly, and without weight decay, it is of the order of the smallest
normalised margin or more."""
_REST_ON_THE_WAY = 1e-8
"""The same where the run could go on: on the way past a saddle it is small too."""


def may_rest(problem: Problem, flow: AbstractFlow) -> BoolScalarLike:
    """Whether there may be a critical point with a finite loss."""
    return problem.loss.attains_infimum | (jnp.asarray(flow.weight_decay) > 0)


def stands_still(point: Point) -> Bool[Array, ""]:
    """Whether the path has come to its end."""
    rests = Stationarity()(point) <= _REST_ON_THE_WAY
    return rests & (may_rest(point.problem, point.flow) | _is_unseparated(point))


def end_of_path(point: Point, result: RESULTS, stopped: Bool[Array, ""]) -> RESULTS:
    """The cause, instead of the symptom, where there is one; `stopped` where the path
    `stands_still`."""

    def name(is_so: BoolScalarLike, cause: Any, otherwise: RESULTS) -> RESULTS:
        return RESULTS.where(jnp.asarray(is_so), cause, otherwise)

    rests = Stationarity()(point) <= _REST
    collapsed = (result == RESULTS.dt_min_reached) | (result == RESULTS.nonfinite_state)
    ended = stopped | (collapsed & rests & may_rest(point.problem, point.flow))
    result = name(ended, RESULTS.at_rest, result)
    result = name(rests & _is_unseparated(point), RESULTS.positive_loss, result)
    # What has decayed to nothing has no influence either.
    rests_by_decay = ended & may_rest(point.problem, point.flow)
    return name(_is_dead(point) & ~rests_by_decay, RESULTS.dead_network, result)


def _is_unseparated(point: Point) -> BoolScalarLike:
    """Whether there is none that is to be expected, but samples on the wrong side."""
    if point.problem.dataset.regression:
        return False
    return ~may_rest(point.problem, point.flow) & (
        point.problem.accuracy(point.network) < 1
    )


def _is_dead(point: Point) -> Bool[Array, ""]:
    problem, flow, state = point.problem, point.flow, point.state
    outputs = problem.outputs(flow.to_network(state, point.network))
    slopes = problem.slopes(outputs, problem.log_value_of(outputs))
    influence = flow.gradient(problem, state, point.network, jnp.abs(slopes))
    return jnp.all(jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(influence)]))
