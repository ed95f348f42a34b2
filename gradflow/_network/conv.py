"""Convolutional networks."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._types import PerLayer, Weights
from .activation import AbstractActivation, ReLU
from .base import HandOn
from .convolution import convolution
from .convolutional import AbstractConvolutional
from .initial import initial_weights


class Conv(AbstractConvolutional):
    r"""Two-dimensional convolutions and a dense last layer, without biases.

    A unit of a convolutional layer is one channel at one position: its weights are the
    channel's kernel, its input the zero-padded patch below, and the width of a smoothed
    ReLU goes by the norms of these two.
    """

    weights: Weights
    activation: AbstractActivation
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    paddings: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        channels: Sequence[int],
        outputs: int = 1,
        *,
        key: PRNGKeyArray,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 1,
        activation: AbstractActivation = ReLU(),  # noqa: B008
        norm: PerLayer | None = None,
    ):
        """**Arguments:**

        - `in_shape`: `(channels, height, width)` of one image.
        - `channels`: output channels of each convolution.
        - `outputs`: number of outputs of the dense last layer.
        - `key`: a `jax.random.key`.
        - `kernel_size`, `stride`, `padding`: one number for all convolutions or one for
            each; kernels are square, the padding is by zeros on every side.
        - `activation`: of all layers but the last.
        - `norm`: Frobenius norm of each layer, one number for all or one for each
            (convolutions first). Not given: He's scaling.

        **Raises:** `ValueError` where a size is not positive, the number of entries
        does not match `channels`, or a kernel does not fit its input.
        """
        layers = len(channels)
        kernels = _per_convolution("kernel_size", kernel_size, layers, at_least=1)
        self.image_shape = in_shape
        self.strides = _per_convolution("stride", stride, layers, at_least=1)
        self.paddings = _per_convolution("padding", padding, layers, at_least=0)
        _per_convolution("channels", channels, layers, at_least=1)
        if len(in_shape) != 3 or min(in_shape) < 1 or outputs < 1:
            raise ValueError(
                "`in_shape` must be three positive numbers (channels, height, width) "
                f"and `outputs` positive; got {tuple(in_shape)} and {outputs}."
            )
        fan_out = [in_shape[0], *channels]
        shapes: list[tuple[int, ...]] = [
            (out, below, kernel, kernel)
            for out, below, kernel in zip(channels, fan_out[:-1], kernels, strict=True)
        ]
        features = math.prod(
            _feature_shape(in_shape, shapes, self.strides, self.paddings)
        )
        shapes.append((outputs, features))
        self.weights = initial_weights(
            shapes,
            [math.prod(shape[1:]) for shape in shapes],
            key=key,
            gain=activation.gain,
            norm=norm,
        )
        self.activation = activation

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[Float[Array, "..."]],
        in_shape: tuple[int, int, int],
        *,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 1,
        activation: AbstractActivation = ReLU(),  # noqa: B008
    ) -> "Conv":
        """A network with the given weights: kernels `(out, in, size, size)`, then a
        matrix `(outputs, features)`; the other arguments as in `Conv(…)`.

        **Raises:** `ValueError` where the shapes do not fit together.
        """
        ranks = [w.ndim for w in weights]
        square = all(w.shape[2] == w.shape[3] for w in weights if w.ndim == 4)
        if not weights or ranks != [4] * (len(weights) - 1) + [2] or not square:
            raise ValueError(
                "`weights` must be kernels (out, in, size, size) and then a matrix "
                f"(outputs, features); got shapes {[w.shape for w in weights]}."
            )
        *kernels, last = weights
        skeleton = eqx.filter_eval_shape(
            lambda: cls(
                in_shape,
                [kernel.shape[0] for kernel in kernels],
                last.shape[0],
                key=jax.random.key(0),
                kernel_size=[kernel.shape[2] for kernel in kernels],
                stride=stride,
                padding=padding,
                activation=activation,
            )
        )
        for k, (given, fits) in enumerate(zip(weights, skeleton.weights, strict=True)):
            if given.shape != fits.shape:
                raise ValueError(
                    f"`weights[{k}]` of shape {given.shape} does not fit the layers "
                    f"below it, which ask for {fits.shape}."
                )
        return skeleton.with_weights(tuple(weights))

    def forward(
        self, x: Float[Array, "channels height width"], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        *kernels, last = self.weights
        handed_on, h = [], x
        for kernel, stride, padding in zip(
            kernels, self.strides, self.paddings, strict=True
        ):
            h = hand_on(*convolution(h, kernel, stride, padding))
            handed_on.append(h)
        return tuple(handed_on), last @ jnp.ravel(h)

    @property
    def degrees(self) -> tuple[int, ...]:
        return (1,) * len(self.weights)

    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        if layer < len(self.weights) - 1:
            return weight * factors[None, :, None, None]
        positions = weight.shape[1] // factors.shape[0]
        return weight * jnp.repeat(factors, positions)[None, :]

    def config(self) -> dict[str, Any]:
        return {
            "in_shape": self.image_shape,
            "stride": self.strides,
            "padding": self.paddings,
            "activation": self.activation,
        }

    def __repr__(self) -> str:
        channels = [kernel.shape[-4] for kernel in self.weights[:-1]]
        image = "x".join(map(str, self.image_shape))
        layers = "-".join(map(str, [*channels, self.weights[-1].shape[-2]]))
        return f"Conv({image}: {layers}, {self.activation})"


def _feature_shape(in_shape, kernel_shapes, strides, paddings) -> tuple[int, ...]:
    channels, *size = in_shape
    for k, (shape, stride, padding) in enumerate(
        zip(kernel_shapes, strides, paddings, strict=True)
    ):
        if min(size) + 2 * padding < shape[-1]:
            raise ValueError(
                f"`kernel_size` {shape[-1]} of convolution {k} does not fit its input "
                f"of height and width {tuple(size)} with padding {padding}."
            )
        size = [(n + 2 * padding - shape[-1]) // stride + 1 for n in size]
        channels = shape[0]
    return (channels, *size)


def _per_convolution(
    name: str, value: int | Sequence[int], layers: int, *, at_least: int
) -> tuple[int, ...]:
    if isinstance(value, Sequence):
        values = tuple(value)
    else:
        values = (int(value),) * layers
    if len(values) != layers or any(v < at_least for v in values):
        raise ValueError(
            f"`{name}` must be one integer, or one for each of the {layers} "
            f"convolutions, and at least {at_least}; got {value}."
        )
    return values
