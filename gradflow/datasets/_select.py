"""From labelled images to a dataset: which classes, how many of each, what shape."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, Shaped

from ._dataset import Dataset
from ._from_classes import from_classes
from ._preprocess import unit_norm


def select(
    images: Shaped[np.ndarray, "samples channels height width"],
    labels: Integer[np.ndarray, " samples"],
    *,
    source: str,
    known: Sequence[int],
    classes: Sequence[int | str] | None,
    per_class: int | None,
    image: bool,
    bias: float | int,
    signs: bool,
    names: Sequence[str] = (),
) -> Dataset:
    """The part of a collection of labelled images that was asked for, in its order.

    **Arguments:**

    - `source`: what messages call the collection.
    - `known`: the classes that it has, which `classes=None` stands for.
    - `names`: names of the classes, by which `classes` may call them.
    - the others: as in [`gradflow.datasets.digits`][].
    """
    chosen = list(known) if classes is None else _numbers(classes, known, names, source)
    if len(chosen) < 2:
        raise ValueError(
            f"`classes` must be two or more classes of {source}; got {chosen}"
        )
    members = [np.flatnonzero(labels == c) for c in chosen]
    if classes is not None:
        for c, found in zip(chosen, members, strict=True):
            if found.size == 0:
                raise ValueError(f"`classes` has {c}, of which {source} has no sample")
    if per_class is not None:
        members = _first(members, chosen, per_class, source)
    index = np.sort(np.concatenate(members))
    images = images[index]
    # Looked for here although `unit_norm` would: here it is known where they lie.
    zero = index[~images.reshape(len(index), -1).any(axis=1)]
    if zero.size:
        raise ValueError(
            f"{source}: {zero.size} images are zero throughout, the first is number "
            f"{zero[0]}, and cannot be scaled to unit norm"
        )
    position = {c: i for i, c in enumerate(chosen)}
    labels = np.array([position[c] for c in labels[index].tolist()], np.int32)
    inputs = unit_norm(images if image else images.reshape(len(index), -1), bias)
    return from_classes(inputs, labels, len(chosen), signs)


def _numbers(classes, known, names, source):
    """Classes by number, each known and each named once."""
    if isinstance(classes, str) or np.ndim(classes) == 0:
        raise ValueError(f"`classes` must be a sequence of classes, not {classes!r}")
    numbers = {name: c for c, name in enumerate(names)}
    chosen = [numbers.get(c, c) for c in classes]
    for given, c in zip(classes, chosen, strict=True):
        if c not in known:
            named = f" ({', '.join(names)})" if names else ""
            raise ValueError(
                f"`classes` has {given!r}, which {source} has not; "
                f"it has {', '.join(map(str, known))}{named}"
            )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`classes` names a class twice: {tuple(classes)}")
    return chosen


def _first(members, chosen, per_class, source) -> list[np.ndarray]:
    """The first `per_class` members of each class."""
    if per_class < 1:
        raise ValueError(f"`per_class` must be at least 1, not {per_class}")
    for c, found in zip(chosen, members, strict=True):
        if found.size < per_class:
            raise ValueError(
                f"`per_class={per_class}` is more than the {found.size} samples of "
                f"class {c} in {source}"
            )
    return [found[:per_class] for found in members]


def check_split(split: str, splits: Sequence[str]) -> None:
    """Raises `ValueError` unless `split` is one of `splits`."""
    if split not in splits:
        raise ValueError(f"`split` must be one of {tuple(splits)}, not {split!r}")
