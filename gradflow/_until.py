"""Conditions at which a run stops."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._check import check_finite, check_nonnegative
from ._network import AbstractNetwork
from ._observables import AbstractObservable, Point, Stationarity
from ._problem import Problem
from ._types import RealScalarLike


class Stationary(AbstractObservable):
    """Stops where the flow has come to rest, see [`gradflow.Stationarity`][]."""

    tolerance: RealScalarLike = 1e-6

    def __check_init__(self):
        check_nonnegative("tolerance", self.tolerance)

    def __call__(self, point: Point) -> Bool[Array, ""]:
        return Stationarity()(point) <= self.tolerance


class ZeroTrainingError(eqx.Module):
    """Stops where all samples have a positive margin."""

    def __call__(self, problem: Problem, network: AbstractNetwork) -> Bool[Array, ""]:
        return problem.accuracy(network) == 1


class MarginAbove(eqx.Module):
    """Stops where the smallest normalised margin exceeds `margin`."""

    margin: RealScalarLike

    def __check_init__(self):
        check_finite("margin", self.margin)

    def __call__(self, problem: Problem, network: AbstractNetwork) -> Bool[Array, ""]:
        return jnp.min(problem.margins(network)) > self.margin


class LossBelow(eqx.Module):
    """Stops where the loss, without weight decay, is below `loss`."""

    loss: RealScalarLike

    def __check_init__(self):
        check_finite("loss", self.loss)

    def __call__(self, problem: Problem, network: AbstractNetwork) -> Bool[Array, ""]:
        return problem.value(network) < self.loss


def as_conditions(until: Any) -> tuple[Any, ...]:
    """One condition, several or none, as a tuple.

    **Raises:** `ValueError` where one of them cannot be called.
    """
    if until is None:
        return ()
    conditions = tuple(until) if isinstance(until, (tuple, list)) else (until,)
    for condition in conditions:
        if not callable(condition) or isinstance(condition, type):
            raise ValueError(
                "`until` must be a condition or a sequence of conditions, each a "
                f"callable `fn(problem, network) -> bool`; got {condition!r}."
            )
    return conditions


def describe(condition: Any) -> str:
    """A condition's name for a report."""
    if isinstance(condition, eqx.Module):
        return repr(condition)
    return getattr(condition, "__name__", repr(condition))
