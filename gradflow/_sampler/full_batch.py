"""All samples, in every step."""

from .._problem import Problem
from .base import AbstractSampler


class FullBatch(AbstractSampler[None]):
    """Every step goes down the problem as it is."""

    def init(self, problem: Problem) -> None:
        del problem

    def sample(self, problem: Problem, state: None) -> tuple[Problem, None]:
        return problem, state
