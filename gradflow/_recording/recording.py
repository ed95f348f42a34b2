"""Runs that are written to disk as they go, and go on from there."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from tqdm import tqdm

from .._check import check_nonnegative
from .._disk import Checkpoint, RunFiles
from .._disk.rows import RowWriter, read
from .._network import AbstractNetwork
from .._process import AbstractPosition, AbstractProcess, End, Rows
from .._results import RESULTS, RunInterrupted
from .._run import lacks_end, raise_failure
from .._trajectory import Trajectory
from .._trajectory_format import arrays_of_rows, header_and_arrays_of_end
from .interrupts import Interrupts
from .page import RunPage
from .saved_position import is_key, position_from_arrays, position_to_arrays
from .several import agreed, is_first, wait_for_all, whole

_MOST_ROWS = 1024
_MOST_BYTES = 2**26
"""So many rows are held in memory at most, of so many bytes together if they are more
than two."""
_SECONDS = 0.3
"""How long to advance before there is time for anything else."""
_FASTER = 8
"""By how much more steps there may be in one stretch than in the one before."""
_PATIENCE = 50
"""From one checkpoint to the next it takes so many times as long as to write one."""


def record(
    process: AbstractProcess,
    network: AbstractNetwork,
    page: RunPage,
    path: str | os.PathLike,
    *,
    names: Sequence[str],
    seconds: float | int,
    progress: bool,
    throw: bool,
) -> Trajectory:
    """Makes a run whose rows and checkpoints are written to a folder, or goes on with
    it.

    **Arguments:**

    - `process`: the run.
    - `network`: of the architecture of its networks.
    - `page`: which run it is.
    - `path`: the folder.
    - `names`: those of the conditions that may stop it.
    - `seconds`: between two checkpoints.

    **Returns:** the trajectory, whose rows are mapped from the files.

    **Raises:** `RunInterrupted` where the user has interrupted it; `ValueError` where
    the folder is of another run, or damaged; `OSError` where it cannot be written;
    `SolveError` for a failed run with `throw`.
    """
    check_nonnegative("checkpoint_seconds", seconds)
    files = RunFiles(path)
    checkpoint = _checkpoint(files, page)
    no_rows = _no_rows(process)
    is_interrupted = False
    if checkpoint is None or not checkpoint.header["complete"]:
        with contextlib.ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts())
            writer = None
            if is_first():
                stack.enter_context(files.lock())
                # Whoever had the lock before may have come further.
                checkpoint = _checkpoint(files, page, repair=True)
                writer = stack.enter_context(files.writer(checkpoint))
                if not files.exists():
                    files.begin(page.to_json(), page.arrays)
            wait_for_all("gradflow: the folder is in order")
            if not is_first():
                checkpoint = _checkpoint(files, page)
            wait_for_all("gradflow: the checkpoint has been read")
            recording = _Recording(process, network, files, writer, names, no_rows)
            position = recording.begin(checkpoint)
            is_interrupted = recording.go_on(
                position, interrupts, seconds=seconds, progress=progress
            )
            wait_for_all("gradflow: the run is on the disk")
    trajectory = Trajectory.load(files.path, like=network)
    if is_interrupted:
        raise RunInterrupted(
            f"Interrupted. What there is so far is in {files.path}: `gradflow.resume` "
            "goes on from there, `gradflow.Trajectory.load` reads it.",
            trajectory,
        )
    trajectory = _with_pytrees(trajectory, no_rows)
    if throw:
        raise_failure(trajectory)
    return trajectory


def _checkpoint(
    files: RunFiles, page: RunPage, *, repair: bool = False
) -> Checkpoint | None:
    if not files.exists():
        return None
    page.check_same(files.read_page())
    return files.read_checkpoint(repair=repair)


class _Recording:
    """A process, and the files to which it is written: by whoever has a `writer`, which
    is the first of several processes that make the run together."""

    def __init__(
        self,
        process: AbstractProcess,
        network: AbstractNetwork,
        files: RunFiles,
        writer: RowWriter | None,
        names: Sequence[str],
        no_rows: Rows,
    ):
        self._process = process
        self._network = network
        self._files = files
        self._writer = writer
        self._names = names
        self._no_rows = no_rows
        sizes = [
            x.itemsize * int(np.prod(x.shape[1:])) for x in jax.tree.leaves(no_rows)
        ]
        most = max(2, min(_MOST_ROWS, _MOST_BYTES // max(1, sum(sizes))))
        self._num_rows = min(most, process.total_rows)

    def begin(self, checkpoint: Checkpoint | None) -> AbstractPosition:
        """Where to go on: at the start, where there is no checkpoint."""
        if checkpoint is not None:
            template = eqx.filter_eval_shape(_start, self._process)
            try:
                return position_from_arrays(
                    template, checkpoint.arrays, checkpoint.header["keys"]
                )
            except ValueError as error:
                raise ValueError(
                    f"`path`: {self._files.path} holds a checkpoint of another version "
                    f"of this run: {error}. Begin again in another folder."
                ) from error
        position = _start(self._process)
        self._append(self._no_rows)
        self._write_checkpoint(position, complete=False)
        return position

    def go_on(
        self,
        position: AbstractPosition,
        interrupts: Interrupts,
        *,
        seconds: float | int,
        progress: bool,
    ) -> bool:
        """Advances to the end, or until there is an interrupt, and returns whether
        there was one."""
        steps, is_compiled, is_interrupted = 1, False, False
        due = time.perf_counter() + seconds
        with _bar(shown=progress and self._writer is not None) as bar:
            while not (position.has_ended or is_interrupted):
                before, began = position, time.perf_counter()
                position = self._advance(position, steps)
                now = time.perf_counter()
                bar.n = round(100 * float(self._process.fraction(position)), 2)
                bar.refresh()
                if is_compiled:
                    made = int(position.num_steps - before.num_steps)
                    in_time = int(made * _SECONDS / (now - began))
                    steps = max(1, min(in_time, _FASTER * steps))
                is_compiled = True
                steps, is_interrupted, is_due = agreed(
                    steps, interrupts.any, now >= due
                )
                if is_due and not (position.has_ended or is_interrupted):
                    self._write_checkpoint(position, complete=False)
                    took = time.perf_counter() - now
                    due = now + took + max(seconds, _PATIENCE * took)
        if position.has_ended:
            self._append_end(position)
        self._write_checkpoint(position, complete=bool(position.has_ended))
        return bool(is_interrupted)

    def _advance(self, position: AbstractPosition, steps: int) -> AbstractPosition:
        before = int(position.num_rows)
        num_steps = jnp.asarray(steps, position.num_steps.dtype)
        position, rows = _advance(self._process, position, self._num_rows, num_steps)
        number = int(position.num_rows) - before
        self._append(jax.tree.map(lambda x: np.asarray(x)[:number], whole(rows)))
        return position

    def _append(self, rows: Rows) -> None:
        if self._writer is not None:
            arrays, _ = _named(rows)
            self._writer.append(arrays)

    def _append_end(self, position: AbstractPosition) -> None:
        """Appends the point where a run ended early, which no one had asked to save."""
        end = _conclude(self._process, position)
        if end.result == RESULTS.successful:
            return
        row = whole((end.t, *_row(self._process, end)))
        if lacks_end(read(self._files.rows)["ts"], end):
            self._append(Rows(*jax.tree.map(lambda x: np.asarray(x)[None], row)))

    def _write_checkpoint(self, position: AbstractPosition, *, complete: bool) -> None:
        end = _conclude(self._process, position)
        met = zip(self._names, end.conditions_met, strict=True)
        header, arrays = header_and_arrays_of_end(
            self._network.with_weights(end.weights),
            end.result if complete else RESULTS.unfinished,
            end.stats,
            next((name for name, is_met in met if is_met), None),
        )
        _, trees = _named(self._no_rows)
        saved, keys = position_to_arrays(whole(position))
        if self._writer is None:
            return
        # The rows first, since the checkpoint speaks of them.
        self._writer.sync()
        self._files.write_checkpoint(
            Checkpoint(
                {
                    "trajectory": {**header, "trees": trees},
                    "complete": complete,
                    "rows": self._writer.state(),
                    "keys": keys,
                },
                arrays | saved,
            )
        )


def _bar(*, shown: bool) -> tqdm:
    form = "{percentage:.2f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=100, unit="%", bar_format=form, disable=not shown)


def _named(rows: Rows) -> tuple[dict[str, Any], Any]:
    return arrays_of_rows(rows.ts, rows.log_ts, rows.weights, rows.observables)


@eqx.filter_jit
def _start(process: AbstractProcess) -> AbstractPosition:
    return _strong(process.start())


@eqx.filter_jit
def _advance(
    process: AbstractProcess,
    position: AbstractPosition,
    num_rows: int,
    num_steps: Int[Array, ""],
) -> tuple[AbstractPosition, Rows]:
    position, rows = process.advance(position, num_rows, num_steps)
    return _strong(position), rows


@eqx.filter_jit
def _conclude(process: AbstractProcess, position: AbstractPosition) -> End:
    return process.conclude(position)


@eqx.filter_jit
def _row(process: AbstractProcess, end: End) -> tuple[Any, Any, Any]:
    return process.row(end.t, end.state)


def _no_rows(process: AbstractProcess) -> Rows:
    """What `rows` of a process look like."""

    def first(process: AbstractProcess) -> tuple[Any, Any, Any, Any]:
        end = process.conclude(process.start())
        return (end.t, *process.row(end.t, end.state))

    structure = eqx.filter_eval_shape(first, process)
    return Rows(*jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), structure))


def _strong(position: AbstractPosition) -> AbstractPosition:
    """Without weak types, which would not come back from the disk and mean another
    program."""

    def strong(leaf: Any) -> Any:
        is_number = eqx.is_array(leaf) and not is_key(leaf)
        return leaf.astype(leaf.dtype) if is_number else leaf

    return jax.tree.map(strong, position)


def _with_pytrees(trajectory: Trajectory, like: Rows) -> Trajectory:
    """With observables of the kinds that the functions have returned."""
    arrays, _ = arrays_of_rows(
        trajectory.ts, trajectory.log_ts, None, trajectory.observables
    )
    names, _ = arrays_of_rows(like.ts, like.log_ts, None, like.observables)
    structure = jax.tree.structure(like.observables)
    in_order = [arrays[n] for n in names if n.startswith("observables/")]
    observables = jax.tree.unflatten(structure, in_order)
    return dataclasses.replace(trajectory, observables=observables)
