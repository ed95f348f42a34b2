"""One process at a time."""

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# File systems of clusters may be mounted without locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """Keeps others from writing to a folder, until it is released or the process ends,
    however it ends.

    Where the system has no such locks nothing is kept from anybody.
    """

    def __init__(self, folder: str | os.PathLike):
        """**Arguments:**

        - `folder`: exists. A file `.lock` in it stays, and means nothing by itself.

        **Raises:** `ValueError` where someone else holds the lock; `OSError` where
        nothing can be written to the folder.
        """
        self._file = (Path(folder) / ".lock").open("ab")
        try:
            _lock(self._file.fileno(), folder)
        except BaseException:
            self._file.close()
            raise

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _lock(descriptor: int, folder: str | os.PathLike) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"`path`: another process is writing to {os.fspath(folder)}. Wait until it "
            "has ended, or give another folder."
        ) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
