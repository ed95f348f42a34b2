"""Runs on disk that were killed, interrupted or damaged."""

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradflow as gf
import small
from gradflow._description import describe, fingerprint
from gradflow._disk import npz as _npz
from gradflow._disk.run import RunFiles
from gradflow._recording import recording as _recording
from gradflow._recording.page import arguments_of
from kills import contents, descend, is_low, kill_until_done, without_patience


@contextlib.contextmanager
def impatient():
    before = (_recording._PATIENCE, _recording._SECONDS)
    without_patience()
    try:
        yield
    finally:
        _recording._PATIENCE, _recording._SECONDS = before


@contextlib.contextmanager
def before_calls(hook):
    """Calls `hook` with the name and the arguments before whatever changes a file."""

    def hooked(name, call, *arguments, **options):
        hook(name, *arguments)
        return call(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("pwrite", "replace", "fsync", "ftruncate", "unlink"):
            call = getattr(os, name)
            patch.setattr(os, name, functools.partial(hooked, name, call))
        yield


def snapshots_of(path, folder, is_wanted):
    """Makes the run, and copies what a kill would leave behind at each of the calls
    that are wanted, by number."""
    number, copies = 0, []

    def copy(name, *arguments):
        nonlocal number
        number += 1
        if is_wanted(number) and path.exists():
            copies.append(folder / f"{number}-{name}")
            shutil.copytree(path, copies[-1])

    with impatient(), before_calls(copy):
        descend(path)
    return copies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder):
    """A run that came to its end in one go."""
    trajectory = descend(folder / "whole")
    assert trajectory.stats["num_steps"] == 53 and len(trajectory) == 19
    return folder / "whole"


@pytest.fixture(scope="module")
def killed(folder, whole):
    """What kills have left: at the first calls, round the first checkpoints, and at
    some of the others."""
    wanted = {*range(1, 40, 3), *range(40, 1500, 127)}
    return snapshots_of(folder / "slow", folder, wanted.__contains__)


def test_going_on_after_a_kill(killed, whole, tmp_path):
    expected = contents(whole)
    assert contents(killed[0].parent / "slow") == expected
    for copy in killed:
        path = shutil.copytree(copy, tmp_path / copy.name)
        descend(path)
        assert contents(path) == expected, copy.name
        assert not list(path.glob("*.part"))


@pytest.mark.slow
def test_going_on_after_sigkill(tmp_path):
    kills, _ = kill_until_done("descend", tmp_path, 2, iter([-3.0, 0.1, 0.3]))
    assert kills == 3


def test_others_while_it_goes_on(whole, tmp_path):
    """Also between two renames, when there is no `state.npz`."""
    path, number, counts = tmp_path / "run", 0, []

    def read(*arguments):
        nonlocal number
        number += 1
        is_between = not (path / "state.npz").exists() and 100 < number < 300
        if number % 100 == 0 or is_between:
            counts.append(len(gf.Trajectory.load(path)))
            loss = np.load(path / "rows/observables/loss.npy")
            assert counts[-1] <= len(loss) <= counts[-1] + 1
        if number % 500 == 0:
            with pytest.raises(ValueError, match="another process is writing"):
                descend(path)

    with impatient(), before_calls(read):
        descend(path)
    assert len(counts) > 15 and counts == sorted(counts) and counts[-1] > 15
    assert contents(path) == contents(whole)


@pytest.mark.parametrize("number", [1, 20, 30, 100, 500])
def test_ctrl_c(number, whole, tmp_path):
    path, left = tmp_path / "run", number

    def interrupt(*arguments):
        nonlocal left
        left -= 1
        if left in (0, -10 * (number == 500)):
            signal.raise_signal(signal.SIGINT)

    with impatient(), before_calls(interrupt):
        with pytest.raises(KeyboardInterrupt) as caught:
            descend(path)
    if number not in (1, 500):
        assert isinstance(caught.value, gf.RunInterrupted)
        assert str(path) in str(caught.value) and "resume" in str(caught.value)
        assert caught.value.trajectory.result == gf.RESULTS.unfinished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    descend(path)
    assert contents(path) == contents(whole)


def test_code_that_has_moved(whole):
    """It has other names, and does the same."""

    def moved(limit):
        return lambda problem, network: problem.value(network) < limit

    inside = {"until": lambda problem, network: problem.value(network) < 1.11}
    assert len(gf.resume(whole, observe=small.OBSERVE, **inside)) == 19
    with pytest.raises(ValueError, match="`until` differs"):
        gf.resume(whole, observe=small.OBSERVE, until=moved(1.12))


