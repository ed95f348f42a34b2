"""That the documentation covers the public names, and that its code runs."""

import inspect
import re
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest

import gradflow as gf

DOCS = Path(__file__).parent.parent / "docs"


def _public_names():
    for namespace in (gf, gf.analysis, gf.datasets, gf.plot, gf.rules):
        for name, value in vars(namespace).items():
            # A submodule is not a name of the library but the home of some.
            if not name.startswith("_") and not inspect.ismodule(value):
                yield f"{namespace.__name__}.{name}", value


def test_every_public_name_is_on_one_page():
    pages = [path.read_text(encoding="utf-8") for path in DOCS.glob("api/*.md")]
    listed = re.findall(r"^::: (\S+)$", "\n".join(pages), flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    public = dict(_public_names())
    documented = {id(public[name]) for name in listed if name in public}
    assert [name for name in listed if name not in public] == []
    assert [name for name, v in public.items() if id(v) not in documented] == []


def _sections(page):
    """The Python blocks of each section of a page, by the section's title."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.M)
        yield section.splitlines()[0], "\n".join(blocks)


# What the comments and the text of a section say about the names that it assigns.
CLAIMS = {
    "Ten lines": lambda page: page["trajectory"].ts.shape == (101,),
    "Reading a trajectory": lambda page: (
        page["margins"].shape == (101, 40)
        and page["test_accuracy"].shape == (101,)
        and Path("rho.png").exists()
        and repr(page["again"]) == repr(page["trajectory"])
    ),
    "Until something happens": lambda page: (
        page["stopped"].stopped_by == "Stationary(tolerance=1e-05)"
    ),
    "Observables of your own": lambda page: (
        page["observed"].observables["residual"].shape == (101, 2)
    ),
    "Beside gradient descent": lambda page: jnp.max(page["distance"]) < 0.02,
    "Many runs at once": lambda page: (
        page["scales"].shape == (3,) and page["rho"].shape == (6,)
    ),
    "More samples than fit into memory": lambda page: (
        gf.analysis.relative_distance(page["same"].final, page["trajectory"].final)
        < 1e-3
    ),
    "Derivatives": lambda page: page["slope"] < 0,
}


@pytest.mark.slow
def test_getting_started(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = {}
    # One test, since what was compiled for one section serves the next.
    for title, code in _sections("getting-started.md"):
        exec(compile(code, f"getting-started.md: {title}", "exec"), page)
        assert not code or CLAIMS[title](page), title
    plt.close("all")

    def without_numbers(text):
        return re.sub(r"-?[\d.]+(e[-+]\d+)?", "#", text)

    text = (DOCS / "getting-started.md").read_text(encoding="utf-8")
    assert without_numbers(capsys.readouterr().out) in without_numbers(text)
