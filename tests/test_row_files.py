"""Rows on disk that grow while a run goes on."""

import contextlib
import errno
import inspect
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradflow as gf
from gradflow._disk import growing_array as _growing_array
from gradflow._disk import lock as _lock
from gradflow._disk.names import from_file_name, from_path, to_file_name, to_path
from gradflow._disk.rows import RowWriter, read


def rows_of(start, stop):
    """The rows from `start` to `stop` of a run that never was."""
    index = np.arange(start, stop)
    return {
        "loss": 1.0 / (1 + index),
        "rho_layers": np.multiply.outer(index, [0.5, -2.0, 3.0]).astype(np.float32),
        "collapse/NC 1": index % 3 == 0,
    }


FILES = {
    "loss": "loss.npy",
    "rho_layers": "rho_layers.npy",
    "collapse/NC 1": "collapse/%4e%43%201.npy",
}


def assert_rows(arrays, rows):
    expected = rows_of(0, rows)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], strict=True)


def contents(folder):
    paths = Path(folder).rglob("*.npy")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rows"


# As arrays.


def test_numpy_reads_at_any_time(folder):
    with RowWriter.create(folder) as writer:
        total = 0
        for added in (1, 0, 3, 5, 1, 95, 1000):
            writer.append(rows_of(total, total + added))
            total += added
            for name, file in FILES.items():
                for mode in (None, "r"):
                    array = np.load(folder / file, mmap_mode=mode)
                    np.testing.assert_array_equal(
                        array, rows_of(0, total)[name], strict=True
                    )
            assert_rows(read(folder), total)
            assert_rows(read(folder, writer.state()), total)
    assert sorted(FILES.values()) == sorted(contents(folder))


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "c8", "c16", "?", "i1", "u2", "i4", "u8", ">f8"]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3), (0,), (2, 0)])
def test_types_and_shapes(dtype, shape, folder):
    values = np.arange(5 * int(np.prod(shape))).reshape(5, *shape).astype(dtype)
    with RowWriter.create(folder) as writer:
        writer.append({"x": values[:0]})
        assert read(folder)["x"].shape == (0, *shape)
        writer.append({"x": values[:2]})
        # Not contiguous.
        writer.append({"x": np.repeat(values[2:], 2, axis=0)[::2]})
        state = json.loads(json.dumps(writer.state()))
    for array in (np.load(folder / "x.npy"), read(folder)["x"]):
        np.testing.assert_array_equal(array, values, strict=True)
        assert array.dtype == values.dtype
    with RowWriter.reopen(folder, state) as writer:
        writer.append({"x": values})
    assert read(folder)["x"].shape == (10, *shape)


def test_no_rows(folder):
    with RowWriter.create(folder) as writer:
        state = writer.state()
    assert state == {"rows": 0, "arrays": {}}
    assert read(folder) == read(folder, state) == {}
    with RowWriter.reopen(folder, state) as writer:
        writer.append(rows_of(0, 2))
    assert_rows(read(folder), 2)


def test_rows_that_all_files_have(folder):
    """As a reader meets them between two writes."""
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 5))
        ahead = (folder / FILES["loss"]).read_bytes()
        writer.append(rows_of(5, 8))
    (folder / FILES["loss"]).write_bytes(ahead)
    assert_rows(read(folder), 5)
    # A header that reached the disk before its rows.
    os.truncate(folder / FILES["rho_layers"], 128 + 3 * 12 + 7)
    assert_rows(read(folder), 3)


def test_reading_needs_no_memory(folder):
    rows = np.arange(2.0**21).reshape(-1, 8)
    with RowWriter.create(folder) as writer:
        writer.append({"x": rows})
        state = writer.state()
    tracemalloc.start()
    try:
        array = read(folder)["x"]
        assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 100
        checked = read(folder, state)["x"]
        assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 5
    finally:
        tracemalloc.stop()
    assert isinstance(array, np.memmap) and not array.flags.writeable
    np.testing.assert_array_equal(array, rows)
    np.testing.assert_array_equal(checked, rows)


