"""`gradflow sweep`."""

import csv

import numpy as np
import pytest

import gradflow as gf
from gradflow.__main__ import main
from gradflow._commands.plan import read_plan

PLAN = """
weight_decay = [0.5, 2]
rho = [0.5, 2.0]
seeds = [3, 8]
per_class = 4
widths = [3]
time = 1.0
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def table(folder):
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_sweep(plan, tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert main(["sweep", str(plan), "--out", str(folder)]) == 0
    assert "Ensemble of 8: 8 successful" in capsys.readouterr().out
    assert (folder / "sweep.png").stat().st_size > 10_000
    rows = table(folder)
    grid = [(r["weight_decay"], r["initial_rho"], r["seed"]) for r in rows]
    assert len(set(grid)) == 8
    assert grid[5] == ("2.0", "0.5", "8")
    one = gf.Trajectory.load(folder / "members" / "00005.npz")
    assert one.ts[-1] == 1
    assert float(rows[5]["rho"]) == one.observables["rho"][-1]
    test = gf.Problem(gf.datasets.digits((3, 8), split="test"), gf.SquareLoss())
    assert float(rows[5]["test_error"]) == 1 - float(test.accuracy(one.final))

    # As after a kill: what there is stays, what is missing comes again.
    members = sorted((folder / "members").iterdir())
    before = [path.stat().st_mtime_ns for path in members]
    members[5].unlink()
    (folder / "table.csv").unlink()
    assert main(["resume", str(folder)]) == 0
    assert "1 of 8 runs to make" in capsys.readouterr().err
    after = [path.stat().st_mtime_ns for path in members]
    assert [a == b for a, b in zip(before, after, strict=True)].index(False) == 5
    assert table(folder)[5]["seed"] == "8"
    np.testing.assert_allclose(
        float(table(folder)[5]["rho"]), one.observables["rho"][-1], rtol=1e-10
    )

    # Another plan does not go into the same folder.
    plan.write_text(PLAN.replace("widths = [3]", "widths = [2]"))
    with pytest.raises(SystemExit):
        main(["sweep", str(plan), "--out", str(folder)])
    assert "other `widths`" in capsys.readouterr().err
    with pytest.raises(ValueError, match="folder of a sweep"):
        gf.resume(folder)


def test_defaults(plan):
    plan.write_text("weight_decay = [1]\nrho = [1]\nseeds = 3")
    read = read_plan(plan)
    assert read.seeds == [0, 1, 2]
    assert read.members() == [(1.0, 1.0, 0), (1.0, 1.0, 1), (1.0, 1.0, 2)]
    assert (read.widths, read.loss, read.flow) == ([32, 32], "square", "lagrange")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rho = [1.0", "is not TOML"),
        ("[run]", "no setting `run`"),
        ("learning_rate = 1", "no setting `learning_rate`"),
        ("rho = []", "`rho` is empty"),
        ("rho = 1.0", "`rho` must be a list"),
        ("rho = [0.0]", "`rho`"),
        ("rho = [true]", "`rho` must be of the type"),
        ("seeds = 0", "`seeds` must be a list"),
        ("seeds = [0.5]", "`seeds` must be of the type"),
        ("weight_decay = [-1]", "`weight_decay`"),
        ('weight_decay = ["1"]', "`weight_decay`"),
        ("widths = [0]", "`widths`"),
        ("time = 0.0", "`time`"),
        ("smoothing = -1.0", "`smoothing`"),
        ('loss = "hinge"', "`loss` must be one of square"),
        ('flow = "sideways"', "`flow` must be one of"),
        ("per_class = 0", "`per_class`"),
        ('mnist = "a"\ncifar10 = "b"', "not both"),
    ],
)
def test_bad_plans(change, message, plan, tmp_path, capsys):
    settings = dict(line.split(" = ", 1) for line in PLAN.strip().splitlines())
    name = change.split(" = ")[0]
    settings.pop(name, None)
    plan.write_text("\n".join([f"{n} = {v}" for n, v in settings.items()] + [change]))
    with pytest.raises(SystemExit) as raised:
        main(["sweep", str(plan), "--out", str(tmp_path / "sweep")])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_missing(plan, tmp_path, capsys):
    plan.write_text("rho = [1.0]\nseeds = 2")
    with pytest.raises(SystemExit):
        main(["sweep", str(plan)])
    assert "`weight_decay` is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", str(tmp_path / "nothing.toml")])
    assert "nothing.toml" in capsys.readouterr().err
