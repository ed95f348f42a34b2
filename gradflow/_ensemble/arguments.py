"""The arguments of many runs: one for all of them, or one for each."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._check import is_concrete
from .stacked import alike


def for_each(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arguments of each run. A list, a tuple or a vector has one for each, anything
    else is for all.

    **Raises:** `ValueError` where nothing is a list, where their lengths differ, where
    one is empty, or where one is being traced.
    """
    if not is_concrete(arguments):
        raise ValueError(
            f"`{next(iter(arguments))}`, or another argument, is being traced: an "
            "ensemble cannot be part of a function that is compiled or "
            "differentiated. Use `jax.vmap`."
        )
    lists = {name: list(x) for name, x in arguments.items() if _is_several(x)}
    if not lists:
        raise ValueError(
            f"`{next(iter(arguments))}`, or another argument, must be a list with one "
            "for each member."
        )
    (first, values), *others = lists.items()
    if not values:
        raise ValueError(f"`{first}` is empty: give one for each member.")
    for name, other in others:
        if len(other) != len(values):
            raise ValueError(
                f"`{name}` has {len(other)} entries and `{first}` has {len(values)}: "
                "give one for each member, in lists of the same length."
            )
    return [
        {**arguments, **{name: x[i] for name, x in lists.items()}}
        for i in range(len(values))
    ]


def parameters(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The numbers in which the entries of lists differ, by their names."""
    return {
        name + place: values
        for name, x in arguments.items()
        if _is_several(x)
        for place, values in _numbers(list(x)).items()
        if np.any(values != values[0])
    }


def check_alike(name: str, values: Sequence[Any], parts: Sequence[Any]) -> None:
    """Raises a `ValueError` where an argument, or what a run makes of it, differs in
    more than the values of its arrays."""
    for i, part in enumerate(parts):
        if not alike(parts[0], part):
            raise ValueError(
                f"`{name}` may differ from member to member in values, but not in "
                "shapes and kinds, which are compiled: member 0 has "
                f"{values[0]!r}, member {i} has {values[i]!r}. Make an ensemble of "
                "each kind."
            )


def _is_several(x: Any) -> bool:
    is_vector = isinstance(x, (np.ndarray, jax.Array)) and np.ndim(x) == 1
    # Exactly: an optax optimiser is a tuple, too.
    return type(x) in (list, tuple) or is_vector


def _numbers(trees: Sequence[Any]) -> dict[str, np.ndarray]:
    rows = [
        {
            jax.tree_util.keystr(path): float(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if _is_number(leaf)
        }
        for tree in trees
    ]
    return {place: np.array([row[place] for row in rows]) for place in rows[0]}


def _is_number(leaf: Any) -> bool:
    return np.ndim(leaf) == 0 and (
        isinstance(leaf, (int, float))
        or jnp.issubdtype(getattr(leaf, "dtype", object), jnp.number)
    )
