"""Arrays and a page of JSON in one `.npz` file, without pickle."""

import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np


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
    except BaseException:
        part.unlink(missing_ok=True)
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


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `write` has written.

    **Raises:** `FileNotFoundError`, or `ValueError` for anything but such a file.
    """
    if Path(path).is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"`path`: {path} is not an .npz file, or not a whole one.")
    try:
        # Opened here, since `np.load` leaves a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        # Damage to the directory of the file can hide an entry.
        missing = set(header.get("arrays", ())) - set(arrays)
        if missing:
            raise ValueError(f"the arrays {sorted(missing)} are missing")
    except FileNotFoundError:
        raise
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"`path`: {path} cannot be read: {error}") from error
    return header, arrays
