"""Diagonal networks."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._tree import safe_norm
from .._types import PerLayer, Weights
from .activation import AbstractActivation, ReLU
from .base import AbstractNetwork, HandOn
from .initial import initial_weights


class Diagonal(AbstractNetwork):
    r"""A network of diagonal layers and one output.

    $g(x) = \sum_i w_L^i \sigma(w_{L-1}^i \cdots \sigma(w_1^i x^i))$ (M112 App. I.3):
    the dense network whose hidden matrices are $\mathrm{diag}(w_k)$ and whose last one
    is the row $w_L$, with only these entries free.
    """

    weights: Weights
    activation: AbstractActivation

    def __init__(
        self,
        size: int,
        depth: int,
        *,
        key: PRNGKeyArray,
        activation: AbstractActivation = ReLU(),  # noqa: B008
        norm: PerLayer | None = None,
    ):
        """**Arguments:**

        - `size`: the size `d` of the input and of every layer.
        - `depth`: the number of layers `L`.
        - `key`: a `jax.random.key`.
        - `activation`: of all layers but the last.
        - `norm`: Euclidean norm of each layer, one number for all or one for each. Not
            given: standard normal entries times the activation's gain.

        **Raises:** `ValueError` for a `size` or `depth` below 1, or a `norm` that is
        not positive or does not fit.
        """
        if size < 1 or depth < 1:
            raise ValueError(
                f"`size` and `depth` must be at least 1, got {size} and {depth}."
            )
        self.weights = initial_weights(
            [(size,)] * depth,
            [1] * depth,
            key=key,
            gain=activation.gain,
            norm=norm,
        )
        self.activation = activation

    @classmethod
    def from_weights(
        cls,
        weights: Sequence[Float[Array, " d"]],
        activation: AbstractActivation = ReLU(),  # noqa: B008
    ) -> "Diagonal":
        """A network with the given weights, each of shape `(d,)`.

        **Raises:** `ValueError` where the shapes do not fit together.
        """
        if len(weights) == 0 or any(
            w.ndim != 1 or w.shape != weights[0].shape for w in weights
        ):
            raise ValueError(
                "`weights` must hold one vector (d,) or more, all of one length; got "
                f"shapes {[w.shape for w in weights]}."
            )
        skeleton = eqx.filter_eval_shape(
            lambda: cls(
                weights[0].shape[0],
                len(weights),
                key=jax.random.key(0),
                activation=activation,
            )
        )
        return skeleton.with_weights(tuple(weights))

    def forward(
        self, x: Float[Array, " d"], hand_on: HandOn
    ) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, "1"]]:
        *hidden, last = self.weights
        handed_on, h = [], x
        for weight in hidden:
            h = hand_on(weight * h, jnp.abs(weight) * safe_norm(h))
            handed_on.append(h)
        return tuple(handed_on), jnp.sum(last * h, keepdims=True)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.weights[0].shape

    @property
    def out_size(self) -> int:
        return 1

    @property
    def weight_ndims(self) -> tuple[int, ...]:
        return (1,) * len(self.weights)

    @property
    def degrees(self) -> tuple[int, ...]:
        return (1,) * len(self.weights)

    @property
    def matrices(self) -> tuple[Float[Array, "out in"], ...]:
        """Diagonal matrices, then a row."""
        *hidden, last = self.weights
        return (*map(jnp.diag, hidden), last[None])

    def scale_fan_in(
        self, layer: int, weight: Float[Array, "..."], factors: Float[Array, " units"]
    ) -> Float[Array, "..."]:
        del layer
        return weight * factors

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation}

    def __repr__(self) -> str:
        return (
            f"Diagonal({self.weights[0].shape[-1]}, {len(self.weights)} layers, "
            f"{self.activation})"
        )
