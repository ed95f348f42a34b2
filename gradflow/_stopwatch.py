"""Compile time apart from run time."""

import functools
import math
import time

import jax

_COMPILING = (
    "jaxpr_trace_duration",
    "jaxpr_to_mlir_module_duration",
    "backend_compile_duration",
)


class Stopwatch:
    """Measures a block: `compile_seconds` is what JAX reports for tracing, lowering and
    compiling, `run_seconds` all the rest."""

    compile_seconds: float
    run_seconds: float

    def __enter__(self) -> "Stopwatch":
        _compile_log().clear()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        elapsed = time.perf_counter() - self._start
        self.compile_seconds = _total_length(_compile_log())
        self.run_seconds = elapsed - self.compile_seconds


@functools.cache
def _compile_log() -> list[tuple[float, float]]:
    """Beginnings and ends of everything that JAX has compiled since it was cleared."""
    log: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event.rsplit("/", 1)[-1] in _COMPILING:
            now = time.perf_counter()
            log.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    return log


def _total_length(intervals: list[tuple[float, float]]) -> float:
    """The length of the union: tracing one function traces others inside it."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
