"""Values from plain JSON and arrays."""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .known import CLASSES, OBJECTS

_KINDS_OF_KEYS = ("threefry2x32", "rbg", "unsafe_rbg")


class Reader(NamedTuple):
    """Reads what belongs to one argument, which the messages name.

    Its methods raise a `ValueError` for what no description holds.
    """

    argument: str
    arrays: Mapping[str, np.ndarray]

    def read(self, node: Any) -> Any:
        """The value that a piece of JSON stands for."""
        if isinstance(node, float) and math.isfinite(node):
            return node
        if node is None or isinstance(node, bool | int | str):
            return node
        if isinstance(node, list):
            return self._items(node)
        # A pattern for a dictionary lets other keys pass, hence the number of them.
        match (len(node) if isinstance(node, dict) else 0), node:
            case 1, {"float": "inf" | "-inf" | "nan" as text}:
                return float(text)
            case 1, {"tuple": list(items)}:
                return tuple(self._items(items))
            case 1, {"frozenset": list(items)}:
                return self._set(items)
            case 1, {"dict": dict(values)}:
                return self._values(values)
            case 1, {"name": str(name)} if name in OBJECTS:
                return OBJECTS[name]
            case 2, {"array": str(name), "of": str(kind)} if name in self.arrays:
                return self._array(self.arrays[name], kind)
            case 2, {"key": str(name), "impl": str(kind)} if name in self.arrays:
                return self._key(self.arrays[name], kind)
            case 2, {"class": str(name), "fields": dict(fields)} if name in CLASSES:
                return self._instance(name, self._values(fields))
            case 2, {"foreign": str(label), "fingerprint": str()}:
                raise ValueError(
                    f"`{self.argument}`: {label!r} is made of code, which no file "
                    f"holds: give `{self.argument}=` again, as in the call that began "
                    "the run."
                )
        raise self._unreadable(node)

    def _items(self, nodes: list[Any]) -> list[Any]:
        return [self.read(node) for node in nodes]

    def _values(self, nodes: dict[str, Any]) -> dict[str, Any]:
        return {key: self.read(node) for key, node in nodes.items()}

    def _set(self, nodes: list[Any]) -> frozenset[Any]:
        try:
            return frozenset(self._items(nodes))
        except TypeError as error:
            raise self._unreadable(nodes) from error

    def _array(self, array: np.ndarray, kind: str) -> Any:
        if kind == "numpy":
            return array
        if kind == "numpy scalar" and array.ndim == 0:
            return array[()]
        if kind == "jax" and array.dtype.kind in "biufc":
            return self._of_dtype(array.dtype, jnp.asarray(array))
        if kind == "weak jax" and array.dtype.kind in "biufc" and array.ndim == 0:
            return self._of_dtype(array.dtype, jnp.asarray(array.item()))
        raise self._unreadable(kind)

    def _of_dtype(self, dtype: np.dtype, array: jax.Array) -> jax.Array:
        if array.dtype != dtype:
            raise ValueError(
                f"`{self.argument}` holds numbers of type {dtype}, which are switched "
                'off here: put `jax.config.update("jax_enable_x64", True)` at the '
                "top of the program, as where the run began."
            )
        return array

    def _key(self, data: np.ndarray, kind: str) -> jax.Array:
        if kind not in _KINDS_OF_KEYS:
            raise self._unreadable(kind)
        try:
            return jax.random.wrap_key_data(jnp.asarray(data), impl=kind)
        except (TypeError, ValueError) as error:
            raise self._unreadable(data) from error

    def _instance(self, name: str, fields: dict[str, Any]) -> Any:
        cls = CLASSES[name]
        expected = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != expected:
            raise ValueError(
                f"`{self.argument}`: a {name} has the fields {sorted(expected)}, and "
                f"not {sorted(fields)}. Was it saved by another version?"
            )
        instance = object.__new__(cls)
        for field, value in fields.items():
            object.__setattr__(instance, field, value)
        try:
            _check(instance)
        # The fields may be of any type, and a check fail in any way.
        except Exception as error:
            raise ValueError(f"`{self.argument}`: in {name}: {error}") from error
        return instance

    def _unreadable(self, node: Any) -> ValueError:
        return ValueError(
            f"`{self.argument}`: {reprlib.repr(node)} is no part of a description that "
            "can be read. Is it damaged, or of a later version?"
        )


def _check(instance: Any) -> None:
    """Makes the checks of the class and of all above it, as equinox does."""
    for cls in type(instance).__mro__:
        check = vars(cls).get("__check_init__")
        if check is not None:
            check(instance)
