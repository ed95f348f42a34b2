"""The IDX format of the MNIST files."""

import gzip
import io
import math
import os
import zlib

import numpy as np

from .._disk.unpack import MOST_DEFLATED

_DTYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_PIECE = 2**20


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, compressed with gzip or not.

    Two zero bytes, a code for the dtype, the number of dimensions, their sizes as
    big-endian 32-bit integers, the entries in C order and big-endian.

    **Returns:** an array in the byte order of the machine.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file and what is wrong
    with it. Its length must be exactly what its header says, and no more is read.

    ??? cite

        Y. LeCun, C. Cortes and C. Burges, *The MNIST database of handwritten digits*,
        "File formats for this database".
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # By content, not by name: no IDX file begins like this.
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if not is_packed:
                return _read(file, size)
            with gzip.open(file) as unpacked:
                return _read(unpacked, size * MOST_DEFLATED)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _read(file: io.BufferedIOBase, most: int) -> np.ndarray:
    """The array of a file that has so many bytes at most.

    **Raises:** `ValueError` that says what is wrong.
    """
    start = file.read(4)
    if len(start) < 4:
        raise ValueError(f"{len(start)} bytes, too short for an IDX file")
    if start[:2] != b"\0\0" or start[2] not in _DTYPES or start[3] == 0:
        raise ValueError(f"not an IDX file, it begins with {start.hex(' ')}")
    dtype, sizes = _DTYPES[start[2]], file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise ValueError(
            f"truncated, {4 + len(sizes)} bytes for a header of {4 + 4 * start[3]}"
        )
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    expected = math.prod(shape) * dtype.itemsize
    content = _read_up_to(file, expected) if expected <= most else b""
    if len(content) < expected or file.read(1):
        fault = (
            "truncated, fewer" if len(content) < expected else "trailing bytes, more"
        )
        raise ValueError(
            f"{fault} than the {expected} bytes that shape {shape} of {dtype.name} "
            "takes"
        )
    try:
        entries = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        # Up to 255 dimensions fit into the format, and no size is too large beside a 0.
        raise ValueError(f"shape {shape} is not possible: {error}") from error
    return entries.astype(dtype.newbyteorder("="))


def _read_up_to(file: io.BufferedIOBase, size: int) -> bytes:
    """As much as there is. `file.read(size)` takes memory for as much as is asked for,
    which a damaged header may have made large."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
