"""`gradflow --out DIR`: the main job."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib

from .. import plot
from .._check import check_positive
from .._main_job import Job, Outcome, run
from .._problem import Problem
from .._report import Report, report
from .._results import SolveError
from .choices import FLOWS, LOSSES, data, network


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job, prints a table, and writes figures and `summary.json`.

    **Returns:** the exit status: 0, or 1 where a run failed, 2 for bad arguments.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    matplotlib.use("Agg")
    try:
        job = _job(options)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{job.network!r} on {job.problem.dataset!r}")
    print(f"{job.flow!r}, {job.problem.loss!r}")
    try:
        outcome = run(job)
    except SolveError as error:
        print(f"The run failed. {error}\n{error.trajectory!r}", file=sys.stderr)
        return 1
    print(_table(outcome))
    if not math.isfinite(outcome.descent_summary["structural_residual"]):
        print("The outputs of the descent vanish, its units have died: lower `--step`.")
    measured = report(job.problem, job.flow, outcome.flow)
    print(f"\nThe flow in detail.\n{measured!r}\n")
    _write(job, outcome, measured, options)
    print(f"Figures and summary.json are in {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradflow",
        description="Integrates a gradient flow of a ReLU network on two classes of "
        "images to equilibrium, beside gradient descent on the same problem. Other "
        "commands: `gradflow resume` and `gradflow sweep`.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--out", type=Path, default=Path("results"), help="folder for the results")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--mnist", metavar="PATH", help="MNIST files, not the digits")
    source.add_argument("--cifar10", metavar="PATH", help="CIFAR-10 files likewise")
    option("--classes", nargs=2, type=int, default=[3, 8], help="the two classes")
    option("--per-class", type=int, default=50, help="training samples of each class")
    option("--widths", nargs="*", type=int, default=[32, 32], help="hidden widths")
    option("--smoothing", type=float, default=1e-2, help="ε of the smoothed ReLU")
    option("--loss", choices=LOSSES, default="square")
    option("--flow", choices=FLOWS, default="lagrange")
    option("--weight-decay", type=float, default=1.0, metavar="LAMBDA")
    option("--rho", type=float, default=1.0, help="product of the norms at the start")
    option("--time", type=float, default=5.0, help="flow time to integrate")
    option("--step", type=float, default=2e-4, help="learning rate of the descent")
    option("--rtol", type=float, default=1e-4, help="tolerance of the integration")
    option("--seed", type=int, default=0, help="of the initial weights")
    option("--progress", action="store_true", help="show progress bars")
    return parser


def _job(options: argparse.Namespace) -> Job:
    for name in ("rho", "time", "step", "rtol"):
        check_positive(f"--{name}", getattr(options, name))
    if options.step > options.time:
        raise ValueError("`--step` must not exceed `--time`.")
    train, test = data(
        mnist=options.mnist,
        cifar10=options.cifar10,
        classes=options.classes,
        per_class=options.per_class,
    )
    loss = LOSSES[options.loss]()
    return Job(
        problem=Problem(train, loss),
        test_problem=Problem(test, loss),
        network=network(
            train,
            options.widths,
            seed=options.seed,
            smoothing=options.smoothing,
            rho=options.rho,
        ),
        flow=FLOWS[options.flow](weight_decay=options.weight_decay),
        time=options.time,
        learning_rate=options.step,
        rtol=options.rtol,
        progress=options.progress,
    )


_SYMBOLS = {
    "time": "time t",
    "rho": "ρ",
    "rho_eq": "ρ_eq",
    "loss": "loss L",
    "margin_min": "smallest margin",
    "margin_mean": "mean margin",
    "train_error": "train error",
    "test_error": "test error",
    "stationarity": "stationarity",
    "structural_residual": "structural residual",
    "norm_defect": "norm defect",
    "distance_flow_descent": "distance flow–descent",
    "num_gradients": "gradients",
    "compile_seconds": "compile seconds",
    "run_seconds": "run seconds",
}


def _table(outcome: Outcome) -> str:
    def cell(value: float | int | None) -> str:
        return "" if value is None else f"{value:.6g}"

    rows = [
        f"{symbol:24}{cell(outcome.flow_summary.get(name)):>14}"
        f"{cell(outcome.descent_summary.get(name)):>14}"
        for name, symbol in _SYMBOLS.items()
    ]
    return "\n".join([f"{'':24}{'flow':>14}{'descent':>14}", *rows])


def _write(
    job: Job, outcome: Outcome, measured: Report, options: argparse.Namespace
) -> None:
    problem, flow = job.problem, outcome.flow
    figures = {
        "rho": plot.rho(flow).figure,
        "loss": plot.loss(flow).figure,
        "margins": plot.sorted_margins(
            problem, {"start": job.network, "end of the flow": flow.final}
        ).figure,
        "flow_against_descent": plot.flow_against_descent(flow, outcome.descent),
        "report": measured.figure(),
    }
    for name, figure in figures.items():
        figure.savefig(options.out / f"{name}.png", dpi=150)
    settings = {k: v for k, v in vars(options).items() if k not in ("out", "progress")}
    summary = {
        **outcome.flow_summary,
        "descent": outcome.descent_summary,
        "report": measured.values,
        "settings": settings,
    }
    text = json.dumps(_without_nan(summary), indent=2, ensure_ascii=False)
    (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: figures that are not defined become null."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