# Names.

NAMES = (
    st.text(max_size=12)
    | st.text("aA./%~-é\0 ", max_size=6)
    | st.text("ab", max_size=400)
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(NAMES, NAMES)
def test_names(one, other):
    files = to_file_name(one), to_file_name(other)
    for name, file in zip((one, other), files, strict=True):
        assert file.isascii() and len(file) < 200
        assert not set(file) & set('/\\\0:*?"<>| ') and file[:1] not in ("", ".")
        assert from_file_name(file) == name or len(name) > 60
    # Also where a disk does not tell capitals from small letters.
    assert (files[0].lower() == files[1].lower()) == (one == other)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(NAMES, NAMES)
def test_paths(one, other):
    paths = to_path(one, ".npy"), to_path(other, ".npy")
    for name, path in zip((one, other), paths, strict=True):
        assert not path.is_absolute() and ".." not in path.parts
        assert from_path(path, ".npy") == name or len(name) > 60
    lower = [str(path).lower() for path in paths]
    assert (lower[0] == lower[1]) == (one == other)
    # None is the folder of another.
    assert not lower[0].startswith(f"{lower[1]}/")


def test_odd_names(folder):
    names = [
        "",
        ".",
        "..",
        "a/b",
        "a",
        "b.npy",
        "b.npy/c",
        "/",
        "//",
        "../up",
        "Rho",
        "rho",
        "ρ",
        "x" * 1000,
        "%",
        "%41",
    ]
    names += ["x" * 999, "\ud800", "nul\0", "a b", "a\\b", "*.npy", ".lock"]
    rows = {name: np.full(2, k) for k, name in enumerate(names)}
    with RowWriter.create(folder) as writer:
        writer.append(rows)
        state = json.loads(json.dumps(writer.state()))
    arrays = read(folder, state)
    assert list(arrays) == names
    for k, name in enumerate(names):
        assert arrays[name].tolist() == [k, k]
    assert set(names) - set(read(folder)) == {"x" * 1000, "x" * 999}
    assert len(list(folder.rglob("*.npy"))) == len(names)


# Rows that do not fit.


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({}, "same number of rows"),
        ({"x": np.zeros(())}, "same number of rows"),
        ({"x": np.zeros(2), "y": np.zeros((3, 2))}, "same number of rows"),
        ({"x": np.array([{}])}, "'x' is of type object"),
        ({"x": np.array(["a"])}, "'x' is of type <U1"),
        ({"x": np.zeros(2, "i4,f8")}, "'x' is of type"),
        ({"x": np.zeros(2, "m8[s]")}, "'x' is of type"),
        ({"x": np.zeros(2, "bfloat16")}, "'x' is of type bfloat16"),
        ({"x": np.zeros(2, "float8_e5m2")}, "'x' is of type float8_e5m2"),
    ],
)
def test_rows_that_no_file_can_hold(rows, match, folder):
    with RowWriter.create(folder) as writer:
        with pytest.raises(ValueError, match=f"`rows`.*{match}"):
            writer.append(rows)
    assert contents(folder) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.pop("loss"),
        lambda rows: rows.update(more=rows["loss"]),
        lambda rows: rows.update(loss=rows["loss"].astype(np.float32)),
        lambda rows: rows.update(loss=rows["loss"][:, None]),
        lambda rows: rows.update(rho_layers=rows["rho_layers"][:, :1]),
    ],
)
def test_rows_unlike_the_first(change, folder):
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 3))
        before, state = contents(folder), writer.state()
        rows = rows_of(3, 4)
        change(rows)
        with pytest.raises(ValueError, match="`rows` must be as at the first time"):
            writer.append(rows)
        assert (contents(folder), writer.state()) == (before, state)


def test_begin_where_there_are_rows(folder):
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 3))
    with pytest.raises(ValueError, match="`path`.* holds rows already"):
        RowWriter.create(folder)
    assert_rows(read(folder), 3)


# Going on after the end of a process.


