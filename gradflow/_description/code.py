"""Fingerprints of code: of functions, classes and their instances."""

import hashlib
import inspect
import types
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from .description import canonical
from .parts import attributes_of, globals_of, is_of_library, name_in_library, parts_of


def fingerprint_of_code(value: Any) -> str:
    """A SHA-256 that changes with what `value` computes: with the byte code of
    functions, their defaults, closures and the globals that they use, with the methods
    and attributes of objects, and with numbers and arrays in any of these.

    It does not change with names of modules and functions, line numbers, or from one
    process to the next. Of installed packages only names count, which say enough for as
    long as their versions stay; what their objects hide from Python is left out.
    """
    contents = _Contents()
    root = contents.encode(value)
    # Grows on the way: what an object refers to is described after it, so that objects
    # may refer to each other in circles.
    described = [contents.describe(x) for x in contents.objects]
    return hashlib.sha256(canonical([root, described]).encode()).hexdigest()


class _Contents:
    """Objects in the order in which they are found, which are referred to by number."""

    def __init__(self):
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def encode(self, value: Any) -> Any:
        """A plain value by itself, anything else by a name or a number."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind in (float, complex, bytes, range, type(...)):
            return [kind.__name__, repr(value)]
        if kind is tuple:
            return ["tuple", *map(self.encode, value)]
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, np.dtype | types.ModuleType):
            return [kind.__name__, getattr(value, "__name__", str(value))]
        if isinstance(value, types.CodeType):
            return self._code(value)
        name = name_in_library(value)
        if name is not None:
            return ["name", name]
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return ["object", self._numbers[id(value)]]

    def describe(self, value: Any) -> Any:
        """What an object is made of."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        parts = [self.encode(type(value)), *map(self.encode, parts_of(value))]
        if isinstance(value, Mapping):
            return [*parts, *self._items(value)]
        if isinstance(value, set | frozenset):
            return [*parts, *sorted(map(fingerprint_of_code, value))]
        if isinstance(value, list | tuple):
            return [*parts, *map(self.encode, value)]
        return [*parts, *self._items(attributes_of(value))]

    def _array(self, value: Any) -> Any:
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            impl = str(jax.random.key_impl(value))
            return ["key", impl, self._array(jax.random.key_data(value))]
        array = np.asarray(value)
        header = [array.dtype.name, list(array.shape)]
        if array.dtype.hasobject:
            return [*header, *map(self.encode, array.ravel().tolist())]
        return [*header, hashlib.sha256(array.tobytes()).hexdigest()]

    def _code(self, code: types.CodeType) -> Any:
        return [
            "code",
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount],
            # Whether it stands within a function makes no difference to what it does.
            code.co_flags & ~inspect.CO_NESTED,
            [list(code.co_names), list(code.co_freevars), list(code.co_cellvars)],
            [self._constant(constant) for constant in code.co_consts],
        ]

    def _constant(self, constant: Any) -> Any:
        # The only sets among constants are of plain values.
        if isinstance(constant, frozenset):
            return ["frozenset", *sorted(canonical(self.encode(c)) for c in constant)]
        return self.encode(constant)

    def _function(self, function: types.FunctionType) -> Any:
        return [
            "function",
            self._code(function.__code__),
            self.encode(function.__defaults__),
            self._items(function.__kwdefaults__ or {}),
            [self._cell(cell) for cell in function.__closure__ or ()],
            [] if is_of_library(function) else self._items(globals_of(function)),
        ]

    def _cell(self, cell: types.CellType) -> Any:
        try:
            return ["cell", self.encode(cell.cell_contents)]
        except ValueError:  # empty, until the variable is assigned
            return ["cell"]

    def _class(self, cls: type) -> Any:
        members = {
            name: member
            for name, member in vars(cls).items()
            if inspect.isroutine(member)
            or not (name.startswith("__") or name == "_abc_impl")
        }
        return ["class", *map(self.encode, cls.__bases__), *self._items(members)]

    def _items(self, values: Mapping[Any, Any]) -> list[Any]:
        keys: Iterable[Any] = values
        if all(isinstance(key, str) for key in keys):
            keys = sorted(keys)
        return [[self.encode(key), self.encode(values[key])] for key in keys]
