"""Arguments from their description."""

from collections.abc import Mapping
from typing import Any

from .describe import array_name, describe
from .description import Description, fingerprint, without_labels
from .reader import Reader


def restore(
    description: Description, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments that were described.

    Instances are put together from their fields without calling the class, and then
    checked as the class checks new ones. Nothing else is called.

    **Arguments:**

    - `description`: what `describe` has returned.
    - `given`: arguments that are given again, by name, as those that hold code must be.

    **Raises:** `ValueError` for an argument that must be given again, or was given and
    is another one, and for anything but a description.
    """
    given = {} if given is None else given
    if not isinstance(description.arguments, dict):
        raise ValueError("The description holds no arguments by name.")
    for name in given:
        if name not in description.arguments:
            raise ValueError(f"`{name}` is not among the arguments of the run.")
    arguments = {}
    for name, node in description.arguments.items():
        try:
            if name in given:
                _check_same(description, name, given[name])
                arguments[name] = given[name]
            else:
                arguments[name] = Reader(name, description.arrays).read(node)
        except RecursionError as error:
            raise ValueError(f"`{name}` is nested too deeply.") from error
    return arguments


def _check_same(description: Description, name: str, given: Any) -> None:
    own = array_name((name,))
    arrays = {
        key: array
        for key, array in description.arrays.items()
        if key == own or key.startswith(f"{own}/")
    }
    again = describe({name: given})
    before, now = (
        Description({name: without_labels(of.arguments[name])}, held)
        for of, held in ((description, arrays), (again, again.arrays))
    )
    if fingerprint(before) != fingerprint(now):
        raise ValueError(
            f"`{name}` differs from the one that the run began with: give that one, or "
            "begin another run. Code of your own differs, too, where another version "
            "of Python has compiled it."
        )
