"""The command line: `python -m gradflow`."""

import sys
from collections.abc import Sequence

from . import _commands

_COMMANDS = {"resume": _commands.resume.main, "sweep": _commands.sweep.main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names, or the main job.

    **Returns:** the exit status: 0, or 1 where a run failed, 2 for bad arguments.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in _COMMANDS:
        return _COMMANDS[given[0]](given[1:])
    return _commands.job.main(given)


if __name__ == "__main__":
    sys.exit(main())
