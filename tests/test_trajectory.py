"""What a run returns, and its file."""

import dataclasses
import json
import os
import sys
import tracemalloc
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradflow as gf
from cases import unchecked_types as unchecked_types
from small import mapped, weights_of

NETWORKS = {
    "dense": lambda: gf.Dense(
        (4, 5, 1), key=jax.random.key(0), activation=gf.ReLU(0.1)
    ),
    "deep_linear": lambda: gf.Dense(
        (4, 3, 3, 2), key=jax.random.key(0), activation=gf.Identity()
    ),
    "conv": lambda: gf.Conv(
        (2, 5, 5),
        (3, 2),
        2,
        key=jax.random.key(0),
        kernel_size=(3, 2),
        stride=(2, 1),
        padding=(1, 0),
        activation=gf.ReLU(1e-2),
    ),
    "diagonal": lambda: gf.Diagonal(
        5, 3, key=jax.random.key(0), activation=gf.ReLU(0.1)
    ),
}
STATS = {"num_steps": jnp.asarray(7), "max_drift": jnp.asarray(1e-9)}


def trajectory_of(network, *, save_networks=True, **options):
    """Three points of a run that never was."""
    factors = np.array([0.5, 1.0, 2.0])
    networks = network.with_weights(
        tuple(
            jnp.asarray(np.multiply.outer(factors, w).astype(w.dtype))
            for w in network.weights
        )
    )
    return gf.Trajectory(
        **{
            "ts": jnp.array([0.0, 0.25, 1.5]),
            "log_ts": jnp.array([-jnp.inf, 700.0, 2e6]),
            "networks": networks if save_networks else None,
            "final": network.with_weights(tuple(2.0 * w for w in network.weights)),
            "observables": {
                "loss": jnp.array([3.0, 1.0, 0.125]),
                "rho_layers": jnp.arange(6.0).reshape(3, 2),
                "is_large": jnp.array([False, True, True]),
            },
            "result": gf.RESULTS.successful,
            "stats": STATS | {"num_gradients": jnp.asarray(42)},
            "stopped_by": None,
            **options,
        }
    )


@pytest.fixture(scope="module")
def trajectory():
    return trajectory_of(NETWORKS["dense"]())


# As an object.


def test_length_and_networks(trajectory):
    assert len(trajectory) == 3
    np.testing.assert_allclose(
        weights_of(trajectory[0]), 0.25 * weights_of(trajectory.final)
    )
    np.testing.assert_array_equal(
        weights_of(trajectory[-1]), weights_of(trajectory.final)
    )
    assert isinstance(trajectory[1], gf.Dense)
    assert trajectory[1].weights[0].shape == (5, 4)


@pytest.mark.parametrize("index", [3, 100, -4])
def test_no_network_beyond_the_end(trajectory, index):
    with pytest.raises(IndexError):
        trajectory[index]


def test_iteration_ends(trajectory):
    networks = []
    for network in trajectory:
        networks.append(network)
        assert len(networks) <= 3
    assert len(networks) == 3


def test_no_networks_saved():
    bare = trajectory_of(NETWORKS["dense"](), save_networks=False)
    assert len(bare) == 3
    with pytest.raises(ValueError, match="`save_networks=True`"):
        bare[0]


def test_repr(trajectory):
    text = repr(trajectory)
    assert "Trajectory of Dense(4-5-1, ReLU(smoothing=0.1))" in text
    assert "t = 0 … 1.5, 3 saved; successful" in text
    assert "loss: 3 → 0.125" in text
    assert "num_gradients 42" in text and "num_steps 7" in text
    assert "FAILED" not in text


def test_repr_of_other_ends():
    network = NETWORKS["dense"]()
    failed = trajectory_of(network, result=gf.RESULTS.dt_min_reached)
    assert "FAILED: dt_min_reached" in repr(failed)
    stopped = trajectory_of(
        network, result=gf.RESULTS.event_occurred, stopped_by="LossBelow(loss=0.1)"
    )
    assert "stopped by LossBelow(loss=0.1)" in repr(stopped)
    assert "FAILED" not in repr(stopped)
    unknown = trajectory_of(network, stats=STATS | {"num_gradients": None})
    assert "num_gradients" not in repr(unknown) and "num_steps 7" in repr(unknown)


