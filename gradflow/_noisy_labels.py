"""What label noise is for."""

from ._loss import SquareLoss
from ._problem import Problem


def check_noisy_labels(problem: Problem) -> None:
    """Raises a `ValueError` where noise in the labels is none in the slopes alone."""
    if not isinstance(problem.loss, SquareLoss):
        raise ValueError(
            "`problem`: label noise is for the square loss, under which it leaves "
            f"the mean of the gradient as it is, not for {problem.loss}."
        )
    if problem.dataset.num_classes is not None:
        raise ValueError(
            "`problem`: label noise is for labels ±1 and real targets, and there "
            f"is none to add to classes; got {problem.dataset}."
        )