JUMPS = diffrax.ClipStepSizeController(
    diffrax.PIDController(rtol=1e-3, atol=1e-6), jump_ts=jnp.array([0.3, 0.5])
)
PAUSING = {
    # Times to save at a jump and at the ends of blocks.
    "jumps": lambda path: gf.solve(
        small.problem(),
        gf.GradientFlow(),
        small.network(),
        1.0,
        ts=jnp.linspace(0.0, 1.0, 11),
        controller=JUMPS,
        observe={},
        path=path,
        checkpoint_seconds=0.0,
    ),
    "adam": lambda path: gf.descend(
        small.problem(),
        optax.adam(0.01, mu_dtype=jnp.bfloat16),
        small.network(),
        20,
        observe={},
        path=path,
        checkpoint_seconds=0.0,
    ),
}


@pytest.mark.parametrize("name", PAUSING)
def test_pauses_change_nothing(name, tmp_path, monkeypatch):
    write, left = _recording._Recording._write_checkpoint, 0

    def stop_after_some(self, position, *, complete):
        nonlocal left
        write(self, position, complete=complete)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(_recording, "_MOST_ROWS", 3)
    run = PAUSING[name]
    run(tmp_path / "whole")
    monkeypatch.setattr(_recording._Recording, "_write_checkpoint", stop_after_some)
    with impatient():
        for stops in range(1, 100):
            left = 4 + stops % 5
            with contextlib.suppress(KeyboardInterrupt):
                run(tmp_path / "paused")
                break
    assert stops > 3
    assert contents(tmp_path / "paused") == contents(tmp_path / "whole")


# Damage.


def loaded(path):
    """What there is to read of a run, as plain bytes."""
    trajectory = gf.Trajectory.load(path)
    leaves = [np.asarray(x) for x in jax.tree.leaves(trajectory)]
    return [(x.dtype.str, x.shape, x.tobytes()) for x in leaves]


def arguments_print(path):
    files, given = RunFiles(path), {"observe": small.OBSERVE, "until": is_low}
    arguments = arguments_of(files.read_page(), files.read_inputs(), given, path)
    return fingerprint(describe(arguments))


@pytest.fixture(scope="module")
def runs(folder, whole, killed):
    """Runs to damage, one at its end, one half done; what there is to read of each,
    also where the last checkpoint is missing; others to take files from, the first of
    which is another run."""
    other = folder / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "network", functools.partial(small.network, seed=2))
        descend(other)
    others = [other, *killed[-3:], whole]
    right = [loaded(run) for run in others[1:]]
    for run in (whole, killed[-3]):
        copy = shutil.copytree(run, folder / f"{run.name} without its last")
        (copy / "state.npz").unlink()
        right.append(loaded(copy))
    return [whole, killed[-3]], others, right, arguments_print(whole)


ODD = st.sampled_from(
    [None, True, -1, 0, 1, 2**70, 1e308, float("nan"), "", "../..", [], {}, [[]]]
) | st.integers(1, 3000).map(lambda depth: functools.reduce(_nest, range(depth), 0))


def _nest(inner, _):
    return [inner]


def _edited(page, places, value):
    """The page with another value at a place that is told by the numbers."""
    node = page
    while isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[next(places) % len(keys)]
        if next(places) % 3 == 0 or not isinstance(node[key], dict | list):
            node[key] = value
            break
        node = node[key]
    return page


def _edit_json(path, places, value):
    text = path.read_text()
    with contextlib.suppress(RecursionError):
        text = json.dumps(_edited(json.loads(text), places, value))
    path.write_text(text)


def _edit_npz(path, places, value):
    header, arrays = _npz.read(path)
    with contextlib.suppress(RecursionError):
        _npz.write(path, _edited(header, places, value), arrays)