def test_repr_of_several_runs(trajectory):
    several = jax.tree.map(lambda x: jnp.stack([x, x]), trajectory)
    assert "2,3" in repr(several)
    seen = []
    jax.eval_shape(lambda t: seen.append(repr(t)), trajectory)
    assert len(seen) == 1


# With rows on the disk.


def test_memory_maps(tmp_path):
    polar = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    observables = {"loss": jnp.array([3.0, 1.0, 0.125]), "polar": polar}
    trajectory = trajectory_of(
        NETWORKS["dense"](), observables=observables, error=jnp.full(3, 1e-6)
    )
    on_disk = mapped(trajectory, tmp_path)
    assert repr(on_disk) == repr(trajectory)
    assert "loss: 3 → 0.125" in repr(on_disk)
    assert len(on_disk) == 3
    for row in (1, -1):
        assert eqx.tree_equal(on_disk[row], trajectory[row], typematch=True)
    on_disk.save(tmp_path / "mapped.npz")
    trajectory.save(tmp_path / "run.npz")
    loaded = gf.Trajectory.load(tmp_path / "mapped.npz")
    assert_same(loaded, gf.Trajectory.load(tmp_path / "run.npz"))


def test_what_needs_no_memory(tmp_path):
    """16 MB of rows, of which one is looked at."""
    trajectory = trajectory_of(NETWORKS["dense"]())
    on_disk = mapped(trajectory, tmp_path)
    np.save(tmp_path / "many.npy", np.zeros((100_000, 5, 4)))
    many = np.load(tmp_path / "many.npy", mmap_mode="r")
    networks = on_disk.networks.with_weights((many, many[:, :1]))
    ts = many[:, 0, 0]
    on_disk = dataclasses.replace(
        on_disk, networks=networks, observables={"many": many}, ts=ts, log_ts=ts
    )
    pytest.importorskip("xarray")
    # What is imported and compiled on the way.
    repr(on_disk), on_disk[0], on_disk.to_xarray()
    tracemalloc.start()
    try:
        repr(on_disk), on_disk[50_000]
        assert tracemalloc.get_traced_memory()[1] < 1e5
        dataset = on_disk.to_xarray()
        # The index of the times is not on the disk.
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert np.shares_memory(dataset["many"].values, many)
    assert np.shares_memory(dataset["weights_0"].values, many)


# As a dataset of xarray.


def test_to_xarray():
    pytest.importorskip("xarray")
    pair = {"nc1": jnp.arange(6.0).reshape(3, 2), "parts": (jnp.zeros(3), jnp.ones(3))}
    known = trajectory_of(NETWORKS["dense"]()).observables
    trajectory = trajectory_of(
        NETWORKS["dense"](),
        observables={**known, "collapse": pair, "grid": jnp.ones((3, 2, 4))},
        error=jnp.array([0.0, 1e-7, 2e-7]),
        stopped_by="LossBelow(loss=0.1)",
        stats=STATS | {"num_gradients": None, "smoothing": jnp.array([0.5, 0.25])},
    )
    dataset = trajectory.to_xarray()
    assert dict(dataset.sizes) == {
        "t": 3,
        "layer": 2,
        "collapse.nc1_dim_0": 2,
        "grid_dim_0": 2,
        "grid_dim_1": 4,
        "weights_0_dim_0": 5,
        "weights_0_dim_1": 4,
        "weights_1_dim_0": 1,
        "weights_1_dim_1": 5,
    }
    assert set(dataset.coords) == {"t", "log_t"}
    expected = {
        **known,
        "collapse.nc1": pair["nc1"],
        "collapse.parts.0": pair["parts"][0],
        "collapse.parts.1": pair["parts"][1],
        "grid": trajectory.observables["grid"],
        "weights_0": trajectory.networks.weights[0],
        "weights_1": trajectory.networks.weights[1],
        "error": trajectory.error,
    }
    assert set(dataset.data_vars) == set(expected)
    expected |= {"t": trajectory.ts, "log_t": trajectory.log_ts}
    for name, values in expected.items():
        assert dataset[name].dims[0] == "t"
        np.testing.assert_array_equal(dataset[name].values, values, strict=True)
    assert dataset.rho_layers.dims == ("t", "layer")
    assert dataset.loss.sel(t=0.25).item() == 1.0
    assert dataset.attrs == {
        "result": "successful",
        "stopped_by": "LossBelow(loss=0.1)",
        "num_steps": 7,
        "max_drift": 1e-9,
        "smoothing": [0.5, 0.25],
    }
    assert type(dataset.attrs["num_steps"]) is int


