"""The examples and the README's code run, and show what they say."""

import importlib.util
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def _main(name):
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_quickstart(tmp_path, capsys):
    trajectory = _main("quickstart")(tmp_path)
    assert trajectory.stopped_by == "Stationary(tolerance=0.0001)"
    rho, rho_eq = (trajectory.observables[name][-1] for name in ("rho", "rho_eq"))
    assert abs(rho - rho_eq) < 0.01 * rho_eq
    assert "test images" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quickstart_margins.png",
        "quickstart_rho.png",
    ]


def test_flow_against_descent(tmp_path, capsys):
    order = _main("flow_against_descent")(tmp_path)
    assert abs(order - 1) < 0.1
    assert f"fitted order: {order:.3f}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["flow_against_descent.png"]


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) < 15
    exec(compile(code, "README.md", "exec"), {})
    assert [path.name for path in tmp_path.iterdir()] == ["rho.png"]
