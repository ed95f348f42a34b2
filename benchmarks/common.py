"""What the benchmarks share: problems, timing, tables."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gradflow as gf

jax.config.update("jax_enable_x64", True)


def digits(num_samples: int) -> gf.Problem:
    """As many images of the digits 3 and 8 as asked for, with the square loss."""
    data = gf.datasets.digits((3, 8), per_class=num_samples // 2)
    return gf.Problem(data, gf.SquareLoss())


def dense(seed: int, hidden: Sequence[int], rho: float = 0.1) -> gf.Dense:
    """An exact ReLU network with equal norms of the layers and product `rho`."""
    widths = (65, *hidden, 1)
    norm = rho ** (1 / (len(widths) - 1))
    return gf.Dense(widths, key=jax.random.key(seed), norm=norm)


def polar_vector(network: gf.Dense) -> np.ndarray:
    """ρ and the entries of all directions."""
    polar = gf.Polar.from_network(network)
    parts = [polar.scale, *polar.directions.weights]
    return np.concatenate([np.ravel(part) for part in parts])


def relative_distance(vector: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(vector - reference) / np.linalg.norm(reference))


def clocked(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and its seconds."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def timed(function: Callable[[], Any], repeats: int = 1) -> tuple[Any, float, float]:
    """The result, the seconds of the first call less those of a later one, which is
    compilation, and the median seconds of `repeats` later ones."""
    result, first = clocked(function)
    median = statistics.median(clocked(function)[1] for _ in range(repeats))
    return result, max(first - median, 0.0), median


def timed_to(run: Callable[[float], Any], t1: float) -> tuple[Any, float]:
    """The result of a run to time `t1`, and its seconds: the median of three for short
    ones. It is compiled beforehand, in a run to a time that costs nothing."""
    clocked(lambda: run(1e-6 * t1))
    result, seconds = clocked(lambda: run(t1))
    if seconds > 1.0:
        return result, seconds
    more = [clocked(lambda: run(t1))[1] for _ in range(2)]
    return result, statistics.median([seconds, *more])


class Table:
    """Rows that are printed as they come and written as Markdown at the end."""

    def __init__(self, title: str, columns: Sequence[str]):
        self.title = title
        self.columns = list(columns)
        self.rows: list[list[str]] = []
        print(f"\n{title}\n" + " | ".join(self.columns), flush=True)

    def add(self, *values: Any) -> None:
        row = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        self.rows.append(row)
        print(" | ".join(row), flush=True)

    def write(self, out: Path, name: str) -> None:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.md").write_text(f"{self.title}\n\n{text}\n")


def out_directory(description: str | None) -> Path:
    """The folder that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    return parser.parse_args().out
