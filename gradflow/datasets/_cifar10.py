"""CIFAR-10, from files of the user's."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ._dataset import Dataset
from ._npz import SPLITS, Labelled, read_npz
from ._select import check_split, select

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_BATCHES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


def cifar10(
    path: str | os.PathLike,
    *,
    classes: Sequence[int | str] | None = None,
    split: str = "train",
    per_class: int | None = None,
    image: bool = True,
    bias: float | int = 1.0,
    signs: bool = True,
) -> Dataset:
    """CIFAR-10, or a part of it.

    **Arguments:**

    - `path`: an npz file with the keys `x_train y_train x_test y_test`, images
        `(N, 32, 32, 3)` or `(N, 3, 32, 32)`, or the folder of the binary version with
        `data_batch_1.bin`, …, `data_batch_5.bin` and `test_batch.bin`.
        The Python version is pickled, and is not read.
    - `classes`: as in [`gradflow.datasets.digits`][], by number or by name
        (`gradflow.datasets.CIFAR10_CLASSES`). `None` stands for all classes in the
        npz file, and for all ten of the binary version.
    - `split`: `"train"`, `"test"` or `"all"`.
    - `per_class`, `image`, `bias`, `signs`: as in [`gradflow.datasets.digits`][].

    **Returns:** a [`gradflow.Dataset`][] with inputs `(N, 3 + 1, 32, 32)`, or
    `(N, 3072 + 1)` with `image=False`.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file if it is damaged
    or something else, and the argument if it asks for what is not there.

    ??? cite

        A. Krizhevsky, *Learning multiple layers of features from tiny images*,
        University of Toronto (2009).
    """
    check_split(split, tuple(SPLITS))
    if os.path.isdir(path):
        images, labels, known = _read_folder(path, split)
    else:
        images, labels, known = read_npz(path, split)
        images = _channels_first(path, images)
        if known[-1] >= len(CIFAR10_CLASSES):
            raise ValueError(f"{path}: label {known[-1]}, but there are ten classes")
    return select(
        images,
        labels,
        source=str(path),
        known=known,
        classes=classes,
        per_class=per_class,
        image=image,
        bias=bias,
        signs=signs,
        names=CIFAR10_CLASSES,
    )


def _channels_first(path, images: np.ndarray) -> np.ndarray:
    if images.shape[1:] == (32, 32, 3):
        return images.transpose(0, 3, 1, 2)
    if images.shape[1:] == _SHAPE:
        return images
    raise ValueError(
        f"{path}: images must have shape (N, 32, 32, 3) or (N, 3, 32, 32), "
        f"not {images.shape}"
    )


def _read_folder(folder: str | os.PathLike, split: str) -> Labelled:
    names = [name for part in SPLITS[split] for name in _BATCHES[part]]
    batches = [_read_batch(Path(folder, name)) for name in names]
    return Labelled(
        np.concatenate([images for images, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        list(range(len(CIFAR10_CLASSES))),
    )


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,): records of a label and 3072 pixels."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size == 0 or content.size % _RECORD:
        raise ValueError(
            f"{path}: {content.size} bytes are not a whole number of CIFAR-10 records "
            f"of {_RECORD} bytes"
        )
    records = content.reshape(-1, _RECORD)
    labels = records[:, 0]
    if labels.max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"{path}: label {labels.max()}, but there are ten classes")
    return records[:, 1:].reshape(-1, *_SHAPE), labels
