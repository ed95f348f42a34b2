"""Real images that come with the library."""

from collections.abc import Sequence
from importlib import resources

import numpy as np

from ._dataset import Dataset
from ._select import check_split, select


def digits(
    classes: Sequence[int] | None = (3, 8),
    *,
    split: str = "train",
    per_class: int | None = None,
    image: bool = False,
    bias: float | int = 1.0,
    signs: bool = True,
) -> Dataset:
    r"""Handwritten digits, 1,797 images of 8 × 8 pixels, scaled to unit norm.

    Within each class every fifth image is for testing, the others for training.

    **Arguments:**

    - `classes`: which digits; `None` for all ten. Two classes become labels $+1$ (the
        first named) and $-1$ (the second), more become $0, 1, \ldots$ in the order
        given.
    - `split`: `"train"`, `"test"` or `"all"`.
    - `per_class`: take the first so many of each class. By default all of them.
    - `image`: whether inputs keep the shape of images.
    - `bias`: the constant component that plays the bias, see
        [`gradflow.datasets.unit_norm`][]; 0 for none.
    - `signs`: with `False` two classes become 0 and 1 as well.

    **Returns:** a [`gradflow.Dataset`][] with inputs `(N, 64 + 1)`, or
    `(N, 1 + 1, 8, 8)` with `image=True`.

    ??? cite

        E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI
        Machine Learning Repository (1998), https://doi.org/10.24432/C50P49, licensed
        under CC BY 4.0. These are the images of its test set, as in scikit-learn's
        `load_digits`.
    """
    check_split(split, ("train", "test", "all"))
    file = resources.files("gradflow.datasets").joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    if split != "all":
        rows = _is_test(labels) == (split == "test")
        images, labels = images[rows], labels[rows]
    return select(
        images[:, None],
        labels,
        source=f"digits ({split})",
        known=range(10),
        classes=classes,
        per_class=per_class,
        image=image,
        bias=bias,
        signs=signs,
    )


def _is_test(labels: np.ndarray) -> np.ndarray:
    """Marks every fifth sample of each class, counted in the order of the file."""
    rank = np.zeros(len(labels), int)
    for c in np.unique(labels):
        rank[labels == c] = np.arange((labels == c).sum())
    return rank % 5 == 4
