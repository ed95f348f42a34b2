"""What functions and objects are made of."""

import dataclasses
import dis
import functools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

_PYTHON = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def is_of_library(value: Any) -> bool:
    """Whether a function or class is of Python, of gradflow or an installed package."""
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and _is_library(module)


def name_in_library(value: Any) -> str | None:
    """The name under which a library's function or class can be found."""
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str) or not is_of_library(value):
        return None
    found: Any = sys.modules.get(value.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{value.__module__}.{name}" if found is value else None


def globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function uses, and what it uses of modules of the user's."""
    found: dict[str, Any] = {}
    codes = [function.__code__]
    for code in codes:  # which grows, by the functions within
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        for step in dis.get_instructions(code):
            name = step.argval
            is_global = step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
            if is_global and name in function.__globals__:
                found[name] = function.__globals__[name]
    names = {name for code in codes for name in code.co_names}
    for name, value in list(found.items()):
        if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
            members = names & vars(value).keys()
            found |= {f"{name}.{member}": vars(value)[member] for member in members}
    return found


def parts_of(value: Any) -> tuple[Any, ...]:
    """What makes up the objects that Python and JAX put round functions."""
    if isinstance(value, types.MethodType | classmethod | staticmethod):
        return value.__func__, getattr(value, "__self__", None)
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, types.BuiltinMethodType | types.MethodWrapperType):
        return value.__qualname__, value.__self__
    if isinstance(value, slice):
        return value.start, value.stop, value.step
    if _is_wrapper(value):
        return (value.__wrapped__,)
    return ()


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's fields and attributes, by name."""
    attributes = getattr(value, "__dict__", {})
    if _is_wrapper(value):
        # What `jax.jit` makes also holds the line where it was made.
        return _only(attributes, types.FunctionType)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {f.name: getattr(value, f.name, None) for f in fields}
    if is_of_library(type(value)):
        # Such as the logger of a module, which holds all others.
        return _only(attributes, bool | int | float | str | types.FunctionType)
    return attributes


def _is_wrapper(value: Any) -> bool:
    return is_of_library(type(value)) and hasattr(value, "__wrapped__")


def _only(attributes: dict[str, Any], kinds: Any) -> dict[str, Any]:
    return {k: v for k, v in attributes.items() if isinstance(v, kinds)}


def _is_library(module: str) -> bool:
    root = module.split(".")[0]
    file = getattr(sys.modules.get(root), "__file__", None)
    if root == "gradflow" or file is None:  # those built into Python have no file
        return root == "gradflow" or root in sys.stdlib_module_names
    path = Path(file)
    return _PYTHON in path.parents or not _INSTALLED.isdisjoint(path.parts)
