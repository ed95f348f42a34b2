"""Runs that are written to disk as they go."""

import json
import os
import signal
import threading
import time

import jax
import numpy as np
import optax
import pytest

import gradflow as gf
from cases import unchecked_types as unchecked_types
from gradflow._disk.run import RunFiles
from gradflow._recording import recording as _recording
from gradflow._recording.interrupts import Interrupts
from small import NUM_SAVES, network, problem

FLOW = gf.LagrangeFlow(0.1)
BATCHES = gf.Minibatches(2, key=jax.random.key(5))


def solve(path=None, *, t1=1.0, loss=-1.0, **options):
    # The same program with and without a loss at which to stop.
    options |= {"until": gf.LossBelow(loss), "path": path}
    return gf.solve(problem(), FLOW, network(), t1, **options)


def descend(path=None, *, step=1e-2, **options):
    options |= {"flow": FLOW, "sampler": BATCHES, "path": path}
    return gf.descend(problem(), step, network(), 300, **options)


CALLS = {"solve": solve, "descend": descend}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that nothing has interrupted."""
    path = tmp_path_factory.mktemp("straight")
    return {name: call(path / name) for name, call in CALLS.items()}


@pytest.fixture
def short(monkeypatch):
    """Many pauses, and a checkpoint in each."""
    monkeypatch.setattr(_recording, "_SECONDS", 1e-2)
    monkeypatch.setattr(_recording, "_PATIENCE", 0)


class Killed(Exception):
    pass


def kill_after(monkeypatch, number):
    """As if the process had ended in the middle of the next checkpoint but `number`."""
    write = RunFiles.write_checkpoint
    left = [number]

    def write_or_die(self, checkpoint):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        write(self, checkpoint)

    monkeypatch.setattr(RunFiles, "write_checkpoint", write_or_die)


def assert_same(one, other):
    """In every bit."""
    leaves = [jax.tree.leaves(t) for t in (one, other)]
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(*leaves, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_close(one, other):
    """Up to rounding: another program has computed it."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", CALLS)
def test_same_as_straight(name, straight):
    assert_close(straight[name], CALLS[name]())
    assert isinstance(straight[name].ts, np.memmap)


@pytest.mark.parametrize("name", CALLS)
def test_pauses_change_nothing(name, straight, tmp_path, short):
    recorded = CALLS[name](tmp_path / "run", checkpoint_seconds=0)
    assert_same(recorded, straight[name])
    # Of a run that has ended nothing is computed again.
    assert_same(CALLS[name](tmp_path / "run"), recorded)
    assert_same(gf.Trajectory.load(tmp_path / "run"), recorded)


@pytest.mark.parametrize("name", CALLS)
def test_killed_again_and_again(name, straight, tmp_path, short, monkeypatch):
    path = tmp_path / "run"
    for number in (0, 1, 3, 2):
        with monkeypatch.context() as patch:
            kill_after(patch, number)
            with pytest.raises(Killed):
                CALLS[name](path, checkpoint_seconds=0)
    before = gf.Trajectory.load(path)
    assert before.result == gf.RESULTS.unfinished
    assert "unfinished" in repr(before)
    assert 0 < len(before) < NUM_SAVES
    np.testing.assert_array_equal(before.ts, straight[name].ts[: len(before)])
    assert_same(gf.resume(path), straight[name])


def test_numpy_reads_the_rows(straight, tmp_path):
    solve(tmp_path / "run")
    rows = tmp_path / "run" / "rows"
    loss = np.load(rows / "observables" / "loss.npy")
    np.testing.assert_array_equal(loss, straight["solve"].observables["loss"])
    ts = np.load(rows / "ts.npy", mmap_mode="r")
    np.testing.assert_array_equal(ts, straight["solve"].ts)


def test_ctrl_c(straight, tmp_path, short):
    path = tmp_path / "run"

    def interrupt():
        while not (path / "state.previous.npz").exists():
            time.sleep(1e-3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(gf.RunInterrupted, match=r"`gradflow\.resume`") as caught:
        solve(path, checkpoint_seconds=0)
    thread.join()
    so_far = caught.value.trajectory
    assert so_far.result == gf.RESULTS.unfinished
    np.testing.assert_array_equal(so_far.ts, straight["solve"].ts[: len(so_far)])
    assert_same(gf.resume(path), straight["solve"])


def test_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.any
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_windows_of_rows(straight, tmp_path, short, monkeypatch):
    """With fewer rows in memory than there are, steps end where these do: another
    path, within the tolerance, but always the same one."""
    monkeypatch.setattr(_recording, "_MOST_ROWS", 7)
    windows = solve(tmp_path / "straight")
    with monkeypatch.context() as patch:
        kill_after(patch, 4)
        with pytest.raises(Killed):
            solve(tmp_path / "killed", checkpoint_seconds=0)
    assert_same(solve(tmp_path / "killed"), windows)
    np.testing.assert_array_equal(windows.ts, straight["solve"].ts)
    for name, values in straight["solve"].observables.items():
        np.testing.assert_allclose(
            windows.observables[name], values, rtol=1e-3, atol=1e-4
        )


def test_stopped_by_a_condition(straight, tmp_path, short):
    loss = float(straight["solve"].observables["loss"][50])
    expected = solve(loss=loss)
    recorded = solve(tmp_path / "run", loss=loss, checkpoint_seconds=0)
    assert_close(recorded, expected)
    assert recorded.stopped_by == expected.stopped_by
    assert "LossBelow" in str(recorded.stopped_by)
    assert recorded.ts[-1] not in np.linspace(0, 1, NUM_SAVES)
    assert_same(gf.resume(tmp_path / "run"), recorded)


def test_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(gf.SolveError, match="nonfinite_state") as caught:
            descend(tmp_path / "run", step=1e200)
        assert_close(caught.value.trajectory, descend(step=1e200, throw=False))


def test_observables_of_ones_own(tmp_path, monkeypatch):
    def collapse(problem, network):
        return {"nc": problem.value(network), "both": (network.norms, 1.0)}

    observe = {"collapse": collapse, "rank": gf.analysis.stable_rank}
    with monkeypatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            descend(tmp_path / "run", observe=observe)
    with pytest.raises(ValueError, match="`observe`.*again"):
        gf.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="`observe` differs"):
        gf.resume(tmp_path / "run", observe=observe | {"rank": collapse})
    resumed = gf.resume(tmp_path / "run", observe=observe)
    assert_close(resumed, descend(observe=observe))
    np.testing.assert_array_equal(
        np.load(tmp_path / "run/rows/observables/collapse/both/0.npy"),
        resumed.observables["collapse"]["both"][0],
    )


