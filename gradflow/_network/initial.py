"""Random initial weights."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._check import check_positive
from .._types import PerLayer, Weights


def initial_weights(
    shapes: Sequence[tuple[int, ...]],
    fan_ins: Sequence[int],
    *,
    key: PRNGKeyArray,
    gain: float,
    norm: PerLayer | None,
) -> Weights:
    """Gaussian weights of variance `gain / fan_in`, scaled to `norm` where given."""
    weights = [
        math.sqrt(gain / fan_in) * jax.random.normal(layer_key, shape)
        for layer_key, shape, fan_in in zip(
            jax.random.split(key, len(shapes)), shapes, fan_ins, strict=True
        )
    ]
    if norm is None:
        return tuple(weights)
    return tuple(
        w * (n / jnp.linalg.norm(w))
        for w, n in zip(weights, _per_layer(norm, len(shapes)), strict=True)
    )


def _per_layer(norm: PerLayer, layers: int) -> list[Float[Array, ""]]:
    check_positive("norm", norm)
    norms = jnp.asarray(norm, dtype=jnp.result_type(float))
    if norms.shape not in ((), (layers,)):
        raise ValueError(
            f"`norm` must be one number or one for each of the {layers} layers, got "
            f"shape {np.shape(norm)}."
        )
    return list(jnp.broadcast_to(norms, (layers,)))
