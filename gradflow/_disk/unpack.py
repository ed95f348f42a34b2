"""The arrays of an `.npz` file, read so that no damage to it goes unnoticed."""

import os
import zipfile
from collections.abc import Iterable
from typing import IO

import numpy as np

MOST_DEFLATED = 1032
"""By how much deflate makes zeros smaller."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
"""Those of which few bytes unpack to few. A block of bzip2's, which `zipfile` unpacks
whole, may be of any size."""


def unpack(
    stream: IO[bytes], names: Iterable[str] | None = None, *, compressed: bool = True
) -> dict[str, np.ndarray]:
    """Reads the arrays of these names, or all; compressed ones only where there may be
    such. Never unpickles: such a file could run any code.

    **Raises:** `ValueError` for what is no `.npz` file, and for one that would unpack
    to more than can have been written to it; nearly any exception for a damaged one:
    `BadZipFile`, `zlib.error`, `EOFError`, `KeyError`, `TokenError`, `MemoryError` for
    a wild shape.
    """
    if not zipfile.is_zipfile(stream):
        raise ValueError("it is not an .npz file, or not a whole one")
    size = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as file:
        entries = {
            entry.filename.removesuffix(".npy"): entry for entry in file.infolist()
        }
        wanted = {name: entries[name] for name in (entries if names is None else names)}
        unpacked = sum(entry.file_size for entry in wanted.values())
        if unpacked > size * (MOST_DEFLATED if compressed else 1):
            raise ValueError(f"it would unpack from {size} bytes to {unpacked}")
        return {name: _array(file, entry) for name, entry in wanted.items()}


def _array(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type not in _METHODS:
        raise ValueError(f"{entry.filename} is compressed in a way not known here")
    with file.open(entry) as member:
        try:
            array = np.lib.format.read_array(member, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{entry.filename} is not an array: {error}") from error
        # Only at the end is the checksum compared, which `np.load` does not come to
        # where damage makes the array smaller.
        if member.read(1):
            raise ValueError(f"{entry.filename} holds more than its array")
    return array
