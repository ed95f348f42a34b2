"""Runs all benchmarks: `python benchmarks --out DIR`.

Each writes a Markdown table, and some a figure, into that folder.
"""

import equilibrium
import known_error
import overhead
import sliding
from common import out_directory

BENCHMARKS = (equilibrium, overhead, known_error, sliding)

if __name__ == "__main__":
    out = out_directory(__doc__)
    for benchmark in BENCHMARKS:
        benchmark.main(out)
