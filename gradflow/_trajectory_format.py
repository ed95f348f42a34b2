"""Trajectories as named arrays and a page of JSON, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from . import _nested
from ._network import AbstractNetwork
from ._network.serial import from_json, to_json
from ._results import NAMES, RESULTS, name_of
from ._types import AnyArray, StackedWeights

_FORMAT = 2


def arrays_of_rows(
    ts: Float[AnyArray, " T"],
    log_ts: Float[AnyArray, " T"],
    weights: StackedWeights | None,
    observables: Mapping[str, PyTree[AnyArray]],
) -> tuple[dict[str, AnyArray], dict[str, list[_nested.Path]]]:
    """The arrays with an axis `T`, by name, and where those of observables that are
    pytrees belong.

    **Raises:** `ValueError` where an observable holds something else than arrays.
    """
    arrays: dict[str, AnyArray] = {"ts": ts, "log_ts": log_ts}
    if weights is not None:
        arrays |= {f"networks/{k}": w for k, w in enumerate(weights)}
    trees = {}
    for name, values in observables.items():
        leaves = _nested.flatten(values)
        if not eqx.is_array(values):
            trees[name] = list(leaves)
        for path, leaf in leaves.items():
            entry = _entry(name, path)
            if not eqx.is_array(leaf) or entry in arrays:
                problem = "there twice" if entry in arrays else "not an array"
                raise ValueError(
                    f"Observable {name!r} cannot be saved: {entry!r} is {problem}."
                )
            arrays[entry] = leaf
    return arrays, trees


def header_and_arrays_of_end(
    final: AbstractNetwork,
    result: RESULTS,
    stats: Mapping[str, Any],
    stopped_by: str | None,
) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """What there is besides the rows."""
    known = {name: value for name, value in stats.items() if value is not None}
    header = {
        "format": _FORMAT,
        "network": to_json(final),
        "layers": len(final.weights),
        "result": name_of(result),
        "stopped_by": stopped_by,
        "unknown_stats": sorted(set(stats) - set(known)),
    }
    arrays = {f"stats/{name}": value for name, value in known.items()}
    arrays |= {f"final/{k}": w for k, w in enumerate(final.weights)}
    return header, arrays


def fields_of(
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    like: AbstractNetwork | None,
) -> dict[str, Any]:
    """The fields of the trajectory, where `header` has the `trees` too. Memory maps
    stay what they are.

    **Raises:** `KeyError`, `TypeError`, `ValueError` or `AttributeError` for anything
    but what the other functions have returned.
    """
    if header["format"] > _FORMAT:
        raise ValueError(f"format {header['format']} is newer than {_FORMAT}")
    if header["result"] not in NAMES:
        raise ValueError(f"unknown result {header['result']!r}")
    there = {name: _loaded(array) for name, array in arrays.items()}

    def group(prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix): array
            for name, array in there.items()
            if name.startswith(prefix)
        }

    def weights(prefix: str) -> StackedWeights:
        return tuple(there[f"{prefix}/{k}"] for k in range(header["layers"]))

    rows = there["ts"].shape
    for name, array in there.items():
        is_row = name == "log_ts" or name.startswith(("networks/", "observables/"))
        if is_row and array.shape[: len(rows)] != rows:
            raise ValueError(f"{name} is of shape {array.shape}, ts of {rows}")
    trees = {}
    for name, paths in header.get("trees", {}).items():
        leaves = {tuple(path): there.pop(_entry(name, path)) for path in paths}
        trees[name] = _nested.unflatten(leaves)
    final = weights("final")
    skeleton = like or from_json(header["network"], final)  # pyright: ignore
    networks = None
    if "networks/0" in there:
        networks = skeleton.with_weights(weights("networks"))
    return {
        "ts": there["ts"],
        "log_ts": there["log_ts"],
        "networks": networks,
        "final": skeleton.with_weights(final),
        "observables": group("observables/") | trees,
        "result": getattr(RESULTS, header["result"]),
        "stats": {**group("stats/"), **dict.fromkeys(header["unknown_stats"])},
        "error": there.get("error"),
        "stopped_by": header["stopped_by"],
    }


def _loaded(array: np.ndarray) -> AnyArray:
    return array if isinstance(array, np.memmap) else jnp.asarray(array)


def _entry(observable: str, path: Sequence[str | int]) -> str:
    """The name of an observable's array in the file."""
    return "/".join(["observables", observable, *map(str, path)])
