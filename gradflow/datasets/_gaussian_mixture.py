"""Classes that are Gaussian clouds around given points."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Shaped

from ._arrays import as_floating
from ._dataset import Dataset
from ._from_classes import from_classes
from ._preprocess import unit_norm


def gaussian_mixture(
    means: Shaped[ArrayLike, "..."],
    per_class: int,
    *,
    key: Key[Array, ""],
    scale: float | int = 0.1,
    bias: float | int | None = 1.0,
    signs: bool = True,
) -> Dataset:
    r"""$x_n = \mu_c + s\,\xi_n$ with standard normal $\xi_n$, class after class.

    **Arguments:**

    - `means`: $\mu_c$, shape `(C, d)`, one row for each of $C \ge 2$ classes.
    - `per_class`: samples of each class.
    - `key`: draws the noise.
    - `scale`: $s$, the standard deviation of every component.
    - `bias`: inputs are scaled to unit norm and have this constant component, as in
        [`gradflow.datasets.unit_norm`][]; with `None` they stay as they are drawn.
    - `signs`: whether two classes become labels $+1$ (the first) and $-1$.

    **Returns:** a [`gradflow.Dataset`][] with `C * per_class` samples.
    """
    if np.ndim(means) != 2 or np.shape(means)[0] < 2:
        raise ValueError(
            "`means` must have shape (C, d) with at least two classes, "
            f"not {np.shape(means)}"
        )
    if per_class < 1:
        raise ValueError(f"`per_class` must be at least 1, not {per_class}")
    if not 0 <= scale < math.inf:
        raise ValueError(f"`scale` must be finite and not negative, not {scale}")
    means = as_floating(means, "means")
    classes = jnp.repeat(jnp.arange(means.shape[0]), per_class)
    noise = jax.random.normal(key, (classes.size, means.shape[1]), means.dtype)
    inputs = means[classes] + scale * noise
    if bias is not None:
        inputs = unit_norm(inputs, bias)
    return from_classes(inputs, classes, means.shape[0], signs)