@st.composite
def histories(draw):
    """Numbers of rows to append, checkpoints, and kills, which cut each file anywhere
    beyond the checkpoint and leave one of the headers since then."""
    part = st.floats(0, 1)
    kill = st.tuples(*[st.tuples(part, part) for _ in FILES])
    step = st.integers(0, 4) | st.just("checkpoint") | kill
    return draw(st.lists(step, max_size=15))


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=histories())
def test_kills_leave_no_trace(history, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        shutil.rmtree(folder, ignore_errors=True)
    writer = RowWriter.create(killed)
    state, since = writer.state(), [contents(killed)]
    for step in history:
        rows = writer.state()["rows"]
        if step == "checkpoint":
            writer.sync()
            state, since = json.loads(json.dumps(writer.state())), [contents(killed)]
        elif isinstance(step, int):
            writer.append(rows_of(rows, rows + step))
            since.append(contents(killed))
        else:
            writer.close()
            for name, (length, header) in zip(FILES.values(), step, strict=True):
                _cut(
                    killed / name,
                    [files[name] for files in since if name in files],
                    length,
                    header,
                )
            writer = RowWriter.reopen(killed, state)
            since = [contents(killed)]
            assert_rows(read(killed, state) or rows_of(0, 0), state["rows"])
    rows = writer.state()["rows"]
    writer.append(rows_of(rows, rows + 2))
    writer.close()
    with RowWriter.create(whole) as again:
        again.append(rows_of(0, rows + 2))
        assert again.state() == writer.state()
    assert contents(killed) == contents(whole)


def _cut(path, versions, length, header):
    """A version of the file since the checkpoint, cut at a random place beyond it."""
    if versions:
        first, last = versions[0], versions[-1]
        size = len(first) + round(length * (len(last) - len(first)))
        head = versions[round(header * (len(versions) - 1))][:128]
        path.write_bytes(head + last[128:size])


# Without the rest of the library, which takes seconds to import.
CHILD = f"""
import json, os, sys, types
package = types.ModuleType("gradflow")
package.__path__ = [sys.argv[1]]
sys.modules["gradflow"] = package
import numpy as np
from gradflow._disk.rows import RowWriter

{inspect.getsource(rows_of)}

state = json.load(open("state.json")) if os.path.exists("state.json") else None
writer = RowWriter.reopen("rows", state) if state else RowWriter.create("rows")
while True:
    for added in (1, 1, 1, 40):
        rows = writer.state()["rows"]
        writer.append(rows_of(rows, rows + added))
    writer.sync()
    json.dump(writer.state(), open("state.part", "w"))
    os.replace("state.part", "state.json")
"""


def kill_while_appending(folder, delays):
    """Lets a process append, and kills it after each of the times; between the kills
    another one goes on. Returns how many rows it came to."""
    state_file = folder / "state.json"
    for delay in delays:
        before = state_file.read_bytes() if state_file.exists() else b""
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, gf.__path__[0]], cwd=folder
        ) as child:
            # Until it has written a checkpoint of its own.
            while not state_file.exists() or state_file.read_bytes() == before:
                assert child.poll() is None
                time.sleep(0.001)
            with pytest.raises(ValueError, match="another process is writing"):
                RowWriter.reopen(folder / "rows", json.loads(state_file.read_bytes()))
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        state = json.loads(state_file.read_bytes())
        alive = read(folder / "rows")
        assert_rows(alive, len(alive["loss"]))
        assert len(alive["loss"]) >= state["rows"]
        assert_rows(read(folder / "rows", state), state["rows"])
    with RowWriter.reopen(folder / "rows", state) as writer:
        rows = state["rows"]
        writer.append(rows_of(rows, rows + 3))
    assert_rows(read(folder / "rows", writer.state()), rows + 3)
    return rows


def test_killed_while_appending(tmp_path):
    assert kill_while_appending(tmp_path, [0.0, 0.011, 0.037]) >= 3 * 43


# Damage.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with two rows more than its state speaks of, and the state."""
    folder = tmp_path_factory.mktemp("whole") / "rows"
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 3))
        writer.append(rows_of(3, 7))
        state = writer.state()
        writer.append(rows_of(7, 9))
    return folder, state


