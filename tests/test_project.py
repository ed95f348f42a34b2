"""What holds for the project as a whole, not for one part of it."""

import importlib
import inspect
import pkgutil
import re
import statistics
import subprocess
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import gradflow as gf

ROOT = Path(__file__).parent.parent


def _modules():
    found = pkgutil.walk_packages(gf.__path__, prefix="gradflow.")
    return [gf, *(importlib.import_module(module.name) for module in found)]


def _equinox_classes():
    return [
        value
        for module in _modules()
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, eqx.Module)
        if value.__module__ == module.__name__
    ]


def _is_ours(cls):
    return cls.__module__.split(".")[0] == "gradflow"


def _is_abstract(cls):
    return (
        cls.__name__.lstrip("_").startswith("Abstract")
        or inspect.isabstract(cls)
        or bool(getattr(cls, "__abstractvars__", ()))
        or bool(getattr(cls, "__abstractclassvars__", ()))
    )


def _concrete_methods(cls):
    return {
        name
        for name, member in vars(cls).items()
        if inspect.isroutine(member) or isinstance(member, property)
        if not getattr(member, "__isabstractmethod__", False)
        if name == "__call__" or not name.startswith("__")
    }


def test_shape_checks_are_on(getkey):
    network = gf.Dense((3, 4, 1), key=getkey())
    with pytest.raises(TypeCheckError):
        network(jnp.zeros((2, 3)))


@pytest.mark.parametrize("cls", _equinox_classes(), ids=lambda cls: cls.__qualname__)
def test_abstract_or_final(cls):
    bases = [base for base in cls.__mro__[1:] if _is_ours(base)]
    assert [base for base in bases if not _is_abstract(base)] == []
    overridden = {
        f"{base.__qualname__}.{name}"
        for base in bases
        for name in _concrete_methods(base) & _concrete_methods(cls)
    }
    assert overridden == set()


def test_modules_stay_small():
    lengths = [
        len(path.read_text().splitlines()) for path in (ROOT / "gradflow").rglob("*.py")
    ]
    assert statistics.median(lengths) <= 150


def _public(namespace):
    for name, value in vars(namespace).items():
        if name.startswith("_"):
            continue
        if inspect.ismodule(value) and value.__name__.startswith("gradflow."):
            yield f"{namespace.__name__}.{name}", value
            yield from _public(value)
        elif inspect.isclass(value) or inspect.isroutine(value):
            yield f"{namespace.__name__}.{name}", value


def _has_docstring(value):
    doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    # A dataclass without a docstring is given its signature in place of one.
    return bool(doc) and not doc.startswith(f"{value.__name__}(")


def test_public_names_have_docstrings():
    public = dict(_public(gf))
    assert len(public) > 10
    assert [name for name, value in public.items() if not _has_docstring(value)] == []


def test_no_file_names_a_machine_or_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    forbidden = re.compile(
        rb"/(home|root|work|Users)/\w|\b(pypi\.org|pythonhosted\.org|npmjs\.)"
    )
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in paths
        if path.is_file() and (match := forbidden.search(path.read_bytes()))
    ]
    assert found == []
