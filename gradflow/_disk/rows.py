"""Rows of named arrays, each in a `.npy` file that grows while a run goes on."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .growing_array import GrowingArray
from .lock import Lock
from .names import from_path, to_path
from .npy import Layout, is_storable
from .npz import sync_names


class RowWriter:
    """Appends rows to the files of a folder, one for each name, and says in `state`
    what a checkpoint has to know of them.

    Made by `create` or `reopen`. Whatever happens later, a full disk or the end of the
    process, the rows that a state speaks of stay, if `sync` came before.
    """

    def __init__(self, folder: Path, lock: Lock):
        self._folder = folder
        self._lock = lock
        self._arrays: dict[str, GrowingArray] = {}
        # One assignment changes both: Ctrl-C may come before any.
        self._rows_and_checksums: tuple[int, dict[str, int]] = (0, {})

    @classmethod
    def create(cls, folder: str | os.PathLike) -> "RowWriter":
        """Begins in a folder that does not exist yet or holds no rows.

        **Raises:** `ValueError` where it holds rows, or another process is writing to
        it; `OSError` where nothing can be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sync_names(folder.parent)
        writer = cls(folder, Lock(folder))
        if any(folder.rglob("*.npy")):
            writer.close()
            raise ValueError(
                f"`path`: {folder} holds rows already. Go on from a checkpoint of "
                "theirs, or give another folder."
            )
        return writer

    @classmethod
    def reopen(cls, folder: str | os.PathLike, state: Mapping[str, Any]) -> "RowWriter":
        """Goes on from where `state` was taken. Rows that were appended later are cut
        off, once all files have been checked.

        **Raises:** `ValueError` where a file is missing, damaged or another, or another
        process is writing to the folder; `OSError` where nothing can be written.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"`path`: the folder {folder} is missing.")
        writer = cls(folder, Lock(folder))
        try:
            writer._arrays = _open_checked(folder, state, write=True)
            for array in writer._arrays.values():
                array.cut(state["rows"])
        except BaseException:
            writer.close()
            raise
        checksums = {name: array["crc32"] for name, array in state["arrays"].items()}
        writer._rows_and_checksums = state["rows"], checksums
        return writer

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Appends any number of rows to each array, the same to all.

        **Raises:** `ValueError` for other names, types or shapes than before, and for
        types that NumPy does not read back; `OSError` where the disk is full.
        """
        added = _common_length(rows)
        layouts = {name: _layout(name, array) for name, array in rows.items()}
        if not self._arrays:
            self._arrays = self._create(layouts)
        _check_layouts(layouts, self._arrays)
        octets = {name: _octets(array) for name, array in rows.items()}
        count, before = self._rows_and_checksums
        # All data before the first header: whoever reads trusts the headers.
        for name, data in octets.items():
            self._arrays[name].write(count, data)
        for array in self._arrays.values():
            array.count(count + added)
        checksums = {
            name: zlib.crc32(data, before.get(name, 0)) for name, data in octets.items()
        }
        self._rows_and_checksums = count + added, checksums

    def _create(self, layouts: Mapping[str, Layout]) -> dict[str, GrowingArray]:
        arrays = {}
        try:
            for name, layout in layouts.items():
                path = _path(self._folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                arrays[name] = GrowingArray.create(path, layout)
        except BaseException:
            _close(arrays)
            raise
        return arrays

    def sync(self) -> None:
        """Waits until all rows are on the disk. A checkpoint that refers to them is
        written afterwards.

        **Raises:** `OSError` where they cannot be brought there.
        """
        for array in self._arrays.values():
            array.sync()
        for folder in (self._folder, *self._folder.rglob("*/")):
            sync_names(folder)

    def state(self) -> dict[str, Any]:
        """What is there so far, in JSON: the number of rows, and for each array the
        type, the shape of a row and the checksum."""
        rows, checksums = self._rows_and_checksums
        return {
            "rows": rows,
            "arrays": {
                name: {
                    "dtype": array.layout.dtype.str,
                    "shape": list(array.layout.shape),
                    "crc32": checksums.get(name, 0),
                }
                for name, array in self._arrays.items()
            },
        }

    def close(self) -> None:
        """Lets others write to the folder."""
        _close(self._arrays)
        self._lock.release()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read(
    folder: str | os.PathLike, state: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a folder as memory maps, while a run goes on or later.

    **Arguments:**

    - `folder`: where a `RowWriter` writes or has written.
    - `state`: if given, the rows are those of that state, and are checked. If not, all
        rows that each of the files has; a name too long for a file is abbreviated.
        `reopen` may cut some of these off: they must not be looked at any more.

    **Raises:** `ValueError` where a file is missing, damaged or another.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`path`: the folder {folder} is missing.")
    if state is not None:
        arrays = _open_checked(folder, state, write=False)
        rows = state["rows"]
    else:
        arrays, rows = _open_all(folder)
    try:
        return {name: array.memory_map(rows) for name, array in arrays.items()}
    finally:
        _close(arrays)


def _open_all(folder: Path) -> tuple[dict[str, GrowingArray], int]:
    arrays, rows = {}, []
    try:
        for path in sorted(folder.rglob("*.npy")):
            array, count = GrowingArray.open(path, write=False)
            arrays[from_path(path.relative_to(folder), ".npy")] = array
            rows.append(count)
    except BaseException:
        _close(arrays)
        raise
    return arrays, min(rows, default=0)


def _open_checked(
    folder: Path, state: Mapping[str, Any], *, write: bool
) -> dict[str, GrowingArray]:
    arrays = {}
    try:
        for name, expected in state["arrays"].items():
            path = _path(folder, name)
            arrays[name], count = GrowingArray.open(path, write=write)
            _check(arrays[name], count, state["rows"], expected)
    except BaseException:
        _close(arrays)
        raise
    return arrays


def _check(
    array: GrowingArray, count: int, rows: int, expected: Mapping[str, Any]
) -> None:
    layout = Layout(np.dtype(expected["dtype"]), tuple(expected["shape"]))
    if array.layout != layout:
        problem = f"holds rows of {array.layout}, and not of {layout}"
    elif count < rows:
        problem = f"has {count} whole rows, and not {rows}"
    elif array.checksum(rows) != expected["crc32"]:
        problem = f"has other bytes in its first {rows} rows than were written"
    else:
        return
    raise ValueError(
        f"`path`: {array.path} {problem}. Put back the file as it was, go on from "
        "another checkpoint, or begin again in another folder."
    )


def _path(folder: Path, name: str) -> Path:
    return folder / to_path(name, ".npy")


def _close(arrays: Mapping[str, GrowingArray]) -> None:
    for array in arrays.values():
        array.close()


def _common_length(rows: Mapping[str, np.ndarray]) -> int:
    lengths = {array.shape[:1] for array in rows.values()}
    if len(lengths) != 1 or () in lengths:
        shapes = {name: array.shape for name, array in rows.items()}
        raise ValueError(
            "`rows` must hold arrays with the same number of rows, got the shapes "
            f"{shapes}."
        )
    return lengths.pop()[0]


def _layout(name: str, array: np.ndarray) -> Layout:
    if not is_storable(array.dtype):
        raise ValueError(
            f"`rows`: {name!r} is of type {array.dtype}, which `.npy` files do not "
            "keep. Convert it to a number type of NumPy's."
        )
    return Layout(array.dtype, array.shape[1:])


def _octets(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _check_layouts(
    layouts: Mapping[str, Layout], arrays: Mapping[str, GrowingArray]
) -> None:
    expected = {name: array.layout for name, array in arrays.items()}
    if layouts != expected:
        raise ValueError(
            f"`rows` must be as at the first time, {expected}, got {layouts}."
        )
