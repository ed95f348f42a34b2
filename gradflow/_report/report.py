"""What holds along a run, in one table and on one page."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from .._check import check_instance, is_concrete
from .._flow import AbstractFlow
from .._problem import Problem
from .._run import numbers_to_arrays
from .._trajectory import Trajectory
from ..analysis import SpectralDensity
from .along import measure_along
from .page import draw_page
from .row import Row
from .rows import rows_at_end
from .spectrum import measure_spectrum


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """A table of what was measured at the last time that a run has saved, beside what
    theory says.

    `str(report)` is the table; `figure()` draws the page.

    **Attributes:**

    - `values`: the measured values by name, numbers or lists with one for each layer.
    - `along`: a trajectory with what was measured at some of the times: `rho`,
        `rho_eq`, `stationarity_residual`, `sample_residual` (its mean over the
        samples), `stable_rank`, and `neural_collapse` where there are classes and
        hidden layers. The residuals are those of whole layers, which do not vanish
        where each unit has a sphere of its own, as with `RowSpheres()`.
    - `spectrum`: the eigenvalues of the Hessian at the end, or their density.
    """

    problem: Problem
    along: Trajectory
    spectrum: Float[Array, " P"] | SpectralDensity
    rows: tuple[Row, ...]

    @property
    def values(self) -> dict[str, Any]:
        return {row.name: np.asarray(row.measured).tolist() for row in self.rows}

    def figure(self) -> Figure:
        r"""One page: $\rho$ and its equilibrium, margins, residuals, stable ranks, the
        spectrum of the Hessian, neural collapse."""
        return draw_page(self.problem, self.along, self.spectrum)

    def __repr__(self) -> str:
        title = f"At t = {float(self.along.ts[-1]):.6g}"
        head = Row("", title, "measured", "theory")
        return "\n".join(map(str, (head, *self.rows)))


def report(
    problem: Problem,
    flow: AbstractFlow,
    trajectory: Trajectory,
    *,
    num_times: int = 51,
) -> Report:
    """Measures what the theory speaks of along a run and at the last time saved.

    **Arguments:**

    - `problem`, `flow`: those of the run.
    - `trajectory`: with its networks.
    - `num_times`: at how many of the saved times, at most, the curves are measured:
        each takes a gradient of every output of every sample.

    **Returns:** a [`gradflow.Report`][]. Print it, and call its `figure()`.

    **Raises:** `ValueError` where the networks were not saved, and for several runs.
    """
    check_instance("problem", problem, Problem)
    check_instance("flow", flow, AbstractFlow)
    check_instance("trajectory", trajectory, Trajectory)
    if trajectory.ts.ndim != 1 or not is_concrete(trajectory):
        raise ValueError(
            "`trajectory` must be a single run, outside of transformations."
        )
    if num_times < 2:
        raise ValueError(f"`num_times` must be at least 2, got {num_times}.")
    # Or another weight decay would mean another compilation.
    flow = numbers_to_arrays(flow, trajectory.ts.dtype)
    along = measure_along(problem, flow, trajectory, num_times)
    spectrum, rows = measure_spectrum(problem, flow, along[-1])
    return Report(problem, along, spectrum, (*rows_at_end(problem, flow, along), *rows))
