"""What every sampler is."""

import abc
from typing import Generic, TypeVar

import equinox as eqx

from .._problem import Problem

S = TypeVar("S")


class AbstractSampler(eqx.Module, Generic[S]):
    """Draws the problem that a step of a descent goes down.

    On average over its draws it is to have the gradient of the problem that they are
    drawn from. What changes from step to step is in a `state`, a pytree of arrays;
    random keys do not, since a draw is of the key and the number of the step.
    """

    @abc.abstractmethod
    def init(self, problem: Problem) -> S:
        """The state before the first step; a `ValueError` where `problem` is none that
        can be sampled in this way."""

    @abc.abstractmethod
    def sample(self, problem: Problem, state: S) -> tuple[Problem, S]:
        """The problem of the next step, and the state after it."""
