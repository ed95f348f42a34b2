"""Runs of all members of an ensemble."""

import collections
import concurrent.futures
import math
import os
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._process import AbstractProcess, End, Rows
from .._run import lacks_end
from .lanes import Lanes, go_on, idle_lanes, outcome
from .stacked import Stacked

_FEWEST_STEPS = 16
_MOST_STEPS = 4096
_SEGMENTS_PER_RUN = 8
"""Lanes are looked at, and those that have ended filled again, about so many times
while a member takes its steps. More often costs more than lanes that wait."""

_LANES_OF_AN_ACCELERATOR = 64


class _Work:
    """What the workers share: who waits, what there is, how long runs are, and whether
    to stop."""

    def __init__(self, count: int, done: Callable[[int, Rows, End], None]):
        self.waiting = collections.deque(range(count))
        self.steps_taken: list[int] = []
        self.stop = threading.Event()
        self._done = done
        self._lock = threading.Lock()

    def next_members(self, most: int) -> list[int]:
        with self._lock:
            count = min(most, len(self.waiting))
            return [self.waiting.popleft() for _ in range(count)]

    def finish(self, member: int, rows: Rows, end: End) -> None:
        with self._lock:
            self.steps_taken.append(int(end.stats["num_steps"]))
            try:
                self._done(member, rows, end)
            except BaseException:
                # Before another worker, which waits for the lock, goes on.
                self.stop.set()
                raise

    def num_steps(self) -> int:
        """How many steps to go until lanes are looked at again."""
        if not self.waiting:
            return _MOST_STEPS
        typical = np.mean(self.steps_taken) if self.steps_taken else 0
        return int(np.clip(typical / _SEGMENTS_PER_RUN, _FEWEST_STEPS, _MOST_STEPS))


def run_members(
    processes: Stacked[AbstractProcess],
    count: int,
    *,
    lanes: int,
    workers: int,
    done: Callable[[int, Rows, End], None],
) -> None:
    """Runs all members, `lanes` at a time in each of `workers` threads, and calls
    `done` with each as it ends. After an exception, such as an interrupt, no further
    segment is begun."""
    work = _Work(count, done)
    workers = min(workers, count)
    idle = idle_lanes(processes, min(lanes, math.ceil(count / workers)))
    if workers == 1:
        _run(work, processes, idle)
        return
    _compile(processes, idle)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(_run, work, processes, idle) for _ in range(workers)]
        try:
            for run in concurrent.futures.as_completed(runs):
                run.result()
        finally:
            work.stop.set()


def _run(
    work: _Work,
    processes: Stacked[AbstractProcess],
    lanes: Lanes,
) -> None:
    is_taken = np.zeros(lanes.num_lanes, bool)
    while not work.stop.is_set():
        free = np.flatnonzero(~is_taken)
        members = work.next_members(len(free))
        if members:
            filled = free[: len(members)]
            lanes = lanes.put(filled, np.asarray(members))
            is_taken[filled] = True
        if not np.any(is_taken):
            return
        num_steps = _MOST_STEPS if lanes.num_lanes == 1 else work.num_steps()
        lanes = go_on(processes, lanes, jnp.asarray(num_steps, jnp.int32))
        ended = np.asarray(lanes.position.has_ended) & is_taken
        for lane in np.flatnonzero(ended):
            result = outcome(processes, lanes, jnp.asarray(lane, jnp.int32))
            work.finish(int(lanes.members[lane]), *_trimmed(*result))
        is_taken &= ~ended


def _compile(processes: Stacked[AbstractProcess], lanes: Lanes) -> None:
    """Or each worker would, for itself."""
    lanes = go_on(processes, lanes, jnp.asarray(1, jnp.int32))
    jax.block_until_ready(outcome(processes, lanes, jnp.asarray(0, jnp.int32)))


def _trimmed(rows: Rows, num_rows: Int[Array, ""], end: End) -> tuple[Rows, End]:
    """The rows that were reached and, if it comes early, the end."""
    rows = jax.tree.map(np.asarray, rows)
    keep = np.arange(int(num_rows))
    if lacks_end(rows.ts[keep], end):
        keep = np.append(keep, -1)
    return jax.tree.map(lambda x: jnp.asarray(x[keep]), rows), end


def default_lanes() -> int:
    """One, where runs of several in one program take longer than one after the other:
    on processors, whose time goes into arithmetic."""
    return 1 if _is_on_processor() else _LANES_OF_AN_ACCELERATOR


def default_workers() -> int:
    """One for each core."""
    if not _is_on_processor():
        return 1
    return os.cpu_count() or 1


def _is_on_processor() -> bool:
    return jax.default_backend() == "cpu"
