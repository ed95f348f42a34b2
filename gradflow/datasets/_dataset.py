"""Inputs and their labels."""

import equinox as eqx
import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from ._arrays import as_floating, concrete
from ._labels import read_labels


class Dataset(eqx.Module):
    """$N$ samples $x_n$ with labels $y_n$: signs, classes or real targets.

    A pytree of two arrays, so a batch of datasets is made and used with `vmap`.
    """

    inputs: Float[Array, "samples ..."]
    labels: Float[Array, "samples ..."] | Int[Array, " samples"]
    num_classes: int | None = eqx.field(static=True)
    regression: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: Shaped[ArrayLike, "..."],
        labels: Shaped[ArrayLike, "..."],
        *,
        num_classes: int | None = None,
        regression: bool = False,
    ):
        r"""**Arguments:**

        - `inputs`: shape `(N, ...)`. Floating dtypes are kept, integers (pixels)
            become the default floating dtype.
        - `labels`: one of

            - signs: $\pm 1$, shape `(N,)`, stored in the dtype of the inputs;
            - classes: integers $0 \ldots C-1$, shape `(N,)`, stored as int32;
            - real targets, shape `(N,)` or `(N, C)`, with `regression=True`.

        - `num_classes`: $C$. Inferred from the labels unless given, and then no class
            may be empty.
        - `regression`: whether the labels are real targets.

        **Raises:** `ValueError` if shapes disagree, if there is no sample, if a value
        is NaN or infinite, or if the labels are of none of the three kinds. Inside
        `jit` and `vmap` values cannot be seen and only shapes and dtypes are checked.
        """
        if np.ndim(inputs) < 2:
            raise ValueError(
                f"`inputs` must have shape (N, ...), not {np.shape(inputs)}; "
                "give N numbers as `inputs[:, None]`, a single sample as `inputs[None]`"
            )
        if np.shape(inputs)[0] == 0:
            raise ValueError("`inputs` holds no sample; give at least one")
        self.inputs = as_floating(inputs, "inputs")
        self.labels, self.num_classes = read_labels(
            labels, self.inputs, num_classes, regression
        )
        self.regression = regression

    @property
    def num_samples(self) -> int:
        """$N$."""
        return self.inputs.shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.inputs.shape[1:]

    @property
    def signs(self) -> bool:
        r"""Whether the labels are $\pm 1$."""
        return self.num_classes is None and not self.regression

    @property
    def num_outputs(self) -> int:
        """How many outputs a network for this data has: 1 for signs, else $C$."""
        if self.num_classes is not None:
            return self.num_classes
        return 1 if self.signs or self.labels.ndim == 1 else self.labels.shape[1]

    def __repr__(self) -> str:
        # Transformations fill modules with whatever they like, and `vmap` gives a batch
        # of datasets one more axis: describe samples only where there are some.
        shape, labels = getattr(self.inputs, "shape", ()), self.labels
        ranks = (1, 2) if self.regression else (1,)
        if len(shape) < 2 or len(getattr(labels, "shape", ())) not in ranks:
            return f"Dataset(inputs={_brief(self.inputs)}, labels={_brief(labels)})"
        return f"Dataset({shape[0]} samples of shape {shape[1:]}, {self._kind()})"

    def _kind(self) -> str:
        if self.regression:
            return f"{self.num_outputs} real target{'s' * (self.num_outputs > 1)} each"
        values = self.labels
        is_array = isinstance(values, jax.Array | np.ndarray)
        values = concrete(values) if is_array else None
        kind = "labels ±1" if self.signs else f"{self.num_classes} classes"
        if values is None or (self.num_classes or 2) > 10:
            return kind
        kinds = (1, -1) if self.signs else range(self.num_classes or 0)
        return f"{kind}: {' / '.join(str((values == k).sum()) for k in kinds)}"


def _brief(leaf) -> str:
    """Dtype and shape of an array, anything else as it is."""
    is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return f"{leaf.dtype}{list(leaf.shape)}" if is_array else repr(leaf)
