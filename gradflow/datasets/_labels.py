"""The three kinds of labels: signs, classes and real targets."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from ._arrays import as_floating, concrete


def read_labels(
    labels: Shaped[ArrayLike, "..."],
    inputs: Float[Array, "samples ..."],
    num_classes: int | None,
    regression: bool,
) -> tuple[Float[Array, "samples ..."] | Int[Array, " samples"], int | None]:
    """Checks labels and brings them to the dtype they are stored in.

    Floating labels are signs and integer labels are classes, except that integers
    among which there is a -1 and nothing but ±1 are signs.

    **Returns:** the labels, and the number of classes (`None` unless they are classes).
    """
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    if labels.ndim == 0 or labels.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"`labels` of shape {labels.shape} do not belong to `inputs` of shape "
            f"{inputs.shape}; give one label for each of the {inputs.shape[0]} samples"
        )
    if num_classes is not None and (num_classes < 1 or regression):
        raise ValueError(
            "`num_classes` must be a positive number, and is for class labels only, "
            f"not for `regression=True`; got {num_classes}"
        )
    if regression:
        return _targets(labels, inputs.dtype), None
    if labels.ndim != 1:
        raise ValueError(
            f"`labels` must have shape ({inputs.shape[0]},), not {labels.shape}; pass "
            "`labels.argmax(axis=1)` for one-hot rows, `labels[:, 0]` for a column, "
            "`regression=True` for several real targets"
        )
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return _signs(labels, inputs.dtype, num_classes), None
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"`labels` of dtype {labels.dtype} are neither ±1 nor class numbers; "
            "convert them, `2.0 * labels - 1.0` for booleans"
        )
    values = concrete(labels)
    if num_classes is None:
        if values is None:
            raise ValueError(
                "`labels` are integers without known values under this transformation; "
                "give `num_classes=` for classes, or floating labels for ±1"
            )
        if values.min() == -1 and np.isin(values, (-1, 1)).all():
            return _signs(labels, inputs.dtype, None), None
    return _classes(labels, values, num_classes)


def _targets(labels, dtype):
    if labels.ndim > 2:
        raise ValueError(
            "`labels` must have shape (N,) or (N, C) with `regression=True`, "
            f"not {labels.shape}"
        )
    return as_floating(labels, "labels", dtype)


def _signs(labels, dtype, num_classes):
    if num_classes is not None:
        raise ValueError(
            f"`labels` of dtype {labels.dtype} are signs ±1 and take no `num_classes`; "
            "give integer labels for classes"
        )
    values = concrete(labels)
    if values is not None and not (np.abs(values) == 1).all():
        first = int(np.argmax(np.abs(values) != 1))
        raise ValueError(
            "`labels` of a floating dtype must be -1 or 1, but "
            f"`labels[{first}]` is {values[first]}; give integers 0, 1, … for classes, "
            "`2 * labels - 1` for labels 0 and 1, `regression=True` for real targets"
        )
    return jnp.asarray(labels.astype(dtype))


def _classes(labels, values, num_classes):
    if values is not None:
        low, high = int(values.min()), int(values.max())
        if low < 0:
            raise ValueError(
                f"`labels` has a negative class, {low}; "
                "classes are 0, 1, …, and signs are only -1 and 1 without `num_classes`"
            )
        if num_classes is None:
            num_classes = high + 1
            _no_empty_class(values, num_classes)
        elif high >= num_classes:
            raise ValueError(
                f"`labels` has class {high}, out of range for "
                f"`num_classes={num_classes}`; classes are counted from 0"
            )
    return jnp.asarray(labels.astype(np.int32)), num_classes


def _no_empty_class(values, num_classes):
    present = np.unique(values).tolist()
    if len(present) == num_classes:
        return
    # Stray labels can be huge: never make a list as long as the largest of them.
    gaps = zip([-1, *present], present, strict=False)
    empty = [c for low, high in gaps for c in range(low + 1, min(high, low + 6))][:5]
    count = num_classes - len(present)
    raise ValueError(
        f"`labels` leaves classes {', '.join(map(str, empty))}"
        f"{' …' if count > len(empty) else ''} empty ({count} of {num_classes}); "
        f"give `num_classes={num_classes}` if they are meant to be empty, "
        "floating labels if these are signs"
    )
