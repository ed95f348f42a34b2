"""Going on with a run that was interrupted."""

import os
from typing import Any

from ._descend import descend
from ._disk import RunFiles
from ._recording import arguments_of
from ._solve import solve
from ._trajectory import Trajectory

_FUNCTIONS = {"solve": solve, "descend": descend}


def resume(
    path: str | os.PathLike,
    *,
    progress: bool = False,
    throw: bool = True,
    checkpoint_seconds: float | int = 10.0,
    **given: Any,
) -> Trajectory:
    """Goes on with a run of `gradflow.solve` or `gradflow.descend` with a `path`, from
    its last checkpoint to its end.

    On the same machine, and under the same versions, what comes out has the same bits
    as that of a run that was never interrupted.

    **Arguments:**

    - `path`: the folder of the run.
    - `progress`, `throw`, `checkpoint_seconds`: as in [`gradflow.solve`][].
    - `given`: arguments of the call that began the run, by name. Functions and classes
        of your own, and optimisers of optax, no file holds: `observe`, `until`,
        `optimiser` and the like have to be given again where there are such in them,
        the same as before.

    **Returns:** the whole trajectory. Where the run had ended already, it is read.

    **Raises:** `FileNotFoundError` where there is no run; `ValueError` where the folder
    is damaged, where an argument has to be given again, or was given and differs, and
    where another process is writing to the folder; the others of `gradflow.solve`.
    """
    files = RunFiles(path)
    page = files.read_page()
    if page["function"] not in _FUNCTIONS:
        raise ValueError(
            f"`path`: {os.fspath(path)} is the folder of a {page['function']}: "
            "`gradflow resume` goes on with it, from the command line."
        )
    arguments = arguments_of(page, files.read_inputs(), given, path)
    return _FUNCTIONS[page["function"]](
        **arguments,
        path=path,
        progress=progress,
        throw=throw,
        checkpoint_seconds=checkpoint_seconds,
    )
