"""What the commands let one choose from, by name."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .. import datasets
from .._flow import AbstractFlow, GradientFlow, LagrangeFlow, WeightNormFlow
from .._loss import AbstractLoss, ExponentialLoss, LogisticLoss, SquareLoss
from .._network import Dense, ReLU
from ..datasets import Dataset

LOSSES: dict[str, Callable[..., AbstractLoss]] = {
    "square": SquareLoss,
    "exponential": ExponentialLoss,
    "logistic": LogisticLoss,
}
FLOWS: dict[str, Callable[..., AbstractFlow]] = {
    "lagrange": LagrangeFlow,
    "gradient": GradientFlow,
    "weight-norm": WeightNormFlow,
}


def data(
    *,
    mnist: str | None,
    cifar10: str | None,
    classes: Sequence[int],
    per_class: int,
) -> tuple[Dataset, Dataset]:
    """Two classes of the user's files, or of the digits: training and test set.

    **Raises:** `ValueError` and `OSError` as the readers do.
    """

    def read(split: str, per_class: int | None) -> Dataset:
        options: dict[str, Any] = {"split": split, "per_class": per_class}
        if mnist is not None:
            return datasets.mnist(mnist, classes=classes, **options)
        if cifar10 is not None:
            return datasets.cifar10(cifar10, classes=classes, image=False, **options)
        return datasets.digits(classes, **options)

    return read("train", per_class), read("test", None)


def network(
    data: Dataset, hidden: Sequence[int], *, seed: int, smoothing: float, rho: float
) -> Dense:
    """A dense network whose layers have the same norm, of the product `rho`."""
    widths = (*data.input_shape, *hidden, 1)
    return Dense(
        widths,
        key=jax.random.key(seed),
        activation=ReLU(smoothing),
        norm=rho ** (1 / (len(widths) - 1)),
    )