def refused_or_right(folder, state, file):
    """Whether a damaged file is refused: by all, with its name, and left as it is."""
    before = contents(folder)
    refused = []
    for use in (read, RowWriter.reopen):
        try:
            result = use(folder, state)
        except ValueError as error:
            assert str(folder / file) in str(error) and "`path`" in str(error)
            assert contents(folder) == before
            refused.append(True)
        else:
            if isinstance(result, RowWriter):
                result.close()
            assert_rows(read(folder, state), 7)
            refused.append(False)
    assert refused[0] == refused[1]
    return refused[0]


@pytest.mark.parametrize("file", FILES.values())
def test_every_damaged_byte(file, whole, tmp_path):
    folder, state = whole
    shutil.copytree(folder, tmp_path / "rows")
    folder, path = tmp_path / "rows", tmp_path / "rows" / file
    data = path.read_bytes()
    beyond = len(data) - (len(data) - 128) * 2 // 9
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert_rows(read(folder, state), 7)
        except ValueError as error:
            assert str(path) in str(error) and position < beyond
        else:
            # More rows than there are, or a byte of the rows beyond.
            assert position >= beyond or chr(data[position]) == "9"


@st.composite
def damages(draw):
    """Some bytes overwritten, moved or lost, or another file altogether."""
    kind = draw(st.sampled_from(["overwrite", "insert", "remove", "cut", "other"]))
    at, data = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=40))

    def damage(whole):
        place = round(at * len(whole))
        return {
            "overwrite": whole[:place] + data + whole[place + len(data) :],
            "insert": whole[:place] + data + whole[place:],
            "remove": whole[:place] + whole[place + len(data) :],
            "cut": whole[:place],
            "other": data,
        }[kind]

    return damage


@settings(
    deadline=None,
    derandomize=True,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(file=st.sampled_from(sorted(FILES.values())), damage=damages())
def test_damaged_files(file, damage, whole, tmp_path):
    original, state = whole
    folder = tmp_path / "rows"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    (folder / file).write_bytes(damage((original / file).read_bytes()))
    refused_or_right(folder, state, file)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


LOSS = rows_of(0, 9)["loss"]


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"t,loss\n0,1\n",
        b"\x93NUMPY",
        npy(LOSS.astype(np.float32)),
        npy(LOSS[:, None]),
        npy(LOSS[:6]),
        npy(LOSS + 1),
        npy(np.asfortranarray(np.ones((9, 2)))),
        npy(LOSS).replace(b"'<f8'", b"'<f9'"),
        npy(LOSS).replace(b"(9,)", b"(-9,)"),
        None,
    ],
)
def test_other_files(other, whole, tmp_path):
    original, state = whole
    folder = tmp_path / "rows"
    shutil.copytree(original, folder)
    (folder / "loss.npy").unlink()
    if other is not None:
        (folder / "loss.npy").write_bytes(other)
    assert refused_or_right(folder, state, "loss.npy")


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_pickles_are_refused(whole, tmp_path):
    original, state = whole
    folder = tmp_path / "rows"
    shutil.copytree(original, folder)
    np.save(folder / "loss.npy", np.array([Trap(tmp_path / "mark")]))
    assert refused_or_right(folder, state, "loss.npy")
    with pytest.raises(ValueError, match="loss.npy does not begin as"):
        read(folder)
    assert not (tmp_path / "mark").exists()


def test_folders_that_are_none(tmp_path, whole):
    _, state = whole
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        for use in (
            read,
            lambda f: read(f, state),
            lambda f: RowWriter.reopen(f, state),
        ):
            with pytest.raises(ValueError, match=f"`path`: the folder .*{name}"):
                use(tmp_path / name)
    (tmp_path / "rows" / "loss.npy").mkdir(parents=True)
    with pytest.raises(ValueError, match="`path`: the file .*loss.npy is missing"):
        read(tmp_path / "rows", state)


