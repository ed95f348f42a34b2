"""The main job from the command line."""

import json
import math

import matplotlib.pyplot as plt
import pytest

import gradflow as gf
from gradflow.__main__ import main
from small import network, problem

# So few samples, units and steps that compiling is all the cost. The number of steps,
# 20, is the same everywhere, so that runs which differ in nothing else share it.
SMALL = ("--per-class", "3", "--widths", "5", "--time", "0.02", "--step", "0.001")
SMALL = (*SMALL, "--smoothing", "0.1")
FIGURES = ("rho", "loss", "margins", "flow_against_descent", "report")
NUMBERS = (
    "time",
    "rho",
    "loss",
    "margin_min",
    "margin_mean",
    "train_error",
    "test_error",
    "stationarity",
    "structural_residual",
    "norm_defect",
    "num_gradients",
    "num_steps",
    "compile_seconds",
    "run_seconds",
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def read_summary(folder):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "summary.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


def assert_complete(folder, rho_eq):
    for name in FIGURES:
        contents = (folder / f"{name}.png").read_bytes()
        assert contents.startswith(b"\x89PNG") and len(contents) > 10_000, name
    summary = read_summary(folder)
    for part in (summary, summary["descent"]):
        names = (*NUMBERS, "rho_eq") if rho_eq else NUMBERS
        for name in names:
            assert isinstance(part[name], (int, float)) and math.isfinite(part[name])
        if not rho_eq:
            assert part["rho_eq"] is None
        assert part["rho"] > 0 and part["loss"] > 0
        assert 0 <= part["train_error"] <= 1 and 0 <= part["test_error"] <= 1
        assert part["margin_min"] <= part["margin_mean"]
        assert part["structural_residual"] < 1e-10 and part["norm_defect"] < 1e-12
        assert isinstance(part["num_gradients"], int)
    return summary


def test_job(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert main([*SMALL, "--rho", "1.5", "--out", str(folder)]) == 0
    summary = assert_complete(folder, rho_eq=True)
    assert summary["time"] == summary["descent"]["time"] == pytest.approx(0.02)
    assert summary["descent"]["num_gradients"] == 20
    assert 0 < summary["distance_flow_descent"] < 0.1
    assert summary["settings"]["per_class"] == 3
    assert summary["settings"]["rho"] == 1.5
    assert {p.name for p in folder.iterdir()} == {
        "summary.json",
        *(f"{name}.png" for name in FIGURES),
    }
    printed = capsys.readouterr().out
    assert "Dense(65-5-1, ReLU(smoothing=0.1))" in printed
    for row in ("ρ_eq", "loss L", "test error", "gradients", str(folder)):
        assert row in printed


@pytest.mark.parametrize(
    ("flow", "loss"),
    [
        ("gradient", "logistic"),
        pytest.param("weight-norm", "exponential", marks=pytest.mark.slow),
    ],
)
def test_other_flows_and_losses(flow, loss, tmp_path, capsys):
    options = ("--flow", flow, "--loss", loss, "--out", str(tmp_path))
    assert main([*SMALL, *options]) == 0
    summary = assert_complete(tmp_path, rho_eq=False)
    assert (summary["settings"]["flow"], summary["settings"]["loss"]) == (flow, loss)


def test_failed_run(tmp_path, capsys):
    options = ("--rho", "1e200", "--out", str(tmp_path))
    assert main([*SMALL, *options]) == 1
    captured = capsys.readouterr()
    assert "The run failed" in captured.err and "nonfinite_state" in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rho", "0"], "`--rho`"),
        (["--weight-decay", "-1"], "`weight_decay`"),
        (["--smoothing", "-0.1"], "`smoothing`"),
        (["--widths", "0"], "`widths`"),
        (["--per-class", "0"], "`per_class`"),
        (["--classes", "3", "3"], "`classes`"),
        (["--mnist", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--time", "-1"], "time"),
        (["--time", "0"], "time"),
        (["--time", "nan"], "time"),
        (["--step", "-1"], "step"),
        (["--step", "0"], "step"),
        (["--rtol", "0"], "rtol"),
        (["--rtol", "-1e-3"], "rtol"),
        (["--flow", "sideways"], "--flow"),
        (["--loss", "hinge"], "--loss"),
        (["--mnist", "a", "--cifar10", "b"], "--cifar10"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*SMALL, "--out", str(tmp_path), *options])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as raised:
        main([*SMALL, "--out", str(tmp_path / "file")])
    assert raised.value.code == 2
    assert "file" in capsys.readouterr().err.splitlines()[-1]


def test_resume(tmp_path, capsys):
    trajectory = gf.descend(problem(), 0.01, network(), 3, path=tmp_path / "run")
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == repr(trajectory)


def test_resume_what_failed(tmp_path, capsys):
    with pytest.raises(gf.SolveError):
        gf.descend(problem(), 1e200, network(), 3, path=tmp_path / "run")
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert "nonfinite_state" in capsys.readouterr().err


def test_resume_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["resume", str(tmp_path / "run")])
    assert raised.value.code == 2
    assert "run" in capsys.readouterr().err.splitlines()[-1]
