"""The folder of a run that is written to disk as it goes."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import npz as _npz
from .lock import Lock
from .rows import RowWriter, read

_FORMAT = 1
_KIND = "gradflow run"
_NO_ROWS: dict[str, Any] = {"rows": 0, "arrays": {}}


class Checkpoint(NamedTuple):
    """Where a run was at some time."""

    header: dict[str, Any]
    arrays: Mapping[str, Any]


class RunFiles:
    """The files of one run.

    - `run.json`: what run it is, in plain JSON, with a checksum. Written once.
    - `inputs.npz`: the arrays that it speaks of. Written once, before.
    - `state.npz`: where the run is. Written anew at each checkpoint; the one before
        is kept as `state.previous.npz`.
    - `rows/`: a `.npy` file for each array of saved rows, which grow.
    - `.lock`: empty, and locked by whoever writes.

    No file is ever changed in a way that could leave a damaged one behind: they are
    written under another name, brought to the disk and renamed, or only appended to.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def _page(self) -> Path:
        return self.path / "run.json"

    @property
    def _inputs(self) -> Path:
        return self.path / "inputs.npz"

    @property
    def _states(self) -> tuple[Path, Path]:
        return self.path / "state.npz", self.path / "state.previous.npz"

    @property
    def rows(self) -> Path:
        return self.path / "rows"

    def exists(self) -> bool:
        """Whether there is a run."""
        return self._page.is_file()

    def begin(self, page: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> None:
        """Writes down which run it is. Only while there is a `writer`.

        **Raises:** `OSError` where nothing can be written.
        """
        _npz.write(self._inputs, {"format": _FORMAT}, inputs, compress=False)
        whole = {"kind": _KIND, "format": _FORMAT, **page}
        text = json.dumps({**whole, "checksum": _checksum(whole)}, indent=1)
        _npz.write_whole(self._page, lambda file: file.write(text.encode()))

    def read_page(self) -> dict[str, Any]:
        """What run it is.

        **Raises:** `FileNotFoundError` where there is none, `ValueError` where it is
        damaged, foreign or of a newer format.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"`path`: there is no folder {self.path}.")
        if not self.exists():
            raise FileNotFoundError(
                f"`path`: {self.path} holds no run: there is no {self._page.name} in "
                "it."
            )
        try:
            page = json.loads(self._page.read_bytes())
            if not isinstance(page, dict) or page.get("kind") != _KIND:
                raise ValueError("it is not that of a run of gradflow's")
            _check_format(page)
            if page.pop("checksum", None) != _checksum(page):
                raise ValueError("it has changed since it was written")
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"`path`: {self._page} cannot be read: {error}."
            ) from error
        return page

    def read_inputs(self) -> dict[str, np.ndarray]:
        """The arrays that the page speaks of.

        **Raises:** `FileNotFoundError`, or `ValueError` where they are damaged.
        """
        _, arrays = _npz.read(self._inputs, compressed=False)
        return arrays

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Makes it the last one; the one before stays.

        **Raises:** `OSError` where it cannot be written: nothing has changed then.
        """
        newest, previous = self._states

        def keep_previous() -> None:
            if newest.exists():
                os.replace(newest, previous)

        header = {"format": _FORMAT, "run": self._run(), **checkpoint.header}
        header["checksum"] = _checksum(header)
        # Not compressed, which would take longer than writing.
        _npz.write(
            newest, header, checkpoint.arrays, compress=False, before=keep_previous
        )

    def read_checkpoint(self, *, repair: bool = False) -> Checkpoint | None:
        """The last one that is whole, or `None` where there was none yet.

        **Arguments:**

        - `repair`: whether it takes the place of a later one that is damaged or
            missing. Only under the `lock`.

        **Raises:** `ValueError` where all are damaged.
        """
        failures = []
        for path in self._states:
            try:
                checkpoint = self._read_state(path)
            # There is none for a moment while the next one is being written, and one
            # before it then. So the order matters, and to look first would not do.
            except FileNotFoundError:
                continue
            except ValueError as error:
                failures.append(error)
                continue
            if failures:
                warnings.warn(
                    f"{failures[0]} Taking the checkpoint before it, {path}.",
                    stacklevel=2,
                )
            if repair:
                os.replace(path, self._states[0])
            return checkpoint
        if failures:
            raise ValueError(
                f"`path`: {self.path} holds no checkpoint that is whole: {failures[0]}"
            ) from failures[0]
        return None

    def require_checkpoint(self) -> Checkpoint:
        """The same; a `FileNotFoundError` where there is none."""
        page = self.read_page()
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            raise FileNotFoundError(
                f"`path`: the run of `{page['function']}` in {self.path} has not come "
                "to its first checkpoint."
            )
        return checkpoint

    def _read_state(self, path: Path) -> Checkpoint:
        header, arrays = _npz.read(path, compressed=False)
        try:
            _check_format(header)
            header.pop("arrays")
            if header.pop("checksum", None) != _checksum(header):
                raise ValueError("it has changed since it was written")
            if header["run"] != self._run():
                raise ValueError(f"it is not of the run that {self._page.name} is of")
            checkpoint = Checkpoint(header, arrays)
            # A checkpoint is worth nothing without its rows.
            self.read_rows(checkpoint)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`path`: {path} cannot be used: {error}.") from error
        return checkpoint

    def read_rows(self, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
        """The saved rows up to a checkpoint, as memory maps."""
        return read(self.rows, checkpoint.header["rows"])

    def lock(self) -> Lock:
        """Keeps others from writing; makes the folder where there is none.

        **Raises:** `ValueError` where another process is writing, and where a new
        folder is not empty; `OSError` where nothing can be written.
        """
        self._check_empty()
        self.path.mkdir(parents=True, exist_ok=True)
        return Lock(self.path)

    def writer(self, checkpoint: Checkpoint | None) -> RowWriter:
        """Goes on writing rows after a checkpoint, or from the start. Only under the
        `lock`.

        **Raises:** `ValueError` where the rows are not as they were at the checkpoint;
        `OSError` where nothing can be written.
        """
        # Files that were being written when a process was killed.
        for part in self._parts():
            part.unlink()
        if checkpoint is not None:
            return RowWriter.reopen(self.rows, checkpoint.header["rows"])
        if self.exists():
            # It was killed before the first checkpoint, and no row counts.
            return RowWriter.reopen(self.rows, _NO_ROWS)
        return RowWriter.create(self.rows)

    def _run(self) -> str:
        """Tells the run from all others."""
        return _checksum(self.read_page())

    def _parts(self) -> set[Path]:
        names = (self._page.name, self._inputs.name, self._states[0].name)
        return {part for name in names for part in self.path.glob(f"{name}.*.part")}

    def _check_empty(self) -> None:
        if self.exists() or not self.path.is_dir():
            return
        # These a process leaves behind that is killed before it has begun.
        begun = {self.path / ".lock", self.rows, self._inputs} | self._parts()
        foreign = sorted(set(self.path.iterdir()) - begun)
        if foreign:
            raise ValueError(
                f"`path`: {self.path} holds no run, but something else, "
                f"{foreign[0].name!r}. Give a folder of the run's own."
            )


def _check_format(page: Mapping[str, Any]) -> None:
    number = page.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError("it does not say which format it has")
    if number > _FORMAT:
        raise ValueError(
            f"its format, {number}, is newer than this version of gradflow, which "
            f"knows formats up to {_FORMAT}. Install a newer one"
        )


def _checksum(page: Mapping[str, Any]) -> str:
    text = json.dumps(page, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
