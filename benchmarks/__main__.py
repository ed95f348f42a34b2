"""Runs the benchmarks: `python benchmarks [NAMES…] --out DIR`.

All of them, or those that are named, from short to long. Each writes a Markdown table,
and some a figure, into that folder.
"""

import argparse
import time
from pathlib import Path

import compile_time
import convolution
import descent
import ensemble
import equilibrium
import filippov_check
import jax
import known_error
import observing
import order
import overhead
import recording
import scaling
import sliding
import work_precision

BENCHMARKS = {
    module.__name__: module
    for module in (
        overhead,
        recording,
        observing,
        descent,
        convolution,
        compile_time,
        ensemble,
        scaling,
        known_error,
        order,
        filippov_check,
        work_precision,
        equilibrium,
        sliding,
    )
}


def main(names: list[str], out: Path) -> None:
    start = time.perf_counter()
    for name, benchmark in BENCHMARKS.items():
        if name in names:
            # Or what one has compiled would cost another nothing.
            jax.clear_caches()
            since = time.perf_counter()
            benchmark.main(out)
            print(f"{name}: {time.perf_counter() - since:.0f} s", flush=True)
    print(f"\nAll: {time.perf_counter() - start:.0f} s. Tables and figures: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    main(arguments.names or list(BENCHMARKS), arguments.out)
