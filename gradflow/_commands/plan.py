"""What a sweep is to do, from a TOML file."""

import dataclasses
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._check import check_nonnegative, check_positive
from .choices import FLOWS, LOSSES


@dataclasses.dataclass(frozen=True)
class Plan:
    """A grid of weight decays, initial scales and seeds; the rest is the same for all,
    as in the main job."""

    weight_decay: list[float]
    rho: list[float]
    seeds: list[int]
    classes: list[int] = dataclasses.field(default_factory=lambda: [3, 8])
    per_class: int = 50
    mnist: str | None = None
    cifar10: str | None = None
    widths: list[int] = dataclasses.field(default_factory=lambda: [32, 32])
    smoothing: float = 1e-2
    loss: str = "square"
    flow: str = "lagrange"
    time: float = 5.0
    rtol: float = 1e-4

    def members(self) -> list[tuple[float, float, int]]:
        """Weight decay, initial scale and seed of each run."""
        return [
            (weight_decay, rho, seed)
            for weight_decay in self.weight_decay
            for rho in self.rho
            for seed in self.seeds
        ]


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    **Raises:** `OSError` where it cannot be read, `ValueError` where it is not TOML, or
    where a setting is missing, unknown or of the wrong kind.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    seeds = settings.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        settings["seeds"] = list(range(seeds))
    kinds = typing.get_type_hints(Plan)
    for name in settings:
        if name not in kinds:
            raise ValueError(
                f"{path}: there is no setting `{name}`, only {', '.join(kinds)}."
            )
    for name in ("weight_decay", "rho", "seeds"):
        if name not in settings:
            raise ValueError(f"{path}: the setting `{name}` is missing.")
    values = {
        name: _checked(f"{path}: `{name}`", value, kinds[name])
        for name, value in settings.items()
    }
    plan = Plan(**values)
    _check_values(path, plan)
    return plan


def _checked(what: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise ValueError(f"{what} must be a list, got {value!r}.")
        return [_checked(what, entry, *typing.get_args(kind)) for entry in value]
    allowed = int | float if kind is float else kind
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise ValueError(f"{what} must be of the type {kind}, got {value!r}.")
    return float(value) if kind is float else value


def _check_values(path: Path, plan: Plan) -> None:
    for name in ("weight_decay", "rho", "seeds", "classes"):
        if not getattr(plan, name):
            raise ValueError(f"{path}: `{name}` is empty.")
    for decay in plan.weight_decay:
        check_nonnegative("weight_decay", decay)
    _check_all_positive("rho", plan.rho)
    _check_all_positive("widths", plan.widths)
    for name in ("time", "rtol", "per_class"):
        check_positive(name, getattr(plan, name))
    check_nonnegative("smoothing", plan.smoothing)
    for name, choices in (("loss", LOSSES), ("flow", FLOWS)):
        if getattr(plan, name) not in choices:
            raise ValueError(f"{path}: `{name}` must be one of {', '.join(choices)}.")
    if plan.mnist is not None and plan.cifar10 is not None:
        raise ValueError(f"{path}: give `mnist` or `cifar10`, not both.")


def _check_all_positive(name: str, values: Sequence[float | int]) -> None:
    for value in values:
        check_positive(name, value)
