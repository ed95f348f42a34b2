"""`gradflow resume DIR`: goes on with a run that was interrupted."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from .._disk import RunFiles
from .._results import RunInterrupted, SolveError
from .._resume import resume
from . import sweep


def main(arguments: Sequence[str]) -> int:
    """Runs to the end, and prints the trajectory.

    **Returns:** the exit status: 0, or 1 where the run failed, 130 where it was
    interrupted again, 2 where there is no run that can go on.
    """
    parser = argparse.ArgumentParser(
        prog="gradflow resume",
        description="Goes on with a run of `gradflow.solve` or `gradflow.descend` that "
        "writes to a folder, from its last checkpoint to its end; or with the sweep of "
        "a folder.",
    )
    parser.add_argument("path", type=Path, metavar="DIR", help="the folder of the run")
    options = parser.parse_args(arguments)
    try:
        files = RunFiles(options.path)
        page = files.read_page()
        jax.config.update("jax_enable_x64", page["double_precision"])
        if page["function"] == sweep.FUNCTION:
            return sweep.resume(page, files)
        print(resume(options.path, progress=True))
    except SolveError as error:
        print(f"The run failed. {error}\n{error.trajectory!r}", file=sys.stderr)
        return 1
    except RunInterrupted as error:
        print(error, file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0