def test_to_xarray_with_less():
    pytest.importorskip("xarray")
    bare = trajectory_of(NETWORKS["dense"](), save_networks=False, observables={})
    dataset = bare.to_xarray()
    assert list(dataset.data_vars) == []
    assert dataset.t.values.tolist() == [0.0, 0.25, 1.5]
    assert "stopped_by" not in dataset.attrs


@pytest.mark.parametrize("name", ["t", "log_t", "weights_0"])
def test_to_xarray_of_names_that_are_taken(name):
    pytest.importorskip("xarray")
    trajectory = trajectory_of(NETWORKS["dense"](), observables={name: jnp.arange(3.0)})
    with pytest.raises(ValueError, match=f"Observable '{name}' has a name that"):
        trajectory.to_xarray()


def test_without_xarray(trajectory, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'gradflow-ode\[xarray\]'"):
        trajectory.to_xarray()


def test_several_runs(trajectory, tmp_path):
    several = jax.tree.map(lambda x: jnp.stack([x, x]), trajectory)
    with pytest.raises(ValueError, match="several runs"):
        several.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match="several runs"):
        several.to_xarray()


# As a file.


def assert_same(loaded, saved):
    assert eqx.tree_equal(loaded, saved, typematch=True)
    assert loaded.stopped_by == saved.stopped_by
    assert repr(loaded) == repr(saved)


@pytest.mark.parametrize("save_networks", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_round_trip(kind, save_networks, tmp_path):
    trajectory = trajectory_of(NETWORKS[kind](), save_networks=save_networks)
    trajectory.save(tmp_path / "run.npz")
    loaded = gf.Trajectory.load(tmp_path / "run.npz")
    assert_same(loaded, trajectory)


@pytest.mark.parametrize(
    "options",
    [
        {"result": gf.RESULTS.nonfinite_state},
        {"result": gf.RESULTS.left_spheres},
        {"result": gf.RESULTS.chattering},
        {"result": gf.RESULTS.max_steps_reached},
        {"result": gf.RESULTS.dt_min_reached},
        {"result": gf.RESULTS.event_occurred, "stopped_by": "Stationary(1e-06) ρ"},
        {"stats": STATS | {"num_gradients": None}},
        {"stats": {}},
        {"observables": {}},
        {"observables": {"a/b c": jnp.array([1.0, -jnp.inf, jnp.inf])}},
    ],
)
def test_round_trip_of_other_ends(options, tmp_path):
    trajectory = trajectory_of(NETWORKS["dense"](), **options)
    path = str(tmp_path / "run")  # of any name
    trajectory.save(path)
    assert os.listdir(tmp_path) == ["run"]
    assert_same(gf.Trajectory.load(path), trajectory)


def test_round_trip_in_single_precision(tmp_path):
    network = NETWORKS["dense"]()
    single = jax.tree.map(lambda w: w.astype(jnp.float32), network)
    trajectory = trajectory_of(single)
    trajectory.save(tmp_path / "run.npz")
    loaded = gf.Trajectory.load(tmp_path / "run.npz")
    assert loaded.final.weights[0].dtype == jnp.float32
    assert_same(loaded, trajectory)


class Doubled(gf.AbstractNetwork):
    """A network of a class that gradflow does not know."""

    weights: tuple
    activation: gf.AbstractActivation = gf.ReLU()

    def forward(self, x, activation):
        return (), 2 * self.weights[0] @ x

    in_shape = property(lambda self: (self.weights[0].shape[1],))
    out_size = property(lambda self: self.weights[0].shape[0])
    weight_ndims = (2,)
    degrees = (1,)
    matrices = property(lambda self: self.weights)

    def scale_fan_in(self, layer, weight, factors):
        raise NotImplementedError

    def config(self):
        return {"activation": self.activation}


def test_network_of_an_unknown_class(tmp_path):
    network = Doubled((jnp.ones((2, 3)),))
    trajectory = trajectory_of(network)
    trajectory.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match="`like`"):
        gf.Trajectory.load(tmp_path / "run.npz")
    loaded = gf.Trajectory.load(
        tmp_path / "run.npz", like=Doubled((jnp.zeros((2, 3)),))
    )
    assert_same(loaded, trajectory)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        gf.Trajectory.load(tmp_path / "run.npz")


