"""Residual networks."""

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


class Residual(AbstractConvolutional):
    r"""A residual network: convolutions in blocks of two, past which their input goes.

    $$h \mapsto \sigma(S h + W_2\, \sigma(W_1 h)),$$

    with a convolution before the blocks, and behind them the mean of each channel and a
    dense last layer. All kernels are 3 x 3. The first block of each stage but the first
    has the stride 2; there the shortcut $S$ takes every second pixel, and fills up the
    new channels with zeros. `channels=(16, 32, 64)` and `blocks=9` make the 56 layers
    of GP App. H and L.3.

    It is not homogeneous in one layer at a time: a block adds up what depends on its
    weights and what does not. So there is no $\rho$, and what is made of it is refused.
    With batch normalisation, `BatchNorm(Residual(…))`, every layer is, with the degree
    0 but for the last.

    ??? cite "Reference"

        K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition.
        CVPR, 2016, section 4.2, with shortcuts without parameters.
    """

    weights: Weights
    activation: AbstractActivation
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    blocks: int = eqx.field(static=True)

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        channels: Sequence[int],
        outputs: int = 1,
        *,
        key: PRNGKeyArray,
        blocks: int = 1,
        activation: AbstractActivation = ReLU(),  # noqa: B008
        norm: PerLayer | None = None,
    ):
        """**Arguments:**

        - `in_shape`: `(channels, height, width)` of one image.
        - `channels`: those of each stage, none fewer than in the stage before.
        - `outputs`: number of outputs of the dense last layer.
        - `key`: a `jax.random.key`.
        - `blocks`: their number in each stage.
        - `activation`: of all layers but the last.
        - `norm`: Frobenius norm of each layer, one number for all or one for each. Not
            given: He's scaling.

        **Raises:** `ValueError` where a size is not positive, and for channels that
        become fewer.
        """
        sizes = (*in_shape, *channels, outputs, blocks)
        if len(in_shape) != 3 or not channels or min(sizes) < 1:
            raise ValueError(
                "`in_shape` must be three positive numbers (channels, height, width), "
                "`channels` one or more of them, `outputs` and `blocks` positive; got "
                f"{tuple(in_shape)}, {tuple(channels)}, {outputs} and {blocks}."
            )
        if list(channels) != sorted(channels):
            raise ValueError(
                f"`channels` must not become fewer, got {tuple(channels)}."
            )
        below = channels[0]
        shapes: list[tuple[int, ...]] = [(below, in_shape[0], 3, 3)]
        for stage in channels:
            for _ in range(blocks):
                shapes += [(stage, below, 3, 3), (stage, stage, 3, 3)]
                below = stage
        shapes.append((outputs, channels[-1]))
        self.weights = initial_weights(
            shapes,
            [math.prod(shape[1:]) for shape in shapes],
            key=key,
            gain=activation.gain,
            norm=norm,
        )
        self.activation = activation
        self.image_shape = in_shape
        self.blocks = blocks

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[Float[Array, "..."]],
        in_shape: tuple[int, int, int],
        *,
        blocks: int = 1,
        activation: AbstractActivation = ReLU(),  # noqa: B008
    ) -> "Residual":
        """A network with the given weights: kernels `(out, in, 3, 3)`, then a matrix
        `(outputs, channels)`; the other arguments as in `Residual(…)`.

        **Raises:** `ValueError` where the shapes do not fit together.
        """
        given = [w.shape for w in weights]
        if len(weights) > 2 and (len(weights) - 2) % (2 * blocks) == 0:
            channels = [shape[0] for shape in given[1 : -1 : 2 * blocks]]
            skeleton = eqx.filter_eval_shape(
                lambda: cls(
                    in_shape,
                    channels,
                    given[-1][0],
                    key=jax.random.key(0),
                    blocks=blocks,
                    activation=activation,
                )
            )
            if given == [w.shape for w in skeleton.weights]:
                return skeleton.with_weights(tuple(weights))
        raise ValueError(
            "`weights` must be those of a first convolution, of two for each of the "
            f"{blocks} blocks of every stage, and of a dense layer; got shapes {given}."
        )

    def forward(
        self, x: Float[Array, "channels height width"], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        first, *kernels, last = self.weights
        h = hand_on(*convolution(x, first, 1, 1))
        handed_on = [h]
        pairs = zip(kernels[::2], kernels[1::2], strict=True)
        for block, (inner, outer) in enumerate(pairs):
            stride = 2 if block > 0 and block % self.blocks == 0 else 1
            within = hand_on(*convolution(h, inner, stride, 1))
            skip = _shortcut(h, stride, outer.shape[0])
            h = hand_on(*convolution(within, outer, 1, 1), skip)
            handed_on += [within, h]
        # The features that the last layer is given.
        handed_on[-1] = jnp.mean(h, axis=(1, 2))
        return tuple(handed_on), last @ handed_on[-1]

    @property
    def degrees(self) -> tuple[int, ...]:
        """**Raises:** `ValueError`, since there are none."""
        raise ValueError(
            "`network`: a residual network is not homogeneous in each of its layers, "
            "and has no scale ρ. With batch normalisation it is, "
            "`gf.BatchNorm(network)`; without, give `observe` what does not go by ρ."
        )

    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        del layer, weight, factors
        raise ValueError(
            "`network`: what a unit of a residual network hands on also goes past the "
            "layer above, where its scale cannot be made up for."
        )

    def config(self) -> dict[str, Any]:
        return {
            "in_shape": self.image_shape,
            "blocks": self.blocks,
            "activation": self.activation,
        }

    def __repr__(self) -> str:
        channels = [w.shape[-4] for w in self.weights[1 : -1 : 2 * self.blocks]]
        image = "x".join(map(str, self.image_shape))
        layers = "-".join(map(str, [*channels, self.weights[-1].shape[-2]]))
        depth = len(self.weights)
        return f"Residual({image}: {layers}, {depth} layers, {self.activation})"


def _shortcut(
    h: Float[Array, "channels height width"], stride: int, channels: int
) -> Float[Array, "more_channels new_height new_width"]:
    h = h[:, ::stride, ::stride]
    return jnp.pad(h, [(0, channels - h.shape[0]), (0, 0), (0, 0)])
