"""Pytrees of arrays as flat lists of named arrays, and back."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax

Path: TypeAlias = tuple[str | int, ...]


def flatten(tree: Any) -> dict[Path, Any]:
    """The leaves of a pytree, each under the fields, keys and indices to it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(map(_name, path)): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[Path, Any]) -> dict[str | int, Any]:
    """Dictionaries within dictionaries, whose leaves are under the given paths."""
    tree: dict[str | int, Any] = {}
    for (*parents, last), leaf in leaves.items():
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def _name(key: Any) -> str | int:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            name = getattr(key, attribute)
            return name if isinstance(name, int) else str(name)
    return str(key)
