"""The readers of image files, on small files made here; nothing is downloaded."""

import contextlib
import gzip
import io
import math
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.datasets import CIFAR10_CLASSES, cifar10, mnist
from gradflow.datasets._idx import read_idx

READ = {"mnist": mnist, "cifar10": cifar10}


def _images(num, shape, seed):
    return np.random.default_rng(seed).integers(1, 256, (num, *shape), np.uint8)


def _keys(shape, labels=range(10), seed=0):
    """Twenty training and ten test images, the classes in turn."""
    labels = np.array(list(labels), np.uint8)
    return {
        "x_train": _images(20, shape, seed),
        "y_train": np.resize(labels, 20),
        "x_test": _images(10, shape, seed + 1),
        "y_test": np.resize(labels[::-1], 10),
    }


def _idx(array, code=0x08, dtype="u1"):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(dtype).tobytes()


def _mnist_folder(folder, keys, spelling="{}-{}", pack=lambda content: content, gz=""):
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for axis, stem, kind in (("x", "images", "idx3"), ("y", "labels", "idx1")):
            name = spelling.format(f"{prefix}-{stem}", f"{kind}-ubyte") + gz
            (folder / name).write_bytes(pack(_idx(keys[f"{axis}_{part}"])))
    return folder


def _cifar_folder(folder):
    keys = _keys((3, 32, 32))
    records = {
        part: np.concatenate(
            [keys[f"y_{part}"][:, None], keys[f"x_{part}"].reshape(-1, 3072)], axis=1
        )
        for part in ("train", "test")
    }
    for i in range(5):
        batch = records["train"][4 * i : 4 * i + 4]
        (folder / f"data_batch_{i + 1}.bin").write_bytes(batch.tobytes())
    (folder / "test_batch.bin").write_bytes(records["test"].tobytes())
    return folder, keys


def _unit(images):
    flat = images.reshape(len(images), -1).astype(np.float64)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _assert_same(dataset, images, labels):
    """Without bias, and whether as images or as vectors."""
    inputs = np.asarray(dataset.inputs).reshape(len(images), -1)
    assert np.allclose(inputs, _unit(images), rtol=0, atol=1e-6)
    assert dataset.labels.tolist() == labels.tolist()


