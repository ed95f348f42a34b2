"""What a file of labelled images must hold, whatever its format."""

import numpy as np


def check_labels(source: str, labels: np.ndarray) -> np.ndarray:
    """Labels of shape (N,), from (N,) or (N, 1), not negative.

    **Raises:** `ValueError` that names the file, `source`.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{source}: labels must be integers of shape (N,), "
            f"not {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"{source}: label {labels.min()} is negative")
    return labels


def check_images(source: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Raises `ValueError` unless `images` are integers, one image for each label."""
    if not np.issubdtype(images.dtype, np.integer):
        raise ValueError(
            f"{source}: images must be integers (pixels), not {images.dtype}"
        )
    if images.ndim == 0 or len(images) != len(labels):
        raise ValueError(
            f"{source}: images of shape {images.shape} do not belong to "
            f"{len(labels)} labels"
        )
    if images.size == 0:
        raise ValueError(f"{source}: no image, the shape is {images.shape}")
