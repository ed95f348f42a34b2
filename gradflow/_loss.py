"""Losses of one example, and how they are put together over the samples."""

import abc
from typing import Any, ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ._types import RealScalarLike
from .datasets import Dataset

Output = Float[Array, " outputs"]
Label = Shaped[Array, "..."]
Scalar = Float[Array, ""]
Reduction: TypeAlias = Literal["sum", "mean"]


class AbstractLoss(eqx.Module):
    """The loss of one example, of the network's output and the label."""

    reduction: eqx.AbstractVar[Reduction]
    attains_infimum: ClassVar[bool]
    """Whether a finite output has slope zero (the square loss), or the loss only tends
    to its infimum as the outputs grow (exponential-type losses)."""

    def __check_init__(self):
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f'`reduction` must be "sum" or "mean", got {self.reduction!r}.'
            )

    @abc.abstractmethod
    def value(self, output: Output, label: Label) -> Scalar:
        """The loss of one example."""

    @abc.abstractmethod
    def log_value(self, output: Output, label: Label) -> Scalar:
        """The logarithm of the loss of one example, without under- or overflow."""

    @abc.abstractmethod
    def slope(
        self, output: Output, label: Label, log_unit: RealScalarLike = 0.0
    ) -> Output:
        """The derivative of the loss of one example by the output, in units of
        `exp(log_unit)`: divided by it without under- or overflow on the way."""

    @abc.abstractmethod
    def check(self, dataset: Dataset) -> None:
        """Raises a `ValueError` where the loss is not defined for these labels."""


class SquareLoss(AbstractLoss):
    r"""$\|g - y\|^2$; for classes, $y$ is the one-hot vector (M112 §2.2, 52)."""

    reduction: Reduction = eqx.field(static=True, default="sum")
    attains_infimum = True

    def value(self, output: Output, label: Label) -> Scalar:
        return jnp.sum(jnp.square(output - _target(output, label)))

    def log_value(self, output: Output, label: Label) -> Scalar:
        # Scaled by the largest residual, since squares could under- or overflow. The
        # value does not depend on the scale, so the derivative must not see it.
        residual = output - _target(output, label)
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(residual)))
        is_fitted = largest == 0
        scale = jnp.where(is_fitted, 1, largest)
        square = jnp.sum(jnp.square(residual / scale))
        log = 2 * jnp.log(scale) + jnp.log(jnp.where(is_fitted, 1, square))
        return jnp.where(is_fitted, -jnp.inf, log)

    def slope(
        self, output: Output, label: Label, log_unit: RealScalarLike = 0.0
    ) -> Output:
        return 2 * (output - _target(output, label)) * _exp(-log_unit, output)

    def check(self, dataset: Dataset) -> None:
        del dataset


class ExponentialLoss(AbstractLoss):
    r"""$e^{-yg}$ for one output and labels $y = \pm 1$ (T3 §2)."""

    reduction: Reduction = eqx.field(static=True, default="sum")
    attains_infimum = False

    def value(self, output: Output, label: Label) -> Scalar:
        return jnp.exp(-label * output[0])

    def log_value(self, output: Output, label: Label) -> Scalar:
        return -label * output[0]

    def slope(
        self, output: Output, label: Label, log_unit: RealScalarLike = 0.0
    ) -> Output:
        return -label * _exp(-label * output - log_unit, output)

    def check(self, dataset: Dataset) -> None:
        _check_signs(self, dataset)


class LogisticLoss(AbstractLoss):
    r"""$\log(1 + e^{-yg})$ for one output and labels $y = \pm 1$."""

    reduction: Reduction = eqx.field(static=True, default="sum")
    attains_infimum = False

    def value(self, output: Output, label: Label) -> Scalar:
        return jax.nn.softplus(-label * output[0])

    def log_value(self, output: Output, label: Label) -> Scalar:
        return _log_softplus(-label * output[0])

    def slope(
        self, output: Output, label: Label, log_unit: RealScalarLike = 0.0
    ) -> Output:
        return -label * _exp(jax.nn.log_sigmoid(-label * output) - log_unit, output)

    def check(self, dataset: Dataset) -> None:
        _check_signs(self, dataset)


class CrossEntropyLoss(AbstractLoss):
    r"""$-\log \mathrm{softmax}(g)_y$ for classes $y$ and one output for each."""

    reduction: Reduction = eqx.field(static=True, default="sum")
    attains_infimum = False

    def value(self, output: Output, label: Label) -> Scalar:
        return jax.nn.softplus(-self._soft_margin(output, label))

    def log_value(self, output: Output, label: Label) -> Scalar:
        return _log_softplus(-self._soft_margin(output, label))

    def slope(
        self, output: Output, label: Label, log_unit: RealScalarLike = 0.0
    ) -> Output:
        # `softmax - onehot`, without the cancellation that would leave nothing of a
        # small probability of the wrong classes in the entry of the right one.
        onehot = _target(output, label)
        log_wrong = jax.nn.log_sigmoid(-self._soft_margin(output, label))
        wrong = _exp(log_wrong - log_unit, output)
        others = jnp.where(onehot > 0, -jnp.inf, output)
        return wrong * (jax.nn.softmax(others) - onehot)

    def check(self, dataset: Dataset) -> None:
        if dataset.num_classes is None or dataset.num_classes < 2:
            raise ValueError(
                "`loss`: the cross-entropy needs `labels` that are two or more classes "
                f"0 … C-1, got {dataset}. Load the data with `signs=False`, or use the "
                "logistic loss for labels ±1."
            )

    @staticmethod
    def _soft_margin(output: Output, label: Label) -> Scalar:
        """`g_y - log Σ_{j≠y} exp(g_j)`: the cross-entropy is its logistic loss."""
        onehot = _target(output, label)
        others = jax.nn.logsumexp(jnp.where(onehot > 0, -jnp.inf, output))
        return jnp.sum(onehot * output) - others


for _loss in (SquareLoss, ExponentialLoss, LogisticLoss, CrossEntropyLoss):
    _loss.__init__.__doc__ = """**Arguments:**

- `reduction`: `"sum"` over the samples, as in the papers' dynamics, or `"mean"`.
"""


def _target(output: Output, label: Label) -> Output:
    if jnp.issubdtype(label.dtype, jnp.integer):
        return jax.nn.one_hot(label, output.shape[0], dtype=output.dtype)
    return jnp.broadcast_to(label, output.shape)


def _exp(x: Any, like: Output) -> Array:
    return jnp.exp(jnp.asarray(x, like.dtype))


def _log_softplus(x: Scalar) -> Scalar:
    """`log(log(1 + exp(x)))`, also where `exp(x)` underflows."""
    # Below the threshold log(1 + u) = u (1 - u/2) to rounding, with u = exp(x).
    small = x < jnp.log(jnp.finfo(x.dtype).eps) / 2
    x_large = jnp.where(small, 0, x)
    x_small = jnp.where(small, x, 0)
    return jnp.where(
        small,
        x_small - jnp.exp(x_small) / 2,
        jnp.log(jax.nn.softplus(x_large)),
    )


def _check_signs(loss: AbstractLoss, dataset: Dataset) -> None:
    if not dataset.signs:
        raise ValueError(
            f"`loss`: {type(loss).__name__} needs `labels` that are ±1, got {dataset}. "
            "For classes use the cross-entropy or the square loss."
        )