# Folders that do not fit.


def test_other_arguments(tmp_path):
    descend(tmp_path / "run")
    with pytest.raises(ValueError, match="other `learning_rate`, `until`"):
        descend(tmp_path / "run", learning_rate=0.02, until=gf.LossBelow(0.1))
    with pytest.raises(ValueError, match="of `descend`, and not of `solve`"):
        solve(tmp_path / "run")


def test_optimisers_are_given_again(tmp_path):
    def run(optimiser, **options):
        return gf.descend(problem(), optimiser, network(), 10, **options)

    recorded = run(optax.adam(1e-3), path=tmp_path / "run")
    with pytest.raises(ValueError, match="`optimiser`.*again"):
        gf.resume(tmp_path / "run")
    with pytest.raises(ValueError, match="`optimiser` differs"):
        gf.resume(tmp_path / "run", optimiser=optax.adam(2e-3))
    again = gf.resume(tmp_path / "run", optimiser=optax.adam(1e-3))
    assert_same(again, recorded)
    assert_close(recorded, run(optax.adam(1e-3)))


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nothing"):
        gf.resume(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        gf.resume(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"something else, 'thesis\.tex'"):
        descend(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        descend(tmp_path / "file")


def edit(path, **changes):
    """Changes a page, with or without a checksum that fits."""
    page = json.loads(path.read_text())
    path.write_text(json.dumps(page | changes))


def test_damaged_page(tmp_path):
    descend(tmp_path)
    page = tmp_path / "run.json"
    text = page.read_text()
    edit(page, format=99)
    with pytest.raises(ValueError, match=r"run\.json.*99, is newer"):
        gf.resume(tmp_path)
    page.write_text(text.replace('"steps": 300', '"steps": 200'))
    with pytest.raises(ValueError, match=r"run\.json.*changed"):
        gf.resume(tmp_path)
    page.write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json.*not that of a run"):
        gf.Trajectory.load(tmp_path)


def test_damaged_checkpoint(tmp_path, straight, short):
    descend(tmp_path, checkpoint_seconds=0)
    state = tmp_path / "state.npz"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="Taking the checkpoint before"):
        assert_same(gf.resume(tmp_path), straight["descend"])
    for path in tmp_path.glob("state*.npz"):
        path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="no checkpoint that is whole.*state.npz"):
        gf.resume(tmp_path)


def test_damaged_rows(tmp_path):
    descend(tmp_path)
    loss = tmp_path / "rows" / "observables" / "loss.npy"
    data = bytearray(loss.read_bytes())
    data[-1] ^= 1
    loss.write_bytes(data)
    for path in tmp_path.glob("state.previous*.npz"):
        path.unlink()
    with pytest.raises(ValueError, match=r"loss\.npy"):
        gf.Trajectory.load(tmp_path)


def test_two_at_a_time(tmp_path, monkeypatch):
    def second(self, checkpoint):
        with pytest.raises(ValueError, match="another process is writing"):
            descend(tmp_path)
        raise Killed

    monkeypatch.setattr(RunFiles, "write_checkpoint", second)
    with pytest.raises(Killed):
        descend(tmp_path)


def test_other_versions(tmp_path, monkeypatch):
    recorded = descend(tmp_path)
    monkeypatch.setattr("gradflow._recording.page.version", lambda name: "0.0")
    with pytest.warns(UserWarning, match="Versions have changed.*jax .* to 0.0"):
        assert_same(gf.resume(tmp_path), recorded)


def test_other_precision(tmp_path):
    descend(tmp_path)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="x64.*True"),
    ):
        gf.resume(tmp_path)


def test_progress_bar(tmp_path, capfd):
    descend(tmp_path, progress=True)
    assert "100.00%" in capfd.readouterr().err


def test_refused(tmp_path, unchecked_types):
    with pytest.raises(ValueError, match="`error`"):
        solve(tmp_path / "run", error=True)
    with pytest.raises(ValueError, match="`checkpoint_seconds`"):
        solve(tmp_path / "run", checkpoint_seconds=-1.0)
    with pytest.raises(ValueError, match="is being traced"):
        jax.jit(lambda t1: solve(tmp_path / "run", t1=t1).ts)(0.1)
    assert not (tmp_path / "run").exists()