def test_round_trip_of_pytrees(tmp_path):
    """They come back as dictionaries, beside arrays whose names look like theirs."""
    curves = {"edges": jnp.arange(3.0), "more": (jnp.zeros((3, 2)), jnp.ones(3))}
    given = {"polar": eqx.nn.Linear(2, 3, key=jax.random.key(0)), "curves": curves}
    flat = {"curves/other": jnp.arange(3), "a": jnp.full(3, jnp.inf)}
    trajectory = trajectory_of(
        NETWORKS["dense"](), observables=flat | given | {"nothing": ()}
    )
    trajectory.save(tmp_path / "run.npz")
    loaded = gf.Trajectory.load(tmp_path / "run.npz").observables
    expected = flat | {
        "polar": {"weight": given["polar"].weight, "bias": given["polar"].bias},
        "curves": {"edges": curves["edges"], "more": dict(enumerate(curves["more"]))},
        "nothing": {},
    }
    assert eqx.tree_equal(loaded, expected, typematch=True)


def test_files_from_before_there_were_pytrees(contents, trajectory, tmp_path):
    def change(arrays):
        header = json.loads(str(arrays["header"]))
        del header["trees"], header["arrays"]
        arrays["header"] = np.array(json.dumps(header))

    assert_same(gf.Trajectory.load(rewrite(contents, tmp_path, change)), trajectory)


@pytest.mark.parametrize(
    ("observables", "match"),
    [
        ({"pair": (jnp.zeros(3), 2.0)}, "pair/1' is not an array"),
        ({"a/b": jnp.zeros(3), "a": {"b": jnp.zeros(3)}}, "a/b' is there twice"),
    ],
)
def test_observable_that_cannot_be_saved(observables, match, tmp_path, unchecked_types):
    odd = trajectory_of(NETWORKS["dense"](), observables=observables)
    with pytest.raises(ValueError, match=match):
        odd.save(tmp_path / "run.npz")
    assert os.listdir(tmp_path) == []


# Damaged files.


@pytest.fixture(scope="module")
def contents(trajectory, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.npz"
    trajectory.save(path)
    return path.read_bytes()


def load_bytes(contents, folder):
    path = folder / "damaged.npz"
    path.write_bytes(contents)
    return gf.Trajectory.load(path)


def test_truncated(contents, tmp_path):
    for length in [*range(0, len(contents), 17), len(contents) - 1]:
        with pytest.raises(ValueError, match="`path`"):
            load_bytes(contents[:length], tmp_path)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    noise=st.binary(max_size=400),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x93NUMPY"]),
)
def test_random_bytes(noise, start, tmp_path):
    with pytest.raises(ValueError, match="`path`"):
        load_bytes(start + noise, tmp_path)


def test_flipped_bits(contents, trajectory, tmp_path):
    # Some bytes do not matter, such as the times of the entries; others are found out.
    refused = 0
    for position in range(0, len(contents), 5):
        damaged = bytearray(contents)
        damaged[position] ^= 1 << position % 8
        try:
            loaded = load_bytes(bytes(damaged), tmp_path)
        except ValueError as error:
            assert "`path`" in str(error)
            refused += 1
        else:
            assert eqx.tree_equal(loaded, trajectory)
    assert refused > len(contents) / 15


def test_an_array_that_damage_makes_smaller(tmp_path):
    # Then its bytes are not read to their end, where the checksum is compared.
    path = tmp_path / "run.npz"
    np.savez(path, header=np.array("{}"), ones=np.ones((3, 4000)))
    contents = path.read_bytes()
    path.write_bytes(contents.replace(b"(3, 4000)", b"(3, 1000)"))
    with pytest.raises(ValueError, match="`path`: .*ones.npy holds more than its arr"):
        gf.Trajectory.load(path)


