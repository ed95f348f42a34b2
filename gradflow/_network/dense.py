"""Fully connected networks."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .._tree import safe_norm
from .._types import PerLayer, Weights
from .activation import AbstractActivation, ReLU
from .base import AbstractNetwork, HandOn
from .initial import initial_weights


class Dense(AbstractNetwork):
    r"""A fully connected network without biases.

    $g(x) = W_L \sigma(W_{L-1} \cdots \sigma(W_1 x))$ (M112 §2); with
    `activation=Identity()` a deep linear network.
    """

    weights: Weights
    activation: AbstractActivation

    def __init__(
        self,
        widths: Sequence[int],
        *,
        key: PRNGKeyArray,
        activation: AbstractActivation = ReLU(),  # noqa: B008
        norm: PerLayer | None = None,
    ):
        """**Arguments:**

        - `widths`: `(d, …, C)`, the input's size, those of the hidden layers and the
            number of outputs.
        - `key`: a `jax.random.key`.
        - `activation`: of all layers but the last.
        - `norm`: Frobenius norm of each layer, one number for all or one for each. Not
            given: He's scaling, the second moment of the units kept from layer to
            layer.

        **Raises:** `ValueError` for fewer than two widths, widths below 1, or a `norm`
        that is not positive or does not fit.
        """
        if len(widths) < 2 or any(width < 1 for width in widths):
            raise ValueError(
                "`widths` must hold at least the input's size and the number of "
                f"outputs, all of them positive; got {tuple(widths)}."
            )
        self.weights = initial_weights(
            list(zip(widths[1:], widths[:-1], strict=True)),
            widths[:-1],
            key=key,
            gain=activation.gain,
            norm=norm,
        )
        self.activation = activation

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[Float[Array, "_ _"]],
        activation: AbstractActivation = ReLU(),  # noqa: B008
    ) -> "Dense":
        """A network with the given weights, `weights[k]` of shape `(out, in)`.

        **Raises:** `ValueError` where the shapes do not fit together.
        """
        for k, weight in enumerate(weights):
            if weight.ndim != 2:
                raise ValueError(
                    f"`weights[{k}]` must be a matrix (out, in), got {weight.shape}."
                )
            if k > 0 and weight.shape[1] != weights[k - 1].shape[0]:
                raise ValueError(
                    f"`weights[{k}]` of shape {weight.shape} does not fit "
                    f"`weights[{k - 1}]` of shape {weights[k - 1].shape}: it takes "
                    f"{weight.shape[1]} inputs from {weights[k - 1].shape[0]} units."
                )
        if len(weights) == 0:
            raise ValueError("`weights` must hold at least one matrix.")
        widths = (weights[0].shape[1], *(weight.shape[0] for weight in weights))
        skeleton = eqx.filter_eval_shape(
            lambda: cls(widths, key=jax.random.key(0), activation=activation)
        )
        return skeleton.with_weights(tuple(weights))

    def forward(
        self, x: Float[Array, " d"], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, " outputs"]]:
        *hidden, last = self.weights
        handed_on, h = [], x
        for weight in hidden:
            scale = safe_norm(weight, axis=1) * safe_norm(h)
            h = hand_on(weight @ h, scale)
            handed_on.append(h)
        return tuple(handed_on), last @ h

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.weights[0].shape[1],)

    @property
    def out_size(self) -> int:
        return self.weights[-1].shape[0]

    @property
    def weight_ndims(self) -> tuple[int, ...]:
        return (2,) * len(self.weights)

    @property
    def degrees(self) -> tuple[int, ...]:
        return (1,) * len(self.weights)

    @property
    def matrices(self) -> tuple[Float[Array, "out in"], ...]:
        return self.weights

    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        del layer
        return weight * factors[None, :]

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation}

    def __repr__(self) -> str:
        widths = [w.shape[-1] for w in self.weights] + [self.weights[-1].shape[-2]]
        return f"Dense({'-'.join(map(str, widths))}, {self.activation})"
