"""The IDX format of the MNIST files."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

_DTYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, compressed with gzip or not.

    Two zero bytes, a code for the dtype, the number of dimensions, their sizes as
    big-endian 32-bit integers, the entries in C order and big-endian.

    **Returns:** an array in the byte order of the machine.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file and what is wrong
    with it. Its length must be exactly what its header says.

    ??? cite

        Y. LeCun, C. Cortes and C. Burges, *The MNIST database of handwritten digits*,
        "File formats for this database".
    """
    content = Path(path).read_bytes()
    # By content, not by name: no IDX file begins like this.
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
    if len(content) < 4:
        raise ValueError(f"{path}: {len(content)} bytes, too short for an IDX file")
    if content[:2] != b"\0\0" or content[2] not in _DTYPES or content[3] == 0:
        raise ValueError(
            f"{path}: not an IDX file, it begins with {content[:4].hex(' ')}"
        )
    dtype, start = _DTYPES[content[2]], 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(
            f"{path}: truncated, {len(content)} bytes for a header of {start}"
        )
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "trailing bytes"
        raise ValueError(
            f"{path}: {fault}, {len(content)} bytes where shape {shape} of "
            f"{dtype.name} takes {expected}"
        )
    entries = np.frombuffer(content, dtype, offset=start)
    try:
        entries = entries.reshape(shape)
    except ValueError as error:
        # Up to 255 dimensions fit into the format, and no size is too large beside a 0.
        raise ValueError(f"{path}: shape {shape} is not possible: {error}") from error
    return entries.astype(dtype.newbyteorder("="))