def rewrite(contents, folder, change):
    """A file with other entries; `change` edits the dictionary of arrays."""
    path = folder / "changed.npz"
    path.write_bytes(contents)
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def edit_header(**entries):
    def change(arrays):
        header = json.loads(str(arrays["header"])) | entries
        arrays["header"] = np.array(json.dumps(header))

    return change


def test_rewritten_unchanged(contents, trajectory, tmp_path):
    path = rewrite(contents, tmp_path, lambda arrays: None)
    assert_same(gf.Trajectory.load(path), trajectory)


CHANGES = {
    "newer format": edit_header(format=1000),
    "no format": edit_header(format=None),
    "unknown result": edit_header(result="wonderful"),
    "private attribute as result": edit_header(result="__class__"),
    "unknown class": edit_header(network={"class": "Elsewhere", "config": {}}),
    "unknown activation": edit_header(
        network={"class": "Dense", "config": {"activation": {"class": "Tanh"}}}
    ),
    "too many layers": edit_header(layers=3),
    "layers not a number": edit_header(layers="two"),
    "pytrees without their arrays": edit_header(trees={"pair": [[0], [1]]}),
    "names that are none": edit_header(arrays=[["ts"]]),
    "pytrees of no kind": edit_header(trees=[["pair"]]),
    "header not a dictionary": lambda a: a.update(header=np.array("[]")),
    "header not JSON": lambda a: a.update(header=np.array("{")),
    "header not text": lambda a: a.update(header=np.zeros(3)),
    "no header": lambda a: a.pop("header"),
    "no times": lambda a: a.pop("ts"),
    "fewer times": lambda a: a.update(ts=a["ts"][:-1], log_ts=a["log_ts"][:-1]),
    "fewer networks": lambda a: a.update({"networks/1": a["networks/1"][1:]}),
    "one loss": lambda a: a.update({"observables/loss": a["observables/loss"][0]}),
    "no final weights": lambda a: [a.pop(k) for k in list(a) if k.startswith("final")],
    "one final weight missing": lambda a: a.pop("final/1"),
    "no network weights": lambda a: [a.pop(k) for k in list(a) if k[:3] == "net"],
    "one network weight missing": lambda a: a.pop("networks/1"),
    "weights of another shape": lambda a: a.update({"final/0": np.zeros((2, 2))}),
    "other final weights": lambda a: a.update({"final/0": np.array(["a", "b"])}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_not_a_trajectory(name, contents, tmp_path):
    path = rewrite(contents, tmp_path, CHANGES[name])
    with pytest.raises(ValueError, match="`path`"):
        gf.Trajectory.load(path)


def test_newer_format_is_named(contents, tmp_path):
    path = rewrite(contents, tmp_path, edit_header(format=1000))
    with pytest.raises(ValueError, match="1000 is newer"):
        gf.Trajectory.load(path)


def test_foreign_files(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.txt").write_text("loss,rho\n1,2\n")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as file:
        file.writestr("header", "{}")
    for name in ("other.npz", "one.npy", "text.txt", "archive.zip"):
        with pytest.raises(ValueError, match="`path`"):
            gf.Trajectory.load(tmp_path / name)


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("entry", ["header", "ts", "observables/loss"])
def test_pickles_are_refused(entry, contents, tmp_path):
    mark = tmp_path / "mark"
    trap = np.empty((), dtype=object)
    trap[()] = Trap(mark)
    path = rewrite(contents, tmp_path, lambda arrays: arrays.update({entry: trap}))
    with pytest.raises(ValueError, match="`path`"):
        gf.Trajectory.load(path)
    assert not mark.exists()


# Writing whole or not at all.


def test_failed_save_leaves_the_old_file(trajectory, contents, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    path.write_bytes(contents)

    def fail_half_way(file, **arrays):
        del arrays
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", fail_half_way)
        with pytest.raises(OSError, match="disk full"):
            trajectory.save(path)
    assert path.read_bytes() == contents
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_over_an_old_file(trajectory, tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(b"old")
    trajectory.save(path)
    assert_same(gf.Trajectory.load(path), trajectory)
    assert os.listdir(tmp_path) == ["run.npz"]


def test_save_into_a_missing_folder(trajectory, tmp_path):
    with pytest.raises(FileNotFoundError):
        trajectory.save(tmp_path / "nowhere" / "run.npz")
