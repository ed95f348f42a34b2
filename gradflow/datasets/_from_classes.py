"""Two classes are signs: the convention of every dataset here."""

import numpy as np
from jaxtyping import Array, Float, Integer

from ._dataset import Dataset


def from_classes(
    inputs: Float[Array, "samples ..."],
    classes: Integer[Array | np.ndarray, " samples"],
    num_classes: int,
    signs: bool,
) -> Dataset:
    """A dataset of classes, or of signs if there are two of them and `signs` is true.

    The first class is then $+1$ and the second $-1$. Classes may be empty.
    """
    if signs and num_classes == 2:
        return Dataset(inputs, 1.0 - 2.0 * classes.astype(inputs.dtype))
    return Dataset(inputs, classes, num_classes=num_classes)
