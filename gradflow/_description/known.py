"""What a file can name: classes, functions and tags, and nothing else.

A name is only ever looked up here, so that no file makes Python import a module.
"""

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import diffrax
import lineax
import optimistix

from .. import (
    _default_observables,
    _flow,
    _loss,
    _network,
    _observables,
    _problem,
    _sampler,
    _solver,
    _until,
    analysis,
    datasets,
)


def name_of_class(cls: type) -> str | None:
    """The name of a class whose instances are known, or `None`."""
    return _NAMES.get(id(cls)) if isinstance(cls, type) else None


def name_of(value: Any) -> str | None:
    """The name of a function or tag that is known, or `None`."""
    return None if isinstance(value, type) else _NAMES.get(id(value))


def _classes(root: str, *modules: ModuleType) -> dict[str, type]:
    """The classes of dataclasses and equinox modules in these modules of a package."""
    return {
        f"{root}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith(("_", "Abstract"))
        if dataclasses.is_dataclass(value) and isinstance(value, type)
        if value.__module__.split(".")[0] == root and not inspect.isabstract(value)
    }


def _functions(prefix: str, module: ModuleType) -> dict[str, Any]:
    """The functions in a module or in those below it."""
    return {
        f"{prefix}.{name.lstrip('_')}": value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__.startswith(module.__name__)
    }


CLASSES = {
    **_classes(
        "gradflow",
        _default_observables,
        _flow,
        _loss,
        _network,
        _observables,
        _problem,
        _sampler,
        _solver,
        _until,
        datasets,
    ),
    **_classes("diffrax", diffrax),
    **_classes("optimistix", optimistix),
    **_classes("lineax", lineax),
}

OBJECTS: dict[str, Any] = {
    **_functions("gradflow.default_observables", _default_observables),
    **_functions("gradflow.analysis", analysis),
    "optimistix.max_norm": optimistix.max_norm,
    "optimistix.rms_norm": optimistix.rms_norm,
    "optimistix.two_norm": optimistix.two_norm,
    "diffrax.adjoint_rms_seminorm": diffrax.adjoint_rms_seminorm,
    # What the root finders of implicit solvers have for tolerances of their own.
    "diffrax.use_stepsize_tol": diffrax.with_stepsize_controller_tols(
        diffrax.VeryChord
    )().rtol,
    **{
        f"lineax.{name}": value
        for name, value in vars(lineax).items()
        if name.endswith("_tag")
    },
}

_NAMES = {id(value): name for name, value in {**CLASSES, **OBJECTS}.items()}
