"""What many runs return."""

from collections import Counter
from typing import Any

import equinox as eqx
import numpy as np

from .._results import is_okay, name_of
from .._trajectory import Trajectory

_ROWS_SHOWN = 12


class Ensemble(eqx.Module):
    """The trajectories of many runs that differ in some of their arguments.

    `len`, indices and loops go over the members: `ensemble[i]` is the
    [`gradflow.Trajectory`][] that a run of the member alone returns.

    **Attributes:**

    - `trajectories`: those of all members.
    - `parameters`: the numbers in which the arguments of the members differ, by name,
        such as `t1` or `flow.weight_decay`, each of shape `(members,)`.
    """

    trajectories: tuple[Trajectory, ...]
    parameters: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index: int) -> Trajectory:
        return self.trajectories[index]

    @property
    def results(self) -> tuple[str, ...]:
        """The name of each member's result."""
        return tuple(name_of(member.result) for member in self.trajectories)

    @property
    def failed(self) -> tuple[int, ...]:
        """The indices of the members that have failed."""
        members = enumerate(self.trajectories)
        return tuple(i for i, member in members if not is_okay(member.result))

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Columns of one entry a member: `parameters`, how and when it ended, what it
        took, and the last value of each observable that is a single number."""
        members = self.trajectories
        columns = dict(self.parameters)
        columns["result"] = np.array(self.results)
        columns["stopped_by"] = np.array([m.stopped_by or "" for m in members])
        columns["t_end"] = np.array([float(m.ts[-1]) for m in members])
        for name in ("num_steps", "num_gradients"):
            # Implicit solvers do not count gradients.
            counts = [m.stats[name] for m in members]
            columns[name] = np.array([float("nan" if c is None else c) for c in counts])
        for name, values in members[0].observables.items():
            if eqx.is_array(values) and values.ndim == 1:
                last = [float(m.observables[name][-1]) for m in members]
                columns[name] = np.array(last)
        return columns

    def column(self, name_or_values: Any) -> np.ndarray:
        """A column of `table`, or numbers of one's own for the members.

        **Raises:** `ValueError` for names that are not in `table`, and for anything
        else than a number for each member.
        """
        if isinstance(name_or_values, str):
            table = self.table
            if name_or_values not in table:
                raise ValueError(
                    f"`ensemble` has no column {name_or_values!r}, only {list(table)}."
                )
            return table[name_or_values]
        values = np.asarray(name_or_values)
        if values.shape != (len(self),):
            raise ValueError(
                f"`ensemble` has {len(self)} members and takes as many values, got "
                f"shape {values.shape}."
            )
        return values

    def __repr__(self) -> str:
        ends = [
            f"stopped by {m.stopped_by}"
            if m.stopped_by is not None
            else f"{name}{'' if is_okay(m.result) else ' (FAILED)'}"
            for m, name in zip(self.trajectories, self.results, strict=True)
        ]
        counts = [f"{count} {end}" for end, count in Counter(ends).most_common()]
        numbers = {k: v for k, v in self.table.items() if v.dtype.kind not in "US"}
        widths = [max(len(name), 11) + 2 for name in numbers]

        def line(start: Any, cells: list[str]) -> str:
            padded = [f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)]
            return f"{start:>6}" + "".join(padded)

        lines = [f"Ensemble of {len(self)}: {', '.join(counts)}"]
        lines.append(line("", list(numbers)))
        for i in range(min(len(self), _ROWS_SHOWN)):
            lines.append(line(i, [f"{values[i]:.6g}" for values in numbers.values()]))
        if len(self) > _ROWS_SHOWN:
            lines.append(f"  … and {len(self) - _ROWS_SHOWN} more in `table`")
        return "\n".join(lines)
