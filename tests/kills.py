"""Runs on disk in processes of their own, which are killed again and again.

By hand: `python tests/kills.py solve|descend FOLDER --runs 50 --seed 0`. So many runs
are made one after the other, by processes that are killed at random moments. Then all
are compared with one that was never interrupted.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import gradflow as gf
import small
from gradflow._disk import npz as _npz
from gradflow._recording import recording as _recording


def solve(path):
    return gf.solve(
        small.problem(),
        gf.GradientFlow(),
        small.network(),
        1.0,
        observe=small.OBSERVE,
        path=path,
        checkpoint_seconds=0.0,
    )


def is_low(problem, network):
    return problem.value(network) < 1.11


def descend(path):
    """Ends after 53 steps, between two that are saved."""
    return gf.descend(
        small.problem(),
        0.05,
        small.network(),
        300,
        sampler=gf.Minibatches(2, key=jax.random.key(3)),
        save_steps=np.arange(0, 300, 3),
        observe=small.OBSERVE,
        until=is_low,
        path=path,
        checkpoint_seconds=0.0,
    )


RUNS = {"solve": solve, "descend": descend}


def contents(path) -> dict[str, bytes | str]:
    """All that a run has left: its page, the bytes of its rows and of its last
    checkpoint."""
    path = Path(path)
    header, arrays = _npz.read(path / "state.npz")
    rows = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*.npy")}
    saved = {
        name: f"{x.dtype}{x.shape}".encode() + x.tobytes() for name, x in arrays.items()
    }
    page = {"page": (path / "run.json").read_bytes()}
    return rows | saved | page | {"header": json.dumps(header, sort_keys=True)}


def without_patience(seconds: float = 0.0) -> None:
    """Lets runs stop after every step, and write a checkpoint."""
    _recording._PATIENCE = 0
    _recording._SECONDS = seconds


def make_all(name: str, folder: Path, runs: int, seconds: float) -> None:
    """What a process does: the runs one after the other."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    without_patience(seconds)
    for run in range(runs):
        path = folder / str(run)
        if not (folder / f"{run}.ended").exists():
            RUNS[name](path)
            (folder / f"{run}.ended").touch()


def _start(name: str, folder: Path, runs: int, seconds: float = 0.0):
    call = f"kills.make_all({name!r}, Path({str(folder)!r}), {runs}, {seconds})"
    code = f"from pathlib import Path; import kills; {call}"
    paths = [str(Path(__file__).parent), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def _times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.glob("*/state.npz")}


def _ended(folder: Path) -> int:
    return len(list(folder.glob("*.ended")))


def kill_until_done(
    name: str, folder: Path, runs: int, delays: Iterator[float]
) -> tuple[int, int]:
    """Makes the runs, and kills whoever makes them after each of the delays, counted
    from its first checkpoint, or from its start where they are negative.

    **Returns:** how many kills there were, and how many runs were killed.
    """
    whole = folder / "whole"
    killed = folder / "killed"
    for each in (whole, killed):
        each.mkdir(parents=True)
    # In one stretch.
    assert _start(name, whole, 1, seconds=1e6).wait() == 0
    os.symlink(whole / "cache", killed / "cache")
    kills, runs_killed = 0, set()
    for delay in delays:
        before = _times(killed)
        child = _start(name, killed, runs)
        while delay >= 0 and _times(killed) == before and child.poll() is None:
            time.sleep(0.001)
        time.sleep(abs(delay))
        if child.poll() is None:
            kills += 1
            runs_killed.add(_ended(killed))
            child.send_signal(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL)
        if _ended(killed) == runs:
            break
    assert _start(name, killed, runs).wait() == 0
    expected = contents(whole / "0")
    for run in range(runs):
        assert contents(killed / str(run)) == expected
        trajectory = gf.Trajectory.load(killed / str(run))
        assert trajectory.result != gf.RESULTS.unfinished
    return kills, len(runs_killed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--longest", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    delays = iter(lambda: rng.uniform(-0.2, 1) * arguments.longest, None)
    kills, killed = kill_until_done(
        arguments.name, arguments.folder, arguments.runs, delays
    )
    print(f"{kills} kills, of {killed} runs; all came to the same bits")
