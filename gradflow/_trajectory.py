"""What a run returns."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ._check import is_concrete
from ._disk import RunFiles
from ._disk import npz as _npz
from ._network import AbstractNetwork
from ._results import RESULTS, is_okay, name_of
from ._to_xarray import to_dataset
from ._trajectory_format import arrays_of_rows, fields_of, header_and_arrays_of_end
from ._types import AnyArray

if TYPE_CHECKING:
    import xarray


class Trajectory(eqx.Module):
    """The course of a flow, or of a descent.

    **Attributes:**

    - `ts`: the saved times, of shape `(T,)`.
    - `log_ts`: the logarithms of the same times as physical times, which differ from
        `ts` where the flow has a clock, and may be of any size.
    - `networks`: the networks at these times, one network whose weights have a leading
        axis `T`; `None` if they were not saved. `trajectory[i]` is the `i`-th of them.
    - `final`: the network at the end of the run.
    - `observables`: a dictionary of arrays with a leading axis `T`.
    - `result`: how the run ended, one of `gradflow.RESULTS`.
    - `stats`: numbers of steps (`num_steps`), of gradients (`num_gradients`), and more.
    - `error`: if asked for, an estimate of the relative distance of `networks` from the
        true flow's (as `gradflow.analysis.relative_distance`), of shape `(T,)`; what
        integration and smoothed kinks do together.
    - `stopped_by`: the condition of `until` that was met, if one was.

    A run that ended early, by a condition or by a failure that was not raised, has the
    point where it ended as its last. Under `jit`, `vmap` or `grad`, where shapes cannot
    depend on values, the times after the end are `inf` instead.
    """

    ts: Float[AnyArray, " T"]
    log_ts: Float[AnyArray, " T"]
    networks: AbstractNetwork | None
    final: AbstractNetwork
    observables: dict[str, PyTree[AnyArray]]
    result: RESULTS
    stats: dict[str, Any]
    error: Float[AnyArray, " T"] | None = None
    stopped_by: str | None = eqx.field(static=True, default=None)

    def __len__(self) -> int:
        return self.ts.shape[-1]

    def __getitem__(self, index: int) -> AbstractNetwork:
        """The network at `ts[index]`."""
        networks = self.require_networks()
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a trajectory of {len(self)} networks")
        weights = tuple(jnp.asarray(w[index]) for w in networks.weights)
        return networks.with_weights(weights)

    def require_networks(self) -> AbstractNetwork:
        """The `networks`; a `ValueError` where they were not saved."""
        if self.networks is None:
            raise ValueError(
                "The networks of this trajectory were not saved: run it again with "
                "`save_networks=True`."
            )
        return self.networks

    def save(self, path: str | os.PathLike) -> None:
        """Writes the trajectory to `path`, an `.npz` file; whole or not at all.

        An observable that is a pytree is written array by array, each under its field,
        key or index, and read back as a dictionary of them:
        `observables["collapse"].nc1` becomes `observables["collapse"]["nc1"]`.

        **Raises:** `ValueError` where an observable holds something else than arrays;
        `OSError` where the file cannot be written.
        """
        self._check_single()
        weights = None if self.networks is None else self.networks.weights
        rows, trees = arrays_of_rows(self.ts, self.log_ts, weights, self.observables)
        header, arrays = header_and_arrays_of_end(
            self.final, self.result, self.stats, self.stopped_by
        )
        if self.error is not None:
            arrays["error"] = self.error
        _npz.write(path, {**header, "trees": trees}, rows | arrays)

    def to_xarray(self) -> "xarray.Dataset":
        """The trajectory as an `xarray.Dataset`, which needs
        `pip install 'gradflow-ode[xarray]'`.

        Along the dimension `t` are `log_t`, the observables (the arrays of one that is
        a pytree as `"collapse.nc1"`), `error`, and the layers' weights as `weights_0`,
        `weights_1`, …, as far as they were saved. How the run ended and its numbers are
        attributes.

        **Raises:** `ImportError` without xarray; `ValueError` for several runs, and for
        an observable with the name of something else in the dataset.
        """
        self._check_single()
        arrays = [] if self.error is None else [("error", self.error)]
        if self.networks is not None:
            arrays += [(f"weights_{k}", w) for k, w in enumerate(self.networks.weights)]
        return to_dataset(
            self.ts,
            self.log_ts,
            [*arrays, *self.observables.items()],
            {
                "result": name_of(self.result),
                "stopped_by": self.stopped_by,
                **self.stats,
            },
        )

    def _check_single(self) -> None:
        if self.ts.ndim != 1:
            raise ValueError(
                "This trajectory holds several runs: take them one at a time, with "
                "`jax.tree.map(lambda x: x[i], trajectory)`."
            )

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, like: AbstractNetwork | None = None
    ) -> "Trajectory":
        """Reads a trajectory that `save` has written, or that of a run with a `path`.

        The latter's rows are memory maps, which take no memory. It may be read while
        the run goes on: the result is `unfinished` then, the rows are those up to the
        last checkpoint.

        **Arguments:**

        - `path`: the file, or the folder of the run.
        - `like`: a network of the same architecture, needed where its class is not one
            of gradflow's.

        **Raises:** `FileNotFoundError`, or `ValueError` where the file is damaged, is
        not a trajectory, or was written by a newer version.
        """
        if Path(path).is_dir():
            files = RunFiles(path)
            checkpoint = files.require_checkpoint()
            header = checkpoint.header["trajectory"]
            arrays = {**checkpoint.arrays, **files.read_rows(checkpoint)}
        else:
            header, arrays = _npz.read(path)
        try:
            return cls(**fields_of(header, arrays, like))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"`path`: {path} is not a trajectory that can be read: {error}. If its "
                "network's class is your own, give a network of it as `like`."
            ) from error

    def __repr__(self) -> str:
        if not is_concrete((self.ts, self.result)) or self.ts.ndim != 1:
            return eqx.tree_pformat(
                {"ts": self.ts, "observables": self.observables, "final": self.final}
            )
        end = name_of(self.result)
        if self.stopped_by is not None:
            end = f"stopped by {self.stopped_by}"
        elif not is_okay(self.result):
            end = f"FAILED: {end}"
        span = f"t = {self.ts[0]:.6g} … {self.ts[-1]:.6g}, " if len(self) > 0 else ""
        lines = [
            f"Trajectory of {self.final!r}",
            f"  {span}{len(self)} saved; {end}",
        ]
        for name, values in self.observables.items():
            if eqx.is_array(values) and values.ndim == 1 and len(values) > 0:
                lines.append(f"  {name}: {values[0]:.6g} → {values[-1]:.6g}")
        if self.error is not None and len(self) > 0:
            lines.append(f"  error: about {np.max(np.asarray(self.error)):.2g}")
        counts = [
            f"{name} {np.asarray(value):.6g}"
            for name, value in self.stats.items()
            if value is not None
        ]
        return "\n".join([*lines, f"  {', '.join(counts)}"])
