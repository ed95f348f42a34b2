"""Arrays and a page of JSON in one `.npz` file, without pickle."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .unpack import unpack


def write(
    path: str | os.PathLike,
    header: Mapping[str, Any],
    arrays: Mapping[str, Any],
    *,
    compress: bool = True,
    before: Callable[[], None] | None = None,
) -> None:
    """Writes the file whole or not at all; `before` is called when it is on the disk
    and is about to take its name."""
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    page = np.array(json.dumps({**header, "arrays": list(plain)}))
    save: Any = np.savez_compressed if compress else np.savez
    write_whole(path, lambda file: save(file, header=page, **plain), before=before)


def write_whole(
    path: str | os.PathLike,
    write: Callable[[IO[bytes]], object],
    *,
    before: Callable[[], None] | None = None,
) -> None:
    """Writes any file whole or not at all, by `write(file)`."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path`: the folder {path.parent} does not exist.")
    # In the same folder, so that the renaming is atomic.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
        os.replace(part, path)
        sync_names(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            # That the disk is full, the system says without a name.
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def sync_names(folder: Path) -> None:
    """Brings the names of files to the disk, which their own `fsync` does not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(
    path: str | os.PathLike, *, compressed: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `write` has written; compressed arrays only where there may be such.

    **Raises:** `FileNotFoundError`, or `ValueError` for anything but such a file.
    """
    try:
        # Once: at the next look there may be another file under the name.
        with open(path, "rb") as stream:
            arrays = unpack(stream, compressed=compressed)
        header = json.loads(str(arrays.pop("header")))
        # Damage to the directory of the file can hide an entry.
        missing = set(header.get("arrays", ())) - set(arrays)
        if missing:
            raise ValueError(f"the arrays {sorted(missing)} are missing")
    except FileNotFoundError:
        raise
    # Damage shows as nearly any exception, as RecursionError for a wild page.
    except Exception as error:
        raise ValueError(f"`path`: {path} cannot be read: {error}") from error
    return header, arrays
