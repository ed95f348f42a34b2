"""Arguments as plain JSON and arrays."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np

from .code import fingerprint_of_code
from .description import Description, canonical
from .known import name_of, name_of_class

Arrays: TypeAlias = dict[str, np.ndarray]
Path: TypeAlias = tuple[str, ...]


def describe(arguments: Mapping[str, Any]) -> Description:
    """Everything that the named arguments hold, as plain JSON and arrays.

    Numbers, strings, arrays and random keys; tuples, lists and dictionaries of them;
    the classes of gradflow and diffrax with all their fields, and functions that
    gradflow knows by name. Anything else is code, of which there are only a name and a
    fingerprint: it stays the same for as long as the code computes the same, under the
    same version of Python and of the libraries.

    **Raises:** `ValueError` for values that are being traced and for structures that
    contain themselves.
    """
    arrays: Arrays = {}
    plain = {}
    for name, value in arguments.items():
        try:
            plain[name] = _describe(value, (name,), arrays)
        except jax.errors.TracerArrayConversionError as error:
            raise ValueError(
                f"`{name}` is being traced, and its values are not known: begin the "
                "run outside of `jit`, `vmap` and `grad`."
            ) from error
        except RecursionError as error:
            raise ValueError(f"`{name}` is nested too deeply.") from error
    return Description(plain, arrays)


def array_name(path: Path) -> str:
    """The name of an array at a place within the arguments."""
    # Quoted, so that a slash within a part is none between two.
    return "/".join(quote(part, safe="") for part in path)


def _describe(value: Any, path: Path, arrays: Arrays) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return _items(value, path, arrays)
    if kind is tuple:
        return {"tuple": _items(value, path, arrays)}
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": _values(value, path, arrays)}
    if kind is frozenset:
        return _set(value, path)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value, path, arrays)
    name = name_of(value)
    if name is not None:
        return {"name": name}
    name = name_of_class(kind)
    if name is not None:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": name, "fields": _values(fields, path, arrays)}
    return _foreign(value)


def _items(values: Any, path: Path, arrays: Arrays) -> list[Any]:
    return [_describe(v, (*path, str(k)), arrays) for k, v in enumerate(values)]


def _values(values: dict[str, Any], path: Path, arrays: Arrays) -> dict[str, Any]:
    return {k: _describe(v, (*path, k), arrays) for k, v in values.items()}


def _set(values: frozenset[Any], path: Path) -> dict[str, Any]:
    held: Arrays = {}
    items = _items(values, path, held)
    # In an order of its own, since that of a set is another one in each process, as
    # would be the names of arrays.
    return _foreign(values) if held else {"frozenset": sorted(items, key=canonical)}


def _array(value: Any, path: Path, arrays: Arrays) -> dict[str, Any]:
    name = array_name(path)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(value))
        return {"key": name, "impl": str(jax.random.key_impl(value))}
    plain = np.asarray(value)
    if plain.dtype.kind not in "biufcSU":
        return _foreign(value)
    arrays[name] = plain
    return {"array": name, "of": _kind(value, plain)}


def _kind(value: Any, plain: np.ndarray) -> str:
    if isinstance(value, np.ndarray):
        return "numpy"
    if not isinstance(value, jax.Array):
        return "numpy scalar"
    if value.weak_type and value.ndim == 0:
        # As JAX makes it of a Python number, if it is of that dtype.
        return "weak jax" if jnp.asarray(plain.item()).dtype == plain.dtype else "jax"
    return "jax"


def _foreign(value: Any) -> dict[str, Any]:
    label = getattr(value, "__qualname__", type(value).__qualname__)
    return {"foreign": str(label), "fingerprint": fingerprint_of_code(value)}
