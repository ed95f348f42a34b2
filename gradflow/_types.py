"""Aliases used in signatures throughout the library."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float, Int

AnyArray: TypeAlias = Array | np.ndarray
"""In memory, or mapped from a file."""

Weights: TypeAlias = tuple[Float[Array, "..."], ...]
"""The weights of the layers, `W_1` first."""

StackedWeights: TypeAlias = tuple[Float[AnyArray, "..."], ...]
"""Those of several networks, along a leading axis."""

State: TypeAlias = Any
"""What a flow evolves: a pytree of floating-point arrays."""

RealScalarLike: TypeAlias = float | int | Float[Array, ""] | Int[Array, ""]
BoolScalarLike: TypeAlias = bool | Bool[Array, ""]

PerLayer: TypeAlias = RealScalarLike | Sequence[float | int] | Float[Array, " layers"]
"""One number for all layers, or one for each."""

Observable: TypeAlias = Callable[..., Any]
"""`fn(problem, network) -> array`."""

Schedule: TypeAlias = Callable[[Any], Any]
"""A function of the number of steps taken so far, as optax has them."""
