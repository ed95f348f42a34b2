"""MNIST, from files of the user's."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ._dataset import Dataset
from ._idx import read_idx
from ._labelled import check_images, check_labels
from ._npz import SPLITS, Labelled, read_npz
from ._select import check_split, select


def mnist(
    path: str | os.PathLike,
    *,
    classes: Sequence[int] | None = None,
    split: str = "train",
    per_class: int | None = None,
    image: bool = False,
    bias: float | int = 1.0,
    signs: bool = True,
) -> Dataset:
    """MNIST, or a collection in the same format (Fashion-MNIST, KMNIST, a part).

    **Arguments:**

    - `path`: an npz file with the keys `x_train y_train x_test y_test`, or a folder
        with the four IDX files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
        `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` (also `train-images.idx3-…`;
        each may end in `.gz`).
    - `classes`, `per_class`, `image`, `bias`, `signs`: as in
        [`gradflow.datasets.digits`][]. `None` stands for all classes in the files.
    - `split`: `"train"`, `"test"` or `"all"`.

    **Returns:** a [`gradflow.Dataset`][] with inputs `(N, 784 + 1)`, or
    `(N, 1 + 1, 28, 28)` with `image=True`.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file if it is damaged
    or something else, and the argument if it asks for what is not there.

    ??? cite

        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-based learning applied
        to document recognition*, Proceedings of the IEEE 86 (1998).
    """
    check_split(split, tuple(SPLITS))
    read = _read_folder if os.path.isdir(path) else read_npz
    images, labels, known = read(path, split)
    if images.ndim != 3:
        raise ValueError(
            f"{path}: images must have shape (N, height, width), not {images.shape}"
        )
    return select(
        images[:, None],
        labels,
        source=str(path),
        known=known,
        classes=classes,
        per_class=per_class,
        image=image,
        bias=bias,
        signs=signs,
    )


def _read_folder(folder: str | os.PathLike, split: str) -> Labelled:
    # The labels of both splits, so that a class has the same number in either of them.
    labels, images = {}, {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        path = _find(folder, f"{prefix}-labels", "idx1-ubyte")
        labels[part] = check_labels(str(path), _read_ubyte(path))
        if part in SPLITS[split]:
            path = _find(folder, f"{prefix}-images", "idx3-ubyte")
            images[part] = _read_ubyte(path)
            check_images(str(path), images[part], labels[part])
    if len({x.shape[1:] for x in images.values()}) > 1:
        raise ValueError(f"{folder}: training and test images differ in shape")
    known = np.unique(np.concatenate([np.unique(y) for y in labels.values()]))
    return Labelled(
        np.concatenate(list(images.values())),
        np.concatenate([labels[part] for part in images]),
        known.tolist(),
    )


def _read_ubyte(path: Path) -> np.ndarray:
    array = read_idx(path)
    if array.dtype != np.uint8:
        raise ValueError(f"{path}: holds {array.dtype}, and by its name unsigned bytes")
    return array


def _find(folder, stem, kind) -> Path:
    """The first of the spellings under which the file is in circulation."""
    names = [f"{stem}{dot}{kind}{gz}" for gz in ("", ".gz") for dot in "-."]
    for name in names:
        if (found := Path(folder, name)).is_file():
            return found
    raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")