# Where nothing can be written.


@contextlib.contextmanager
def files_no_longer_than(size):
    """As on a full disk, except for the number of the error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_for_a_while(folder):
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 50))
        writer.sync()
        state = writer.state()
        with files_no_longer_than(4096):
            with pytest.raises(OSError, match="rho_layers.npy") as caught:
                writer.append(rows_of(50, 450))
        assert caught.value.errno == errno.EFBIG
        assert writer.state() == state
        assert_rows(read(folder), 50)
        assert_rows(read(folder, state), 50)
        # What was written in part is written again.
        writer.append(rows_of(50, 450))
        assert_rows(read(folder, writer.state()), 450)
    with RowWriter.reopen(folder, state):
        assert_rows(read(folder), 50)


@pytest.mark.parametrize("function", ["pwrite", "fsync"])
def test_disk_errors_name_the_file(function, folder, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 5))
        state = writer.state()
        with monkeypatch.context() as patch:
            patch.setattr(_growing_array.os, function, fail)
            with pytest.raises(OSError, match="No space left.*loss.npy") as caught:
                writer.append(rows_of(5, 6))
                writer.sync()
        assert caught.value.errno == errno.ENOSPC
    assert_rows(read(folder, state), 5)


def test_interrupted_at_any_call(folder, monkeypatch):
    """As by Ctrl-C, after which a run writes its last checkpoint."""
    interrupts = []

    def may_interrupt(function):
        def interrupting(*arguments):
            if interrupts and interrupts.pop():
                raise KeyboardInterrupt
            return function(*arguments)

        return interrupting

    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 5))
        with monkeypatch.context() as patch:
            for module, name in ((os, "pwrite"), (zlib, "crc32")):
                patch.setattr(module, name, may_interrupt(getattr(module, name)))
            for earlier_calls in range(9):
                interrupts = [True] + earlier_calls * [False]
                with pytest.raises(KeyboardInterrupt):
                    writer.append(rows_of(5, 7))
                assert_rows(read(folder, writer.state()), 5)
        writer.append(rows_of(5, 7))
        assert_rows(read(folder, writer.state()), 7)


def test_writes_in_pieces(folder, monkeypatch):
    whole_write = os.pwrite
    monkeypatch.setattr(
        _growing_array.os, "pwrite", lambda f, data, at: whole_write(f, data[:7], at)
    )
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 5))
    assert_rows(read(folder, writer.state()), 5)


def test_a_file_in_place_of_the_folder(folder):
    folder.touch()
    with pytest.raises(FileExistsError, match=str(folder)):
        RowWriter.create(folder)
    with pytest.raises(NotADirectoryError, match=str(folder)):
        RowWriter.create(folder / "deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(folder):
    folder.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=str(folder)):
        RowWriter.create(folder)


# One writer at a time.


def test_second_writer(folder):
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 2))
        state = writer.state()
        for begin in (RowWriter.create, lambda f: RowWriter.reopen(f, state)):
            with pytest.raises(ValueError, match=f"`path`: another.* to {folder}"):
                begin(folder)
        writer.append(rows_of(2, 3))
        assert_rows(read(folder, state), 2)
    with RowWriter.reopen(folder, state) as writer:
        assert_rows(read(folder), 2)


def test_no_lock_is_left_by_a_failure(folder):
    with RowWriter.create(folder) as writer:
        writer.append(rows_of(0, 2))
        state = writer.state()
    wrong = state | {"rows": 3}
    for _ in range(2):
        with pytest.raises(ValueError, match="has 2 whole rows, and not 3"):
            RowWriter.reopen(folder, wrong)
        with pytest.raises(ValueError, match="holds rows already"):
            RowWriter.create(folder)
    RowWriter.reopen(folder, state).close()


def test_where_there_are_no_locks(folder, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_lock.fcntl, "flock", flock)
    number = errno.ENOLCK
    RowWriter.create(folder).close()
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        RowWriter.create(folder)
    monkeypatch.setattr(_lock, "fcntl", None)
    RowWriter.create(folder).close()
