"""One `.npy` file whose array grows along its first axis."""

import io
import os
import zlib
from pathlib import Path

import numpy as np

from .npy import Layout, read_header

_CHUNK = 2**20


class GrowingArray:
    """Rows are written before the header counts them, so that NumPy can read the file
    at any time."""

    def __init__(self, path: Path, layout: Layout, file: io.FileIO):
        """**Arguments:**

        - `path`, `file`: the file, open for reading and perhaps for writing.
        - `layout`: of its rows.
        """
        self.path = path
        self.layout = layout
        self._file = file
        self._start = layout.header_size

    @classmethod
    def create(cls, path: Path, layout: Layout) -> "GrowingArray":
        """Without rows, in place of any file that was there."""
        part = path.with_name(f"{path.name}.part")
        file = open(part, "w+b", buffering=0)
        array = cls(path, layout, file)
        try:
            array.count(0)
            os.replace(part, path)
        except BaseException:
            file.close()
            raise
        return array

    @classmethod
    def open(cls, path: Path, *, write: bool) -> tuple["GrowingArray", int]:
        """A file that is there, and how many whole rows it has.

        **Raises:** `ValueError` where there is no such file.
        """
        try:
            file = open(path, "r+b" if write else "rb", buffering=0)
        except (FileNotFoundError, IsADirectoryError):
            raise ValueError(f"`path`: the file {path} is missing.") from None
        try:
            header = read_header(file)
            if header is None:
                raise ValueError(
                    f"`path`: {path} does not begin as a file of rows: it is damaged, "
                    "or another file."
                )
            layout, counted = header
            array = cls(path, layout, file)
            return array, min(counted, array._rows_that_fit())
        except BaseException:
            file.close()
            raise

    def _rows_that_fit(self) -> int:
        size = os.fstat(self._file.fileno()).st_size - self._start
        return max(size, 0) // self.layout.row_size if self.layout.row_size else 2**63

    def write(self, first: int, rows: memoryview) -> None:
        """Writes the bytes of rows from the index `first` on, which do not count
        yet."""
        self._write(rows, self._start + first * self.layout.row_size)

    def count(self, rows: int) -> None:
        """Makes this many rows count."""
        self._write(self.layout.header(rows), 0)

    def _write(self, data: bytes | memoryview, position: int) -> None:
        left = memoryview(data)
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, position)
                left, position = left[written:], position + written
        except OSError as error:
            raise self._named(error) from error

    def cut(self, rows: int) -> None:
        """Removes all rows but the first ones."""
        self.count(rows)
        os.ftruncate(self._file.fileno(), self._start + rows * self.layout.row_size)

    def checksum(self, rows: int) -> int:
        """The CRC-32 of the bytes of the first rows, read in pieces."""
        left = rows * self.layout.row_size
        crc32 = 0
        self._file.seek(self._start)
        while left > 0 and (chunk := self._file.read(min(left, _CHUNK))):
            crc32 = zlib.crc32(chunk, crc32)
            left -= len(chunk)
        return crc32

    def sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, os.fspath(self.path))

    def memory_map(self, rows: int) -> np.ndarray:
        """The first rows, read from the disk where they are looked at."""
        shape = (rows, *self.layout.shape)
        if rows * self.layout.row_size == 0:  # cannot be mapped
            return np.empty(shape, self.layout.dtype)
        return np.memmap(
            self._file, self.layout.dtype, "r", offset=self._start, shape=shape
        )

    def close(self) -> None:
        self._file.close()