@contextlib.contextmanager
def peak_below(most):
    """Asserts that less memory than this, in bytes, is taken at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


# IDX


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0, 5)])
@pytest.mark.parametrize(
    "code, stored, dtype",
    [
        (0x08, "u1", np.uint8),
        (0x09, "i1", np.int8),
        (0x0B, ">i2", np.int16),
        (0x0C, ">i4", np.int32),
        (0x0D, ">f4", np.float32),
        (0x0E, ">f8", np.float64),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_round_trip(tmp_path, pack, code, stored, dtype, shape):
    array = np.random.default_rng(0).integers(0, 127, shape).astype(dtype)
    (tmp_path / "file").write_bytes(pack(_idx(array, code, stored)))
    read = read_idx(tmp_path / "file")
    assert read.dtype == dtype and read.dtype.isnative
    assert read.shape == shape and np.array_equal(read, array)


IDX = _idx(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes, too short"),
        (IDX[:3], "3 bytes, too short"),
        (b"\x01" + IDX[1:], "not an IDX file, it begins with 01 00 08 02"),
        (b"PK\x03\x04" + IDX, "not an IDX file, it begins with 50 4b 03 04"),
        (IDX[:2] + b"\x0a" + IDX[3:], "not an IDX file"),
        (IDX[:3] + b"\x00" + IDX[4:], "not an IDX file"),
        (IDX[:9], "truncated, 9 bytes for a header of 12"),
        (IDX[:-1], "truncated, fewer than the 6 bytes that shape (2, 3) of u"),
        (IDX[:12], "truncated"),
        (IDX + b"\0", "trailing bytes, more than the 6 bytes that shape (2, 3)"),
        (
            _idx(np.ones((2, 3)), 0x0E),
            "truncated, fewer than the 48 bytes that shape (2, 3) of f",
        ),
        (bytes([0, 0, 8, 80]) + bytes(320), "is not possible"),
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "truncated"),
        (gzip.compress(IDX, mtime=0)[:-9], "damaged gzip file"),
        (gzip.compress(IDX, mtime=0)[:15], "damaged gzip file"),
        (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), "damaged gzip file"),
        (gzip.compress(IDX, mtime=0) + b"more", "damaged gzip file"),
        (gzip.compress(IDX + b"\0", mtime=0), "trailing bytes"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))


def test_no_more_of_an_idx_file_is_read_than_its_header_says(tmp_path):
    zeros, path = gzip.compress(bytes(2**26)), tmp_path / "file"
    header = struct.pack(">4B2I", 0, 0, 8, 2, 2, 3)
    path.write_bytes(gzip.compress(header) + zeros)
    with peak_below(2**22), pytest.raises(ValueError, match="file: trailing bytes"):
        read_idx(path)


def test_an_idx_file_takes_no_memory_for_what_it_cannot_hold(tmp_path):
    path = tmp_path / "file"
    header = struct.pack(">4B2I", 0, 0, 8, 2, 2**16, 2**12)
    for content in (header, gzip.compress(header)):
        path.write_bytes(content)
        with peak_below(2**22), pytest.raises(ValueError, match="file: truncated"):
            read_idx(path)


def test_an_idx_file_takes_no_memory_for_what_is_not_there(tmp_path):
    """A file of this length could unpack to as much as its header says."""
    path = tmp_path / "file"
    header = struct.pack(">4B2I", 0, 0, 8, 2, 2**12, 2**12)
    noise = np.random.default_rng(0).integers(0, 256, 2**15, np.uint8)
    path.write_bytes(gzip.compress(header + noise.tobytes()))
    with peak_below(2**22), pytest.raises(ValueError, match="file: truncated"):
        read_idx(path)


def test_missing_idx(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


# MNIST


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spelling": "{}.{}"},
        {"pack": gzip.compress, "gz": ".gz"},
        {"spelling": "{}.{}", "pack": gzip.compress, "gz": ".gz"},
    ],
)
def test_mnist_folder(tmp_path, options, split):
    keys = _keys((28, 28))
    dataset = mnist(_mnist_folder(tmp_path, keys, **options), split=split, bias=0)
    parts = ("train", "test") if split == "all" else (split,)
    assert dataset.num_classes == 10 and dataset.input_shape == (784,)
    _assert_same(
        dataset,
        np.concatenate([keys[f"x_{part}"] for part in parts]),
        np.concatenate([keys[f"y_{part}"] for part in parts]),
    )


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("column", [False, True])
def test_mnist_npz_is_the_same_as_the_folder(tmp_path, compress, column):
    keys = _keys((28, 28))
    folder = _mnist_folder(tmp_path, keys)
    if column:
        keys |= {"y_train": keys["y_train"][:, None], "y_test": keys["y_test"][:, None]}
    compress(tmp_path / "mnist.npz", **keys, names=np.array(["unused"]))
    for split in ("train", "test", "all"):
        first, second = (
            mnist(folder, split=split),
            mnist(f"{folder}/mnist.npz", split=split),
        )
        assert np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.labels, second.labels)


def test_mnist_options(tmp_path):
    keys = _keys((28, 28))
    folder = _mnist_folder(tmp_path, keys)
    dataset = mnist(folder, classes=(7, 2), per_class=1, image=True)
    assert dataset.signs and dataset.input_shape == (2, 28, 28)
    assert dataset.labels.tolist() == [-1, 1]  # in the order of the file
    assert np.allclose(dataset.inputs[:, 1], math.sqrt(0.5) / 28)
    _assert_same(mnist(folder, classes=(7, 2), bias=0), *_pick(keys, {7: 1, 2: -1}))
    unsigned = mnist(folder, classes=(7, 2), bias=0, signs=False)
    assert unsigned.num_classes == 2
    _assert_same(unsigned, *_pick(keys, {7: 0, 2: 1}))
    _assert_same(
        mnist(folder, classes=(5, 0, 9), bias=0), *_pick(keys, {5: 0, 0: 1, 9: 2})
    )


def _pick(keys, numbers, part="train"):
    chosen = np.isin(keys[f"y_{part}"], list(numbers))
    labels = np.array([numbers[c] for c in keys[f"y_{part}"][chosen].tolist()])
    return keys[f"x_{part}"][chosen], labels


def test_classes_are_numbered_alike_in_both_splits(tmp_path):
    keys = _keys((28, 28), labels=[2, 5, 7])
    keys["y_test"] = np.resize(np.array([2, 7], np.uint8), 10)  # no 5
    np.savez(tmp_path / "part.npz", **keys)
    for path in (_mnist_folder(tmp_path, keys), tmp_path / "part.npz"):
        train, test = mnist(path), mnist(path, split="test")
        assert train.num_classes == test.num_classes == 3
        assert set(train.labels.tolist()) == {0, 1, 2}
        assert set(test.labels.tolist()) == {0, 2}
        with pytest.raises(ValueError, match="`classes` has 5, of which .* no sample"):
            mnist(path, classes=(2, 5), split="test")


def test_two_classes_in_the_file_are_signs(tmp_path):
    keys = _keys((28, 28), labels=[4, 9])
    dataset = mnist(_mnist_folder(tmp_path, keys), bias=0)
    assert dataset.signs
    _assert_same(dataset, *_pick(keys, {4: 1, 9: -1}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "valid"}, "`split` must be one of ('train', 'test', 'all')"),
        ({"classes": (1, 10)}, "`classes` has 10, which"),
        ({"classes": (1, 1)}, "`classes` names a class twice"),
        ({"classes": (1,)}, "`classes` must be two or more"),
        ({"per_class": 3}, "`per_class=3` is more than the 2 samples of class 0"),
        ({"per_class": -1}, "`per_class` must be at least 1"),
        ({"bias": math.nan}, "`bias`"),
    ],
)
def test_mnist_bad_arguments(tmp_path, options, message):
    folder = _mnist_folder(tmp_path, _keys((28, 28)))
    with pytest.raises(ValueError, match=re.escape(message)):
        mnist(folder, **options)


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("train-images-idx3-ubyte", np.ones((20, 784)), "images must have shape"),
        ("train-images-idx3-ubyte", np.ones((19, 28, 28)), "do not belong to 20"),
        ("train-images-idx3-ubyte", np.ones((20, 28, 0)), "no image"),
        ("train-images-idx3-ubyte", np.zeros((20, 28, 28)), "20 images are zero"),
        ("t10k-images-idx3-ubyte", np.ones((10, 8, 8)), "images differ in shape"),
        ("train-labels-idx1-ubyte", np.ones((20, 2)), "labels must be integers of sha"),
        ("train-labels-idx1-ubyte", np.ones(7), "do not belong to 7 labels"),
    ],
)
def test_mnist_foreign_files(tmp_path, name, array, message):
    folder = _mnist_folder(tmp_path, _keys((28, 28)))
    (folder / name).write_bytes(_idx(array))
    with pytest.raises(ValueError, match=message) as caught:
        mnist(folder, split="all" if name.startswith("t10k") else "train")
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_mnist_files_of_another_type_than_their_names_say(tmp_path, kind):
    path = _mnist_folder(tmp_path, _keys((28, 28))) / f"train-{kind}-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\x09" + content[3:])
    with pytest.raises(ValueError, match=f"{kind}-ubyte: holds int8, and by its name"):
        mnist(tmp_path)


def test_mnist_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        mnist(tmp_path / "nothing.npz")
    message = r"holds none of train-labels-idx1-ubyte, train-labels\.idx1-ubyte, .*gz"
    with pytest.raises(FileNotFoundError, match=message):
        mnist(tmp_path)
    # The images of a split that was not asked for may be missing.
    folder = _mnist_folder(tmp_path, _keys((28, 28)))
    (folder / "t10k-images-idx3-ubyte").unlink()
    assert mnist(folder).num_samples == 20
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        mnist(folder, split="test")


# npz


def _saved(**changes):
    keys = {**_keys((28, 28)), **changes}
    file = io.BytesIO()
    np.savez(file, **{key: value for key, value in keys.items() if value is not None})
    return file.getvalue()


def _zipped(method=zipfile.ZIP_STORED, /, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read as an npz file"),
        (b"\x80\x04N.", "cannot be read as an npz file"),
        (_npy(np.ones(3)), "it is not an .npz file"),
        (_saved()[:-30], "cannot be read as an npz file"),
        (_saved()[:9000], "cannot be read as an npz file"),
        (_saved(x_train=None), "KeyError: 'x_train"),
        (_saved(y_test=None), "KeyError: 'y_test"),
        (_zipped(x_train=b"abc"), "x_train is not an array|KeyError"),
        (
            _saved(x_train=np.array([{}] * 20)),
            "x_train.npy is not an array: Object arrays",
        ),
        (_saved(x_train=np.ones((20, 28, 28))), "must be integers .*not float64"),
        (_saved(y_train=np.ones(20)), "y_train: labels must be integers"),
        (_saved(y_test=np.ones(10)), "y_test: labels must be integers"),
        (_saved(y_train=np.ones((20, 2), int)), r"not int64 of shape \(20, 2\)"),
        (_saved(y_train=-np.ones(20, int)), "y_train: label -1 is negative"),
        (_saved(y_train=np.ones(21, int)), "do not belong to 21 labels"),
        (_saved(y_train=np.ones(20, int), y_test=np.ones(10, int)), "`classes` must"),
        (_saved(x_train=np.uint8(1)), "do not belong to 20 labels"),
        (_saved(x_train=np.ones((20, 784), int)), "images must have shape"),
        (_saved(x_train=np.zeros((20, 28, 28), int)), "first is number 0"),
        (
            _saved(x_train=np.ones((0, 28, 28), int), y_train=np.ones(0, int)),
            "no image",
        ),
    ],
)
def test_foreign_npz(tmp_path, content, message):
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        mnist(path)
    assert str(path) in str(caught.value)


def test_members_of_an_npz_that_are_no_arrays(tmp_path):
    members = {key: b"text" for key in _keys((1, 1))}
    (tmp_path / "mnist.npz").write_bytes(_zipped(**members))
    with pytest.raises(ValueError, match="x_train is not an array"):
        mnist(tmp_path / "mnist.npz")


def test_an_array_that_damage_makes_smaller(tmp_path):
    # Then its bytes are not read to their end, where the checksum is compared.
    content = _saved()
    at = content.index(b"(20, 28, 28)")
    path = tmp_path / "mnist.npz"
    path.write_bytes(content[: at + 9] + b"1" + content[at + 10 :])
    with pytest.raises(ValueError, match=r"mnist.npz: .*x_train.npy holds more"):
        mnist(path)


@pytest.mark.parametrize(
    "method, declared, peak, message",
    [
        (zipfile.ZIP_DEFLATED, 2**31, 2**23, "would unpack from .* bytes to 2147"),
        # What is unpacked at a time, of 128 MiB.
        (zipfile.ZIP_LZMA, 1000, 2**26, "Bad CRC-32 for file .x_train.npy"),
        (zipfile.ZIP_BZIP2, 1000, 2**23, "x_train.npy is compressed in a way not"),
    ],
)
def test_npz_members_of_another_size_than_they_declare(
    tmp_path, method, declared, peak, message
):
    members = {f"{key}.npy": _npy(array) for key, array in _keys((28, 28)).items()}
    members["x_train.npy"] += bytes(2**27)
    content = bytearray(_zipped(method, **members))
    size = content.index(b"PK\x01\x02") + 24  # in the directory, of the first member
    content[size : size + 4] = struct.pack("<I", declared)
    (tmp_path / "mnist.npz").write_bytes(content)
    with peak_below(peak), pytest.raises(ValueError, match=f"mnist.npz: .*{message}"):
        mnist(tmp_path / "mnist.npz")


def test_pickles_are_never_loaded(tmp_path):
    loaded = []

    class Bomb:
        def __reduce__(self):
            return loaded.append, (1,)

    member = _npy(np.array([Bomb()], object), allow_pickle=True)
    loaded.clear()
    names = [f"{key}.npy" for key in _keys((1, 1))]
    (tmp_path / "bomb.npz").write_bytes(_zipped(**{name: member for name in names}))
    for read in (mnist, cifar10):
        with pytest.raises(ValueError, match="bomb.npz"):
            read(tmp_path / "bomb.npz")
    assert not loaded


def test_differing_shapes_matter_only_together(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(_saved(x_test=_images(10, (8, 8), 0)))
    assert mnist(tmp_path / "mnist.npz").input_shape == (785,)
    with pytest.raises(ValueError, match="mnist.npz: .*differ in shape"):
        mnist(tmp_path / "mnist.npz", split="all")


# CIFAR-10


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_cifar10_layouts_agree(tmp_path, split):
    folder, keys = _cifar_folder(tmp_path)
    np.savez(tmp_path / "first.npz", **keys)
    last = {k: v.transpose(0, 2, 3, 1) if k[0] == "x" else v for k, v in keys.items()}
    last |= {k: v[:, None].astype(int) for k, v in keys.items() if k[0] == "y"}
    with zipfile.ZipFile(tmp_path / "last.npz", "w", zipfile.ZIP_LZMA) as archive:
        for key, value in last.items():
            archive.writestr(f"{key}.npy", _npy(value))
    parts = ("train", "test") if split == "all" else (split,)
    images = np.concatenate([keys[f"x_{part}"] for part in parts])
    labels = np.concatenate([keys[f"y_{part}"] for part in parts])
    for path in (folder, tmp_path / "first.npz", tmp_path / "last.npz"):
        dataset = cifar10(path, split=split, bias=0)
        assert dataset.num_classes == 10 and dataset.input_shape == (3, 32, 32)
        _assert_same(dataset, images, labels)
    assert cifar10(folder, image=False).input_shape == (3073,)
    assert cifar10(folder).input_shape == (4, 32, 32)


def test_cifar10_names(tmp_path):
    folder, keys = _cifar_folder(tmp_path)
    assert len(CIFAR10_CLASSES) == 10
    named = cifar10(folder, classes=("frog", "airplane"), bias=0)
    assert named.signs
    _assert_same(named, *_pick(keys, {6: 1, 0: -1}))
    mixed = cifar10(folder, classes=("truck", 1, 3), bias=0)
    _assert_same(mixed, *_pick(keys, {9: 0, 1: 1, 3: 2}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": ("cat", "unicorn")}, "`classes` has 'unicorn', which"),
        ({"classes": ("cat", "unicorn")}, "airplane, automobile"),
        ({"classes": ("cat", 3)}, "`classes` names a class twice: ('cat', 3)"),
        ({"classes": "cat"}, "`classes` must be a sequence of classes, not 'cat'"),
        ({"split": "valid"}, "`split` must be"),
        ({"per_class": 3}, "`per_class=3` is more than the 2 samples of class 0"),
    ],
)
def test_cifar10_bad_arguments(tmp_path, options, message):
    folder, _ = _cifar_folder(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        cifar10(folder, **options)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes are not a whole number of CIFAR-10 records of 3073 bytes"),
        (bytes(3072), "3072 bytes are not a whole number"),
        (bytes(3074), "3074 bytes are not a whole number"),
        (b"\x0a" + bytes(3072), "label 10, but there are ten classes"),
    ],
)
def test_damaged_cifar10_batch(tmp_path, content, message):
    folder, _ = _cifar_folder(tmp_path)
    (folder / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        cifar10(folder)
    assert str(caught.value).startswith(str(folder / "data_batch_3.bin"))
    assert cifar10(folder, split="test").num_samples == 10


def test_cifar10_missing_batch(tmp_path):
    folder, _ = _cifar_folder(tmp_path)
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_5.bin"):
        cifar10(folder)


@pytest.mark.parametrize(
    "shape, labels, message",
    [
        (
            (28, 28),
            range(10),
            "images must have shape (N, 32, 32, 3) or (N, 3, 32, 32)",
        ),
        ((32, 32, 1), range(10), "images must have shape"),
        ((32, 32, 3), range(11), "label 10, but there are ten classes"),
    ],
)
def test_foreign_cifar10_npz(tmp_path, shape, labels, message):
    np.savez(tmp_path / "cifar10.npz", **_keys(shape, labels))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        cifar10(tmp_path / "cifar10.npz")
    assert str(caught.value).startswith(str(tmp_path / "cifar10.npz"))


# Random bytes: a `ValueError` that names the file, or a dataset, and nothing else.


def _reads_or_names(read, path, named):
    try:
        result = read(path)
    except ValueError as error:
        assert str(named) in str(error)
    else:
        assert result is not None


def _mutations(content):
    """Whole files with a few bytes changed, cut, or repeated."""
    position = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(position, st.integers(0, 255)), min_size=1, max_size=4)

    def change(changes, end):
        mutated = bytearray(content)
        for index, byte in changes:
            mutated[index] = byte
        return bytes(mutated[:end])

    return st.builds(change, changes, st.one_of(st.just(len(content)), position))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda tail: bytes([0, 0]) + tail),
        _mutations(IDX),
        _mutations(gzip.compress(IDX, mtime=0)),
    )
)
def test_random_bytes_as_idx(folder, content):
    (folder / "file").write_bytes(content)
    _reads_or_names(read_idx, folder / "file", folder / "file")


SMALL = {
    "mnist": {key: value[:4] for key, value in _keys((2, 2)).items()},
    "cifar10": {key: value[:2] for key, value in _keys((3, 32, 32)).items()},
}
FILES = {}
for name, keys in SMALL.items():
    file = io.BytesIO()
    np.savez_compressed(file, **keys)
    FILES[name] = file.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_random_bytes_as_npz(folder, name):
    path = folder / f"{name}.npz"

    @settings(deadline=None, max_examples=100)
    @given(st.one_of(st.binary(max_size=60), _mutations(FILES[name])))
    def check(content):
        path.write_bytes(content)
        _reads_or_names(READ[name], path, path)

    check()
    path.write_bytes(FILES[name])
    assert READ[name](path).num_samples == len(SMALL[name]["x_train"])


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda label, pixel, cut: bytes([label]) + bytes([pixel]) * (3072 + cut),
            st.integers(0, 255),
            st.integers(0, 255),
            st.integers(-1, 1),
        ),
    )
)
def test_random_bytes_as_cifar10_batch(folder, content):
    batches = folder / "batches"
    batches.mkdir(exist_ok=True)
    (batches / "test_batch.bin").write_bytes(content)
    _reads_or_names(lambda path: cifar10(path, split="test"), batches, batches)