@st.composite
def damages(draw):
    """Something that happens to a file of a run."""
    kind = draw(
        st.sampled_from(
            ["flip", "cut", "insert", "foreign", "delete", "swap", "swap all", "edit"]
        )
    )
    at, data = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=40))
    places = draw(st.lists(st.integers(0, 50), min_size=40, max_size=40))
    number, value = draw(st.integers(0, 50)), draw(ODD)

    def damage(run, others):
        files = sorted(p for p in run.rglob("*.np[yz]")) + [run / "run.json"]
        path = files[number % len(files)]
        content = path.read_bytes()
        place = round(at * len(content))
        taken = others[places[0] % len(others)]
        other = taken / path.relative_to(run)
        if kind == "flip" and place < len(content):
            flipped = bytes([content[place] ^ 1 << number % 8])
            path.write_bytes(content[:place] + flipped + content[place + 1 :])
        elif kind == "cut":
            path.write_bytes(content[:place])
        elif kind == "insert":
            path.write_bytes(content[:place] + data + content[place:])
        elif kind == "foreign":
            path.write_bytes(data)
        elif kind == "delete":
            path.unlink()
        elif kind == "swap" and other.exists():
            shutil.copy(other, path)
        elif kind == "swap all":
            for name in ("state.npz", "state.previous.npz", "rows"):
                source = taken / name
                copy = shutil.copytree if source.is_dir() else shutil.copy
                if (run / name).is_dir():
                    shutil.rmtree(run / name)
                copy(source, run / name)
        elif kind == "edit":
            edit = {".json": _edit_json, ".npz": _edit_npz}.get(path.suffix)
            if edit is not None:
                edit(path, iter(places), value)

    return damage


def right_or_refused(path, call, expected):
    """Whether it is right; an error has to name the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)
            return False
    assert result in expected
    return True


def check_damaged(runs, number, damage, path):
    """Whether a damaged run can be gone on with, of which only right things come."""
    originals, others, right, arguments = runs
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(originals[number], path)
    damage(path, others)
    can_load = right_or_refused(path, loaded, right)
    can_resume = right_or_refused(path, arguments_print, [arguments])
    return can_load and can_resume


@settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(number=st.integers(0, 1), damage=damages())
def test_damaged_runs(number, damage, runs, tmp_path):
    check_damaged(runs, number, damage, tmp_path / "run")


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("file", ["state.npz", "inputs.npz", "rows/ts.npy"])
def test_pickles_are_refused(file, whole, tmp_path):
    path, mark = shutil.copytree(whole, tmp_path / "run"), tmp_path / "mark"
    (path / "state.previous.npz").unlink()
    trap = np.array([Trap(mark)])
    with (path / file).open("wb") as stream:
        if file.endswith(".npz"):
            np.savez(stream, header=trap, ts=trap)
        else:
            np.save(stream, trap)
    for call in (loaded, arguments_print) if file == "inputs.npz" else (loaded,):
        right_or_refused(path, call, [loaded(whole), arguments_print(whole)])
    assert not mark.exists()


def test_arrays_that_would_not_fit_into_memory(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "run")
    zeros = np.zeros(2**23)
    with (path / "state.npz").open("wb") as stream:
        np.savez_compressed(stream, header=np.array('{"format": 1}'), zeros=zeros)
    with pytest.warns(UserWarning, match="would unpack from .*Taking the .* before"):
        assert RunFiles(path).read_checkpoint() is not None


# A full disk.


@pytest.mark.parametrize(
    ("file", "calls"),
    [
        ("inputs.npz", 0),
        ("run.json", 0),
        ("state.npz", 0),
        ("state.npz", 7),
        ("rows/log_ts.npy", 2),
        ("rows/networks/0.npy", 40),
    ],
)
def test_full_disk(file, calls, whole, tmp_path):
    path, left = tmp_path / "run", calls

    def fill(name, *arguments):
        nonlocal left
        if name not in ("pwrite", "fsync"):
            return
        if os.readlink(f"/proc/self/fd/{arguments[0]}").startswith(f"{path / file}"):
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with impatient(), before_calls(fill):
        with pytest.raises(OSError, match="No space left") as caught:
            descend(path)
    assert caught.value.filename == f"{path / file}"
    assert caught.value.errno == errno.ENOSPC
    assert not list(path.glob("*.part"))
    if (path / "state.npz").exists():
        assert gf.Trajectory.load(path).result == gf.RESULTS.unfinished
    descend(path)
    assert contents(path) == contents(whole)


def test_a_file_in_place_of_the_folder(whole, tmp_path):
    (tmp_path / "run").touch()
    for path in (tmp_path / "run", tmp_path / "run/deeper"):
        with pytest.raises(OSError, match=f"{path}"):
            descend(path)
        with pytest.raises(FileNotFoundError, match=f"{path}"):
            gf.resume(path)


def test_a_folder_of_something_else(whole, tmp_path):
    theirs = tmp_path / "film.mp4.part"
    theirs.touch()
    with pytest.raises(ValueError, match="`path`.* something else, 'film.mp4.part'"):
        descend(tmp_path)
    assert theirs.exists()
