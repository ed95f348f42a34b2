"""Which run it is that a folder holds."""

import os
import platform
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np

from .._description import (
    Description,
    check_whole,
    describe,
    fingerprint,
    restore,
    without_labels,
)
from .several import whole

_PACKAGES = ("gradflow-ode", "jax", "jaxlib", "diffrax", "equinox", "optax", "numpy")


class RunPage(NamedTuple):
    """The function that was called and its arguments, and under which versions.

    The fingerprints of the arguments say whether another call is the same.
    """

    function: str
    description: Description
    fingerprints: dict[str, str]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return self.description.arrays

    def to_json(self) -> dict[str, Any]:
        return {
            "function": self.function,
            "arguments": self.description.arguments,
            "fingerprints": self.fingerprints,
            "fingerprint": fingerprint(self.description),
            "double_precision": _double_precision(),
            "versions": _versions(),
        }

    def check_same(self, page: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where `page`, that of a folder, is of another run, and
        warns of other versions, which may change the last digits."""
        _check_precision(page)
        if page["function"] != self.function:
            raise ValueError(
                f"`path`: the folder holds a run of `{page['function']}`, and not of "
                f"`{self.function}`. Give another folder."
            )
        names = sorted(
            set(self.fingerprints.items()) ^ set(page["fingerprints"].items())
        )
        if names:
            differing = ", ".join(sorted({f"`{name}`" for name, _ in names}))
            raise ValueError(
                f"`path`: the folder holds another run, with other {differing}. Give "
                "the arguments of that one, to go on with it, or another folder."
            )
        changed = {
            name: (before, now)
            for name, now in _versions().items()
            if (before := page["versions"].get(name)) != now
        }
        if changed:
            changes = ", ".join(f"{n} {a} to {b}" for n, (a, b) in changed.items())
            warnings.warn(
                f"Versions have changed since the run began ({changes}). It goes on, "
                "but the last digits may not be those of an uninterrupted run.",
                stacklevel=2,
            )


def page_of(function: str, arguments: Mapping[str, Any]) -> RunPage:
    """The page of a call of the function of that name.

    **Raises:** `ValueError` for arguments that are being traced.
    """
    arguments = {name: whole(value) for name, value in arguments.items()}
    description, fingerprints = Description({}, {}), {}
    for name, value in arguments.items():
        plain, arrays = describe({name: value})
        description.arguments.update(plain)
        description.arrays.update(arrays)
        unlabelled = Description({name: without_labels(plain[name])}, arrays)
        fingerprints[name] = fingerprint(unlabelled)
    return RunPage(function, description, fingerprints)


def arguments_of(
    page: Mapping[str, Any],
    arrays: dict[str, np.ndarray],
    given: Mapping[str, Any],
    path: str | os.PathLike,
) -> dict[str, Any]:
    """The arguments of the call, of which some may have to be `given` again; `path` is
    for messages.

    **Raises:** `ValueError` where they have, where one of them is another one than
    before, and where page or arrays are damaged.
    """
    _check_precision(page)
    description = Description(page["arguments"], arrays)
    try:
        check_whole(description, page["fingerprint"])
    except ValueError as error:
        raise ValueError(
            f"`path`: the arguments of the run in {os.fspath(path)} cannot be used: "
            f"{error}"
        ) from error
    return restore(description, given)


def _check_precision(page: Mapping[str, Any]) -> None:
    if page["double_precision"] != _double_precision():
        before = page["double_precision"]
        raise ValueError(
            f"`path`: the run began with JAX's option `jax_enable_x64` {before}: "
            f'`jax.config.update("jax_enable_x64", {before})` before anything else.'
        )


def _double_precision() -> bool:
    return bool(jax.config.jax_enable_x64)  # pyright: ignore


def _versions() -> dict[str, str]:
    """What the last digits of a run may depend on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "device": jax.devices()[0].device_kind,
    }
