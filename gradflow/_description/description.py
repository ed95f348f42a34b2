"""What a description is, and its fingerprint."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np


class Description(NamedTuple):
    """Named arguments as plain JSON, and the arrays that it speaks of, by name."""

    arguments: dict[str, Any]
    arrays: dict[str, np.ndarray]


def fingerprint(description: Description) -> str:
    """The SHA-256 of the JSON, whatever the order of its keys, and of every array's
    dtype, shape and bytes.

    **Raises:** `ValueError` for what is not JSON.
    """
    try:
        page = canonical(description.arguments)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The description is not plain JSON: {error}.") from error
    digest = hashlib.sha256(page.encode())
    for name, array in sorted(description.arrays.items()):
        header = [name, array.dtype.str, list(array.shape)]
        digest.update(f"\n{canonical(header)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_whole(description: Description, expected: str) -> None:
    """Raises a `ValueError` where the fingerprint is not the `expected` one."""
    if fingerprint(description) != expected:
        raise ValueError(
            "The description is damaged: its fingerprint is not the one that was "
            "stored with it."
        )


def without_labels(node: Any) -> Any:
    """Without the names of code, such as those of functions of a program that by now
    has moved to a module."""
    if isinstance(node, list):
        return [without_labels(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        tag: {k: without_labels(v) for k, v in content.items()}
        if isinstance(content, dict)
        else without_labels(content)
        for tag, content in node.items()
        if tag != "foreign"
    }


def canonical(tree: Any) -> str:
    """The one way to write a tree as strict JSON."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
