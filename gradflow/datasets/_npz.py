"""Labelled images in an npz file, as Keras distributes them."""

import os
from typing import NamedTuple

import numpy as np

from .._disk.unpack import unpack
from ._labelled import check_images, check_labels

_LABELS = ("y_train", "y_test")
SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}


class Labelled(NamedTuple):
    """Images (N, ...), their labels (N,), and the classes of the whole collection."""

    images: np.ndarray
    labels: np.ndarray
    known: list[int]


def read_npz(path: str | os.PathLike, split: str) -> Labelled:
    """Reads the keys `x_train y_train x_test y_test`; other keys are left alone.

    Never unpickles: such a file could run any code.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file if it is anything
    but a whole npz file of integer images with their labels.
    """
    parts = SPLITS[split]
    # Opened outside the `try`: a file that is missing or forbidden is not a bad file.
    with open(path, "rb") as file:
        try:
            arrays = unpack(file, [*(f"x_{part}" for part in parts), *_LABELS])
        # Damage shows as nearly any exception.
        except Exception as error:
            raise ValueError(
                f"{path}: cannot be read as an npz file with the keys x_train, "
                f"y_train, x_test, y_test: {type(error).__name__}: {error}"
            ) from error
    labels = {
        p: check_labels(f"{path}, y_{p}", arrays[f"y_{p}"]) for p in SPLITS["all"]
    }
    images = {p: arrays[f"x_{p}"] for p in parts}
    for part in parts:
        check_images(f"{path}, x_{part}", images[part], labels[part])
    if len({x.shape[1:] for x in images.values()}) > 1:
        raise ValueError(f"{path}: training and test images differ in shape")
    # From both splits, so that a class has the same number in either of them.
    known = np.unique(np.concatenate([np.unique(y) for y in labels.values()]))
    return Labelled(
        np.concatenate([images[part] for part in parts]),
        np.concatenate([labels[part] for part in parts]),
        known.tolist(),
    )
