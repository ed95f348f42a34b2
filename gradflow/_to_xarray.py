"""Rows of named arrays as an `xarray.Dataset`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _nested

if TYPE_CHECKING:
    import xarray

# What their axes are, where that is known.
_AXES = {"rho_layers": ("layer",)}


def to_dataset(
    ts: Any,
    log_ts: Any,
    arrays: Iterable[tuple[str, Any]],
    attributes: Mapping[str, Any],
) -> "xarray.Dataset":
    """A dataset along the times; arrays of a pytree are named `tree.leaf`.

    **Arguments:**

    - `ts`, `log_ts`: become the coordinates `t` and `log_t`.
    - `arrays`: names and arrays, or pytrees of them, with a leading axis for the times.
        They are not copied, and memory maps are not read.
    - `attributes`: numbers, arrays or strings; those that are `None` are left out.

    **Raises:** `ImportError` without xarray; `ValueError` where two arrays have the
    same name.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "xarray is not there: `pip install 'gradflow-ode[xarray]'`."
        ) from error
    variables = {}
    for name, values in _named(arrays):
        if name in variables or name in ("t", "log_t"):
            raise ValueError(
                f"Observable {name!r} has a name that another array of the dataset has."
                " Give it another one."
            )
        array = np.asarray(values)
        axes = _AXES.get(name, ())
        if len(axes) != array.ndim - 1:
            axes = [f"{name}_dim_{k}" for k in range(array.ndim - 1)]
        variables[name] = (("t", *axes), array)
    return xarray.Dataset(
        variables,
        coords={"t": np.asarray(ts), "log_t": ("t", np.asarray(log_ts))},
        attrs={
            name: value if isinstance(value, str) else np.asarray(value).tolist()
            for name, value in attributes.items()
            if value is not None
        },
    )


def _named(arrays: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, values in arrays:
        for path, leaf in _nested.flatten(values).items():
            yield ".".join([name, *map(str, path)]), leaf
