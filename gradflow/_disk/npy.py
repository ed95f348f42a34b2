"""The `.npy` format of NumPy, for arrays that grow along their first axis."""

import dataclasses
import functools
import io
import math
import re

import numpy as np

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufc]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((\d{1,19}),((?: \d{1,19},?)*)\), \} *\n"
)
_MOST_ROWS = 2**63 - 1


@dataclasses.dataclass(frozen=True, repr=False)
class Layout:
    """What each row is: the type of its numbers, and its shape."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @functools.cached_property
    def row_size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @functools.cached_property
    def header_size(self) -> int:
        """In bytes; the same for any number of rows."""
        least = len(_MAGIC) + 2 + len(self._text(_MOST_ROWS)) + 1
        return -(-least // 64) * 64

    def header(self, rows: int) -> bytes:
        size = self.header_size - len(_MAGIC) - 2
        text = self._text(rows).ljust(size - 1) + "\n"
        return _MAGIC + size.to_bytes(2, "little") + text.encode("ascii")

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    def _text(self, rows: int) -> str:
        return (
            f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, "
            f"'shape': {(rows, *self.shape)}, }}"
        )


def is_storable(dtype: np.dtype) -> bool:
    """Whether it is a type of numbers that NumPy gets back from a file: it does not get
    those of other libraries, such as `bfloat16`."""
    return dtype.kind in "biufc" and issubclass(dtype.type, (np.number, np.bool_))


def read_header(file: io.FileIO) -> tuple[Layout, int] | None:
    """What the rows are and how many the header counts, if it is the header of such an
    array."""
    file.seek(0)
    start = file.read(len(_MAGIC) + 2)
    rest = file.read(int.from_bytes(start[-2:], "little"))
    match = _HEADER.fullmatch(rest)
    if match is None:
        return None
    descr, rows, shape = (part.decode("ascii") for part in match.groups())
    try:
        dtype = np.dtype(descr)
    except TypeError:
        return None
    layout = Layout(dtype, tuple(map(int, re.findall(r"\d+", shape))))
    return (layout, int(rows)) if layout.header(int(rows)) == start + rest else None
