"""`gradflow sweep FILE --out DIR`: a grid of runs."""

import argparse
import csv
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .. import plot
from .._disk import RunFiles
from .._ensemble import Ensemble, solve_ensemble
from .._problem import Problem
from .._recording.page import RunPage, arguments_of, page_of
from .._trajectory import Trajectory
from ..datasets import Dataset
from .choices import FLOWS, LOSSES, data, network
from .plan import Plan, read_plan

FUNCTION = "sweep"
"""In the place of the function's name, in the page of a folder."""


def main(arguments: Sequence[str]) -> int:
    """Makes all runs of the plan in a file, or those that are missing in the folder.

    **Returns:** the exit status: 0, or 1 where a run failed, 2 for bad arguments.
    """
    parser = argparse.ArgumentParser(
        prog="gradflow sweep",
        description="Runs a flow for all weight decays, initial scales and seeds that "
        "a TOML file lists. The same command, or `gradflow resume DIR`, goes on with a "
        "sweep that was interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("plan", type=Path, metavar="FILE", help="the plan")
    parser.add_argument("--out", type=Path, default=Path("sweep"), help="folder")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    try:
        plan = read_plan(options.plan)
        train, test = data(
            mnist=plan.mnist,
            cifar10=plan.cifar10,
            classes=plan.classes,
            per_class=plan.per_class,
        )
        return run(plan, train, test, options.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def resume(page: Mapping[str, Any], files: RunFiles) -> int:
    """Goes on with the sweep of a folder."""
    arguments = arguments_of(page, files.read_inputs(), {}, files.path)
    train, test = (arguments.pop(name) for name in ("train", "test"))
    return run(Plan(**arguments), train, test, files.path)


def run(plan: Plan, train: Dataset, test: Dataset, folder: Path) -> int:
    """Makes the runs that are missing in `folder`, and draws and prints all of them."""
    matplotlib.use("Agg")
    page = page_of(FUNCTION, dataclasses.asdict(plan) | {"train": train, "test": test})
    files = RunFiles(folder)
    with files.lock():
        _begin(files, page)
        ensemble = _run_members(plan, Problem(train, LOSSES[plan.loss]()), folder)
    table = _table(ensemble, Problem(test, LOSSES[plan.loss]()))
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    _figure(ensemble, table).savefig(folder / "sweep.png", dpi=150)
    print(f"{ensemble!r}\n\nThe table and the figure are in {folder}")
    return 1 if ensemble.failed else 0


def _begin(files: RunFiles, page: RunPage) -> None:
    if files.exists():
        page.check_same(files.read_page())
    else:
        files.begin(page.to_json(), page.arrays)
    (files.path / "members").mkdir(exist_ok=True)


def _run_members(plan: Plan, problem: Problem, folder: Path) -> Ensemble:
    members = plan.members()
    paths = [folder / "members" / f"{i:05}.npz" for i in range(len(members))]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        print(f"{len(missing)} of {len(members)} runs to make", file=sys.stderr)
        decays, rhos, seeds = zip(*(members[i] for i in missing), strict=True)
        networks = [
            network(
                problem.dataset,
                plan.widths,
                seed=seed,
                smoothing=plan.smoothing,
                rho=rho,
            )
            for rho, seed in zip(rhos, seeds, strict=True)
        ]
        solve_ensemble(
            problem,
            [FLOWS[plan.flow](weight_decay=decay) for decay in decays],
            networks,
            plan.time,
            rtol=plan.rtol,
            save_networks=False,
            progress=True,
            on_end=lambda i, trajectory: trajectory.save(paths[missing[i]]),
        )
    decays, rhos, seeds = zip(*members, strict=True)
    return Ensemble(
        tuple(Trajectory.load(path) for path in paths),
        {
            "weight_decay": np.array(decays),
            "initial_rho": np.array(rhos),
            "seed": np.array(seeds),
        },
    )


def _table(ensemble: Ensemble, test: Problem) -> dict[str, np.ndarray]:
    errors = [1 - float(test.accuracy(member.final)) for member in ensemble]
    return {**ensemble.table, "test_error": np.array(errors)}


def _figure(ensemble: Ensemble, table: Mapping[str, np.ndarray]) -> Figure:
    """Whether the start matters, for each weight decay."""
    panels = [
        name for name in ("rho", "rho_eq", "margin_min", "test_error") if name in table
    ]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained"
    )
    for name, ax in zip(panels, axes, strict=True):
        plot.ensemble(
            ensemble,
            x="weight_decay",
            y=table[name],
            colour="initial_rho",
            axes=ax,
        )
        ax.set_ylabel(name)
    return figure
